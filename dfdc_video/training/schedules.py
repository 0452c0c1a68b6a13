"""Learning-rate schedules as pure functions of the step.

A transfer run typically divides the learning rate by ten. Dividing only the base rate would leave the start
of the warm-up *above* it, so `LR_SCALE` scales base, warm-up start and end together; a warm-up that starts
above the base rate or fills the whole run is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dfdc_video.registry import SCHEDULES


@SCHEDULES.register(name="cosine")
def cosine(progress: float) -> float:
    """Half-cosine decay from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULES.register(name="linear")
def linear(progress: float) -> float:
    """Linear decay from 1 to 0."""
    return 1 - progress


@SCHEDULES.register(name="constant")
def constant(progress: float) -> float:
    """No decay: the base learning rate throughout."""
    return 1.0


@dataclass(frozen=True)
class LRSchedule:
    """Learning rate by step: linear warm-up from `warmup_start_lr` to `lr`, then `shape` to `end_lr`."""

    shape: Callable[[float], float]
    lr: float
    end_lr: float
    warmup_start_lr: float
    warmup_steps: int
    total_steps: int

    @classmethod
    def from_epochs(
        cls,
        *,
        schedule: str,
        lr: float,
        lr_scale: float,
        end_lr: float,
        warmup_start_lr: float,
        warmup_epochs: float,
        epochs: int,
        steps_per_epoch: int,
    ) -> LRSchedule:
        """The schedule of a run given in epochs, with all rates multiplied by `lr_scale`.

        ValueError if the warm-up contradicts the run.
        """
        if warmup_start_lr > lr:
            raise ValueError(
                f"the warm-up starts at {warmup_start_lr:g}, above the base rate {lr:g}: a divided base "
                "rate needs its warm-up divided "
                "too; leave OPTIM.LR as it is and set OPTIM.LR_SCALE, which scales both, or lower "
                "OPTIM.WARMUP_START_LR"
            )
        if warmup_epochs < 0 or (warmup_epochs and warmup_epochs >= epochs):
            raise ValueError(
                f"a warm-up of {warmup_epochs:g} epochs in a run of {epochs}: expected 0 or more and less "
                "than the run"
            )
        warmup, total = round(warmup_epochs * steps_per_epoch), epochs * steps_per_epoch
        return cls(
            SCHEDULES.get(schedule),
            lr * lr_scale,
            end_lr * lr_scale,
            warmup_start_lr * lr_scale,
            warmup,
            total,
        )

    def __call__(self, step: int) -> float:
        """The learning rate at `step` (0-based); the last step is one short of the end of the curve."""
        if step < self.warmup_steps:
            return self.warmup_start_lr + (self.lr - self.warmup_start_lr) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.end_lr + (self.lr - self.end_lr) * self.shape(min(1.0, progress))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the base learning rate; each parameter group gets its multiple (`lr_factor`)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)


def base_rate(optimizer: torch.optim.Optimizer) -> float:
    """The base learning rate last given to `set_rate`."""
    group = optimizer.param_groups[0]
    return group["lr"] / group.get("lr_factor", 1.0)
