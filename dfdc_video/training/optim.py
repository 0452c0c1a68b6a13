"""Optimisers, and learning-rate schedules as pure functions of the step.

A transfer run divides the base rate by ten. Dividing only the base leaves the warm-up *above* it, so `LR_SCALE` scales base, warm-up start
and end together, and a warm-up that starts above its base or fills the whole run is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from dfdc_video.registry import OPTIMIZERS, SCHEDULES
from dfdc_video.training.freezing import find_stages


def stage_factors(stages: Mapping[str, list[str]], *, layer_decay: float = 1.0, lr_factors: str = "") -> dict[str, float]:
    """Multiple of the base rate of every stage (discriminative rates, Howard and Ruder 2018).

    The head has 1, every stage before it `layer_decay` times the factor of the one behind it; `lr_factors` ("stem:0.1,head:10", "blocks:0.5" for
    all blocks) replaces those that it names. ValueError for a stage that the model does not have, one named twice, and factors of 0 or less.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"OPTIM.LAYER_DECAY = {layer_decay}: expected above 0 and at most 1 (off)")
    factors = {stage: layer_decay**i for i, stage in enumerate(reversed(list(stages)))}
    named: set[str] = set()
    for entry in filter(None, (part.strip() for part in lr_factors.split(","))):
        name, _, text = entry.partition(":")
        try:
            factor = float(text)
        except ValueError:
            raise ValueError(f"OPTIM.LR_FACTORS: '{entry}': expected stage:factor, for example stem:0.1,head:10") from None
        if not 0 < factor < math.inf:
            raise ValueError(f"OPTIM.LR_FACTORS: '{entry}': expected a factor above 0; to keep a stage as it is set FREEZE.NAME frozen")
        for stage in find_stages(stages, name.strip(), setting="OPTIM.LR_FACTORS"):
            if stage in named:
                raise ValueError(f"OPTIM.LR_FACTORS: stage '{stage}' is named twice in '{lr_factors}'; name it once")
            named.add(stage)
            factors[stage] = factor
    return {stage: factors[stage] for stage in stages}


def _groups(model: torch.nn.Module, weight_decay: float, factors: Mapping[str, float] | None, no_decay_norm: bool) -> list[dict]:
    """Trainable parameters by rate factor and weight decay; biases and normalisation (one-dimensional tensors) do not decay."""
    groups: dict[tuple[float, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = ((factors or {}).get(name, 1.0), parameter.ndim > 1 or not no_decay_norm)
            groups.setdefault(key, []).append(parameter)
    ordered = sorted(groups, key=lambda key: (not key[1], key[0]))
    return [{"params": groups[factor, decays], "weight_decay": weight_decay if decays else 0.0, "lr_factor": factor} for factor, decays in ordered]


@OPTIMIZERS.register(name="sgd")
def sgd(
    model: torch.nn.Module,
    lr: float,
    factors: Mapping[str, float] | None = None,
    no_decay_norm: bool = True,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """SGD with momentum: the SlowFast and NTech recipes. `factors`: parameter name -> multiple of the rate, 1 where it is not named."""
    return torch.optim.SGD(_groups(model, weight_decay, factors, no_decay_norm), lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)


@OPTIMIZERS.register(name="adamw")
def adamw(
    model: torch.nn.Module,
    lr: float,
    factors: Mapping[str, float] | None = None,
    no_decay_norm: bool = True,
    *,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019): little tuning for small models trained from scratch. `factors` as for `sgd`."""
    return torch.optim.AdamW(_groups(model, weight_decay, factors, no_decay_norm), lr=lr, betas=(betas[0], betas[1]))


@SCHEDULES.register(name="cosine")
def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@SCHEDULES.register(name="linear")
def linear(progress: float) -> float:
    """A straight line from 1 to 0."""
    return 1 - progress


@SCHEDULES.register(name="constant")
def constant(progress: float) -> float:
    """The base rate throughout."""
    return 1.0


@dataclass(frozen=True)
class Rates:
    """Learning rate at every step: a linear warm-up from `warmup_start_lr` to `lr`, then `shape` down to `end_lr`."""

    shape: Callable[[float], float]
    lr: float
    end_lr: float
    warmup_start_lr: float
    warmup_steps: int
    total_steps: int

    @classmethod
    def build(
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
    ) -> Rates:
        """Rates as configured, all multiplied by `lr_scale`; ValueError where the warm-up contradicts the run."""
        if warmup_start_lr > lr:
            raise ValueError(
                f"the warm-up starts at {warmup_start_lr:g}, above the base rate {lr:g}: a divided base rate needs its warm-up divided "
                "too; leave OPTIM.LR as it is and set OPTIM.LR_SCALE, which scales both, or lower OPTIM.WARMUP_START_LR"
            )
        if warmup_epochs < 0 or (warmup_epochs and warmup_epochs >= epochs):
            raise ValueError(f"a warm-up of {warmup_epochs:g} epochs in a run of {epochs}: expected 0 or more and less than the run")
        warmup, total = round(warmup_epochs * steps_per_epoch), epochs * steps_per_epoch
        return cls(SCHEDULES.get(schedule), lr * lr_scale, end_lr * lr_scale, warmup_start_lr * lr_scale, warmup, total)

    def __call__(self, step: int) -> float:
        """The rate of `step` (0-based); the last step is one step short of the end of the curve."""
        if step < self.warmup_steps:
            return self.warmup_start_lr + (self.lr - self.warmup_start_lr) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.end_lr + (self.lr - self.end_lr) * self.shape(min(1.0, progress))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)


def base_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate that `set_rate` was given."""
    group = optimizer.param_groups[0]
    return group["lr"] / group.get("lr_factor", 1.0)


def rates_of(optimizers: Iterable[torch.optim.Optimizer]) -> list[float]:
    return [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
