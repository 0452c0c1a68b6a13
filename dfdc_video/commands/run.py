"""`dfdc-video run`: run a registered experiment."""

from __future__ import annotations

import argparse
from pathlib import Path

from dfdc_video.commands import Interrupted
from dfdc_video.commands.compare import show

ORDER = 80
HELP = "run a registered experiment: every arm and seed, then the comparison; resumes where it stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="name from `dfdc-video list experiments`")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY VALUE",
        help="applied to every arm, for example DATA.PATH prepared; lower-case keys are settings of the "
        "experiment, see `dfdc-video list experiments`",
    )
    parser.add_argument("--out", type=Path, help="folder for its runs (default runs/<experiment>)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="instead of the experiment's own")
    parser.add_argument("--arms", nargs="+", default=[], help="only these arms")


def run(args: argparse.Namespace) -> int:
    from dfdc_video.folders.run import ExperimentFolder
    from dfdc_video.registry import EXPERIMENTS
    from dfdc_video.runs.experiment import launch

    EXPERIMENTS.get(args.experiment)
    out = args.out or Path("runs") / args.experiment
    try:
        comparison = launch(args.experiment, out, overrides=args.settings, seeds=args.seeds, arms=args.arms)
    except KeyboardInterrupt:
        raise Interrupted(
            f"the same command: finished runs in {out} are kept, the interrupted one continues"
        ) from None
    show(comparison, ExperimentFolder(out))
    return 0
