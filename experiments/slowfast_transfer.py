"""Pretraining and learning rates of SlowFast; findings are in slowfast_transfer.md."""

from dfdc_video.registry import EXPERIMENTS
from dfdc_video.runs.experiment import Experiment

SCALES = {"x1": 1.0, "div10": 0.1, "div100": 0.01}


def _scratch_and_pretrained(base: str, weights: str) -> Experiment:
    """Random and given starting weights at three rates each; OPTIM.LR_SCALE scales base rate, warm-up start
    and end together.
    """
    starts = {"scratch": "", "pretrained": weights}
    return Experiment(
        base=base,
        arms={
            f"{start}_{name}": {"MODEL": {"INIT_FROM": path}, "OPTIM": {"LR_SCALE": scale}}
            for start, path in starts.items()
            for name, scale in SCALES.items()
        },
        seeds=(0, 1, 2),
        baseline="scratch_x1",
    )


@EXPERIMENTS.register
def slowfast_transfer(*, weights: str = "weights/SLOWFAST_8x8_R50.pyth") -> Experiment:
    """SlowFast R50 from Kinetics or random weights, at the recipe's rate, a tenth or a hundredth of it?"""
    return _scratch_and_pretrained("slowfast_r50_8x8", weights)


@EXPERIMENTS.register
def slowfast_transfer_small(*, weights: str = "weights/slowfast_small_motions.ckpt") -> Experiment:
    """The same question for a CPU: the small SlowFast, from weights trained on synthetic motions."""
    return _scratch_and_pretrained("slowfast_small", weights)
