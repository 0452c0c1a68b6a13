"""Celeb-DF v2: Celeb-real/, YouTube-real/, Celeb-synthesis/ and a list of the test videos."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import agreed, list_files, load_lines, refuse, usable, video_id_of
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS

log = logging.getLogger(__name__)
LIST, NUM_LISTED = "List_of_testing_videos.txt", 518
WORDS = ("real", "fake")
LISTED = {"1": "real", "0": "fake"}  # the opposite of every other data set
FOLDERS = {  # folder -> label, names
    "Celeb-real": (0, re.compile(r"(?P<target>id\d+)_(?P<number>\d+)\.mp4")),
    "YouTube-real": (0, re.compile(r"(?P<target>\d+)\.mp4")),
    "Celeb-synthesis": (1, re.compile(r"(?P<target>id\d+)_(?P<donor>id\d+)_(?P<number>\d+)\.mp4")),
}


@DATASETS.register(name="celebdf")
def read_celebdf(root: Path) -> tuple[list[Video], list[Rejection]]:
    """Celeb-DF v2, all of it or any subset: videos on its list are split test, all others train; no val.

    Labels come from the folders; a line of the list that contradicts them is refused. A fake idA_idB_NNNN is
    made from idA_NNNN. Raises ValueError where the list is missing or there is no video.
    """
    root = Path(root)
    if not (root / LIST).is_file():
        raise ValueError(
            f"no {LIST} in {root}: without it the test videos would be trained on; expected it beside "
            f"{', '.join(FOLDERS)}"
        )
    listed, rejections = _listed(root / LIST)
    videos = []
    on_disk = [path for folder in FOLDERS for path in list_files(root, VIDEO_SUFFIXES, folder)]
    for path in sorted({*listed, *on_disk}):
        try:
            videos.append(_video(root, path, listed.get(path, [])))
        except ValueError as error:
            rejections.append(refuse(path, str(error)))
    if not videos and not on_disk:
        raise ValueError(f"no video in {root}; expected the folders {', '.join(FOLDERS)}")
    return videos, rejections


def _listed(path: Path) -> tuple[dict[str, list[str]], list[Rejection]]:
    """Path -> its labels on the list; malformed lines are refused."""
    listed: dict[str, list[str]] = {}
    rejections = []
    lines = load_lines(path)
    for number, line in lines:
        label, _, name = line.partition(" ")
        if label in LISTED and name:
            listed.setdefault(name.strip(" "), []).append(LISTED[label])
        else:
            reason = f"bad line: {line!r:.80}, expected `1 folder/name.mp4` or `0 folder/name.mp4`"
            rejections.append(refuse(f"{path.name}:{number}", reason))
    if len(lines) != NUM_LISTED:
        message = "%s has %d lines, that of Celeb-DF v2 has %d: some of the test set may be missing"
        log.warning(message, path, len(lines), NUM_LISTED)
    return listed, rejections


def _video(root: Path, path: str, labels: list[str]) -> Video:
    problem = usable(root, path)
    if problem:
        raise ValueError(problem)
    folder, _, name = path.partition("/")
    label, pattern = FOLDERS.get(folder, (0, None))
    match = pattern.fullmatch(name) if pattern else None
    if match is None:
        raise ValueError(
            f"unknown name: expected {', '.join(FOLDERS)} with id0_0000.mp4, 00000.mp4, id0_id1_0000.mp4 "
            "in them"
        )
    if agreed("labels", labels) not in (None, WORDS[label]):
        raise ValueError(
            f"contradictory labels: {WORDS[label]} by its folder, {labels[0]} by {LIST} (where 1 is real)"
        )
    people = [match["target"] if "id" in name else f"youtube-{match['target']}"]
    people += [match["donor"]] if label else []
    return Video(
        video_id=_video_id(folder, name),
        dataset="celebdf",
        path=path,
        label=label,
        split="test" if labels else "train",
        source_id=_video_id("Celeb-real", f"{match['target']}_{match['number']}.mp4") if label else "",
        method=folder if label else "real",
        folder=people[0],
        identities=tuple(people),
    )


def _video_id(folder: str, name: str) -> str:
    return video_id_of(f"{folder.lower()}/{name}")
