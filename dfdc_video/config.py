"""Settings: composed from YAML files, an experiment's arm and the command line, checked, filled, frozen,
dumped.

Sections: SEED DATA CLIP AUGMENT SAMPLER MODEL LOSS OPTIM FREEZE MASK TRAIN TEST WANDB. A section with NAME is
a registered component; its other keys are that component's keyword-only parameters, so that defaults live
once, in the signature. Sections without NAME have their defaults here. Order: bases left to right, the file,
the arm, the command line (KEY VALUE, as in PySlowFast).
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
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
    top_level,
)

Tree = dict[str, Any]

# Sections without a component: what they hold and what it is when nobody says otherwise.
PLAIN: dict[str, Tree] = {
    "DATA": {
        "PATH": "",  # --out folder of `dfdc-video prepare`
        "DECODER": "decord",
        "NUM_WORKERS": 2,
        "CACHE": False,  # decode every face video once, at clip size, into memory
        # for a frozen backbone: pass every frame through it once, and train on what it said
        "EMBEDDINGS": False,
        "MAX_BAD_FRACTION": 0.01,  # stop when more clips than this cannot be read
    },
    "CLIP": {
        "NUM_FRAMES": 16,
        "STRIDE_SECONDS": 1 / 15,  # time between frames, by the video's time stamps
        "STRIDE_FRAMES": 0,  # in source frames instead, where above 0
        "HEIGHT": 224,
        "WIDTH": 224,
        "SHORT": "repeat_last",  # a track shorter than the clip: repeat_last, loop or drop; always counted
    },
    "MASK": {  # learn which pixels were altered, beside the label (`prepare --masks`)
        "WEIGHT": 0.0,  # of the mask's loss, added to the label's; 0 = no mask head
        "STAGE": -2,  # of the network, whose feature maps the head reads: 0 the first, -1 the last
        "THRESHOLD": 5.0,  # grey levels by which an altered pixel differs from its original
    },
    "TRAIN": {
        "EPOCHS": 10,
        "BATCH_SIZE": 8,
        "PRECISION": "auto",  # bf16-mixed where the processor or GPU has it, else 32-true
        "GRAD_CLIP": 0.0,  # largest norm of the gradient; 0 = off
        "CHECKPOINT_EVERY_STEPS": 200,  # last.ckpt, beside the one at every epoch's end
    },
    "TEST": {
        "NUM_CLIPS": 4,  # evenly spaced per track, the same on every run
        "BATCH_SIZE": 8,
        "POOLING": "mean",
        "NUM_BOOTSTRAP": 1000,
    },
    "WANDB": {
        "MODE": "offline",  # online, offline or disabled
        "PROJECT": "dfdc-video",
        "NAME": "",
        "GROUP": "",
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
# Keys that a section has whatever its component is.
SHARED: dict[str, Tree] = {
    "MODEL": {"INIT_FROM": "", "KEEP_HEAD": False},
    "OPTIM": {
        **{
            "LR": 1e-3,
            "LR_SCALE": 1.0,
            "SCHEDULE": "cosine",
            "END_LR": 0.0,
            "WARMUP_EPOCHS": 0.0,
            "WARMUP_START_LR": 0.0,
        },
        "LAYER_DECAY": 1.0,  # rate of a stage = this times the rate of the next one towards the head
        "LR_FACTORS": "",  # "stem:0.1,head:10": rates of stages as multiples of LR; they win over LAYER_DECAY
        "NO_DECAY_NORM": True,  # biases and normalisations without weight decay
    },
    "FREEZE": {"FREEZE_BN": False},  # BatchNorm on its running statistics for the whole run
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


def config_names(part: str = "") -> dict[str, Path]:
    """Name -> file of every config: complete runs, or with `part` (model, data, train) the reusable pieces."""
    root = top_level("configs")
    return {p.relative_to(root).with_suffix("").as_posix(): p for p in sorted((root / part).glob("*.yaml"))}


def config_summary(path: Path) -> str:
    """The first comment of a config: its one line in `dfdc-video list`."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def find_config(name: str | Path, *, beside: Path | None = None) -> Path:
    """File of a config: a name of configs/, a path, or (in `_BASE_`) a file beside the one that names it."""
    text = str(name)
    root = top_level("configs")
    candidates = [Path(text).expanduser(), root / text, root / f"{text}.yaml"]
    if beside is not None:
        candidates.insert(0, beside / text)
    for candidate in candidates:
        if candidate.is_file() and candidate.suffix in (".yaml", ".yml"):
            return candidate.resolve()
    if "/" in text and text.endswith((".yaml", ".yml")) and not (root / text).parent.is_dir():
        raise FileNotFoundError(f"no config file at {text}")
    known = [*config_names(), *(n for part in ("model", "data", "train") for n in config_names(part))]
    raise ValueError(f"unknown config '{text}'; {nearest(text.removesuffix('.yaml'), known)}")


