"""DFDC's layout: `dfdc_train_part_N/` folders with videos and a metadata.json that labels them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS
from dfdc_video.video import VIDEO_SUFFIXES

LAYOUT = "dfdc_train_part_N/ folders with .mp4 files and a metadata.json each, or one such folder"
LABELS = {"REAL": 0, "FAKE": 1, "0": 0, "1": 1}
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


@DATASETS.register(name="dfdc")
def read_dfdc(root: Path) -> tuple[list[Video], list[Rejection]]:
    """DFDC and everything in its layout: parts with metadata.json (label, split, original; method, identity, donor where present).

    Any subset of the parts will do, or a single one. Files that are named and not there, or there and not named, are rejected one by
    one. Raises ValueError where no metadata.json is found or one is damaged.
    """
    root = Path(root)
    parts = [root] if (root / "metadata.json").is_file() else sorted(p.parent for p in root.glob("*/metadata.json"))
    if not parts:
        raise ValueError(f"no metadata.json in {root} or in a folder of it; expected {LAYOUT}")
    found: list[tuple[Video, str, str]] = []  # video, part, name of its original
    rejections: list[Rejection] = []
    for part in parts:
        folder = "" if part == root else part.name
        entries = _load(part / "metadata.json")
        for name, entry in sorted(entries.items()):
            path = str(PurePosixPath(folder, name))
            problem = _problem(part, name)
            if problem:
                rejections.append(Rejection("", path, "read", problem))
                continue
            try:
                found.append((_video(part, name, path, entry), folder, entry.get("original") or ""))
            except ValueError as error:
                rejections.append(Rejection("", path, "read", f"bad entry: {error}"))
        for file in sorted(part.iterdir()):
            if file.suffix.lower() in VIDEO_SUFFIXES and file.name not in entries and not file.name.startswith("."):
                rejections.append(Rejection("", str(PurePosixPath(folder, file.name)), "read", "no label: metadata.json does not name it"))
    return _with_sources(found), rejections


def _load(path: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({str(error)[:80]}); fetch it again") from error
    if not isinstance(entries, dict) or not entries or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError(f'{path}: expected {{"name.mp4": {{"label": "REAL" or "FAKE", ...}}, ...}} with one entry or more')
    return entries


def _problem(part: Path, name: str) -> str:
    """Why a name of metadata.json cannot be used, or nothing."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        return "outside the root: metadata.json must name files below its own folder"
    return "" if (part / name).is_file() else "missing file: named by metadata.json"


def _video(part: Path, name: str, path: str, entry: dict[str, Any]) -> Video:
    given = entry.get("label", entry.get("is_fake"))  # the full test set has is_fake
    label = LABELS.get(str(given).upper(), -1)
    if label < 0:
        raise ValueError(f"label {given!r}, expected REAL or FAKE, or is_fake 0 or 1")
    people = [str(entry[key]) for key in ("identity", "donor") if entry.get(key) is not None]
    return Video(
        video_id=PurePosixPath(name).stem,
        dataset="dfdc",
        path=path,
        label=label,
        split=SPLITS.get(str(entry.get("split", "test" if "is_fake" in entry else "")), ""),
        method=str(entry.get("method") or ("unknown" if label else "real")),
        folder=part.name,
        identities=tuple(dict.fromkeys(people)),
    )


def _with_sources(found: list[tuple[Video, str, str]]) -> list[Video]:
    """Resolve `original` within each part, and qualify the stems that occur more than once."""
    stems = [video.video_id for video, _, _ in found]
    repeated = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    ids = [f"{video.folder}_{PurePosixPath(video.path).name.replace('.', '_')}" if video.video_id in repeated else video.video_id
           for video, _, _ in found]  # fmt: skip
    by_path = {video.path: name for (video, _, _), name in zip(found, ids, strict=True)}
    videos = []
    for (video, folder, original), name in zip(found, ids, strict=True):
        source = by_path.get(str(PurePosixPath(folder, original)), "") if original and video.label else ""
        videos.append(replace(video, video_id=name, source_id=source))
    return videos
