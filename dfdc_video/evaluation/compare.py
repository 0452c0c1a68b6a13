"""Finished runs side by side: the same videos, the same split, the same frames, and what the difference
between two runs is worth.

Everything is computed anew from `predictions.csv` and `videos.csv`; the metrics that report.json carries are
not trusted.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.evaluation.metrics import CLIP, metric_names
from dfdc_video.evaluation.pooling import (
    pool_predictions,
    probabilities,
    read_predictions,
    read_videos,
    with_score,
)
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
from dfdc_video.registry import nearest

REQUIRED = ("name", "split", "split_hash", "clip", "pooling")
SAME_VIDEO = ["video_id", "label", "method", "group_id"]


def key_of(metric: str, method: str = "") -> str:
    """Name of a metric in tables: video/auc over everything, video/auc/temporal over the reals and one
    method's fakes.
    """
    return f"video/{metric}/{method}" if method else f"video/{metric}"


@dataclass(frozen=True)
class RunResult:
    """A tested run: its report.json, its pooled video scores, and its training log where it has one."""

    path: Path
    name: str
    report: dict[str, Any] = field(repr=False)
    scores: pd.DataFrame = field(repr=False)
    curves: pd.DataFrame | None = field(repr=False, default=None)

    @property
    def arm(self) -> tuple[str, str] | None:
        """(experiment, arm) where the run is one of several seeds of an arm."""
        experiment, arm = self.report.get("experiment"), self.report.get("arm")
        return (
            (str(experiment), str(arm))
            if experiment and arm and self.report.get("seed") is not None
            else None
        )


def _read_report(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise FileNotFoundError(f"no run folder at {path}; expected a folder that `dfdc-video train` wrote")
    if not (path / "report.json").is_file():
        data = path / "data.json"
        if data.is_file() and json.loads(data.read_text(encoding="utf-8")).get("merged"):
            raise ValueError(
                f"{path} was trained with its test split merged into train: it has no test scores to compare"
            )
        inside = sorted(p.parent.name for p in path.glob("*/report.json"))
        hint = (
            f"; the runs {', '.join(inside[:4])} lie inside: name them"
            if inside
            else "; run `dfdc-video test` on it first"
        )
        raise FileNotFoundError(f"{path} has no report.json{hint}")
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path / 'report.json'} is damaged ({error}); run `dfdc-video test` on the run again"
        ) from error
    missing = [key for key in REQUIRED if not isinstance(report, dict) or key not in report]
    if missing:
        raise ValueError(
            f"{path / 'report.json'} lacks {', '.join(missing)}; run `dfdc-video test` on the run again"
        )
    for key in ("clip", "pooling"):
        if not isinstance(report[key], dict):
            raise ValueError(
                f"{path / 'report.json'}: {key} is {report[key]!r}, expected a table of settings"
            )
    return report


def _read_curves(path: Path) -> pd.DataFrame | None:
    """The CSV log; a run that was only tested has none, and an empty one says nothing."""
    if not path.is_file() or path.stat().st_size == 0:
        return None
    try:
        return pd.read_csv(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: {str(error).splitlines()[0][:120]}; delete it to compare without curves"
        ) from error


def load_run(path: str | Path, *, pooling: str | None = None) -> RunResult:
    """Read a run folder and pool its predictions as its report says, or by the `pooling` that is given.

    Raises FileNotFoundError for what is missing and ValueError for what is damaged or does not fit together,
    with the folder named.
    """
    path = Path(path).expanduser()
    report = _read_report(path)
    predictions, videos = read_predictions(path / "predictions.csv"), read_videos(path / "videos.csv")
    recorded = {str(k).upper(): v for k, v in report["pooling"].items()}
    name = pooling or recorded.pop("NAME", "mean")
    settings = {} if pooling else {k.lower(): v for k, v in recorded.items()}
    try:
        scores = pool_predictions(predictions, videos, pooling=name, settings=settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return RunResult(path, str(report["name"]), report, scores, _read_curves(path / "metrics.csv"))


@dataclass(frozen=True)
class Row:
    """One line of the comparison: a run, or an arm with the mean of its seeds' metrics."""

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
        """The videos with the least probability of their true class, worst first."""
        own = probabilities(self.scores)[np.arange(len(self.scores)), self.scores["label"]]
        order = np.argsort(own, kind="stable")[:count]
        return self.scores.iloc[order][["video_id", "label", "method", "status", "score"]].reset_index(
            drop=True
        )


