"""DFDC preview: original_videos/, method_A/, method_B/ and a dataset.json that labels them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import (
    agreed,
    distinct,
    list_files,
    load_table,
    refuse,
    usable,
    values,
    video_id_of,
)
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS

ENTRY = '{"method_A/.../name.mp4": {"label": "real" or "fake", "set": "train" or "test", ...}, ...}'
LABELS = {"real": 0, "fake": 1}
FOLDERS = {"original_videos": 0, "method_A": 1, "method_B": 1}
CLIP = {  # <target>_<scene>_<number>.mp4, for a fake with the donor's number in front
    0: re.compile(r"(?P<original>(?P<target>\d+)_[A-Z]_[a-z0-9_]+)\.mp4"),
    1: re.compile(r"(?P<donor>\d+)_(?P<original>(?P<target>\d+)_[A-Z]_[a-z0-9_]+)\.mp4"),
}


@DATASETS.register(name="dfdcp")
def read_dfdcp(root: Path) -> tuple[list[Video], list[Rejection]]:
    """The DFDC preview set, all of it or any subset: official train and test, people, methods A and B.

    The name of a fake ends in that of its original. Raises ValueError where dataset.json is missing or
    damaged.
    """
    root = Path(root)
    if not (root / "dataset.json").is_file():
        raise ValueError(
            f"no dataset.json in {root}; expected it beside original_videos/, method_A/ and method_B/"
        )
    table = load_table(root / "dataset.json", ENTRY)
    videos, rejections = [], []
    for path, entries in sorted(table.items()):
        try:
            problem = usable(root, path)
            if problem:
                raise ValueError(problem)
            videos.append(_video(path, entries))
        except ValueError as error:
            rejections.append(refuse(path, str(error)))
    for path in list_files(root, VIDEO_SUFFIXES):
        if path not in table:
            rejections.append(refuse(path, usable(root, path) or "no label: dataset.json does not name it"))
    videos, clashes = distinct(videos)
    return videos, [*rejections, *clashes]


def _video(path: str, entries: list[dict[str, Any]]) -> Video:
    given = agreed("labels", values(entries, "label"))
    label = LABELS.get(str(given).lower(), -1)
    if label < 0:
        raise ValueError(f"bad label: {given!r:.40}, expected real or fake")
    split = str(agreed("splits", values(entries, "set")) or "")
    if split not in ("", "train", "test"):
        raise ValueError(f"bad split: {split!r:.40}, expected train or test")
    folder, *between, name = PurePosixPath(path).parts
    if FOLDERS.get(folder, label) != label:
        raise ValueError(f"contradictory labels: {given!r:.40}, yet it lies in {folder}")
    clip = CLIP[label].fullmatch(name) if folder in FOLDERS else None
    people = [str(v) for key in ("target_id", "swapped_id") for v in values(entries, key)]
    people += [clip[who] for who in ("target", "donor")[: label + 1]] if clip else between[:1]
    return Video(
        video_id=_video_id(folder, name) if clip else video_id_of(path),
        dataset="dfdcp",
        path=path,
        label=label,
        split=split,
        source_id=_video_id("original_videos", f"{clip['original']}.mp4") if clip and label else "",
        method=folder if label else "real",
        folder=clip["target"] if clip else folder,
        identities=tuple(dict.fromkeys(people)),
    )


def _video_id(folder: str, name: str) -> str:
    """In lower case, without the folders in between, which repeat the name.

    It is unique among names that match `CLIP`.
    """
    return video_id_of(f"{folder}/{name}".lower())
