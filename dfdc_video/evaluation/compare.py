"""Comparison of tested runs on the same split, videos and frames, with paired differences from a baseline.

All numbers are recomputed from the predictions; the metrics in the runs' reports are not used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.evaluation.metrics import CLIP, metrics_of
from dfdc_video.evaluation.pooling import probabilities, with_score
from dfdc_video.evaluation.results import RunResult, by_arm, read_result, refuse_unequal, with_unique_names
from dfdc_video.evaluation.statistics import (
    FEW_GROUPS,
    Difference,
    Interval,
    Samples,
    average,
    coverage_of,
    difference,
    resample_methods,
)
from dfdc_video.files import whole_file
from dfdc_video.registry import nearest


def key_of(metric: str, method: str = "") -> str:
    """Name of a metric in tables: video/auc over everything, video/auc/temporal over the reals and one
    method's fakes.
    """
    return f"video/{metric}/{method}" if method else f"video/{metric}"


@dataclass(frozen=True)
class Row:
    """One row of the comparison: a run, or an arm with the metrics averaged over its seeds."""

    name: str
    runs: tuple[RunResult, ...]
    # probabilities averaged over the seeds: for curves and the list of worst videos
    scores: pd.DataFrame = field(repr=False)
    samples: dict[str, Samples] = field(repr=False)  # "" -> all videos, method -> reals and its fakes
    intervals: dict[str, Interval] = field(repr=False)  # of the mean over the seeds
    # standard deviation over the seeds (n − 1); NaN for one seed
    seed_sd: dict[str, float] = field(repr=False)

    def mean_of(self, entry: str) -> float | None:
        """Mean over the runs of a number that their reports record, or None where one of them does not."""
        values = [
            float(v) for v in (run.report.get(entry) for run in self.runs) if isinstance(v, (int, float))
        ]
        return float(np.mean(values)) if len(values) == len(self.runs) else None

    def worst(self, count: int = 5) -> pd.DataFrame:
        """The videos whose true class got the lowest probability, lowest first."""
        own = probabilities(self.scores)[np.arange(len(self.scores)), self.scores["label"]]
        order = np.argsort(own, kind="stable")[:count]
        return self.scores.iloc[order][["video_id", "label", "method", "status", "score"]].reset_index(
            drop=True
        )


@dataclass(frozen=True)
class Comparison:
    """Rows over one set of test videos, and the difference of each row from the baseline."""

    rows: tuple[Row, ...]
    baseline: str
    differences: dict[str, dict[str, Difference]]  # row -> key -> row − baseline
    metrics: tuple[str, ...]
    methods: tuple[str, ...]
    settings: dict[str, Any]  # num_samples, seed, level, clip
    warnings: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return probabilities(self.rows[0].scores).shape[1]

    def table(self) -> pd.DataFrame:
        """One line per row. Each `key` (video/auc, video/auc/temporal …) has `_low` and `_high`, and
        `_seed_sd` where an arm has several seeds; `delta/key` is the difference from the baseline with
        `_low`, `_high` and `_fraction_above`.
        """
        lines = []
        for row in self.rows:
            line: dict[str, Any] = {"name": row.name, "num_seeds": len(row.runs)}
            for key, interval in row.intervals.items():
                line |= {key: interval.value, f"{key}_low": interval.low, f"{key}_high": interval.high}
                if any(len(r.runs) > 1 for r in self.rows):
                    line[f"{key}_seed_sd"] = row.seed_sd[key]
            line |= {
                entry: row.mean_of(entry) for entry in ("num_parameters", "train_seconds")
            } | coverage_of(row.scores)
            for key, delta in self.differences.get(row.name, {}).items():
                line |= {
                    f"delta/{key}": delta.value,
                    f"delta/{key}_low": delta.low,
                    f"delta/{key}_high": delta.high,
                }
                line[f"delta/{key}_fraction_above"] = delta.fraction_above
            lines.append(line)
        return pd.DataFrame(lines)

    def to_csv(self, path: str | Path) -> Path:
        """Write `table()`; the file appears whole or not at all."""
        with whole_file(Path(path)) as temporary:
            self.table().to_csv(temporary, index=False)
        return Path(path)


def _row(name: str, runs: list[RunResult], *, num_samples: int, seed: int, level: float, clip: float) -> Row:
    """Metrics of all seeds under the same resamples: mean, interval, standard deviation over the seeds."""
    probs = np.mean([probabilities(run.scores) for run in runs], axis=0)
    scores = with_score(runs[0].scores.assign(**{f"prob_{k}": probs[:, k] for k in range(probs.shape[1])}))
    statuses = np.array([run.scores["status"].to_numpy() for run in runs])
    scores["status"] = np.where((statuses == "scored").any(axis=0), "scored", statuses[0])
    each = [resample_methods(run.scores, num_samples=num_samples, seed=seed, clip=clip) for run in runs]
    samples = {method: average([e[method] for e in each]) for method in each[0]}
    intervals = {key_of(m, method): i for method, s in samples.items() for m, i in s.intervals(level).items()}
    sd = {
        key_of(m, method): float(np.std([e[method].values[m] for e in each], ddof=1))
        if len(runs) > 1
        else float("nan")
        for method, s in samples.items()
        for m in s.values
    }
    return Row(name, tuple(runs), scores, samples, intervals, sd)


def _cautions(rows: Sequence[Row]) -> list[str]:
    """Warnings about how far the numbers can be trusted."""
    result = []
    groups = rows[0].samples[""].num_groups
    if groups < FEW_GROUPS:
        result.append(f"The test split has {groups} groups: intervals from so few groups are too narrow.")
    coverage = {row.name: coverage_of(row.scores) for row in rows}
    if len({c["scored"] for c in coverage.values()}) > 1:
        result.append(
            "Coverage differs: "
            + ", ".join(f"{n} scored {c['scored']} of {c['num_videos']}" for n, c in coverage.items())
            + "."
        )
    if any(i.low == i.high for row in rows for i in row.intervals.values()):
        result.append(
            "An interval of zero width means that every resample gave the same value, as with perfect "
            "separation; it does not mean certainty."
        )
    poolings = {json.dumps(run.report["pooling"], sort_keys=True) for row in rows for run in row.runs}
    if len(poolings) > 1:
        result.append("The reports record different poolings: " + ", ".join(sorted(poolings)) + ".")
    return result


def compare(
    paths: Sequence[str | Path],
    *,
    baseline: str | None = None,
    pooling: str | None = None,
    allow_different_frames: bool = False,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    clip: float = CLIP,
) -> Comparison:
    """Compare run folders. Runs whose reports name experiment, arm and seed become one row per arm; others
    one row each.

    `baseline` is the row that differences are taken from, by default the first. `pooling` overrides the
    pooling that the reports record. ValueError for runs with different split hashes, test videos or classes,
    and for different clip policies unless they are allowed.
    """
    if not paths:
        raise ValueError("no run given; expected one or more run folders")
    resolved = [Path(p).expanduser().resolve() for p in paths]
    repeated = [str(p) for p, count in Counter(resolved).items() if count > 1]
    if repeated:
        raise ValueError(f"run {repeated[0]} was given twice")
    runs = with_unique_names([read_result(p, pooling=pooling) for p in paths])
    warnings = refuse_unequal(runs, allow_different_frames=allow_different_frames)
    settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "level": level, "clip": clip}
    rows = tuple(_row(name, members, **settings) for name, members in by_arm(runs).items())
    known = {row.name: row for row in rows}
    baseline = rows[0].name if baseline is None else baseline
    if baseline not in known:
        raise ValueError(f"unknown baseline '{baseline}'; {nearest(baseline, known)}")
    differences = {
        row.name: {
            key_of(m, method): d
            for method, s in row.samples.items()
            for m, d in difference(known[baseline].samples[method], s, level=level).items()
        }
        for row in rows
        if row.name != baseline
    }
    num_classes = probabilities(rows[0].scores).shape[1]
    methods = tuple(m for m in rows[0].samples if m)
    return Comparison(
        rows,
        baseline,
        differences,
        tuple(metrics_of(num_classes)),
        methods,
        settings,
        (*warnings, *_cautions(rows)),
    )
