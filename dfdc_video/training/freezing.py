"""Which parameters train when: freezing policies of transfer runs, as functions of the step alone.

A policy is a list of phases and a function from the global step to the number of the phase. It keeps no
state, so a resumed run continues in the phase in which it was stopped. A frozen parameter gets no gradient,
so the optimiser skips it: no weight decay, no momentum.
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
    """Names of the parameters that train in it; `title` is its line in the table: when, and what trains."""

    title: str
    trains: frozenset[str]


@dataclass(frozen=True)
class Policy:
    """`phases`, and `at`: global step -> number of its phase."""

    phases: tuple[Phase, ...]
    at: Callable[[int], int]


@dataclass(frozen=True)
class Layout:
    """All that a policy may depend on: the parameter names of a network by kind, and the steps of its run."""

    stages: Mapping[str, list[str]]  # first to last, `head` among them
    new: frozenset[str]  # parts that no 2D checkpoint contains
    norms: frozenset[str]  # scales and shifts of normalisation layers
    spatial: frozenset[str]  # kernels (1, k, k) or (k, k), with their biases
    temporal: frozenset[str]  # kernels (k, 1, 1)
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, model: Any, *, steps_per_epoch: int, total_steps: int) -> Layout:
        """The layout of a `VideoClassifier` (it needs `parameters_by_stage()` and `new_names`)."""
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
    """`spatial` for (1, k, k) and (k, k), `temporal` for (k, 1, 1); "" for (k, k, k), which is both, and for
    (1, 1, 1), which is neither.
    """
    time, space = (1, *kernel)[-3], kernel[-2:]
    wide = max(space) > 1
    return "" if (time > 1) == wide else "spatial" if wide else "temporal"


def _within(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def find_stages(stages: Mapping[str, list[str]], name: str, *, setting: str) -> list[str]:
    """The stage of that name, or all stages with that prefix (`blocks` for blocks.0, blocks.1, …).

    ValueError with the nearest name if there is none; `setting` is the config key that it names.
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
    """No freezing: all parameters train from the first step."""
    return _once(layout, layout.every, "the whole run: all")


@FREEZING.register(name="head_first")
def head_first(layout: Layout, *, steps: int = 100) -> Policy:
    """Head and new parts alone for `steps` steps, then all parameters (NTech: 100 steps).

    New parts are those that no 2D checkpoint contains, a recurrent network for example. A randomly
    initialised head would send large, uninformative gradients into a pretrained backbone.
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
    """Gradual unfreezing: the head first, then stage by stage towards the input (Howard and Ruder 2018).

    One more stage is unfrozen every `every` steps, or at each of the `epochs` (0-based, fractions allowed),
    the last of which unfreezes all that remain. Exactly one of the two must be given.
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
    """Only normalisation layers (scales, shifts), head and new parts train (Frankle et al. 2021)."""
    if not layout.norms - layout.head - layout.new:
        raise ValueError(
            "FREEZE.NAME norm_only: this model has no normalisation with weights outside its head; choose "
            "head_first or frozen"
        )
    return _once(layout, layout.norms | layout.head | layout.new, "the whole run: normalisations and head")


@FREEZING.register(name="frozen")
def frozen(layout: Layout, *, names: str = "") -> Policy:
    """Named parts are frozen for the whole run.

    `names`: stages ("stem,layer1"; "blocks" for all blocks) or prefixes of parameter names.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ValueError(
            f"FREEZE.NAMES = {names!r}: expected what stays frozen; stages of this model: "
            f"{', '.join(layout.stages)}"
        )
    still: set[str] = set()
    for name in wanted:
        # prefixes of full names: network.backbone.layer1, network.backbone.layer1.0.conv1.weight
        found = {parameter for parameter in layout.every if _within(parameter, (name,))}
        still |= found or {
            p
            for stage in find_stages(layout.stages, name, setting="FREEZE.NAMES")
            for p in layout.stages[stage]
        }
    return _once(layout, layout.every - still, f"the whole run: all but {', '.join(wanted)}")


@FREEZING.register(name="alternate")
def alternate(layout: Layout, *, spatial_steps: int = 20, temporal_steps: int = 20) -> Policy:
    """AltFreezing: spatial and temporal kernels train in alternation (Wang et al., CVPR 2023).

    So the network cannot rely on one kind of cue only. The (k, 1, 1) kernels are frozen for `spatial_steps`,
    then the (1, k, k) kernels for `temporal_steps`, and so on. Everything else (head, normalisation,
    1 x 1 x 1 and k x k x k kernels) always trains. 2D kernels of a network that folds frames into the batch
    count as spatial.
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
