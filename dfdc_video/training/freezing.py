"""Which parameters train when: freezing policies of transfer runs, as functions of the step alone.

A policy is a list of phases and the number of the phase at every step. Nothing is remembered from step to
step, so that a resumed run is in the phase that it was stopped in. A frozen parameter gets no gradient, which
makes the optimiser pass it over: no weight decay, no momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dfdc_video.registry import FREEZING, nearest

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Phase:
    """Names of the parameters that train in it; `title` says when it is and what that is."""

    title: str
    trains: frozenset[str]


@dataclass(frozen=True)
class Policy:
    """`phases`, and `at`: global step -> number of its phase."""

    phases: tuple[Phase, ...]
    at: Callable[[int], int]


@dataclass(frozen=True)
class Layout:
    """What a policy may ask about a network and its run: parameter names, and steps."""

    stages: Mapping[str, list[str]]  # first to last, `head` among them
    new: frozenset[str]  # parts that a 2D checkpoint cannot have
    norms: frozenset[str]  # scales and shifts of normalisations
    spatial: frozenset[str]  # kernels (1, k, k) or (k, k), with their biases
    temporal: frozenset[str]  # kernels (k, 1, 1)
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, model: Any, *, steps_per_epoch: int, total_steps: int) -> Layout:
        """Of a model that has `parameters_by_stage()` and `new_names`, see `VideoClassifier`."""
        norms: set[str] = set()
        kernels: dict[str, set[str]] = {"spatial": set(), "temporal": set()}
        for prefix, module in model.named_modules():
            own = {f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)}
            if isinstance(module, NORMS):
                norms |= own
            elif isinstance(module, nn.Conv2d | nn.Conv3d) and (
                kind := kernel_kind(tuple(module.kernel_size))
            ):
                kernels[kind] |= own
        names = [name for name, _ in model.named_parameters()]
        new = frozenset(n for n in names if _within(n, model.new_names))
        stages = model.parameters_by_stage()
        return cls(
            stages,
            new,
            frozenset(norms),
            frozenset(kernels["spatial"]),
            frozenset(kernels["temporal"]),
            steps_per_epoch,
            total_steps,
        )

    @property
    def every(self) -> frozenset[str]:
        return frozenset(name for names in self.stages.values() for name in names)

    @property
    def head(self) -> frozenset[str]:
        return frozenset(self.stages["head"])


def kernel_kind(kernel: tuple[int, ...]) -> str:
    """`spatial` for (1, k, k) and (k, k), `temporal` for (k, 1, 1); nothing for (k, k, k), which is both, and
    (1, 1, 1), which is neither.
    """
    time, space = (1, *kernel)[-3], kernel[-2:]
    wide = max(space) > 1
    return "" if (time > 1) == wide else "spatial" if wide else "temporal"


def _within(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def find_stages(stages: Mapping[str, list[str]], name: str, *, setting: str) -> list[str]:
    """Stages of that name, or all that it is the prefix of (`blocks` for blocks.0, blocks.1, …); ValueError
    with the nearest for none.
    """
    found = [stage for stage in stages if _within(stage, (name,))]
    if not found:
        raise ValueError(
            f"{setting}: this model has no stage '{name}'; {nearest(name, stages)} (its stages: "
            f"{', '.join(stages)})"
        )
    return found


def _once(layout: Layout, trains: frozenset[str], title: str) -> Policy:
    return Policy((Phase(title, trains),), lambda step: 0)


@FREEZING.register(name="none")
def none(layout: Layout) -> Policy:
    """Nothing is frozen: all parameters train from the first step."""
    return _once(layout, layout.every, "the whole run: all")


@FREEZING.register(name="head_first")
def head_first(layout: Layout, *, steps: int = 100) -> Policy:
    """The head, and parts that no 2D checkpoint has, alone for a number of steps, then all (NTech: 100).

    A head that starts at random sends large, meaningless gradients into a pretrained backbone; by then they
    have calmed down.
    """
    if not 0 < steps < layout.total_steps:
        raise ValueError(
            f"FREEZE.STEPS = {steps} in a run of {layout.total_steps} steps: expected 1 or more, and less "
            "than the run"
        )
    first = Phase(
        f"steps 0 to {steps - 1}: head" + (" and new parts" if layout.new else ""), layout.head | layout.new
    )
    return Policy((first, Phase(f"from step {steps}: all", layout.every)), lambda step: int(step >= steps))


@FREEZING.register(name="gradual")
def gradual(layout: Layout, *, every: int = 0, epochs: tuple[float, ...] = ()) -> Policy:
    """The head first, then stage by stage towards the input: one every so many steps, or at given epochs
    (Howard and Ruder 2018).

    `every` counts steps; `epochs` are the epochs (0-based, fractions allowed) at which one stage more trains,
    at the last of them all that are left. One of the two must be given.
    """
    if bool(every) == bool(epochs):
        raise ValueError(
            f"FREEZE.EVERY = {every}, FREEZE.EPOCHS = {list(epochs)}: set one of them: a number of steps, "
            "or a list of epochs"
        )
    order = [
        stage
        for stage in reversed(list(layout.stages))
        if layout.stages[stage] and not set(layout.stages[stage]) <= layout.head | layout.new
    ]
    starts = (
        [every * (i + 1) for i in range(len(order))]
        if every
        else [round(e * layout.steps_per_epoch) for e in epochs]
    )
    if len(starts) > len(order):
        raise ValueError(
            f"FREEZE.EPOCHS has {len(starts)} epochs, the model has {len(order)} stages to unfreeze: "
            f"{', '.join(order)}"
        )
    if starts != sorted(set(starts)) or not 0 < starts[0] <= starts[-1] < layout.total_steps:
        raise ValueError(
            f"FREEZE: stages would be unfrozen at the steps {', '.join(map(str, starts))} of a run of "
            f"{layout.total_steps} steps "
            f"({layout.steps_per_epoch} an epoch): expected rising steps, the first above 0 and the last "
            "within the run"
        )
    trains = layout.head | layout.new
    phases = [Phase(f"steps 0 to {starts[0] - 1}: head" + (" and new parts" if layout.new else ""), trains)]
    for i, start in enumerate(starts):
        added = order[i : i + 1] if start != starts[-1] else order[i:]
        trains = trains | {name for stage in added for name in layout.stages[stage]}
        phases.append(Phase(f"from step {start}: {', '.join(added)} too", trains))
    return Policy(tuple(phases), lambda step: sum(step >= start for start in starts))


@FREEZING.register(name="norm_only")
def norm_only(layout: Layout) -> Policy:
    """Scales and shifts of the normalisations, and the head with its new parts; all other weights stay
    (Frankle et al. 2021).
    """
    if not layout.norms - layout.head - layout.new:
        raise ValueError(
            "FREEZE.NAME norm_only: this model has no normalisation with weights outside its head; choose "
            "head_first or frozen"
        )
    return _once(layout, layout.norms | layout.head | layout.new, "the whole run: normalisations and head")


@FREEZING.register(name="frozen")
def frozen(layout: Layout, *, names: str = "") -> Policy:
    """Named parts stay as they are for the whole run: stages ("stem,layer1"; "blocks" for all blocks) or
    prefixes of parameter names.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ValueError(
            f"FREEZE.NAMES = {names!r}: expected what stays frozen; stages of this model: "
            f"{', '.join(layout.stages)}"
        )
    still: set[str] = set()
    for name in wanted:
        # Of a parameter's full name: network.backbone.layer1, network.backbone.layer1.0.conv1.weight
        found = {parameter for parameter in layout.every if _within(parameter, (name,))}
        still |= found or {
            p
            for stage in find_stages(layout.stages, name, setting="FREEZE.NAMES")
            for p in layout.stages[stage]
        }
    return _once(layout, layout.every - still, f"the whole run: all but {', '.join(wanted)}")


