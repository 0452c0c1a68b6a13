"""Face videos: the crops of every track, cut from the planes of the frames; how far two of them differ."""

from __future__ import annotations

import filecmp
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.crop import Planes, crop_box, cut_planes, eye_transform, warp_planes
from dfdc_video.faces.scan import Overview
from dfdc_video.media.reader import iter_luma, upright
from dfdc_video.media.writer import PlaneScaler, VideoWriter
from dfdc_video.records import Stream, Track

BLOCK_PX = 16
# of x264: at crf 12 as near to the source as veryfast, with a third more bytes, in a quarter of the time and
# with half the decoding time
PRESET = "ultrafast"
Cutter = Callable[[Planes, int], np.ndarray]  # (upright planes, frame of the track) -> crop


def cutter(track: Track, *, crop: str, margin: float, size: int) -> Cutter:
    """The function that cuts the crops of one track, (size * 3 / 2, size) uint8 in 4:2:0."""
    scale = PlaneScaler(size)
    if crop == "smoothed":
        boxes = [crop_box(box[None], margin=margin) for box in track.boxes_px]
        return lambda planes, t: scale(cut_planes(planes, boxes[t]))
    if crop == "aligned":
        transforms = [eye_transform(eyes, size=size, margin=margin) for eyes in track.eyes_px]
        return lambda planes, t: warp_planes(planes, transforms[t], size)
    return lambda planes, t: scale(cut_planes(planes, track.crop_box_px))


def write_face_videos(
    frames: Iterable[tuple[int, Planes]],
    out: Path,
    tracks: Sequence[Track],
    stream: Stream,
    overview: Overview,
    seconds: dict[str, float],
    *,
    crop: str,
    margin: float,
    size: int,
    **writer_settings: Any,
) -> None:
    """Write every track's crops below `out`, with the source's timestamps counted from the track's start.

    `frames` are the numbers and stored planes of all frames in order; `overview` knows the video's colour
    once the first of them has come. Time for encoding is added to `seconds["encode"]`.
    """
    starts: dict[int, list[Track]] = {}
    for track in tracks:
        starts.setdefault(track.start_frame, []).append(track)
    with ExitStack() as stack:
        active: list[tuple[Track, VideoWriter, ExitStack, Cutter]] = []
        for index, stored in frames:
            for track in starts.get(index, ()):
                own = stack.enter_context(ExitStack())
                writer = VideoWriter(
                    out / track.crop_path,
                    fps=stream.fps,
                    preset=PRESET,
                    color=overview.color,
                    **writer_settings,
                )
                own.enter_context(writer)
                active.append((track, writer, own, cutter(track, crop=crop, margin=margin, size=size)))
            y, u, v = (upright(plane, stream.rotation_degrees) for plane in stored)
            for entry in list(active):
                track, writer, own, cut = entry
                offset = index - track.start_frame
                image = cut((y, u, v), offset)
                started = time.perf_counter()
                stamps = track.timestamps_seconds
                writer.add_planes(image, float(stamps[offset] - stamps[0]))
                if offset == track.num_frames - 1:
                    own.close()
                    active.remove(entry)
                seconds["encode"] += time.perf_counter() - started


def face_difference(a: Path, b: Path) -> float:
    """The largest mean absolute luma difference of any 16 x 16 block in any frame of two face videos.

    0 where they are equal.
    """
    if a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False):
        return 0.0
    largest = 0.0
    for x, y in zip(iter_luma(a), iter_luma(b), strict=True):
        difference = cv2.absdiff(np.ascontiguousarray(x), np.ascontiguousarray(y))
        if difference.any():
            height, width = (-(-n // BLOCK_PX) * BLOCK_PX for n in difference.shape)
            padded = np.pad(difference, ((0, height - difference.shape[0]), (0, width - difference.shape[1])))
            blocks = padded.reshape(height // BLOCK_PX, BLOCK_PX, -1, BLOCK_PX)
            largest = max(largest, float(blocks.mean(axis=(1, 3)).max()))
    return largest
