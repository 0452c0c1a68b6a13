"""Uncertainty of metrics: bootstrap intervals over groups, and paired differences between runs.

Videos of one group (an original, its fakes, the same person) are not independent, so whole groups are
resampled with replacement. A sample is a vector of multiplicities, the weights of the metrics; equal
seeds and groups give equal samples, which is what makes differences paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dfdc_video.evaluation.metrics import CLIP, check_inputs, video_metrics, weighted_metrics, why_undefined
from dfdc_video.evaluation.pooling import probabilities

CHUNK_ELEMENTS = 1_000_000  # samples × videos at once: about 8 MB per array
FEW_GROUPS = 10  # with fewer, percentile intervals are known to be too narrow


class Interval(NamedTuple):
    """A value with the bounds of its percentile interval; the bounds are NaN where there is none."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Other run minus baseline, its interval, and the fraction of the samples in which it is above 0 (ties
    count half).
    """

    value: float
    low: float
    high: float
    fraction_above: float


@dataclass(frozen=True)
class Samples:
    """Metrics of the videos as they are (`values`) and under each kept bootstrap sample (`samples`, name ->
    (B',)).
    """

    values: dict[str, float]
    samples: dict[str, np.ndarray]
    num_groups: int
    num_dropped: int  # samples with one class only
    num_real: int
    num_videos: int

    def intervals(self, level: float = 0.95) -> dict[str, Interval]:
        return {
            name: Interval(value, *_bounds(self.samples[name], self.num_groups, level))
            for name, value in self.values.items()
        }


def _bounds(samples: np.ndarray, num_groups: int, level: float) -> tuple[float, float]:
    """Bounds of the percentile interval. NaN for one group, which gives the same sample every time."""
    if not 0 < level < 1:
        raise ValueError(f"level {level}, expected a number between 0 and 1, for example 0.95")
    if num_groups < 2 or len(samples) < 2 or not np.isfinite(samples).all():
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def group_weights(groups: np.ndarray, *, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """(num_samples, N): how often the group of each video was drawn, in as many draws as there are groups."""
    names, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    drawn = rng.integers(0, len(names), size=(num_samples, len(names)))
    drawn += np.arange(num_samples)[:, None] * len(names)
    counts = np.bincount(drawn.ravel(), minlength=num_samples * len(names)).reshape(num_samples, len(names))
    return counts[:, member].astype(np.float64)


def resample(
    labels: np.ndarray,
    probs: np.ndarray,
    groups: np.ndarray,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    clip: float = CLIP,
) -> Samples:
    """Every metric under `num_samples` draws of groups. labels (N,), probs (N, K), groups (N,).

    Of two classes, samples that hold one only are dropped and counted: AUC is not defined on them.
    """
    labels, probs = check_inputs(labels, probs)
    if len(groups) != len(labels):
        raise ValueError(f"{len(groups)} groups for {len(labels)} videos; expected one each")
    if num_samples < 1:
        raise ValueError(f"num_samples {num_samples}, expected 1 or more")
    rng, parts, both = np.random.default_rng(seed), [], []
    step = max(1, CHUNK_ELEMENTS // len(labels))
    for start in range(0, num_samples, step):
        weights = group_weights(groups, num_samples=min(step, num_samples - start), rng=rng)
        parts.append(weighted_metrics(labels, probs, weights, clip=clip))
        both.append(_usable(labels, weights, num_classes=probs.shape[1]))
    samples = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    keep = np.concatenate(both)
    return Samples(
        values=video_metrics(labels, probs, clip=clip),
        samples={name: values[keep] for name, values in samples.items()},
        num_groups=len(np.unique(np.asarray(groups).astype(str))),
        num_dropped=int((~keep).sum()),
        num_real=int((labels == 0).sum()),
        num_videos=len(labels),
    )


def _usable(labels: np.ndarray, weights: np.ndarray, *, num_classes: int) -> np.ndarray:
    """(B,): whether a sample has videos of both classes; with more than two classes every sample is used."""
    if num_classes > 2:
        return np.ones(len(weights), dtype=bool)
    return (weights[:, labels == 1].sum(axis=1) > 0) & (weights[:, labels == 0].sum(axis=1) > 0)


def average(parts: Sequence[Samples]) -> Samples:
    """Samples of the mean over several runs (seeds) of one arm, from `resample` with equal labels, groups and
    seed.

    The mean of the runs' metrics, not the metric of their mean score: averaging scores is an ensemble, and
    better than any of its runs.
    """
    assert len({(p.num_videos, p.num_dropped) for p in parts}) == 1, "the runs were resampled differently"
    return replace(
        parts[0],
        values={name: float(np.mean([p.values[name] for p in parts])) for name in parts[0].values},
        samples={name: np.mean([p.samples[name] for p in parts], axis=0) for name in parts[0].samples},
    )


def difference(baseline: Samples, other: Samples, *, level: float = 0.95) -> dict[str, Difference]:
    """Metric -> other − baseline over the same samples; both must come from `resample` with equal labels,
    groups and seed.
    """
    result = {}
    for name in (n for n in baseline.values if n in other.values):
        a, b = baseline.samples[name], other.samples[name]
        assert a.shape == b.shape, (name, a.shape, b.shape)
        # rounding of sums in another order is not a difference
        delta = np.where(np.abs(b - a) < 1e-12, 0.0, b - a)
        above = float(((delta > 0) + 0.5 * (delta == 0)).mean()) if len(delta) else float("nan")
        result[name] = Difference(
            other.values[name] - baseline.values[name], *_bounds(delta, baseline.num_groups, level), above
        )
    return result


def methods_of(scores: pd.DataFrame) -> list[str]:
    """Names of the methods by which the fakes were made; none unless the classes are real and fake."""
    return (
        sorted(set(scores.loc[scores["label"] != 0, "method"])) if probabilities(scores).shape[1] == 2 else []
    )


def subset_of(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """All reals and the fakes of one method; everything for the empty name."""
    return scores[(scores["label"] == 0) | (scores["method"] == method)] if method else scores


def resample_methods(
    scores: pd.DataFrame, *, num_samples: int = 1000, seed: int = 0, clip: float = CLIP
) -> dict[str, Samples]:
    """Method -> Samples of all reals and its fakes; "" -> all videos. Methods are left out where they leave
    one class only.
    """
    result = {}
    for method in ("", *methods_of(scores)):
        part = subset_of(scores, method)
        if method and part["label"].nunique() < 2:
            continue
        result[method] = resample(
            part["label"].to_numpy(),
            probabilities(part),
            part["group_id"].to_numpy(),
            num_samples=num_samples,
            seed=seed,
            clip=clip,
        )
    return result


def coverage_of(scores: pd.DataFrame) -> dict[str, int]:
    """How many videos were scored by the model; the others get the prior."""
    return {
        "num_videos": len(scores),
        **{s: int((scores["status"] == s).sum()) for s in ("scored", "no_face", "unreadable")},
    }


def evaluate(
    scores: pd.DataFrame, *, num_samples: int = 1000, seed: int = 0, level: float = 0.95, clip: float = CLIP
) -> dict[str, Any]:
    """The metrics section of a report, of a scored split (the table of `pool_predictions`).

    `metrics`: "video/auc" … -> value, low, high. `per_method`: method -> metric -> the same, over all reals
    and that method's fakes, with `num_videos` and `num_fake`. `coverage`, `num_groups`, and `undefined`: why
    a metric is NaN, where one is.
    """
    labels = scores["label"].to_numpy()
    undefined = why_undefined(labels, probabilities(scores).shape[1])
    by_method = resample_methods(scores, num_samples=num_samples, seed=seed, clip=clip)
    everything = by_method.pop("")

    def table(samples: Samples, prefix: str) -> dict[str, Any]:
        return {prefix + name: interval._asdict() for name, interval in samples.intervals(level).items()}

    per_method = {
        method: {**table(s, ""), "num_videos": s.num_videos, "num_fake": s.num_videos - s.num_real}
        for method, s in by_method.items()
    }
    return {
        "metrics": table(everything, "video/"),
        "per_method": per_method,
        "coverage": coverage_of(scores),
        "num_groups": everything.num_groups,
        "dropped_samples": everything.num_dropped,
        "undefined": {f"video/{name}": reason for name, reason in undefined.items()},
    }
