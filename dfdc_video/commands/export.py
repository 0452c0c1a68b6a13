"""`dfdc-video export`: weights for another program."""

from __future__ import annotations

import argparse
from pathlib import Path

ORDER = 100
HELP = "write the best weights of a run in the format of another program"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--format",
        default="pyslowfast",
        choices=("pyslowfast",),
        help="pyslowfast: a .pyth file that PySlowFast loads (default pyslowfast)",
    )


def run(args: argparse.Namespace) -> int:
    from dfdc_video.models.weights.write import save_pyslowfast
    from dfdc_video.runs.run import load_model

    print(save_pyslowfast(load_model(args.run), args.out))
    return 0
