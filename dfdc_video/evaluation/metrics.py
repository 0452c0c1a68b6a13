"""Video-level metrics with weights, for one weight vector or a thousand at once.

Axes: B weight vectors (bootstrap samples), N videos, K classes, U distinct scores. Ties are kept together:
AUC counts a tied pair as half, accuracy gives a tie its expected share, so that a prior score is neither
rewarded nor punished by its label.
"""

from __future__ import annotations

import numpy as np

# solutions of the DFDC challenge clip P to [0.01, 0.99], since one confident error costs more than it can win
CLIP = 0.01
LOWER_IS_BETTER = ("log_loss", "eer")
TITLES = {"log_loss": "log loss", "accuracy": "accuracy", "auc": "AUC", "ap": "AP", "eer": "EER"}


def title_of(metric: str) -> str:
    """What a table's head calls a metric: AUC, log loss, top-5."""
    return TITLES.get(metric, metric.replace("top", "top-"))


def metric_names(num_classes: int) -> tuple[str, ...]:
    """Metrics that exist for so many classes; top-k needs more than k of them, so it is top-min(5, K − 1)."""
    if num_classes == 2:
        return ("auc", "log_loss", "accuracy", "ap", "eer")
    return tuple(dict.fromkeys(("log_loss", "top1", f"top{min(5, num_classes - 1)}")))


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
    """(N,) in [0, 1]: is the label among the k likeliest classes; classes that tie share the places that are
    left.
    """
    own = probs[np.arange(len(labels)), labels][:, None]
    above, tied = (probs > own).sum(axis=1), (probs == own).sum(axis=1)
    return np.clip((k - above) / tied, 0.0, 1.0)


def _ranking(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the fakes and of the reals at each distinct score, highest score first: two arrays (B, U)."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ordered, fake = weights[:, order], labels[order] == 1
    return np.add.reduceat(ordered * fake, starts, axis=1), np.add.reduceat(ordered * ~fake, starts, axis=1)


def _auc(fakes: np.ndarray, reals: np.ndarray) -> np.ndarray:
    """P(a fake scores higher than a real) + P(they tie) / 2 (Mann-Whitney), from (B, U)."""
    higher = np.cumsum(fakes, axis=1) - fakes / 2
    return (reals * higher).sum(axis=1) / (fakes.sum(axis=1) * reals.sum(axis=1))


def _average_precision(fakes: np.ndarray, reals: np.ndarray) -> np.ndarray:
    """Sum of precision × gain in recall over the thresholds, without interpolation, as scikit-learn does."""
    hits, alarms = np.cumsum(fakes, axis=1), np.cumsum(reals, axis=1)
    precision = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits + alarms > 0)
    return (precision * fakes).sum(axis=1) / fakes.sum(axis=1)


def _equal_error_rate(fakes: np.ndarray, reals: np.ndarray) -> np.ndarray:
    """Where the ROC polygon meets the line on which as many reals are accused as fakes are missed."""
    start = np.zeros((len(fakes), 1))
    tpr = np.hstack([start, np.cumsum(fakes, axis=1) / fakes.sum(axis=1, keepdims=True)])
    fpr = np.hstack([start, np.cumsum(reals, axis=1) / reals.sum(axis=1, keepdims=True)])
    excess = fpr - (1 - tpr)  # from -1 to 1, never falling
    row, after = np.arange(len(excess)), np.maximum(np.argmax(excess >= 0, axis=1), 1)
    low, high = excess[row, after - 1], excess[row, after]
    share = -low / (high - low)
    return fpr[row, after - 1] + share * (fpr[row, after] - fpr[row, after - 1])


def weighted_metrics(
    labels: np.ndarray, probs: np.ndarray, weights: np.ndarray, *, clip: float = CLIP
) -> dict[str, np.ndarray]:
    """Every metric of `metric_names(K)` under each of B weight vectors: labels (N,), probs (N, K), weights
    (B, N) -> name -> (B,).

    AUC, AP and EER are NaN where a weight vector leaves one class only. Log loss clips the probability of the
    true class to [clip, 1 − clip].
    """
    labels, probs = check_inputs(labels, probs)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(labels) or weights.min() < 0:
        raise ValueError(f"weights of shape {weights.shape}, expected (B, {len(labels)}) and none below 0")
    if not 0 <= clip < 0.5:
        raise ValueError(f"clip {clip}, expected 0 <= clip < 0.5 (the challenge's solutions use {CLIP})")
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weights.sum(axis=1)
        loss = -np.log(np.clip(probs[np.arange(len(labels)), labels], clip, 1 - clip))
        result = {
            "log_loss": np.where(weights > 0, weights * loss, 0.0).sum(axis=1) / total
            if clip == 0
            else weights @ loss / total
        }
        if probs.shape[1] > 2:
            for name in metric_names(probs.shape[1])[1:]:
                result[name] = weights @ top_k_credit(labels, probs, int(name.removeprefix("top"))) / total
            return result
        result["accuracy"] = weights @ top_k_credit(labels, probs, 1) / total
        fakes, reals = _ranking(labels, probs[:, 1], weights)
        one_class = (fakes.sum(axis=1) == 0) | (reals.sum(axis=1) == 0)
        for name, function in (("auc", _auc), ("ap", _average_precision), ("eer", _equal_error_rate)):
            result[name] = np.where(one_class, np.nan, function(fakes, reals))
    return {name: result[name] for name in metric_names(2)}


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


def why_undefined(labels: np.ndarray, num_classes: int) -> str:
    """One line for AUC, AP and EER that are NaN, or nothing where they are defined."""
    classes = np.unique(labels)
    if num_classes != 2 or len(classes) == 2:
        return ""
    return (
        f"all {len(labels)} videos are {'fake' if classes[0] == 1 else 'real'}; AUC, AP and EER need "
        "both classes"
    )
