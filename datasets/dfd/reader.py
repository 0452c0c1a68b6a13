"""DeepFakeDetection, which lies in the folders of FaceForensics++ (`REALS`, `FAKES`)."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import chosen, list_files, mask_at, refuse, usable, video_id_of
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS

COMPRESSIONS = ("raw", "c0", "c23", "c40")
REALS, FAKES = "original_sequences/actors", "manipulated_sequences/DeepFakeDetection"
SCENE = r"(?P<scene>[a-z0-9]+(?:_[a-z0-9]+)*)"
NAMES = {
    REALS: (re.compile(rf"(?P<target>\d\d)__{SCENE}\.mp4"), "<actor>__<scene>.mp4"),
    FAKES: (
        re.compile(rf"(?P<target>\d\d)_(?P<donor>\d\d)__{SCENE}__(?P<code>[A-Z0-9]{{8}})\.mp4"),
        "<target>_<source>__<scene>__<code>.mp4",
    ),
}


@DATASETS.register(name="dfd")
def read_dfd(
    root: Path, *, compression: str | tuple[str, ...] = "c23"
) -> tuple[list[Video], list[Rejection]]:
    """DeepFakeDetection in one or several compressions: actors, masks, no official split.

    A fake is made from the target actor's real video of the same scene and compression. Raises ValueError for
    an unknown compression, and where there is no video.
    """
    root = Path(root)
    wanted = chosen("compression", compression, COMPRESSIONS)
    videos, rejections, found = [], [], 0
    for above in (REALS, FAKES):
        for c in wanted:
            for path in list_files(root, VIDEO_SUFFIXES, f"{above}/{c}/videos"):
                found += 1
                try:
                    video, notes = _video(root, path, above, c)
                    videos.append(video)
                    rejections += notes
                except ValueError as error:
                    rejections.append(refuse(path, str(error)))
    if not found:
        there = sorted(p.relative_to(root).as_posix() for p in root.glob("*_sequences/*/*/videos"))
        raise ValueError(
            f"no video of compression {', '.join(wanted)} in {root}; expected "
            f"{REALS}/<compression>/videos/ and {FAKES}/<compression>/videos/; found {there or 'none'}"
        )
    return videos, rejections


def _video(root: Path, path: str, above: str, compression: str) -> tuple[Video, list[Rejection]]:
    """The video of a file, and a rejection where its mask cannot be used; ValueError with the reason where
    the video cannot.
    """
    problem = usable(root, path)
    if problem:
        raise ValueError(problem)
    name = PurePosixPath(path).name
    pattern, expected = NAMES[above]
    match = pattern.fullmatch(name)
    if match is None:
        raise ValueError(f"unknown name: expected {expected}")
    target, scene, fake = match["target"], match["scene"], above == FAKES
    original = video_id_of(f"actors/{compression}/{target}/{scene}.mp4")
    mask, notes = mask_at(root, f"{FAKES}/masks/videos/{name}") if fake else ("", [])
    own = original
    if fake:
        own = video_id_of(f"dfd/{compression}/{target}_{match['donor']}/{scene}/{match['code'].lower()}.mp4")
    video = Video(
        video_id=own,
        dataset="dfd",
        path=path,
        label=int(fake),
        source_id=original if fake else "",
        method="DeepFakeDetection" if fake else "real",
        folder=target,
        identities=(target, match["donor"]) if fake else (target,),
        mask_path=mask,
    )
    return video, notes
