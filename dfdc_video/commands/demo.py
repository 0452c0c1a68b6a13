"""`dfdc-video demo`: the whole pipeline in one command.

Generates videos, prepares them, trains the four model families and compares them.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfdc_video.commands import Interrupted
from dfdc_video.commands.compare import show

if TYPE_CHECKING:
    from dfdc_video.evaluation.compare import Comparison

log = logging.getLogger(__name__)
ORDER = 120
HELP = "the whole pipeline on synthetic videos with all four model families; about ten minutes on two cores"
# sized for two cores; the strength of the planted signal is part of the data set's settings and of its card
VIDEOS: dict[str, Any] = {
    "num_identities": 220,
    "seconds": 2.4,
    "height": 192,
    "width": 256,
    "spatial_strength": 1.8,
}
SMALL: dict[str, Any] = {**VIDEOS, "num_identities": 12, "seconds": 2.0}
FACES: dict[str, Any] = {"size": 96, "every": 6, "ratios": (0.6, 0.15, 0.25)}
QUICK = ["TRAIN.EPOCHS", "1", "OPTIM.WARMUP_EPOCHS", "0", "TEST.NUM_BOOTSTRAP", "200"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to make (default demo)")
    parser.add_argument("--open", action="store_true", help="open the report in a browser, if there is one")
    parser.add_argument(
        "--small",
        action="store_true",
        help="a few videos and one epoch: a check that everything works; its numbers mean nothing",
    )


def run(args: argparse.Namespace) -> int:
    from dfdc_video.folders.run import ExperimentFolder

    try:
        comparison = demo(args.out, small=args.small)
    except KeyboardInterrupt:
        raise Interrupted("the same command: it continues where it was") from None
    folder = ExperimentFolder(args.out / "runs")
    show(comparison, folder)
    if args.open:
        import webbrowser

        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin":
            webbrowser.open(folder.page.resolve().as_uri())
        else:
            print("no display here: open the report.html above in a browser")
    return 0


def demo(out: Path, *, small: bool = False) -> Comparison:
    """Make OUT/raw, OUT/prepared and OUT/runs; calling it again continues. With `small`, a few videos and one
    epoch.
    """
    from dfdc_video.preparation.prepare import prepare
    from dfdc_video.runs.experiment import launch
    from dfdc_video.synthetic.deepfakes import generate

    log.info("1/3 synthetic videos in DFDC's layout: %s", out / "raw")
    generate(out / "raw", **(SMALL if small else VIDEOS))
    log.info("2/3 faces, tracks, face videos, splits: %s", out / "prepared")
    prepare("dfdc", out / "raw", out / "prepared", **FACES)
    log.info("3/3 four families on the same clips: %s", out / "runs")
    return launch(
        "frame_vs_sequence",
        out / "runs",
        overrides=["DATA.PATH", str(out / "prepared"), *(QUICK if small else [])],
    )
