"""Declares whether the altered pixels are worth learning beside the label; what was found is in mask_head.md."""

from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.experiment import Experiment


@EXPERIMENTS.register
def mask_head(*, base: str = "frame_small", weight: float = 1.0) -> Experiment:
    """Does a model that also learns which pixels were altered tell better whether any were?"""
    return Experiment(
        base=base,
        arms={"label": {}, "label_and_mask": {"MASK": {"WEIGHT": weight}}},
        seeds=(0, 1, 2),
        baseline="label",
    )
