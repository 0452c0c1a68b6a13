"""`dfdc-video compare`: compare tested runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfdc_video.evaluation.compare import Comparison
    from dfdc_video.folders.run import ExperimentFolder

ORDER = 90
HELP = "compare tested runs on the same split: table, CSV and HTML report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison"), help="folder for table and page (default comparison)"
    )
    parser.add_argument("--baseline", help="run that differences are taken from (default: the first)")
    parser.add_argument(
        "--pooling", help="pool clip scores to video scores by this rule instead of that of the runs"
    )
    parser.add_argument(
        "--allow-different-frames",
        action="store_true",
        help="compare runs whose clips have different frames",
    )


def run(args: argparse.Namespace) -> int:
    from dfdc_video.evaluation.compare import compare
    from dfdc_video.folders.run import ExperimentFolder
    from dfdc_video.report.page import write_page

    comparison = compare(
        args.runs,
        baseline=args.baseline,
        pooling=args.pooling,
        allow_different_frames=args.allow_different_frames,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    folder = ExperimentFolder(args.out)
    comparison.to_csv(folder.table)
    command = "dfdc-video compare " + " ".join(str(r) for r in args.runs)
    write_page(folder.page, comparison, title="Comparison of runs", command=command)
    show(comparison, folder)
    return 0


def show(comparison: Comparison, folder: ExperimentFolder) -> None:
    """Print the comparison, and where its page and its table are."""
    from dfdc_video.report.terminal import print_comparison

    print_comparison(comparison)
    print(f"{folder.page}\n{folder.table}")
