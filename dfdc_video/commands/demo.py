"""The whole way in one call, as a user would walk it: make videos, prepare them, train the four families,
compare.
"""

from __future__ import annotations

import logging
from pathlib import Path

from dfdc_video.evaluation.compare import Comparison
from dfdc_video.preparation.prepare import prepare
from dfdc_video.runs.experiment import launch
from dfdc_video.synthetic.deepfakes import generate

log = logging.getLogger(__name__)
# Sizes that two cores finish in a quarter of an hour; the strength of the planted signal is part of the data
# set's settings and of its card.
VIDEOS = {"num_identities": 220, "seconds": 2.4, "height": 192, "width": 256, "spatial_strength": 1.8}
SMALL = {**VIDEOS, "num_identities": 12, "seconds": 2.0}
FACES = {"size": 96, "every": 6, "ratios": (0.6, 0.15, 0.25)}
QUICK = ["TRAIN.EPOCHS", "1", "OPTIM.WARMUP_EPOCHS", "0", "TEST.NUM_BOOTSTRAP", "200"]


def demo(out: Path, *, small: bool = False) -> Comparison:
    """Make OUT/raw, OUT/prepared and OUT/runs; calling it again continues. `small` checks the way, its
    numbers mean nothing.
    """
    log.info("1/3 synthetic videos in DFDC's layout: %s", out / "raw")
    generate(out / "raw", **(SMALL if small else VIDEOS))
    log.info("2/3 faces, tracks, face videos, splits: %s", out / "prepared")
    prepare("dfdc", out / "raw", out / "prepared", **FACES)  # type: ignore[arg-type]
    log.info("3/3 four families on the same clips: %s", out / "runs")
    return launch(
        "frame_vs_sequence",
        out / "runs",
        overrides=["DATA.PATH", str(out / "prepared"), *(QUICK if small else [])],
    )
