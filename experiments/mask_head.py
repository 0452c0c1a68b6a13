"""Altered pixels as a second training target; findings are in mask_head.md."""

from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.experiment import Experiment


@EXPERIMENTS.register
def mask_head(*, base: str = "frame_small", weight: float = 1.0) -> Experiment:
    """Does a model classify better if it also learns which pixels were altered?"""
    return Experiment(
        base=base,
        arms={"label": {}, "label_and_mask": {"MASK": {"WEIGHT": weight}}},
        seeds=(0, 1, 2),
        baseline="label",
    )
