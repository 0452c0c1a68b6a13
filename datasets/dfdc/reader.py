"""DFDC's layout: folders of videos, labelled by a metadata.json or labels.csv in the same folder or above."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import (
    agreed,
    bad_name,
    distinct,
    list_files,
    load_csv,
    load_table,
    refuse,
    usable,
    values,
    video_id_of,
)
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS

LAYOUT = (
    "dfdc_train_part_N/ folders with .mp4 files and a metadata.json each, one such folder, or the "
    "test set with labels.csv or metadata.json"
)
ENTRY = '{"name.mp4": {"label": "REAL" or "FAKE", ...}, ...}'
# DFDC's random names, each unique in the whole data set
OWN_NAME = re.compile(r"[a-z]{10}\.mp4")
LABELS = {"REAL": 0, "FAKE": 1, "0": 0, "1": 1}
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
Table = dict[str, list[dict[str, Any]]]


@DATASETS.register(name="dfdc")
def read_dfdc(root: Path) -> tuple[list[Video], list[Rejection]]:
    """DFDC, all or any of its folders, its test set, and every data set in its layout.

    method, identity and donor are read where present. A label file applies to its folder and everything below
    it, down to the next label file. Names that cannot be used, and videos that are not listed, are rejected
    one by one. Raises ValueError where there is no label file or one is damaged.
    """
    root = Path(root)
    tables = _tables(root)
    if not tables:
        raise ValueError(f"no metadata.json or labels.csv in {root} or in a folder of it; expected {LAYOUT}")
    files = list_files(root, VIDEO_SUFFIXES)
    places = _places(files, tables)
    # path -> folder, name, candidate paths, entries
    claims: dict[str, tuple[str, str, list[str], list[dict[str, Any]]]] = {}
    for folder, table in sorted(tables.items()):
        for name, entries in sorted(table.items()):
            candidates = _find(folder, name, places)
            claims.setdefault(candidates[0], (folder, name, candidates, []))[3].extend(entries)
    videos, rejections = [], []
    for path, (folder, name, candidates, entries) in claims.items():
        try:
            videos.append(_video(root, folder, name, candidates, entries, places))
        except ValueError as error:
            rejections.append(refuse(path, str(error)))
    named = {path for _, _, candidates, _ in claims.values() for path in candidates}
    unlisted = "no label: no metadata.json or labels.csv above it names it"
    rejections += [refuse(path, usable(root, path) or unlisted) for path in files if path not in named]
    videos, clashes = distinct(videos)
    return videos, [*rejections, *clashes]


def _tables(root: Path) -> dict[str, Table]:
    """Folder with label files -> name -> its entries in all of these files."""
    tables: dict[str, Table] = {}
    for path in list_files(root, (".json", ".csv")):
        folder, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
        if name in ("metadata.json", "labels.csv") and not usable(root, path):
            is_json = name == "metadata.json"
            found = load_table(root / path, ENTRY) if is_json else _test_labels(root / path)
            table = tables.setdefault(folder, {})
            for video, entries in found.items():
                table.setdefault(video, []).extend(entries)
    return tables


def _test_labels(path: Path) -> Table:
    table: Table = {}
    for number, row in load_csv(path):
        if "filename" not in row or "label" not in row:
            raise ValueError(f"{path}:{number}: expected the columns filename,label")
        table.setdefault(row["filename"], []).append({"is_fake": row["label"]})
    if not table:
        raise ValueError(f"{path}: expected a header filename,label and one row or more")
    return table


def _places(files: list[str], tables: dict[str, Table]) -> dict[tuple[str, str], list[str]]:
    """(folder with a label file, name) -> the files of that name to which the label file applies."""
    places: dict[tuple[str, str], list[str]] = {}
    for path in files:
        pure = PurePosixPath(path)
        owner = next((str(p) for p in pure.parents if str(p) in tables), "")
        places.setdefault((owner, pure.name), []).append(path)
    return places


def _find(folder: str, name: str, places: dict[tuple[str, str], list[str]]) -> list[str]:
    """Candidate paths for a name of a label file: beside the file, or in a folder below, such as videos/."""
    beside, below = name if folder == "." else f"{folder}/{name}", places.get((folder, name), [])
    return below if below and beside not in below else [beside]


def _video(
    root: Path, folder: str, name: str, candidates: list[str], entries: list[dict[str, Any]], places: Any
) -> Video:
    """The video of a name; ValueError with the reason where it cannot be used."""
    path = candidates[0]
    problem = bad_name(name) or usable(root, path)
    if problem or len(candidates) > 1:
        raise ValueError(problem or f"ambiguous name: it lies in {' and in '.join(candidates)}")
    given = [LABELS.get(str(v).upper(), v) for key in ("label", "is_fake") for v in values(entries, key)]
    label = agreed("labels", given)
    if label not in (0, 1):
        raise ValueError(f"bad label: {label!r:.40}, expected REAL or FAKE, or is_fake 0 or 1")
    original = agreed("originals", values(entries, "original")) or ""
    if not isinstance(original, str) or original == name or (original and bad_name(original)):
        raise ValueError(
            f"bad original: {original!r:.80}, expected the name of another video of the same folder"
        )
    if original and not label:
        raise ValueError(f"contradictory labels: REAL, yet made from {original!r:.80}")
    split = agreed("splits", values(entries, "split")) or ("test" if values(entries, "is_fake") else "")
    return Video(
        video_id=_video_id(path),
        dataset="dfdc",
        path=path,
        label=int(label),
        split=SPLITS.get(str(split), ""),
        source_id=_video_id(_find(folder, original, places)[0]) if original else "",
        method=str(agreed("methods", values(entries, "method")) or ("unknown" if label else "real")),
        folder=root.resolve().name if folder == "." else PurePosixPath(folder).name,
        identities=tuple(
            dict.fromkeys(str(v) for key in ("identity", "donor") for v in values(entries, key))
        ),
    )


def _video_id(path: str) -> str:
    """The stem of one of DFDC's random names, as in Kaggle's submissions.

    Other names may occur in several folders.
    """
    name = PurePosixPath(path).name
    return video_id_of(name if OWN_NAME.fullmatch(name) else path)
