"""What a config may hold: sections, keys with their defaults, types and ranges.

Sections: SEED DATA CLIP AUGMENT SAMPLER MODEL LOSS OPTIM FREEZE MASK TRAIN TEST WANDB. A section with NAME is
a registered component; its other keys are the component's keyword-only parameters, so that each default is
written once, in the signature. Sections without NAME have their defaults here.
"""

from __future__ import annotations

import inspect
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from yacs.config import CfgNode

from dfdc_video.registry import (
    AUGMENTATIONS,
    FREEZING,
    LOSSES,
    MODELS,
    OPTIMIZERS,
    POOLINGS,
    SAMPLERS,
    SCHEDULES,
    Registry,
    nearest,
    settings_of,
)

Tree = dict[str, Any]

# sections without a component: their keys and defaults
PLAIN: dict[str, Tree] = {
    "DATA": {
        "PATH": "",  # the `--out` folder of `dfdc-video prepare`
        "DECODER": "decord",  # of face videos: decord, opencv or pyav
        "NUM_WORKERS": 2,  # processes that load clips; 0: the main process
        "CACHE": False,  # decode every face video once, at clip size, into memory
        # for a frozen backbone: compute the embedding of every frame once, and train on the cached features
        "EMBEDDINGS": False,
        "MAX_BAD_FRACTION": 0.01,  # stop when more clips than this cannot be read
    },
    "CLIP": {
        "NUM_FRAMES": 16,  # frames per clip
        "STRIDE_SECONDS": 1 / 15,  # time between frames, by the video's timestamps
        "STRIDE_FRAMES": 0,  # in source frames instead, where above 0
        "HEIGHT": 224,  # pixels
        "WIDTH": 224,  # pixels
        "SHORT": "repeat_last",  # a track shorter than the clip: repeat_last, loop or drop; always counted
    },
    "MASK": {  # also predict which pixels were altered (needs `prepare --masks`)
        "WEIGHT": 0.0,  # of the mask loss, which is added to the classification loss; 0 = no mask head
        "STAGE": -2,  # stage of the network that the mask head reads: 0 the first, -1 the last
        "THRESHOLD": 5.0,  # grey levels from which on a pixel counts as altered
    },
    "TRAIN": {
        "EPOCHS": 10,  # passes over the training split
        "BATCH_SIZE": 8,  # clips per training step
        "PRECISION": "auto",  # bf16-mixed where the CPU or GPU has it in hardware, else 32-true
        "GRAD_CLIP": 0.0,  # gradients are clipped to this norm; 0 = off
        "CHECKPOINT_EVERY_STEPS": 200,  # step.ckpt, besides last.ckpt at the end of every epoch
    },
    "TEST": {
        "NUM_CLIPS": 4,  # evenly spaced per track, the same on every run
        "BATCH_SIZE": 8,  # clips per batch in validation and test
        "POOLING": "mean",  # rule from clip scores to a video score
        "NUM_BOOTSTRAP": 1000,  # resamples of whole groups, for the intervals
    },
    "WANDB": {
        "MODE": "offline",  # online, offline or disabled
        "PROJECT": "dfdc-video",  # project at Weights & Biases
        "NAME": "",  # of the run there; empty: that of the run folder
        "GROUP": "",  # runs there with one group are shown together; experiments set it
    },
}
COMPONENTS: dict[str, tuple[Registry, str]] = {
    "AUGMENT": (AUGMENTATIONS, "basic"),
    "SAMPLER": (SAMPLERS, "shuffle"),
    "MODEL": (MODELS, ""),
    "LOSS": (LOSSES, "cross_entropy"),
    "OPTIM": (OPTIMIZERS, "adamw"),
    "FREEZE": (FREEZING, "none"),
}
# keys that every component of a section has
SHARED: dict[str, Tree] = {
    "MODEL": {
        "INIT_FROM": "",  # starting weights: a file, https://…#sha256=HEX or timm:NAME; empty: none
        "KEEP_HEAD": False,  # load the head of these weights, too, instead of initialising a new one
    },
    "OPTIM": {
        "LR": 1e-3,  # base learning rate
        "LR_SCALE": 1.0,  # factor on LR, END_LR and WARMUP_START_LR together
        "SCHEDULE": "cosine",  # learning rate after the warm-up
        "END_LR": 0.0,  # learning rate at the end of the run
        "WARMUP_EPOCHS": 0.0,  # epochs of linear warm-up; fractions are allowed
        "WARMUP_START_LR": 0.0,  # learning rate at the start of the warm-up
        "LAYER_DECAY": 1.0,  # learning rate of a stage = this times the rate of the next one towards the head
        "LR_FACTORS": "",  # "stem:0.1,head:10": rates of stages as multiples of LR; override LAYER_DECAY
        "NO_DECAY_NORM": True,  # no weight decay on biases and normalisation layers
    },
    "FREEZE": {"FREEZE_BN": False},  # BatchNorm uses its running statistics for the whole run
}
SECTIONS = ("SEED", *PLAIN, *COMPONENTS)
CHOICES = {
    "CLIP.SHORT": ("repeat_last", "loop", "drop"),
    "WANDB.MODE": ("online", "offline", "disabled"),
    "TRAIN.PRECISION": ("auto", "32-true", "bf16-mixed", "16-mixed"),
}
AT_LEAST_ONE = (
    "CLIP.NUM_FRAMES",
    "CLIP.HEIGHT",
    "CLIP.WIDTH",
    "TRAIN.EPOCHS",
    "TRAIN.BATCH_SIZE",
    "TEST.NUM_CLIPS",
    "TEST.BATCH_SIZE",
)


