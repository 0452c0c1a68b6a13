"""A question as data: arms are settings on one base, times seeds; the answer is a comparison on one split.

A registered experiment is a function that gives an Experiment. Its keyword-only parameters are the
experiment's own settings: they act through the settings of the arms, so that a run made with another value is
another run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfdc_video.config import config_hash, keyword_arguments, parse_overrides, resolve
from dfdc_video.evaluation.compare import Comparison, compare
from dfdc_video.registry import EXPERIMENTS, nearest, summary_of
from dfdc_video.report.page import write_page

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """`base` is a config's name, `arms` name -> settings over it (`_BASE_` allowed), `baseline` the arm that
    differences are taken to.
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

    Runs that are done are kept, interrupted ones continue, so that calling it again finishes what is missing.
    Every config is resolved and checked before the first run starts: a mistyped key costs no training. A
    failing arm does not stop the others; it is raised at the end.

    `overrides` are KEY VALUE pairs: lower-case ones are settings of the experiment itself, the others go over
    the config of every arm.
    """
    from dfdc_video.runs.run import check, train

    declared = EXPERIMENTS.get(name)
    own, settings_of_all = split_settings(declared, overrides)
    experiment = declared(**own)
    for arm in arms:
        if arm not in experiment.arms:
            raise ValueError(f"unknown arm '{arm}' of {name}; {nearest(arm, experiment.arms)}")
    chosen = {arm: experiment.arms[arm] for arm in (arms or experiment.arms)}
    plan = []
    for seed in seeds or experiment.seeds:
        for arm, settings in chosen.items():
            common = ["SEED", str(seed), "WANDB.GROUP", name, "WANDB.NAME", f"{arm}-seed{seed}"]
            plan.append(
                (
                    arm,
                    Path(out) / arm / f"seed{seed}",
                    resolve(experiment.base, arm=settings, overrides=[*common, *settings_of_all]),
                )
            )
    for _, _, cfg in plan:
        check(cfg)
    failed = {}
    for number, (arm, folder, cfg) in enumerate(plan, start=1):
        if _is_done(folder, config_hash(cfg)):
            log.info("[%d/%d] %s: done before", number, len(plan), folder)
            continue
        log.info("[%d/%d] %s", number, len(plan), folder)
        resume = (folder / "config.yaml").is_file()
        try:
            train(
                cfg,
                folder,
                name=f"{arm}-seed{cfg.SEED}",
                resume=resume,
                quiet=quiet,
                extra={"experiment": name, "arm": arm},
            )
        except (ValueError, OSError, RuntimeError) as error:
            failed[f"{arm} seed {cfg.SEED}"] = str(error)
            log.error("%s failed: %s", folder, error)
    if failed:
        first = next(iter(failed.items()))
        raise ValueError(
            f"{len(failed)} of {len(plan)} runs failed (first: {first[0]}: {first[1]}); the finished "
            "ones are kept: run it again"
        )
    return finish(
        name, experiment, Path(out), [folder for _, folder, _ in plan], command=_command(name, overrides)
    )


def split_settings(
    declared: Callable[..., Experiment], words: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """KEY VALUE pairs -> the keyword arguments of an experiment (keys in lower case without a dot), and the
    pairs that are about a config.

    ValueError for a lower-case key that the experiment does not have, with its nearest setting, and for a
    value of another type.
    """
    parse_overrides(words)  # an odd number of words, a value that is no YAML
    own: list[str] = []
    rest: list[str] = []
    for key, value in zip(words[::2], words[1::2], strict=True):
        (own if "." not in key and key.islower() else rest).extend((key, value))
    if "SEED" in rest[::2]:
        raise ValueError("SEED would be one for all runs of an experiment; give its seeds as --seeds 0 1 2")
    return keyword_arguments(declared, own), rest


def finish(
    name: str, experiment: Experiment, out: Path, folders: Sequence[Path], *, command: str
) -> Comparison:
    baseline = experiment.baseline if any(f.parent.name == experiment.baseline for f in folders) else None
    comparison = compare(folders, baseline=baseline, allow_different_frames=experiment.allow_different_frames)
    comparison.to_csv(out / "table.csv")
    question = summary_of(EXPERIMENTS.get(name))
    write_page(
        out / "report.html", comparison, title=question or name, notes=experiment.notes, command=command
    )
    return comparison


def _command(name: str, overrides: Sequence[str]) -> str:
    return " ".join(["dfdc-video run", name, *overrides])


def _is_done(folder: Path, expected_hash: str) -> bool:
    """Whether the folder holds a finished run of exactly these settings."""
    file = folder / "report.json"
    if not file.is_file():
        return False
    found = json.loads(file.read_text(encoding="utf-8")).get("config_hash")
    if found != expected_hash:
        raise ValueError(
            f"{folder} holds a run of other settings (config hash {found}, now {expected_hash}); "
            "choose another --out"
        )
    return True
