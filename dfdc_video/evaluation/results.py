"""Tested runs as they are read from their folders, and whether they can be compared at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dfdc_video.evaluation.pooling import pool_predictions, probabilities
from dfdc_video.folders.run import RunFolder

SAME_VIDEO = ["video_id", "label", "method", "group_id"]


@dataclass(frozen=True)
class RunResult:
    """A tested run: its report, its pooled video scores, and its training log where it has one."""

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


def read_result(path: str | Path, *, pooling: str | None = None) -> RunResult:
    """Read a run folder and pool its predictions by the pooling that its report records, or by `pooling`.

    FileNotFoundError for what is missing, ValueError for what is damaged or does not fit together; both name
    the folder.
    """
    folder = RunFolder(Path(path))
    report = folder.report()
    predictions, videos = folder.predictions(), folder.videos()
    try:
        scores = pool_predictions(
            predictions, videos, pooling=pooling or report["pooling"].get("NAME", "mean")
        )
    except ValueError as error:
        raise ValueError(f"{folder.path}: {error}") from error
    return RunResult(folder.path, str(report["name"]), report, scores, folder.curves())


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + str(key): value}
    return result


def refuse_unequal(runs: Sequence[RunResult], *, allow_different_frames: bool) -> list[str]:
    """Raise unless the runs were tested on the same videos of the same split from the same frames; returns
    warnings about what was allowed.
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
        ours, theirs = first.scores[SAME_VIDEO], run.scores[SAME_VIDEO]
        if probabilities(run.scores).shape != probabilities(first.scores).shape or not theirs.equals(ours):
            apart = sorted(set(map(tuple, ours.to_numpy())) ^ set(map(tuple, theirs.to_numpy())))
            detail = (
                f"{len(apart)} rows differ, first {apart[0][0]}" if apart else "the number of classes differs"
            )
            raise ValueError(
                f"{first.name} and {run.name} were not tested on the same videos ({detail}); test both "
                "again on one prepared folder"
            )
    return _unequal_frames(runs, allowed=allow_different_frames)


def _unequal_frames(runs: Sequence[RunResult], *, allowed: bool) -> list[str]:
    """A warning where clip policies differ and that is `allowed`; ValueError where it is not."""
    policies = {run.name: _flat(run.report["clip"]) for run in runs}
    keys = sorted(set().union(*policies.values()))
    unequal = [k for k in keys if len({json.dumps(p.get(k), sort_keys=True) for p in policies.values()}) > 1]
    if not unequal:
        return []
    who = "; ".join(
        f"{name}: " + ", ".join(f"{k}={policy.get(k)}" for k in unequal) for name, policy in policies.items()
    )
    if not allowed:
        raise ValueError(
            f"the runs saw different frames ({who}); train both with the same CLIP section, or compare with "
            "--allow-different-frames"
        )
    return [f"The runs saw different frames: {who}."]


def with_unique_names(runs: list[RunResult]) -> list[RunResult]:
    """Runs with unique names: the name in the report, with the folder added where two are equal."""
    count = Counter(run.name for run in runs)
    short = [run.name if count[run.name] == 1 else f"{run.name} ({run.path.resolve().name})" for run in runs]
    names = short if len(set(short)) == len(runs) else [f"{run.name} ({run.path.resolve()})" for run in runs]
    return [
        RunResult(run.path, name, run.report, run.scores, run.curves)
        for run, name in zip(runs, names, strict=True)
    ]


def by_arm(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
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
