"""Face images of a prepared data set as trees of splits and classes, for image classifiers.

The owner of the files is `folders.images`. Only what differs from what is on disk is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from dfdc_video.folders.images import ImageTree
from dfdc_video.folders.manifest import Manifest
from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo
from dfdc_video.records import SPLIT_NAMES

JPEG_QUALITY = 95
INDEX_COLUMNS = ["path", "video_id", "track_id", "frame", "label", "split"]


def write_images(
    manifest: Manifest, *, per_real: int, per_fake: int, suffix: str = "jpg", workers: int = 2
) -> dict[str, Any]:
    """Write `per_real` and `per_fake` face images of every video as a tree of splits and classes.

    Returns the counts. The images of a video are spread evenly over all frames of all its tracks; a video
    with fewer frames gives every frame once. Classes are named real and fake, or are the class numbers,
    padded so that they sort by number; note that ImageFolder numbers folders alphabetically, which makes fake
    0 and real 1. `frame` counts in the source video, so that an equal number is the same moment of a fake and
    its original. An image that is there is not decoded again unless its face video is younger; other images
    are removed. 10 per real and 2 per fake video balance DFDC, which has about five fakes for every real
    video. Raises ValueError for a face video that cannot be read; what was written before is kept.
    """
    if suffix not in ("jpg", "png"):
        raise ValueError(f"image format {suffix!r}: expected jpg or png")
    if manifest.num_classes > 2 and per_real != per_fake:
        raise ValueError(
            f"frames {per_real}/{per_fake}: the data set has {manifest.num_classes} classes, not real and "
            "fake; give one number"
        )
    tree = PreparedFolder(manifest.root).images
    plan = _plan(manifest, per_real, per_fake, suffix)
    missing = plan[_is_missing(manifest.root, tree, plan)]
    index = plan[INDEX_COLUMNS].to_csv(index=False)
    if len(missing) or not tree.is_complete(index):
        tree.begin(set(plan["path"]))
        for split in plan["split"].unique():
            for name in _class_names(manifest.num_classes):
                tree.add_class(split, name)
        _write_missing(manifest.root, tree, missing, workers)
        tree.finish(index)
    return _counts(plan, manifest, per_real, per_fake, suffix)


def _class_names(num_classes: int) -> list[str]:
    return (
        ["real", "fake"]
        if num_classes == 2
        else [f"{n:0{len(str(num_classes - 1))}d}" for n in range(num_classes)]
    )


def _plan(manifest: Manifest, per_real: int, per_fake: int, suffix: str) -> pd.DataFrame:
    """A row per image, by split, video and position.

    INDEX_COLUMNS, then the frame's number in its face video (`offset`), and the path of that video.
    """
    tracks = pd.concat([manifest.tracks_of(s).assign(split=s) for s in SPLIT_NAMES]).sort_values(
        ["split", "video_id", "track_id"]
    )
    tracks = tracks[tracks["num_frames"] > 0]
    ends = tracks["num_frames"].cumsum().to_numpy()  # all tracks of all videos end to end
    videos = tracks.groupby(["split", "video_id"], sort=True).agg(
        label=("label", "first"), total=("num_frames", "sum")
    )
    totals = videos["total"].to_numpy()
    counts = np.minimum(np.where(videos["label"] > 0, per_fake, per_real), totals)
    number = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)  # of an image in its video
    # of equal pieces of the video
    middles = (2 * number + 1) * np.repeat(totals, counts) // (2 * np.repeat(counts, counts))
    positions = np.repeat(totals.cumsum() - totals, counts) + middles
    at = np.searchsorted(ends, positions, side="right")
    plan = tracks.iloc[at][
        ["video_id", "track_id", "label", "split", "start_frame", "num_frames", "crop_path"]
    ].reset_index(drop=True)
    plan["offset"] = positions - (ends[at] - plan["num_frames"].to_numpy())
    plan["frame"] = plan["start_frame"] + plan["offset"]
    names = _class_names(manifest.num_classes)
    rows = zip(plan["split"], plan["label"], plan["video_id"], plan["track_id"], plan["frame"], strict=True)
    plan["path"] = [
        f"{s}/{names[label]}/{v}_{t.removeprefix(f'{v}_')}_{f:05d}.{suffix}" for s, label, v, t, f in rows
    ]
    return plan[[*INDEX_COLUMNS, "offset", "crop_path"]]


def _is_missing(root: Path, tree: ImageTree, plan: pd.DataFrame) -> np.ndarray:
    """Which images are not there, or are older than the face video that they come from."""
    made = {
        p: (root / p).stat().st_mtime_ns if (root / p).exists() else 0 for p in plan["crop_path"].unique()
    }
    pairs = zip(plan["path"], plan["crop_path"], strict=True)
    return np.array([tree.modified(image) < made[crop] for image, crop in pairs], dtype=bool)


def _write_missing(root: Path, tree: ImageTree, missing: pd.DataFrame, workers: int) -> None:
    """Decode and write, by face video and on threads: decoders and encoders release the interpreter."""
    from rich.console import Console
    from rich.progress import track

    if missing.empty:
        return
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = missing.groupby("crop_path", sort=True)[["offset", "path"]].agg(list)
        futures = [pool.submit(_write_some, root, tree, *job) for job in jobs.itertuples(name=None)]
        for future in track(
            as_completed(futures), "images", total=len(futures), console=Console(stderr=True)
        ):
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_some(
    root: Path, tree: ImageTree, crop_path: str, offsets: Sequence[int], images: Sequence[str]
) -> None:
    try:
        frames = read_frames(root / crop_path, offsets)
    except (UnreadableVideo, FileNotFoundError) as error:
        raise ValueError(
            f"{crop_path}: this face video cannot be read ({error}); delete it and run `dfdc-video "
            "prepare` again"
        ) from error
    for image, frame in zip(images, frames, strict=True):
        suffix = Path(image).suffix
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
        ok, data = cv2.imencode(suffix, frame[..., ::-1], quality)
        assert ok, image
        tree.write(image, data.tobytes())


def _counts(
    plan: pd.DataFrame, manifest: Manifest, per_real: int, per_fake: int, suffix: str
) -> dict[str, Any]:
    per_folder = Counter(str(Path(p).parent.as_posix()) for p in plan["path"])
    wanted = np.where(plan.groupby("video_id")["label"].first() > 0, per_fake, per_real)
    short = int((plan.groupby("video_id").size().to_numpy() < wanted).sum())
    return {
        "per_real": per_real,
        "per_fake": per_fake,
        "format": suffix,
        "images": dict(sorted(per_folder.items())),
        "short_videos": short,
    }
