"""A prepared data set in forms that other programs read: KITTI tracking labels, and image trees for image
classifiers.

    OUT/kitti/<video_id>.txt
    OUT/frames/<split>/<class>/<video_id>_<track>_<frame>.jpg   torchvision's ImageFolder and its kin read a split's folder
    OUT/frames/index.csv                                        path, video_id, track_id, frame, label, split; there once all images are

Both are rewritten only where they differ from what is on disk, so that a second run costs next to nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from dfdc_video.files import write_atomic
from dfdc_video.folders.prepared import Manifest
from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo
from dfdc_video.records import SPLIT_NAMES

KITTI_LINE = "%d %d Face -1 -1 -10 %.2f %.2f %.2f %.2f -1 -1 -1 -1000 -1000 -1000 -10 %.4f\n"
JPEG_QUALITY = 95
INDEX_COLUMNS = ["path", "video_id", "track_id", "frame", "label", "split"]


def write_kitti(out: Path, videos: pd.DataFrame, tracks: pd.DataFrame) -> None:
    """Write the boxes of every video as KITTI tracking labels, one line per box, by frame and then by track.

    Tracks count from 0 in the order of track_id, the score is the track's confidence, and what a 2D box does
    not know has KITTI's own values for it. A video that was looked at and has no face has an empty file, an
    unreadable one has none. Files of other videos go.
    """
    folder = Path(out, "kitti")
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["video_id", "track_id", "start_frame", "confidence", "boxes_px"]
    rows_of: dict[str, list[tuple[Any, ...]]] = {}
    for video_id, *row in tracks[columns].sort_values(columns[:2]).itertuples(index=False, name=None):
        rows_of.setdefault(video_id, []).append(tuple(row))
    wanted = videos.loc[videos["status"] != "unreadable", "video_id"]
    for video_id in wanted:
        write_atomic(folder / f"{video_id}.txt", _kitti_text(rows_of.get(video_id, [])))
    names = {f"{video_id}.txt" for video_id in wanted}
    for path in [p for p in folder.iterdir() if p.suffix in (".txt", ".part") and p.name not in names]:
        path.unlink()


def _kitti_text(tracks: Sequence[tuple[Any, ...]]) -> str:
    """All lines of one video's (track_id, start_frame, confidence, boxes) in one format operation: DFDC has
    some 36 million of them.
    """
    pieces = [np.empty((0, 7))]
    for number, (_, start_frame, confidence, boxes) in enumerate(tracks):
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        piece = np.empty((len(boxes), 7))
        piece[:, 0], piece[:, 1], piece[:, 6] = start_frame + np.arange(len(boxes)), number, confidence
        piece[:, 2:6] = boxes.round(2) + 0.0  # + 0.0: no "-0.00"
        pieces.append(piece)
    table = np.concatenate(pieces)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return (KITTI_LINE * len(table)) % tuple(table.ravel().tolist())


def write_images(
    out: Path, manifest: Manifest, *, per_real: int, per_fake: int, suffix: str = "jpg", workers: int = 2
) -> dict[str, Any]:
    """Write `per_real` and `per_fake` face images of every video as a tree of splits and classes; returns the
    counts.

    The images of a video are spread evenly over all frames of all its tracks; a video with fewer frames gives
    every frame once. Classes are named real and fake, or are the class numbers, padded so that they sort by
    number; note that ImageFolder numbers folders by alphabet, which makes fake 0 and real 1. `frame` counts
    in the source video, so that an equal number is the same moment of a fake and its original. What is there
    is not decoded again unless its face video is younger; images of another choice are removed. 10 per real
    and 2 per fake video balance DFDC, which has some five fakes for every real video. Raises ValueError for a
    face video that cannot be read; what is done until then is kept.
    """
    if suffix not in ("jpg", "png"):
        raise ValueError(f"image format {suffix!r}: expected jpg or png")
    if manifest.num_classes > 2 and per_real != per_fake:
        raise ValueError(
            f"frames {per_real}/{per_fake}: the data set has {manifest.num_classes} classes, not real and "
            "fake; give one number"
        )
    folder = Path(out, "frames")
    folder.mkdir(parents=True, exist_ok=True)
    plan = _plan(manifest, per_real, per_fake, suffix)
    index, text = folder / "index.csv", plan[INDEX_COLUMNS].to_csv(index=False)
    missing = plan[_is_missing(Path(out), plan)]
    if not len(missing) and index.is_file() and index.read_bytes() == text.encode():
        return _counts(plan, manifest, per_real, per_fake, suffix)
    index.unlink(missing_ok=True)
    _remove_others(folder, set(plan["path"]))
    for split in plan["split"].unique():
        # also one without images: ImageFolder refuses it, where it would renumber the others
        for name in _class_names(manifest.num_classes):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    _write_missing(Path(out), missing, workers)
    write_atomic(index, text)
    return _counts(plan, manifest, per_real, per_fake, suffix)


def _class_names(num_classes: int) -> list[str]:
    return (
        ["real", "fake"]
        if num_classes == 2
        else [f"{n:0{len(str(num_classes - 1))}d}" for n in range(num_classes)]
    )


def _plan(manifest: Manifest, per_real: int, per_fake: int, suffix: str) -> pd.DataFrame:
    """A row per image, by split, video and position: INDEX_COLUMNS, then the frame's number in its face
    video, and that one's path.
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


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return -1


def _is_missing(out: Path, plan: pd.DataFrame) -> np.ndarray:
    """Which images are not there, or are older than the face video that they come from."""
    made = {p: _modified(out / p) for p in plan["crop_path"].unique()}
    return np.array(
        [
            _modified(out / "frames" / p) < max(made[c], 0)
            for p, c in zip(plan["path"], plan["crop_path"], strict=True)
        ],
        dtype=bool,
    )


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove images that the plan does not have, what a kill left, and the folders that this empties."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            if path.suffix in (".jpg", ".png", ".part") and path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
        if Path(parent) != folder and not any(Path(parent).iterdir()):
            Path(parent).rmdir()


def _write_missing(out: Path, missing: pd.DataFrame, workers: int) -> None:
    """Decode and write, by face video and on threads: decoders and encoders release the interpreter."""
    from rich.console import Console
    from rich.progress import track

    if missing.empty:
        return
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = missing.groupby("crop_path", sort=True)[["offset", "path"]].agg(list)
        futures = [pool.submit(_write_some, out, *job) for job in jobs.itertuples(name=None)]
        for future in track(
            as_completed(futures), "images", total=len(futures), console=Console(stderr=True)
        ):
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_some(out: Path, crop_path: str, offsets: Sequence[int], paths: Sequence[str]) -> None:
    try:
        frames = read_frames(out / crop_path, offsets)
    except (UnreadableVideo, FileNotFoundError) as error:
        raise ValueError(
            f"{crop_path}: this face video cannot be read ({error}); delete it and run `dfdc-video "
            "prepare` again"
        ) from error
    for path, frame in zip(paths, frames, strict=True):
        target = out / "frames" / path
        ok, data = cv2.imencode(
            target.suffix,
            frame[..., ::-1],
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if target.suffix == ".jpg" else [],
        )
        assert ok, path
        temporary = target.with_name(f".{target.name}.part")
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, target)


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
