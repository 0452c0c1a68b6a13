"""`dfdc-video test`: the scores of a run's best checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from dfdc_video.commands.train import print_report

ORDER = 70
HELP = "score a run's test (or val) split again, with its best checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test", choices=("test", "val"))


def run(args: argparse.Namespace) -> int:
    from dfdc_video.runs.run import score

    report = score(args.run, split=args.split)
    print_report(args.run if args.split == "test" else args.run / args.split, report)
    return 0
