"""Optimisers with parameter groups: learning-rate factors per stage, weight decay on weights only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from dfdc_video.registry import OPTIMIZERS
from dfdc_video.training.freezing import find_stages


def stage_factors(
    stages: Mapping[str, list[str]], *, layer_decay: float = 1.0, lr_factors: str = ""
) -> dict[str, float]:
    """Stage -> multiple of the base learning rate (discriminative learning rates, Howard and Ruder 2018).

    The head has factor 1, and each earlier stage `layer_decay` times the factor of the next; `lr_factors`
    ("stem:0.1,head:10", "blocks:0.5" for all blocks) overrides the stages that it names. ValueError for a
    stage that the model does not have, a stage named twice, and factors of 0 or less.
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
            raise ValueError(
                f"OPTIM.LR_FACTORS: '{entry}': expected stage:factor, for example stem:0.1,head:10"
            ) from None
        if not 0 < factor < math.inf:
            raise ValueError(
                f"OPTIM.LR_FACTORS: '{entry}': expected a factor above 0; to keep a stage as it is set "
                "FREEZE.NAME frozen"
            )
        for stage in find_stages(stages, name.strip(), setting="OPTIM.LR_FACTORS"):
            if stage in named:
                raise ValueError(
                    f"OPTIM.LR_FACTORS: stage '{stage}' is named twice in '{lr_factors}'; name it once"
                )
            named.add(stage)
            factors[stage] = factor
    return {stage: factors[stage] for stage in stages}


def _groups(
    model: torch.nn.Module, weight_decay: float, factors: Mapping[str, float] | None, no_decay_norm: bool
) -> list[dict]:
    """Trainable parameters grouped by learning-rate factor and weight decay; with `no_decay_norm` biases and
    normalisation parameters (one-dimensional tensors) have no weight decay.
    """
    groups: dict[tuple[float, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = ((factors or {}).get(name, 1.0), parameter.ndim > 1 or not no_decay_norm)
            groups.setdefault(key, []).append(parameter)
    ordered = sorted(groups, key=lambda key: (not key[1], key[0]))
    return [
        {
            "params": groups[factor, decays],
            "weight_decay": weight_decay if decays else 0.0,
            "lr_factor": factor,
        }
        for factor, decays in ordered
    ]


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
    """SGD with momentum, as in the SlowFast and NTech recipes.

    `factors`: parameter name -> multiple of the learning rate; parameters not named have factor 1.
    """
    return torch.optim.SGD(
        _groups(model, weight_decay, factors, no_decay_norm),
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
    )


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
    """AdamW (Loshchilov and Hutter 2019): needs little tuning for small models trained from scratch.

    `factors` as in `sgd`.
    """
    return torch.optim.AdamW(
        _groups(model, weight_decay, factors, no_decay_norm), lr=lr, betas=(betas[0], betas[1])
    )
