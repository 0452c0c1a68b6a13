"""`dfdc-video test`: score a split with the best checkpoint of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from dfdc_video.commands.train import print_report

ORDER = 70
HELP = "score the test (or val) split of a run again, with its best checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--split", default="test", choices=("test", "val"), help="split to score (default test)"
    )


def run(args: argparse.Namespace) -> int:
    from dfdc_video.runs.run import score

    report = score(args.run, split=args.split)
    print_report(args.run if args.split == "test" else args.run / args.split, report)
    return 0