@dataclass(frozen=True)
class Comparison:
    """Rows over one set of test videos, with the differences of each row to the baseline."""

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
        `_seed_sd` where an arm has several seeds; `delta/key` is the difference to the baseline with `_low`,
        `_high` and `_fraction_above`."""
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
        path = Path(path)
        temporary = path.with_name(f".{path.name}.part")
        self.table().to_csv(temporary, index=False)
        os.replace(temporary, path)
        return path


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + str(key): value}
    return result


def _refuse_unequal(runs: Sequence[RunResult], *, allow_different_frames: bool) -> list[str]:
    """Raise unless the runs were tested on the same videos of the same split from the same frames; returns
    what was let pass.
    """
    first = runs[0]
    for run in runs[1:]:
        for entry, advice in (
            ("split_hash", "train them on one prepared folder"),
            ("split", "test them on one split"),
        ):
            a, b = first.report[entry], run.report[entry]
            if a != b:
                raise ValueError(
                    f"{first.name} has {entry} {a} and {run.name} has {b}: their numbers cannot be "
                    f"compared; {advice}"
                )
        if probabilities(run.scores).shape != probabilities(first.scores).shape or not run.scores[
            SAME_VIDEO
        ].equals(first.scores[SAME_VIDEO]):
            apart = sorted(
                set(map(tuple, first.scores[SAME_VIDEO].to_numpy()))
                ^ set(map(tuple, run.scores[SAME_VIDEO].to_numpy()))
            )
            detail = (
                f"{len(apart)} rows differ, first {apart[0][0]}" if apart else "the number of classes differs"
            )
            raise ValueError(
                f"{first.name} and {run.name} were not tested on the same videos ({detail}); test both "
                "again on one prepared folder"
            )
    policies = {run.name: _flat(run.report["clip"]) for run in runs}
    keys = sorted(set().union(*policies.values()))
    unequal = [k for k in keys if len({json.dumps(p.get(k), sort_keys=True) for p in policies.values()}) > 1]
    if not unequal:
        return []
    who = "; ".join(
        f"{name}: " + ", ".join(f"{k}={policy.get(k)}" for k in unequal) for name, policy in policies.items()
    )
    if not allow_different_frames:
        raise ValueError(
            f"the runs saw different frames ({who}); use one CLIP section, or allow different frames on "
            "purpose"
        )
    return [f"The runs saw different frames: {who}."]


def _unique_names(runs: list[RunResult]) -> list[RunResult]:
    """Names that tell the runs apart: the report's, with the folder where two share one."""
    count = Counter(run.name for run in runs)
    short = [run.name if count[run.name] == 1 else f"{run.name} ({run.path.resolve().name})" for run in runs]
    names = short if len(set(short)) == len(runs) else [f"{run.name} ({run.path.resolve()})" for run in runs]
    return [
        RunResult(run.path, name, run.report, run.scores, run.curves)
        for run, name in zip(runs, names, strict=True)
    ]


def _by_arm(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Row name -> its runs: the seeds of an arm together, every other run by itself, in the order given."""
    several = len({run.arm[0] for run in runs if run.arm}) > 1
    rows: dict[str, list[RunResult]] = {}
    for run in runs:
        name = run.name if run.arm is None else "/".join(run.arm) if several else run.arm[1]
        seeds = [r.report["seed"] for r in rows.get(name, [])]
        if run.arm is not None and run.report["seed"] in seeds:
            raise ValueError(
                f"arm {name} has seed {run.report['seed']} twice "
                f"({rows[name][seeds.index(run.report['seed'])].path} and {run.path})"
            )
        if run.arm is None and name in rows:
            raise ValueError(f"run {run.path} has the name of an arm, {name!r}; rename it")
        rows.setdefault(name, []).append(run)
    return rows


def _row(name: str, runs: list[RunResult], *, num_samples: int, seed: int, level: float, clip: float) -> Row:
    """Every seed's metrics under the same resamples, averaged; and their deviation over the seeds."""
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
    """What a reader of the numbers should know."""
    result = []
    groups = rows[0].samples[""].num_groups
    if groups < FEW_GROUPS:
        result.append(f"The test split has {groups} groups: intervals from so few are too narrow.")
    coverage = {row.name: coverage_of(row.scores) for row in rows}
    if len({c["scored"] for c in coverage.values()}) > 1:
        result.append(
            "Coverage differs: "
            + ", ".join(f"{n} scored {c['scored']} of {c['num_videos']}" for n, c in coverage.items())
            + "."
        )
    if any(i.low == i.high for row in rows for i in row.intervals.values()):
        result.append(
            "An interval without width means that every resample gave the same value, as perfect "
            "separation does; it is no certainty."
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

    `baseline` is the row that the differences are taken to, the first by default. `pooling` replaces the
    poolings of the reports. Raises ValueError for runs with different split hashes, test videos or classes,
    and for different clip policies unless they are allowed.
    """
    if not paths:
        raise ValueError("no run given; expected one or more run folders")
    resolved = [Path(p).expanduser().resolve() for p in paths]
    repeated = [str(p) for p, count in Counter(resolved).items() if count > 1]
    if repeated:
        raise ValueError(f"run {repeated[0]} was given twice")
    runs = _unique_names([load_run(p, pooling=pooling) for p in paths])
    warnings = _refuse_unequal(runs, allow_different_frames=allow_different_frames)
    settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "level": level, "clip": clip}
    rows = tuple(_row(name, members, **settings) for name, members in _by_arm(runs).items())
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
        metric_names(num_classes),
        methods,
        settings,
        (*warnings, *_cautions(rows)),
    )
