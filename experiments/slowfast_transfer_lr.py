"""Declares the question of the transfer baseline's learning rate, for SlowFast R50 and, on a processor, for the small SlowFast."""

from dfdc_video.experiment import Experiment
from dfdc_video.registry import EXPERIMENTS

ARMS = {"rate_as_it_is": {"OPTIM": {"LR_SCALE": 1.0}}, "rate_tenth": {"OPTIM": {"LR_SCALE": 0.1}}}


@EXPERIMENTS.register
def slowfast_transfer_lr() -> Experiment:
    """Does fine-tuning a Kinetics SlowFast R50 want the recipe's learning rate divided by ten, warm-up scaled along?"""
    return Experiment(base="slowfast_r50_8x8_transfer", arms=ARMS, baseline="rate_as_it_is")


@EXPERIMENTS.register
def slowfast_transfer_lr_small() -> Experiment:
    """The same question with the small SlowFast on a processor; give its pretrained checkpoint as MODEL.INIT_FROM."""
    return Experiment(base="slowfast_small", arms=ARMS, baseline="rate_as_it_is")