@FREEZING.register(name="alternate")
def alternate(layout: Layout, *, spatial_steps: int = 20, temporal_steps: int = 20) -> Policy:
    """AltFreezing: spatial and temporal kernels are trained in turn, so that neither cue is learned alone
    (Wang et al., CVPR 2023).

    `spatial_steps` with the (k, 1, 1) kernels frozen, then `temporal_steps` with the (1, k, k) ones, and so
    on. Everything else (head, normalisations, 1 x 1 x 1 and k x k x k kernels) always trains. 2D kernels over
    frames in the batch are spatial.
    """
    if min(spatial_steps, temporal_steps) < 1:
        raise ValueError(
            f"FREEZE.SPATIAL_STEPS = {spatial_steps}, TEMPORAL_STEPS = {temporal_steps}: expected 1 step "
            "or more of each"
        )
    for kind, shape, kernels in (
        ("temporal", "(k, 1, 1)", layout.temporal),
        ("spatial", "(1, k, k)", layout.spatial),
    ):
        if not kernels:
            raise ValueError(
                f"FREEZE.NAME alternate: this model has no {kind} kernel {shape}, so there is nothing to "
                "alternate; choose another policy"
            )
    period = spatial_steps + temporal_steps
    phases = (
        Phase(
            f"{spatial_steps} of every {period} steps: all but temporal kernels",
            layout.every - layout.temporal,
        ),
        Phase(f"the other {temporal_steps}: all but spatial kernels", layout.every - layout.spatial),
    )
    return Policy(phases, lambda step: int(step % period >= spatial_steps))


class Freezer:
    """Puts a model into the phase of a step: gradients off and dropped for what is frozen, its BatchNorms on
    their running statistics.

    `freeze_bn` keeps all BatchNorms on them throughout (their scales and shifts train as the policy says).
    ValueError for a policy with a phase in which nothing trains.
    """

    def __init__(self, model: nn.Module, policy: Policy, *, freeze_bn: bool = False) -> None:
        self.model, self.freeze_bn = model, freeze_bn
        # what the network itself holds fixed stays so
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
        """Before the forward pass of `step`. BatchNorm modes are set each time: validation and `train()` turn
        them on again.
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
    """Parameters of a module, or of the nearest one around it that has any: a BatchNorm without scale and
    shift goes with its block.
    """
    while name and not (parameters := list(model.get_submodule(name).parameters())):
        name = name.rpartition(".")[0]
    return parameters if name else list(model.parameters())


def parameter_table(
    stages: Mapping[str, list[str]], sizes: Mapping[str, int], policy: Policy, factors: Mapping[str, float]
) -> str:
    """What trains when and how fast, per stage, as text: parameters, how many train at the start, rate
    factor, and its phases.

    `sizes`: parameter -> number of elements; `factors`: stage -> multiple of the base rate. "2 (part)": only
    some of the stage does.
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
