"""`dfdc-video prepare`: a folder of raw videos becomes a prepared data set."""

from __future__ import annotations

import argparse
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

# settings that are those of a component -> the setting that names it; the reader is an argument of its own
COMPONENT_OF = {"dataset_settings": "dataset", "detector_settings": "detector", "split_settings": "split"}
ORDER = 40
HELP = "raw videos -> faces -> tracks -> face videos, splits, lists; can be continued"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from dfdc_video.preparation.settings import GROUPS

    parser.add_argument("dataset", help="reader, from `dfdc-video list datasets`")
    parser.add_argument("--root", required=True, type=Path, help="folder of the raw videos")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument(
        "--settings",
        dest="settings_file",
        type=Path,
        metavar="FILE.yaml",
        help="file of settings by name (`dfdc-video list prepare-settings`); flags win over it",
    )
    for group in GROUPS:
        add_flags(parser.add_argument_group(group.title), group)


def run(args: argparse.Namespace) -> int:
    from dfdc_video.preparation.prepare import prepare
    from dfdc_video.preparation.settings import PrepareSettings

    settings = read_settings_file(args.settings_file) if args.settings_file else {}
    flags = given_flags(args, PrepareSettings)
    for name, component in COMPONENT_OF.items():
        if component in flags:  # another component: the settings that the file has for its own do not apply
            settings.pop(name, None)
    manifest = prepare(args.dataset, args.root, args.out, **check_components(settings | flags, args.dataset))
    return print_manifest(manifest) if manifest else 0


def add_flags(parser: argparse._ActionsContainer, group: Any, *, defaults: bool = True) -> None:
    """One flag per setting of a group; a flag that is not given leaves nothing in the result."""
    from dfdc_video.preparation.settings import default_text, types_of

    kinds = types_of(group)
    for f in fields(group):
        kind, flag = kinds[f.name], "--" + f.name.replace("_", "-")
        options: dict[str, Any] = {}
        text = default_text(f) if defaults else ""
        if f.name.endswith("_settings"):
            flag = flag.removesuffix("settings") + "set"
            options = {"nargs": "+", "metavar": ("KEY", "VALUE"), "dest": f.name}
        elif kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)
            options = {"nargs": "+" if Ellipsis in inner else len(inner), "type": inner[0]}
        else:
            options = {"type": kind}
        help = f.metadata["help"] + (f" (default {text})" if text else "")
        parser.add_argument(flag, default=argparse.SUPPRESS, help=help.replace("%", "%%"), **options)


def given_flags(args: argparse.Namespace, group: Any) -> dict[str, Any]:
    """The settings that flags of `add_flags` were given for; KEY VALUE pairs as dictionaries."""
    from dfdc_video.config import parse_overrides

    result = {f.name: getattr(args, f.name) for f in fields(group) if hasattr(args, f.name)}
    for name, value in result.items():
        if name.endswith("_settings"):
            result[name] = {k.lower(): v for k, v in parse_overrides(value).items()}
        elif isinstance(value, list):
            result[name] = tuple(value)
    return result


def check_components(settings: dict[str, Any], dataset: str) -> dict[str, Any]:
    """The same settings; those of the reader, the detector and the split rule are checked against its
    signature.
    """
    from dfdc_video.config import check_arguments
    from dfdc_video.preparation.settings import PrepareSettings
    from dfdc_video.registry import DATASETS, DETECTORS, SPLITS

    chosen = {"dataset": dataset, **{f.name: f.default for f in fields(PrepareSettings)}, **settings}
    registries = {"dataset": DATASETS, "detector": DETECTORS, "split": SPLITS}
    result = dict(settings)
    for name, component in COMPONENT_OF.items():
        if settings.get(name):
            result[name] = check_arguments(registries[component].get(chosen[component]), settings[name])
    return result


def read_settings_file(path: Path) -> dict[str, Any]:
    """The settings of a YAML file: its keys are the names of settings.

    Raises FileNotFoundError, and ValueError for what is no YAML, an unknown key or a value of another type.
    """
    from dfdc_video.config import read_yaml, typed
    from dfdc_video.preparation.settings import PrepareSettings, types_of
    from dfdc_video.registry import nearest

    if not path.is_file():
        raise FileNotFoundError(f"no file of settings at {path}")
    given = read_yaml(path, example="lines such as 'size: 224'")
    kinds = types_of(PrepareSettings)
    result = {}
    for name, value in given.items():
        if name not in kinds:
            raise ValueError(f"{path}: unknown setting '{name}'; {nearest(name, kinds)}")
        value = typed(f"{path}: {name}", value, kinds[name])
        result[name] = tuple(value) if isinstance(value, list) else value
    return result


def print_manifest(manifest: Any) -> int:
    counts = (manifest.videos["split"] + " " + manifest.videos["status"]).value_counts().sort_index()
    print(
        f"{manifest.root}: {len(manifest.videos)} videos, {len(manifest.tracks)} tracks, split "
        f"{manifest.split_hash}"
    )
    print("  " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    from dfdc_video.folders.prepared import PreparedFolder

    refused = sum(manifest.summary["quarantine"].values())
    print(f"  {refused} entries in quarantine.csv; {PreparedFolder(manifest.root).page_path} shows the set")
    return 0