def read_tree(path: Path, *, seen: tuple[Path, ...] = ()) -> Tree:
    """One YAML file with its bases merged under it. `yaml.safe_load` only: a config never runs code."""
    if path in seen:
        raise ValueError(f"{path.name}: _BASE_ loop: {' -> '.join(p.name for p in (*seen, path))}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(tree, dict):
        raise ValueError(
            f"{path}: holds a {type(tree).__name__}, expected sections such as 'MODEL: {{NAME: frame}}'"
        )
    return with_bases(tree, beside=path.parent, seen=(*seen, path))


def with_bases(tree: Tree, *, beside: Path | None = None, seen: tuple[Path, ...] = ()) -> Tree:
    """Replace `_BASE_` (a name or a list of names) by what it names; later bases win over earlier ones, the
    tree over all.
    """
    bases = tree.get("_BASE_", [])
    merged: Tree = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge(merged, read_tree(find_config(base, beside=beside), seen=seen))
    return merge(merged, {k: v for k, v in tree.items() if k != "_BASE_"})


def merge(low: Tree, high: Tree) -> Tree:
    """`high` over `low`, section by section. Another NAME empties the section: settings of one component mean
    nothing to the next.
    """
    result = copy.deepcopy(low)
    for key, value in high.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            swapped = (
                "NAME" in value
                and key in COMPONENTS
                and value["NAME"] != result[key].get("NAME", value["NAME"])
            )
            result[key] = copy.deepcopy(value) if swapped else merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def parse_overrides(pairs: Sequence[str]) -> Tree:
    """`["OPTIM.LR", "0.01"]` -> `{"OPTIM": {"LR": 0.01}}`."""
    if len(pairs) % 2:
        raise ValueError(
            f"settings come in pairs KEY VALUE, for example OPTIM.LR 0.01; given {len(pairs)} words, the "
            f"last is {pairs[-1]!r}"
        )
    tree: Tree = {}
    for key, text in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ValueError(f"{key}: {text!r} is not a YAML value") from error
        *parents, leaf = key.split(".")
        node: Tree = {leaf: value}
        for parent in reversed(parents):
            node = {parent: node}
        tree = merge(tree, node)
    return tree


def resolve(name: str | Path, *, arm: Tree | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """The whole way from a config's name to a frozen, complete, checked tree of settings."""
    tree = read_tree(find_config(name))
    if arm:
        tree = merge(tree, with_bases(arm))
    return complete(merge(tree, parse_overrides(overrides)))


def merge_overrides(cfg: CfgNode, overrides: Sequence[str]) -> CfgNode:
    """A complete config with KEY VALUE pairs over it, checked again."""
    return complete(merge(to_dict(cfg), parse_overrides(overrides)))


def keyword_arguments(function: Callable[..., Any], pairs: Sequence[str]) -> Tree:
    """KEY VALUE pairs as keyword arguments of a function, checked against its signature."""
    return check_arguments(function, {k.lower(): v for k, v in parse_overrides(pairs).items()})


def check_arguments(function: Callable[..., Any], given: Tree) -> Tree:
    """`given` as keyword arguments of a function: known names, and values of the annotated types (lists become
    tuples). ValueError otherwise.
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
            f"{section} = {given!r}: expected a section of keys, for example {section}: {{NAME: …}}"
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


def typed(key: str, value: Any, kind: Any) -> Any:
    """The value as the annotated type, or a ValueError. An int serves as float, and '1e-3', which YAML takes
    for text, too.
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
        except (TypeError, ValueError):
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
        f"{key} = {value!r} ({type(value).__name__}): expected "
        f"{getattr(kind, '__name__', None) or str(kind).replace('typing.', '')}"
    )


def _check_values(full: Tree) -> None:
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
    if full["CLIP"]["STRIDE_FRAMES"] < 0 or (
        full["CLIP"]["STRIDE_FRAMES"] == 0 and full["CLIP"]["STRIDE_SECONDS"] <= 0
    ):
        raise ValueError(
            "CLIP: expected STRIDE_FRAMES of 1 or more, or STRIDE_FRAMES 0 and STRIDE_SECONDS above 0"
        )
    if full["MASK"]["WEIGHT"] < 0 or not 0 < full["MASK"]["THRESHOLD"] <= 255:
        given = f"MASK.WEIGHT = {full['MASK']['WEIGHT']}, MASK.THRESHOLD = {full['MASK']['THRESHOLD']}"
        raise ValueError(
            f"{given}: expected a weight of 0 (no mask head) or more, and a threshold above 0 and up to 255"
        )
    if full["DATA"]["EMBEDDINGS"] and full["AUGMENT"]["NAME"] != "none":
        raise ValueError(
            f"DATA.EMBEDDINGS with AUGMENT.NAME {full['AUGMENT']['NAME']}: embeddings are made once, of "
            "frames as they are; set AUGMENT.NAME none, or DATA.EMBEDDINGS false"
        )
    if full["DATA"]["NUM_WORKERS"] < 0:
        raise ValueError(
            f"DATA.NUM_WORKERS = {full['DATA']['NUM_WORKERS']}: expected 0 (in the main process) or more"
        )
    SCHEDULES.get(full["OPTIM"]["SCHEDULE"])
    POOLINGS.get(full["TEST"]["POOLING"])


def keywords(section: CfgNode, shared: Sequence[str] = ()) -> Tree:
    """A component section as keyword arguments: lower-case, without NAME and without the shared keys."""
    return {k.lower(): v for k, v in section.items() if k != "NAME" and k not in shared}


def to_dict(cfg: CfgNode) -> Tree:
    return {k: to_dict(v) if isinstance(v, CfgNode) else v for k, v in cfg.items()}


def dump(cfg: CfgNode) -> str:
    return yaml.safe_dump(to_dict(cfg), sort_keys=False, default_flow_style=False)


def load_dump(path: Path) -> CfgNode:
    """The config that a run folder holds."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}: expected the folder of a run (of `dfdc-video train` or `run`)"
        )
    return complete(read_tree(path.resolve()))


def config_hash(cfg: CfgNode) -> str:
    """Twelve hex digits over everything that changes results: paths, workers and logging are left out."""
    tree = to_dict(cfg)
    tree.pop("WANDB")
    for key in ("PATH", "NUM_WORKERS", "CACHE"):
        tree["DATA"].pop(key)
    return hashlib.sha256(yaml.safe_dump(tree, sort_keys=True).encode()).hexdigest()[:12]