def check_arguments(function: Callable[..., Any], given: Tree) -> Tree:
    """`given` as keyword arguments of a function: known names, and values of the annotated types (lists
    become tuples). ValueError otherwise.
    """
    allowed = {k: (p.default, t) for k, (p, t) in _settings(function).items()}
    filled = _fill(function.__name__, given, allowed, owner="")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in filled.items() if k in given}


def complete(tree: Tree) -> CfgNode:
    """Fill every default, check names, types and ranges; the result is frozen."""
    for section in tree:
        if section not in SECTIONS:
            raise ValueError(f"unknown section '{section}'; {nearest(section, SECTIONS)}")
    full: Tree = {"SEED": typed("SEED", tree.get("SEED", 0), int)}
    for section, (registry, default_name) in COMPONENTS.items():
        given = _section(tree, section)
        name = given.pop("NAME", default_name)
        if not name:
            raise ValueError(f"{section}.NAME is missing; known: {', '.join(registry.names())}")
        component = registry.get(typed(f"{section}.NAME", name, str))
        allowed = {k.upper(): (p.default, t) for k, (p, t) in _settings(component).items()}
        shared = {k: (v, type(v)) for k, v in SHARED.get(section, {}).items()}
        full[section] = {"NAME": name, **_fill(section, given, {**shared, **allowed}, owner=name)}
    for section, defaults in PLAIN.items():
        full[section] = _fill(
            section, _section(tree, section), {k: (v, type(v)) for k, v in defaults.items()}, owner=""
        )
    _check_values(full)
    cfg = CfgNode(full)
    cfg.freeze()
    return cfg


def _section(tree: Tree, section: str) -> Tree:
    given = tree.get(section) or {}
    if not isinstance(given, dict):
        raise ValueError(
            f"{section} = {shown(given)}: expected a section of keys, for example {section}: {{NAME: …}}"
        )
    return dict(given)


