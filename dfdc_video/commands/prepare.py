"""`dfdc-video prepare`: a folder of raw videos becomes a prepared data set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

ORDER = 40
HELP = "raw videos -> faces -> tracks -> face videos, splits, lists; can be continued"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from dfdc_video.preparation.prepare import EXTRACTION, FREE_SETTINGS, HELP, all_settings

    parser.add_argument("dataset", help="reader, from `dfdc-video list datasets`")
    parser.add_argument("--root", required=True, type=Path, help="folder of the raw videos")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    settings = all_settings()
    free = parser.add_argument_group("how much is done, and how (never changes what a video gives)")
    faces = parser.add_argument_group("faces")
    add_settings(free, {k: settings.pop(k) for k in FREE_SETTINGS}, HELP)
    add_settings(faces, {k: settings.pop(k) for k in ("dataset_settings", *EXTRACTION)}, HELP)
    add_settings(parser.add_argument_group("cleaning, splits, exports"), settings, HELP)


def run(args: argparse.Namespace) -> int:
    from dfdc_video.preparation.prepare import all_settings, prepare
    from dfdc_video.registry import DATASETS, DETECTORS, SPLITS

    components = {
        "dataset_settings": DATASETS.get(args.dataset),
        "detector_settings": DETECTORS.get(args.detector),
        "split_settings": SPLITS.get(args.split),
    }
    manifest = prepare(args.dataset, args.root, args.out, **given(args, all_settings(), components))
    return print_manifest(manifest) if manifest else 0


def add_settings(
    parser: argparse._ActionsContainer, settings: dict[str, Any], texts: dict[str, str], *, keep: bool = False
) -> None:
    """One flag per keyword of a function. With `keep`, what is not given is left out instead of taking its
    default.
    """
    for name, parameter in settings.items():
        default, text = parameter.default, texts[name]
        kind: dict[str, Any] = {"type": type(default)}
        if default is None:
            name, kind = (
                name.removesuffix("_settings") + "_set",
                {"nargs": "+", "metavar": ("KEY", "VALUE"), "dest": name},
            )
        elif isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"nargs": len(default) or "+", "type": type(default[0]) if default else str}
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text += "" if keep or shown in ("", None) or isinstance(default, bool) else f" (default {shown})"
        flag = "--" + name.replace("_", "-")
        parser.add_argument(
            flag, default=argparse.SUPPRESS if keep else default, help=text.replace("%", "%%"), **kind
        )


def given(
    args: argparse.Namespace, settings: dict[str, Any], components: dict[str, Callable[..., Any]]
) -> dict[str, Any]:
    """The flags of `add_settings` as keyword arguments; KEY VALUE pairs are checked against the component
    that they are for.
    """
    from dfdc_video.config import keyword_arguments

    words = {k: getattr(args, k) for k in settings if hasattr(args, k)}
    for name, component in components.items():
        if words.get(name) is not None:
            words[name] = keyword_arguments(component, words[name])
    return {k: tuple(v) if isinstance(v, list) else v for k, v in words.items()}


def print_manifest(manifest: Any) -> int:
    counts = (manifest.videos["split"] + " " + manifest.videos["status"]).value_counts().sort_index()
    print(
        f"{manifest.root}: {len(manifest.videos)} videos, {len(manifest.tracks)} tracks, split "
        f"{manifest.split_hash}"
    )
    print("  " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    refused = sum(manifest.summary["quarantine"].values())
    print(f"  {refused} entries in quarantine.csv; {manifest.root / 'summary.html'} shows the set")
    return 0
