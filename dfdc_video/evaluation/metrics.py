"""Video-level metrics with weights, for one weight vector or a thousand at once.

A metric is a function of `WeightedScores`, registered in METRICS by its own file or here; from there it is in
every report, table, page and training log. Axes: B weight vectors (bootstrap samples), N videos, K classes, U
distinct scores. Ties are kept together: AUC counts a tied pair as half, accuracy gives a tie its expected
share, so that a prior score is neither rewarded nor punished by its label.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, update_wrapper

import numpy as np

from dfdc_video.registry import METRICS

# solutions of the DFDC challenge clip P to [0.01, 0.99], since one confident error costs more than it can win
CLIP = 0.01
TOP_K = re.compile(r"top[2-5]")  # names of the metric `top_k`, which depend on the number of classes


@dataclass(frozen=True)
class WeightedScores:
    """Scored videos under B weight vectors: what a metric is computed from."""

    labels: np.ndarray  # (N,) classes; of two classes, 0 is real and 1 is fake
    probs: np.ndarray  # (N, K)
    weights: np.ndarray  # (B, N): how often each video counts
    clip: float = CLIP  # log loss clips the probability of the true class to [clip, 1 − clip]

    @property
    def num_classes(self) -> int:
        return self.probs.shape[1]

    @cached_property
    def total(self) -> np.ndarray:
        """(B,) sum of the weights."""
        return self.weights.sum(axis=1)

    @cached_property
    def ranking(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the fakes and of the reals at each distinct P(fake), highest first: two arrays (B, U)."""
        scores = self.probs[:, 1]
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
        ordered, fake = self.weights[:, order], self.labels[order] == 1
        return np.add.reduceat(ordered * fake, starts, axis=1), np.add.reduceat(
            ordered * ~fake, starts, axis=1
        )

    @cached_property
    def has_both_classes(self) -> np.ndarray:
        """(B,) of two classes: whether reals and fakes have weight."""
        fakes, reals = self.ranking
        return (fakes.sum(axis=1) > 0) & (reals.sum(axis=1) > 0)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean over the videos: (N,) -> (B,)."""
        return self.weights @ values / self.total


class Metric:
    """A metric and what tables need to know about it. Called with `WeightedScores`, it gives (B,)."""

    def __init__(
        self,
        function: Callable[[WeightedScores], np.ndarray],
        *,
        title: str,
        lower_is_better: bool,
        two_classes: bool,
        more_classes: bool,
        ranks: bool,
    ) -> None:
        self.function, self.title, self.lower_is_better = function, title, lower_is_better
        self.two_classes, self.more_classes, self.ranks = two_classes, more_classes, ranks
        update_wrapper(self, function)

    def __call__(self, scores: WeightedScores) -> np.ndarray:
        values = self.function(scores)
        return np.where(scores.has_both_classes, values, np.nan) if self.ranks else values


def metric(
    *,
    title: str = "",
    lower_is_better: bool = False,
    two_classes: bool = True,
    more_classes: bool = True,
    ranks: bool = False,
) -> Callable[[Callable[[WeightedScores], np.ndarray]], Metric]:
    """Decorator that makes a function a Metric.

    `title` heads its column, by default its name; `two_classes` and `more_classes` say for which data it
    exists; `ranks` makes it NaN where one of two classes is missing, since it ranks fakes against reals.
    """
    return lambda function: Metric(
        function,
        title=title,
        lower_is_better=lower_is_better,
        two_classes=two_classes,
        more_classes=more_classes and not ranks,
        ranks=ranks,
    )


def metrics_of(num_classes: int) -> dict[str, Metric]:
    """Name -> metric, of those that exist for so many classes, in the order of registration."""
    found = {}
    for name, registered in METRICS.items():
        if not isinstance(registered, Metric):
            raise ValueError(
                f"metric '{name}' is a {type(registered).__name__}: put @metric(…) between @METRICS.register "
                "and its function"
            )
        if registered.two_classes if num_classes == 2 else registered.more_classes:
            found[f"top{min(5, num_classes - 1)}" if name == "top_k" else name] = registered
    return found


def find_metric(name: str) -> Metric:
    """The metric that tables call `name`."""
    return METRICS.get("top_k" if TOP_K.fullmatch(name) else name)


def title_of(name: str) -> str:
    """What the head of a column calls a metric: AUC, log loss, top-5."""
    return find_metric(name).title or re.sub(r"^top(\d)", r"top-\1", name).replace("_", " ")


def check_inputs(labels: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of the right shape and range, or a ValueError."""
    labels, probs = np.asarray(labels), np.asarray(probs, dtype=np.float64)
    if probs.ndim != 2 or probs.shape[1] < 2 or labels.shape != (len(probs),) or not len(labels):
        raise ValueError(
            f"labels of shape {labels.shape} and probabilities of shape {probs.shape}, expected (N,) and "
            "(N, K) with K >= 2"
        )
    if not np.isfinite(probs).all() or probs.min() < 0 or np.abs(probs.sum(axis=1) - 1).max() > 1e-4:
        raise ValueError("probabilities must be finite, not negative, and sum to 1 for each video")
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise ValueError(f"labels {labels.min()} … {labels.max()}, expected 0 … {probs.shape[1] - 1}")
    return labels.astype(np.int64), probs


def top_k_credit(labels: np.ndarray, probs: np.ndarray, k: int) -> np.ndarray:
    """(N,) in [0, 1]: whether the label is among the k likeliest classes; tied classes share the remaining
    places.
    """
    own = probs[np.arange(len(labels)), labels][:, None]
    above, tied = (probs > own).sum(axis=1), (probs == own).sum(axis=1)
    return np.clip((k - above) / tied, 0.0, 1.0)