def _settings(component: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    hints = typing.get_type_hints(component.__init__ if inspect.isclass(component) else component)
    return {name: (p, hints.get(name, Any)) for name, p in settings_of(component).items()}


def _fill(section: str, given: Tree, allowed: dict[str, tuple[Any, Any]], *, owner: str) -> Tree:
    for key in given:
        if key not in allowed:
            of = f" of {owner}" if owner else ""
            raise ValueError(f"unknown key {section}.{key}{of}; {nearest(key, allowed)}")
    result = {}
    for key, (default, kind) in allowed.items():
        if key not in given and default is inspect.Parameter.empty:
            raise ValueError(f"{section}.{key} is missing: {owner or section} needs it")
        # a tuple is a list here, as it is after a round trip through YAML: the hash of a config must not tell
        # them apart
        result[key] = (
            typed(f"{section}.{key}", given[key], kind)
            if key in given
            else list(default)
            if isinstance(default, tuple)
            else default
        )
    return result


def shown(value: Any) -> str:
    """A value in an error message, shortened: the aliases of a small YAML file can stand for gigabytes."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 200
    short.maxlevel = 3
    return short.repr(value)[:400]


def typed(key: str, value: Any, kind: Any) -> Any:
    """The value as the annotated type, or a ValueError. An int is accepted as float, and so is '1e-3', which
    YAML reads as text.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return typed(key, value, option)
            except ValueError:
                continue
    elif kind is type(None) and value is None:
        return None
    elif origin in (tuple, list) and isinstance(value, list | tuple):
        fixed = origin is tuple and Ellipsis not in args
        if not fixed or len(value) == len(args):
            return [typed(f"{key}[{i}]", v, args[i] if fixed else args[0]) for i, v in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        return value
    elif kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    elif kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif (
        kind in (int, bool, str, dict)
        and isinstance(value, kind)
        and not (kind is int and isinstance(value, bool))
    ):
        return value
    raise ValueError(
        f"{key} = {shown(value)} ({type(value).__name__}): expected "
        f"{getattr(kind, '__name__', None) or str(kind).replace('typing.', '')}"
    )


def _check_values(full: Tree) -> None:
    """ValueError for a value outside of its range, or values that exclude each other."""

    def at(key: str) -> Any:
        section, name = key.split(".")
        return full[section][name]

    for key, allowed in CHOICES.items():
        if at(key) not in allowed:
            raise ValueError(
                f"{key} = {at(key)!r}; {nearest(at(key), allowed, count=1)} (allowed: {', '.join(allowed)})"
            )
    for key in AT_LEAST_ONE:
        if at(key) < 1:
            raise ValueError(f"{key} = {at(key)}: expected 1 or more")
    for key in ("OPTIM.LR", "OPTIM.LR_SCALE"):
        if not at(key) > 0:
            raise ValueError(f"{key} = {at(key)}: expected a rate above 0")
    if at("DATA.NUM_WORKERS") < 0:
        raise ValueError(
            f"DATA.NUM_WORKERS = {at('DATA.NUM_WORKERS')}: expected 0 (in the main process) or more"
        )
    _check_combinations(full["CLIP"], full["MASK"])
    if at("DATA.EMBEDDINGS") and at("AUGMENT.NAME") != "none":
        raise ValueError(
            f"DATA.EMBEDDINGS with AUGMENT.NAME {at('AUGMENT.NAME')}: embeddings are computed once, of "
            "frames without augmentation; set AUGMENT.NAME none, or DATA.EMBEDDINGS false"
        )
    SCHEDULES.get(at("OPTIM.SCHEDULE"))
    POOLINGS.get(at("TEST.POOLING"))


def _check_combinations(clip: Tree, mask: Tree) -> None:
    """The step between frames in one of its two units, and the mask head's weight and threshold."""
    if clip["STRIDE_FRAMES"] < 0 or (clip["STRIDE_FRAMES"] == 0 and clip["STRIDE_SECONDS"] <= 0):
        raise ValueError(
            "CLIP: expected STRIDE_FRAMES of 1 or more, or STRIDE_FRAMES 0 and STRIDE_SECONDS above 0"
        )
    if mask["WEIGHT"] < 0 or not 0 < mask["THRESHOLD"] <= 255:
        raise ValueError(
            f"MASK.WEIGHT = {mask['WEIGHT']}, MASK.THRESHOLD = {mask['THRESHOLD']}: expected a weight of 0 "
            "(no mask head) or more, and a threshold above 0 and up to 255"
        )


def keywords(section: CfgNode, shared: Sequence[str] = ()) -> Tree:
    """A component section as keyword arguments: lower-case, without NAME and without the shared keys."""
    return {k.lower(): v for k, v in section.items() if k != "NAME" and k not in shared}
