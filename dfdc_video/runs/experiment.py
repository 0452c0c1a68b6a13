"""Experiments: arms (settings over one base config) times seeds, answered by a comparison on one split.

A registered experiment is a function that returns an Experiment. Its keyword-only parameters are the settings
of the experiment: they change the settings of its arms, so that another value gives another run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from yacs.config import CfgNode

from dfdc_video.config import config_hash, keyword_arguments, parse_overrides, resolve
from dfdc_video.evaluation.compare import Comparison, compare
from dfdc_video.folders.run import ExperimentFolder, RunFolder
from dfdc_video.registry import EXPERIMENTS, nearest, summary_of
from dfdc_video.report.page import write_page
from dfdc_video.runs.checks import check
from dfdc_video.runs.run import train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """`base` is the name of a config, `arms` are name -> settings over it (`_BASE_` allowed), `baseline` is
    the arm that differences are taken from.
    """

    base: str
    arms: dict[str, dict[str, Any]]
    seeds: tuple[int, ...] = (0,)
    baseline: str = ""
    allow_different_frames: bool = False
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("an experiment needs at least one arm")
        if self.baseline and self.baseline not in self.arms:
            raise ValueError(f"unknown baseline '{self.baseline}'; {nearest(self.baseline, self.arms)}")


def launch(
    name: str,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    arms: Sequence[str] = (),
    quiet: bool = False,
) -> Comparison:
    """Run every arm and seed of a registered experiment into OUT/<arm>/seed<n>, then compare them into
    OUT/report.html and table.csv.

    Finished runs are kept and interrupted ones continue, so that calling it again finishes what is missing.
    Every config is resolved and checked before the first run starts: a mistyped key costs no training. A
    failing arm does not stop the others; its error is raised at the end.

    `overrides` are KEY VALUE pairs: lower-case ones are settings of the experiment itself, the others go over
    the config of every arm.
    """
    folder = ExperimentFolder(out)
    declared = EXPERIMENTS.get(name)
    own, settings_of_all = split_settings(declared, overrides)
    experiment: Experiment = declared(**own)
    plan = _plan(name, experiment, folder, settings_of_all, seeds=seeds, arms=arms)
    for planned in plan:
        check(planned.cfg)
    failed = {}
    for number, planned in enumerate(plan, start=1):
        place = f"[{number}/{len(plan)}] {planned.run.path}"
        if planned.run.is_finished(config_hash(planned.cfg)):
            log.info("%s: done before", place)
            continue
        log.info("%s", place)
        try:
            train(
                planned.cfg,
                planned.run.path,
                name=f"{planned.arm}-seed{planned.cfg.SEED}",
                resume=planned.run.started,
                quiet=quiet,
                extra={"experiment": name, "arm": planned.arm},
            )
        except (ValueError, OSError, RuntimeError) as error:
            failed[f"{planned.arm} seed {planned.cfg.SEED}"] = str(error)
            log.error("%s failed: %s", planned.run.path, error)
    if failed:
        where, why = next(iter(failed.items()))
        raise ValueError(
            f"{len(failed)} of {len(plan)} runs failed (first: {where}: {why}); the finished "
            "ones are kept: run it again"
        )
    return _compare(name, experiment, folder, plan, command=_command(name, overrides))


class _Planned(NamedTuple):
    """One run of an experiment."""

    arm: str
    run: RunFolder
    cfg: CfgNode


def _plan(
    name: str,
    experiment: Experiment,
    folder: ExperimentFolder,
    overrides: Sequence[str],
    *,
    seeds: Sequence[int],
    arms: Sequence[str],
) -> list[_Planned]:
    """The runs of an experiment, seed by seed: all arms and seeds that it declares, or those given."""
    for arm in arms:
        if arm not in experiment.arms:
            raise ValueError(f"unknown arm '{arm}' of {name}; {nearest(arm, experiment.arms)}")
    plan = []
    for seed in seeds or experiment.seeds:
        for arm in arms or experiment.arms:
            common = ["SEED", str(seed), "WANDB.GROUP", name, "WANDB.NAME", f"{arm}-seed{seed}"]
            cfg = resolve(experiment.base, arm=experiment.arms[arm], overrides=[*common, *overrides])
            plan.append(_Planned(arm, folder.run(arm, seed), cfg))
    return plan


def split_settings(
    declared: Callable[..., Experiment], words: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """KEY VALUE pairs -> the keyword arguments of an experiment (keys in lower case without a dot), and the
    pairs that are about a config.

    ValueError for a lower-case key that the experiment does not have, with its nearest setting, and for a
    value of another type.
    """
    parse_overrides(words)  # refuses an odd number of words and values that are not YAML
    own: list[str] = []
    rest: list[str] = []
    for key, value in zip(words[::2], words[1::2], strict=True):
        (own if "." not in key and key.islower() else rest).extend((key, value))
    if "SEED" in rest[::2]:
        raise ValueError("SEED would be one for all runs of an experiment; give its seeds as --seeds 0 1 2")
    return keyword_arguments(declared, own), rest


def _compare(
    name: str, experiment: Experiment, folder: ExperimentFolder, plan: Sequence[_Planned], *, command: str
) -> Comparison:
    """Compare the finished runs of an experiment and write its table and page."""
    baseline = experiment.baseline if any(p.arm == experiment.baseline for p in plan) else None
    comparison = compare(
        [p.run.path for p in plan],
        baseline=baseline,
        allow_different_frames=experiment.allow_different_frames,
    )
    comparison.to_csv(folder.table)
    title = summary_of(EXPERIMENTS.get(name)) or name
    write_page(folder.page, comparison, title=title, notes=experiment.notes, command=command)
    return comparison


def _command(name: str, overrides: Sequence[str]) -> str:
    return " ".join(["dfdc-video run", name, *overrides])
