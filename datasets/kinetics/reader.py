"""Kinetics, or any classes in its layouts: the official CSV of segments, or "path label" lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import (
    agreed,
    distinct,
    list_files,
    load_csv,
    load_lines,
    refuse,
    usable,
    video_id_of,
)
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS

HEADER = {"youtube_id", "time_start", "time_end"}
SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
SEGMENT = re.compile(r"(?P<youtube>[A-Za-z0-9_-]{11})_\d{6}_\d{6}")
WHOLE = re.compile(r"([0-9]{1,6})(\.0*)?")
NUMBER = re.compile(r"[0-9]{1,6}")
LAYOUT = (
    "CSV files with the header label,youtube_id,time_start,time_end,split, or train.csv, val.csv, "
    'test.csv with lines "path label"'
)


@dataclass
class Listed:
    """Labels and splits of one name on all lists."""

    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)


@DATASETS.register(name="kinetics")
def read_kinetics(root: Path) -> tuple[list[Video], list[Rejection]]:
    """Kinetics or any classes, in its official layout or PySlowFast's; videos anywhere below ROOT.

    Lists are in ROOT or ROOT/annotations. Class numbers: alphabetical over the labels of all official lists,
    or those of the "path label" lists. The YouTube id is the identity, so that segments of one video stay
    together. Raises ValueError without lists, or with both kinds of list.
    """
    root = Path(root)
    official, plain = _lists(root)
    if not official and not plain:
        raise ValueError(f"no list in {root} or {root / 'annotations'}; expected {LAYOUT}")
    if official and plain:
        raise ValueError(
            f"both kinds of list in {root}: {official[0].name} (official) and {plain[0].name}; remove one "
            "kind"
        )
    rejections: list[Rejection] = []
    listed: dict[str, Listed] = {}
    rows = _segments(root, official, rejections) if official else _plain_rows(root, plain, rejections)
    for name, label, split in rows:
        entry = listed.setdefault(name, Listed())
        entry.labels += [label] if label else []
        entry.splits.append(split)
    names = sorted({label for entry in listed.values() for label in entry.labels})
    numbers = {label: n if official else int(label) for n, label in enumerate(names)}
    classes = {_folded(label): label for label in names} if official else {}  # as in names of folders
    files = list_files(root, VIDEO_SUFFIXES)
    # stem -> the files of that name, in whatever folder
    places: dict[str, list[str]] = {}
    for path in files if official else ():
        places.setdefault(PurePosixPath(path).stem, []).append(path)
    videos, taken = [], set()
    for name, entry in sorted(listed.items()):
        candidates = places.get(name, [f"{name}.mp4"]) if official else [name]
        taken |= set(candidates)
        try:
            videos.append(_video(root, candidates, entry, numbers, classes))
        except ValueError as error:
            rejections.append(refuse(candidates[0], str(error)))
    unlisted = "no label: no list names it"
    rejections += [refuse(path, usable(root, path) or unlisted) for path in files if path not in taken]
    videos, clashes = distinct(videos)
    return videos, [*rejections, *clashes]


def _lists(root: Path) -> tuple[list[Path], list[Path]]:
    """The official lists, and those of "path label" lines; other CSV files are ignored."""
    official, plain = [], []
    for path in sorted(p for folder in (root, root / "annotations") for p in folder.glob("*.csv")):
        first = next(iter(load_lines(path)), (1, ""))[1]
        if not HEADER - {cell.strip() for cell in first.split(",")}:
            official.append(path)
        elif path.stem in SPLITS:
            plain.append(path)
    return official, plain


def _segments(
    root: Path, lists: Iterable[Path], rejections: list[Rejection]
) -> Iterator[tuple[str, str, str]]:
    """(stem of the file, label or "", split) of every row of the official lists."""
    for path in lists:
        for number, row in load_csv(path):
            times = [WHOLE.fullmatch(row.get(key, "")) for key in ("time_start", "time_end")]
            split = row.get("split") or next((s for s in SPLITS if s in path.stem), "")
            if all(times) and row["youtube_id"] and split in SPLITS:
                start, end = (int(t[1]) for t in times if t)
                yield f"{row['youtube_id']}_{start:06d}_{end:06d}", row.get("label", ""), SPLITS[split]
            else:
                expected = "expected label,youtube_id,time_start,time_end,split as in the header"
                rejections.append(_bad_line(root, path, number, expected))


def _plain_rows(
    root: Path, lists: Iterable[Path], rejections: list[Rejection]
) -> Iterator[tuple[str, str, str]]:
    """(path, label or "", split) of every line of "path label" lists.

    Paths may contain blanks; digits after the last blank are the label.
    """
    for path in lists:
        for number, line in load_lines(path):
            name, _, label = line.rpartition(" ")
            if not NUMBER.fullmatch(label):
                name, label = line, ""
            if label or PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES:
                yield name.strip(" "), label and str(int(label)), SPLITS[path.stem]
            else:
                hint = "; this one has commas" if "," in line else ""
                expected = f"expected `path label` with one blank and a class number{hint}"
                rejections.append(_bad_line(root, path, number, expected))


def _bad_line(root: Path, path: Path, number: int, expected: str) -> Rejection:
    return refuse(f"{path.relative_to(root).as_posix()}:{number}", f"bad line: {expected}")


def _video(
    root: Path, candidates: list[str], entry: Listed, numbers: dict[str, int], classes: dict[str, str]
) -> Video:
    """The video of a name; ValueError with the reason where it cannot be used."""
    path = candidates[0]
    problem = usable(root, path)
    if problem or len(candidates) > 1:
        raise ValueError(problem or f"ambiguous name: it lies in {' and in '.join(candidates)}")
    label, split = agreed("labels", entry.labels), agreed("splits", entry.splits)
    if label is None and numbers:
        raise ValueError(
            "no label: other videos of the lists have one; without a label a video cannot be scored"
        )
    pure = PurePosixPath(path)
    above = classes.get(_folded(pure.parent.name), label)
    if above != label:
        raise ValueError(f"contradictory labels: {label!r:.40} by the list, {above!r:.40} by its folder")
    segment = SEGMENT.fullmatch(pure.stem)
    return Video(
        video_id=video_id_of(pure.name if segment else path),
        dataset="kinetics",
        path=path,
        label=numbers[label] if label else 0,
        split=split if label else "test",
        method=label or "unknown",
        folder="" if str(pure.parent) == "." else str(pure.parent),
        identities=(segment["youtube"],) if segment else (),
    )


def _folded(label: str) -> str:
    return label.replace("_", " ").casefold()
