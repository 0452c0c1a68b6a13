"""Videos in folders named after their class, or videos without labels in one folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dfdc_video.records import SPLIT_NAMES, Rejection, Video
from dfdc_video.registry import DATASETS
from dfdc_video.video import VIDEO_SUFFIXES

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LAYOUT = "class folders (real/ and fake/, or any names) with videos in them, or videos without labels in the folder itself"


@DATASETS.register(name="folder")
def read_folder(root: Path) -> tuple[list[Video], list[Rejection]]:
    """Class folders such as real/ and fake/ (train/, val/, test/ above them are used), or unlabelled videos: all in split test.

    Class numbers: real is 0 and fake is 1; other names are numbered in alphabetical order. A folder below a class folder (one per
    person, say) becomes `folder`, by which videos can be grouped. Raises ValueError where there is no video.
    """
    root = Path(root)
    videos, rejections = [], []
    files = sorted(p for p in root.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts))
    media = [p.relative_to(root) for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    for image in (p.relative_to(root) for p in files if p.suffix.lower() in IMAGE_SUFFIXES):
        rejections.append(Rejection("", image.as_posix(), "read", "an image: only videos are prepared"))
    if not media:
        raise ValueError(f"no video in {root}; expected {LAYOUT}, as {', '.join(VIDEO_SUFFIXES)}")
    has_splits = {p.parts[0] for p in media} <= set(SPLIT_NAMES) and all(len(p.parts) > 2 for p in media)
    depth = 1 if has_splits else 0
    classes = sorted({p.parts[depth] for p in media if len(p.parts) > depth + 1})
    numbers = {"real": 0, "fake": 1} if set(classes) <= {"real", "fake"} else {name: i for i, name in enumerate(classes)}
    taken: set[str] = set()
    for path in media:
        if classes and len(path.parts) < depth + 2:
            rejections.append(Rejection("", path.as_posix(), "read", "no label: it lies beside the class folders, not in one"))
            continue
        name = path.parts[depth] if classes else ""
        videos.append(
            Video(
                video_id=_video_id(path, taken),
                dataset="folder",
                path=path.as_posix(),
                label=numbers[name] if classes else 0,
                split=path.parts[0] if has_splits else "" if classes else "test",
                method=("unknown" if name in ("", "fake") else name),
                folder="/".join(path.parts[depth + 1 : -1]),
            )
        )
    return videos, rejections


def _video_id(path: Path, taken: set[str]) -> str:
    """The relative path without suffix, with what an id may not hold replaced; a clash gets a piece of the path's hash."""
    name = re.sub(r"[^A-Za-z0-9_.\-]", "_", "__".join((*path.parts[:-1], path.stem)))
    name = name if name[0].isalnum() else f"v{name}"
    if name in taken:
        name = f"{name}_{hashlib.sha256(path.as_posix().encode()).hexdigest()[:8]}"
    taken.add(name)
    return name
