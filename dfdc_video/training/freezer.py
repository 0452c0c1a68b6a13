"""Applies a freezing policy to a model; the table of what trains when."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dfdc_video.training.freezing import Phase, Policy


class Freezer:
    """Puts a model into the phase of a step: frozen parameters get no gradients, and BatchNorms without a
    trainable parameter use their running statistics.

    With `freeze_bn` all BatchNorms use their running statistics throughout; their scales and shifts still
    follow the policy. ValueError for a policy with a phase in which nothing trains.
    """

    def __init__(self, model: nn.Module, policy: Policy, *, freeze_bn: bool = False) -> None:
        self.model, self.freeze_bn = model, freeze_bn
        # what the network itself keeps frozen stays frozen
        free = {name for name, p in model.named_parameters() if p.requires_grad}
        self.policy = Policy(
            tuple(Phase(phase.title, phase.trains & free) for phase in policy.phases), policy.at
        )
        for phase in self.policy.phases:
            if not phase.trains:
                raise ValueError(f"FREEZE: nothing would train ({phase.title}); freeze less")
        self.phase = -1  # none yet
        self.norms = [
            (m, _owner(model, name))
            for name, m in model.named_modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]

    def apply(self, step: int) -> None:
        """To be called before the forward pass of `step`. BatchNorm modes are set on every call, because
        `train()`, for example after validation, resets them.
        """
        if (phase := self.policy.at(step)) != self.phase:
            self.phase, trains = phase, self.policy.phases[phase].trains
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in trains)
                if name not in trains:
                    parameter.grad = None
        for norm, parameters in self.norms:
            norm.train(not self.freeze_bn and any(p.requires_grad for p in parameters))


def _owner(model: nn.Module, name: str) -> list[nn.Parameter]:
    """Parameters of a module, or of the nearest enclosing module that has any: a BatchNorm without scale and
    shift follows its block.
    """
    while name and not (parameters := list(model.get_submodule(name).parameters())):
        name = name.rpartition(".")[0]
    return parameters if name else list(model.parameters())


def parameter_table(
    stages: Mapping[str, list[str]], sizes: Mapping[str, int], policy: Policy, factors: Mapping[str, float]
) -> str:
    """A text table with one row per stage: number of parameters, how many train at the start, learning-rate
    factor, and the phases in which the stage trains; below it the phases.

    `sizes`: parameter -> number of elements; `factors`: stage -> multiple of the base learning rate.
    "2 (part)" means that only some of the stage's parameters train in phase 2.
    """
    rows = [("stage", "parameters", "train at start", "rate", "trains in phases")]
    for stage, names in stages.items():
        shares = [sum(sizes[n] for n in names if n in phase.trains) for phase in policy.phases]
        total = sum(sizes[n] for n in names)
        whole = all(share == total for share in shares)
        parts = [
            f"{i}{'' if share == total else ' (part)'}" for i, share in enumerate(shares, start=1) if share
        ]
        when = "all" if whole else ", ".join(parts) or "never"
        rows.append((stage, f"{total:,}", f"{shares[0]:,}", f"x {factors.get(stage, 1.0):.4g}", when))
    start = sum(sizes[n] for names in stages.values() for n in names if n in policy.phases[0].trains)
    rows.append(
        ("sum", f"{sum(sizes[n] for names in stages.values() for n in names):,}", f"{start:,}", "", "")
    )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        (
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  "
            f"{row[4]}"
        ).rstrip()
        for row in rows
    ]
    return "\n".join(
        [*lines, *(f"phase {i}: {phase.title}" for i, phase in enumerate(policy.phases, start=1))]
    )
