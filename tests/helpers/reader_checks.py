"""Readers called on folders that a test makes, and their results as small tables."""

from __future__ import annotations

from pathlib import Path

from dfdc_video.records import Video
from dfdc_video.registry import DATASETS


def read(name: str, root: Path, **settings) -> tuple[dict[str, Video], dict[str, str]]:
    """video_id -> video, and path -> reason of every rejection."""
    videos, rejections = DATASETS.get(name)(root, **settings)
    assert len({r.path for r in rejections}) == len(rejections), "one rejection per file"
    return {v.video_id: v for v in videos}, {r.path: r.reason for r in rejections}


def facts(videos: dict[str, Video], *names: str) -> dict:
    """video_id -> the fields of these names, as a tuple if there are several."""
    found = {i: tuple(getattr(v, n) for n in names) for i, v in videos.items()}
    return found if len(names) > 1 else {i: values[0] for i, values in found.items()}


def kinds(reasons: dict[str, str]) -> dict[str, str]:
    """Path -> the part of the reason before its colon."""
    return {path: reason.split(":")[0] for path, reason in reasons.items()}


def put(root: Path, *paths: str) -> None:
    """Files that contain their own path: enough for a reader, which opens no video."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
