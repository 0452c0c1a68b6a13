"""Composing configs: YAML files with bases, an experiment's arm and the command line give one checked, frozen
tree of settings, which is dumped into the run folder.

Order: bases left to right, the file, the arm, the command line (KEY VALUE pairs, as in PySlowFast).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from dfdc_video.config.schema import COMPONENTS, Tree, check_arguments, complete, shown
from dfdc_video.registry import nearest, top_level

# what PyYAML raises: ValueError for the 99th of a month and for a number of 5,000 digits, RecursionError for
# a thousand nested brackets
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


def config_names(part: str = "") -> dict[str, Path]:
    """Name -> file of every complete config, or of the reusable ones in a folder: model, data or train."""
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


def read_yaml(path: Path, *, example: str) -> Tree:
    """The names and values of a YAML file. `yaml.safe_load` only: a file of settings never runs code.

    ValueError for what is not YAML or holds something else; `example` shows what was expected.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except NOT_YAML as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: holds a {type(tree).__name__}, expected {example}")
    return tree


def read_tree(path: Path, *, seen: tuple[Path, ...] = ()) -> Tree:
    """One YAML file with its bases merged under it."""
    if path in seen:
        raise ValueError(f"{path.name}: _BASE_ loop: {' -> '.join(p.name for p in (*seen, path))}")
    tree = read_yaml(path, example="sections such as 'MODEL: {NAME: frame}'")
    return with_bases(tree, beside=path.parent, seen=(*seen, path))


def with_bases(tree: Tree, *, beside: Path | None = None, seen: tuple[Path, ...] = ()) -> Tree:
    """Replace `_BASE_` (a name or a list of names) by what it names; later bases win over earlier ones, the
    tree over all.
    """
    bases = tree.get("_BASE_", [])
    if not isinstance(bases, str | list):
        raise ValueError(f"_BASE_ = {shown(bases)}: expected the name of a config, or a list of names")
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
        except NOT_YAML as error:
            raise ValueError(f"{key}: {shown(text)} is not a YAML value") from error
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
    """KEY VALUE pairs as keyword arguments of any function, checked against its signature."""
    return check_arguments(function, {k.lower(): v for k, v in parse_overrides(pairs).items()})


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
    try:
        return complete(read_tree(path.resolve()))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}") from error


def config_hash(cfg: CfgNode) -> str:
    """Twelve hex digits over everything that changes results: paths, workers and logging are left out."""
    tree = to_dict(cfg)
    tree.pop("WANDB")
    for key in ("PATH", "NUM_WORKERS", "CACHE"):
        tree["DATA"].pop(key)
    return hashlib.sha256(yaml.safe_dump(tree, sort_keys=True).encode()).hexdigest()[:12]
