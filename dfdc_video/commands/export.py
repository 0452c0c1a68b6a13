"""`dfdc-video export`: weights for another program."""

from __future__ import annotations

import argparse
from pathlib import Path

ORDER = 100
HELP = "write a run's best weights in another program's format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--format",
        default="pyslowfast",
        choices=("pyslowfast",),
        help="pyslowfast: model_state with its names, a .pyth file",
    )


def run(args: argparse.Namespace) -> int:
    from dfdc_video.models.weights.write import save_pyslowfast
    from dfdc_video.runs.run import load_model

    print(save_pyslowfast(load_model(args.run), args.out))
    return 0
