"""FaceForensics++: original_sequences/youtube/ and manipulated_sequences/<method>/, by compression."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import (
    chosen,
    list_files,
    mask_at,
    read_metadata,
    refuse,
    usable,
    video_id_of,
)
from dfdc_video.records import SPLIT_NAMES, Rejection, Video
from dfdc_video.registry import DATASETS

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
COMPRESSIONS = ("raw", "c0", "c23", "c40")
LAYOUT = (
    "original_sequences/youtube/<compression>/videos/ and "
    "manipulated_sequences/<method>/<compression>/videos/"
)
# target, source
NAMES = {
    "youtube": re.compile(r"(\d{3})\.mp4"),
    **dict.fromkeys(METHODS, re.compile(r"(\d{3})_(\d{3})\.mp4")),
}


@DATASETS.register(name="ffpp")
def read_ffpp(
    root: Path, *, compression: str | tuple[str, ...] = "c23", methods: str | tuple[str, ...] = METHODS
) -> tuple[list[Video], list[Rejection]]:
    """FaceForensics++: reals and fakes by any methods, in one or several compressions, masks, official split.

    Any subset can be read. A fake <target>_<source> is made from the real <target> of the same compression.
    Raises ValueError for an unknown method or compression, and where no requested video is there.
    """
    root = Path(root)
    compressions = chosen("compression", compression, COMPRESSIONS)
    folders = {m: f"manipulated_sequences/{m}" for m in chosen("method", methods, METHODS)}
    splits, rejections = _official(root)
    videos: list[Video] = []
    found = 0
    for method, folder in {"youtube": "original_sequences/youtube", **folders}.items():
        for c in compressions:
            for path in list_files(root, VIDEO_SUFFIXES, f"{folder}/{c}/videos"):
                found += 1
                try:
                    video, notes = _video(root, path, method, c, splits)
                    videos.append(video)
                    rejections += notes
                except ValueError as error:
                    rejections.append(refuse(path, str(error)))
    if not found:
        there = sorted(p.relative_to(root).as_posix() for p in root.glob("*_sequences/*/*/videos"))
        raise ValueError(
            f"no video of compression {', '.join(compressions)} in {root}; expected {LAYOUT}; found "
            f"{there or 'none'}"
        )
    return videos, rejections


def _official(root: Path) -> tuple[dict[str, set[str]], list[Rejection]]:
    """Number of a real video, or "target_source" of a fake -> the splits that list it.

    Malformed pairs are refused.
    """
    splits: dict[str, set[str]] = {}
    rejections = []
    for split in SPLIT_NAMES:
        places = (root / "splits" / f"{split}.json", root / f"{split}.json")
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            continue
        pairs = read_metadata(path)
        if not isinstance(pairs, list):
            raise ValueError(f'{path}: expected pairs, as [["071", "054"], ...]')
        for pair in pairs:
            if _is_pair(pair):
                a, b = pair
                for name in (a, b, f"{a}_{b}", f"{b}_{a}"):
                    splits.setdefault(name, set()).add(split)
            else:
                reason = f"bad name: {pair!r:.80}, expected a pair of three digits each"
                rejections.append(refuse(path.relative_to(root).as_posix(), reason))
    return splits, rejections


def _is_pair(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(isinstance(n, str) and re.fullmatch(r"\d{3}", n) for n in pair)


def _video(
    root: Path, path: str, method: str, compression: str, splits: dict[str, set[str]]
) -> tuple[Video, list[Rejection]]:
    """The video of a file, and a rejection where its mask cannot be used; ValueError with the reason where
    the video cannot.
    """
    problem = usable(root, path)
    if problem:
        raise ValueError(problem)
    name = PurePosixPath(path).name
    match = NAMES[method].fullmatch(name)
    if match is None:
        expected = "NNN.mp4" if method == "youtube" else "<target>_<source>.mp4, three digits each"
        raise ValueError(f"unknown name: expected {expected}")
    split = splits.get(PurePosixPath(path).stem, set())
    if len(split) > 1:
        raise ValueError(f"contradictory splits: {' and '.join(sorted(split))}")
    fake, target = method != "youtube", match[1]
    mask, notes = mask_at(root, f"manipulated_sequences/{method}/masks/videos/{name}") if fake else ("", [])
    video = Video(
        video_id=video_id_of(f"{method.lower()}/{compression}/{name}"),
        dataset="ffpp",
        path=path,
        label=int(fake),
        split=next(iter(split), ""),
        source_id=video_id_of(f"youtube/{compression}/{target}.mp4") if fake else "",
        method=method if fake else "real",
        folder=target,
        identities=match.groups(),
        mask_path=mask,
    )
    return video, notes
