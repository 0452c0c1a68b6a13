"""`dfdc-video generate`: synthetic videos with known labels."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

ORDER = 30
HELP = "generate labelled synthetic videos: deepfakes in DFDC's layout, or motions in that of Kinetics"
# task: module of dfdc_video.synthetic and its function
TASKS = {"deepfake": ("deepfakes", "generate"), "motions": ("motions", "generate_motions")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", required=True, type=Path, help="folder to write")
    parser.add_argument(
        "--task",
        default="deepfake",
        choices=tuple(TASKS),
        help="deepfake: three manipulation methods, in the layout of DFDC; motions: eight motions, in that "
        "of Kinetics (default deepfake)",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY VALUE",
        help="for example num_identities 100 seed 1; explained in datasets/synthetic/README.md",
    )


def run(args: argparse.Namespace) -> int:
    from dfdc_video.config import keyword_arguments

    module, function = TASKS[args.task]
    generate = getattr(importlib.import_module(f"dfdc_video.synthetic.{module}"), function)
    summary = generate(args.root, **keyword_arguments(generate, args.settings))
    print(f"{args.root}: {summary}")
    return 0