@METRICS.register
@metric(title="AUC", ranks=True)
def auc(scores: WeightedScores) -> np.ndarray:
    """Area under the ROC curve: P(a fake scores higher than a real) + P(they tie) / 2 (Mann-Whitney)."""
    fakes, reals = scores.ranking
    higher = np.cumsum(fakes, axis=1) - fakes / 2
    return (reals * higher).sum(axis=1) / (fakes.sum(axis=1) * reals.sum(axis=1))


@METRICS.register
@metric(lower_is_better=True)
def log_loss(scores: WeightedScores) -> np.ndarray:
    """Mean of −log P(true class), with P clipped, as the DFDC challenge ranked its entries."""
    own = scores.probs[np.arange(len(scores.labels)), scores.labels]
    loss = -np.log(np.clip(own, scores.clip, 1 - scores.clip))
    if scores.clip == 0:  # an infinite loss of weight 0 counts nothing
        return np.where(scores.weights > 0, scores.weights * loss, 0.0).sum(axis=1) / scores.total
    return scores.mean(loss)


@METRICS.register
@metric(more_classes=False)
def accuracy(scores: WeightedScores) -> np.ndarray:
    """Share of videos on the right side of P(fake) = 0.5; a tie counts half."""
    return scores.mean(top_k_credit(scores.labels, scores.probs, 1))


@METRICS.register
@metric(title="AP", ranks=True)
def ap(scores: WeightedScores) -> np.ndarray:
    """Average precision: sum of precision × gain in recall over the thresholds, as in scikit-learn."""
    fakes, reals = scores.ranking
    true, false = np.cumsum(fakes, axis=1), np.cumsum(reals, axis=1)
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    return (precision * fakes).sum(axis=1) / fakes.sum(axis=1)


@METRICS.register
@metric(title="EER", lower_is_better=True, ranks=True)
def eer(scores: WeightedScores) -> np.ndarray:
    """Equal error rate: where the ROC polygon has a false positive rate equal to the false negative rate."""
    fakes, reals = scores.ranking
    start = np.zeros((len(fakes), 1))
    tpr = np.hstack([start, np.cumsum(fakes, axis=1) / fakes.sum(axis=1, keepdims=True)])
    fpr = np.hstack([start, np.cumsum(reals, axis=1) / reals.sum(axis=1, keepdims=True)])
    excess = fpr - (1 - tpr)  # from -1 to 1, never falling
    row, after = np.arange(len(excess)), np.maximum(np.argmax(excess >= 0, axis=1), 1)
    low, high = excess[row, after - 1], excess[row, after]
    share = -low / (high - low)
    return fpr[row, after - 1] + share * (fpr[row, after] - fpr[row, after - 1])


@METRICS.register
@metric(two_classes=False)
def top1(scores: WeightedScores) -> np.ndarray:
    """Share of videos whose class is the likeliest one; of more than two classes."""
    return scores.mean(top_k_credit(scores.labels, scores.probs, 1))


@METRICS.register
@metric(two_classes=False)
def top_k(scores: WeightedScores) -> np.ndarray:
    """Share of videos whose class is among the k likeliest, k = min(5, K − 1); named top2 … top5."""
    return scores.mean(top_k_credit(scores.labels, scores.probs, min(5, scores.num_classes - 1)))


def weighted_metrics(
    labels: np.ndarray, probs: np.ndarray, weights: np.ndarray, *, clip: float = CLIP
) -> dict[str, np.ndarray]:
    """Every metric of `metrics_of(K)` under each of B weight vectors: labels (N,), probs (N, K), weights
    (B, N) -> name -> (B,).

    Metrics that rank fakes against reals are NaN where a weight vector leaves one class only. Log loss clips
    the probability of the true class to [clip, 1 − clip].
    """
    labels, probs = check_inputs(labels, probs)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(labels) or weights.min() < 0:
        raise ValueError(f"weights of shape {weights.shape}, expected (B, {len(labels)}) and none below 0")
    if not 0 <= clip < 0.5:
        raise ValueError(f"clip {clip}, expected 0 <= clip < 0.5 (the challenge's solutions use {CLIP})")
    scores = WeightedScores(labels, probs, weights, clip)
    result = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, function in metrics_of(scores.num_classes).items():
            values = np.asarray(function(scores), dtype=np.float64)
            if values.shape != (len(weights),):
                raise ValueError(
                    f"metric {name} gave shape {values.shape}, expected one value for each of the "
                    f"{len(weights)} weight vectors"
                )
            result[name] = values
    return result


def video_metrics(
    labels: np.ndarray, probs: np.ndarray, weights: np.ndarray | None = None, clip: float = CLIP
) -> dict[str, float]:
    """Metrics of one set of videos: labels (N,), probs (N, K), weights (N,) or None.

    Two classes: auc, log_loss, accuracy, ap, eer. More: log_loss, top1 and top-min(5, K − 1). What is not
    defined is NaN; `why_undefined` says why.
    """
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    return {
        name: float(v[0]) for name, v in weighted_metrics(labels, probs, weights[None], clip=clip).items()
    }


def why_undefined(labels: np.ndarray, num_classes: int) -> dict[str, str]:
    """Metric -> why it is NaN for these labels, in one line; empty where every metric is defined."""
    classes = np.unique(labels)
    if num_classes != 2 or len(classes) == 2:
        return {}
    only = "fake" if classes[0] == 1 else "real"
    ranking = {name: m.title or name for name, m in metrics_of(2).items() if m.ranks}
    *first, last = ranking.values()
    reason = f"all {len(labels)} videos are {only}; {', '.join(first)} and {last} need both classes"
    return dict.fromkeys(ranking, reason)
