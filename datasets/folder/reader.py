"""Videos in folders named after their class, or unlabelled videos in one folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from dfdc_video.media.reader import VIDEO_SUFFIXES
from dfdc_video.preparation.reading import list_files, refuse, usable, video_id_of
from dfdc_video.records import SPLIT_NAMES, Rejection, Video
from dfdc_video.registry import DATASETS

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LAYOUT = (
    "class folders (real/ and fake/, or any names) with videos in them, or videos without labels in "
    "the folder itself"
)


@DATASETS.register(name="folder")
def read_folder(root: Path, *, classes: tuple[str, ...] = ()) -> tuple[list[Video], list[Rejection]]:
    """Class folders such as real/ and fake/, also below train/, val/, test/; or unlabelled videos.

    Unlabelled videos are in split test. Class numbers: real is 0 and fake is 1; other names are numbered in
    alphabetical order, or in that of `classes`. A folder below a class folder (for example one per person)
    becomes `folder`, by which videos can be grouped. Raises ValueError where there is no video.
    """
    root = Path(root)
    rejections, media = [], []
    for relative in list_files(root, (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)):
        path = PurePosixPath(relative)
        problem = usable(root, relative) or (
            "an image: only videos are prepared" if path.suffix.lower() in IMAGE_SUFFIXES else ""
        )
        if problem:
            rejections.append(refuse(relative, problem))
        else:
            media.append(path)
    if not media:
        refused = ""
        if rejections:
            first = rejections[0]
            refused = f" ({len(rejections)} files refused; first: {first.path}: {first.reason})"
        raise ValueError(f"no video in {root}{refused}; expected {LAYOUT}, as {', '.join(VIDEO_SUFFIXES)}")
    has_splits = {p.parts[0] for p in media} <= set(SPLIT_NAMES) and all(len(p.parts) > 2 for p in media)
    depth = 1 if has_splits else 0
    present = sorted({p.parts[depth] for p in media if len(p.parts) > depth + 1})
    order = classes or (("real", "fake") if set(present) <= {"real", "fake"} else present)
    numbers = {name: number for number, name in enumerate(order)}
    videos = []
    for path in media:
        if present and len(path.parts) < depth + 2:
            rejections.append(refuse(str(path), "no label: it lies beside the class folders, not in one"))
            continue
        name = path.parts[depth] if present else ""
        if name and name not in numbers:
            rejections.append(refuse(str(path), f"unknown class: {name!r} is not one of classes"))
            continue
        videos.append(
            Video(
                video_id=video_id_of(str(path)),
                dataset="folder",
                path=str(path),
                label=numbers[name] if present else 0,
                split=path.parts[0] if has_splits else "" if present else "test",
                method=("unknown" if name in ("", "fake") else name),
                folder="/".join(path.parts[depth + 1 : -1]),
            )
        )
    return videos, rejections
