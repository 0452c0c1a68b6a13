"""Probe a video, iterate over its frames; `decoders` reads frames by index, `writer` writes face videos.

Frames are uint8 RGB, (T, H, W, C), upright: rotation metadata is applied. A face video may also be a folder
of PNG files (00000.png, ...) with their timestamps in timestamps.json, which is read like a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.records import Stream

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
TIMESTAMPS = "timestamps.json"
LIMITED, FULL = 1, 2  # FFmpeg's colour ranges: luma from 16 to 235, or from 0 to 255
SMPTE170M = 6  # FFmpeg's name for the colour matrix of BT.601


class UnreadableVideo(ValueError):
    """A file that is not a video, or that does not decode to the end."""


def _rotation(stream, frame) -> int:
    """Clockwise degrees by which the stored picture has to be rotated; PyAV's are counter-clockwise."""
    return int(round(-getattr(frame, "rotation", 0))) % 360


def upright(image: np.ndarray, rotation_degrees: int) -> np.ndarray:
    """A view of an image or a plane, rotated clockwise."""
    return np.rot90(image, k=-(rotation_degrees // 90)) if rotation_degrees else image


@lru_cache
def exact_scaling(way: str) -> Any:
    """swscale's flag for an interpolation, with those that make its result the same on every processor."""
    from av.video.reformatter import Interpolation

    return Interpolation[way] | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Picture:
    """One decoded frame, upright, converted only on demand.

    `stored` are the Y, U and V planes of 4:2:0, (H, W) and twice (H/2, W/2) uint8, with the orientation of
    the file: views of the decoder's memory for the usual yuv420p; other formats and the full range are
    converted to it once. `planes` are upright views of them. `color` describes the planes in a face video
    that is cut from them: FFmpeg's numbers for matrix, range, primaries, transfer.
    """

    def __init__(self, frame: Any, rotation_degrees: int) -> None:
        self.frame, self.rotation_degrees = frame, rotation_degrees

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width, upright."""
        size = (self.frame.height, self.frame.width)
        return size[::-1] if self.rotation_degrees % 180 else size

    @cached_property
    def _yuv420p(self) -> Any:
        frame = self.frame
        full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
        if frame.format.name == "yuv420p" and not full:
            return frame
        matrix, source_range = "ITU601" if frame.format.is_rgb else None, FULL if full else None
        return frame.reformat(
            None, None, "yuv420p", None, matrix, exact_scaling("BICUBIC"), source_range, LIMITED, threads=1
        )

    @cached_property
    def stored(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        planes = self._yuv420p.planes
        y, u, v = (np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in planes)
        return y, u, v

    @property
    def planes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, u, v = (upright(p, self.rotation_degrees) for p in self.stored)
        return y, u, v

    @property
    def color(self) -> tuple[int, int, int, int]:
        frame = self._yuv420p
        return frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc

    def rgb(self, *, long_side_px: int = 0) -> np.ndarray:
        """(H, W, 3) uint8 RGB; with `long_side_px` reduced to that, never enlarged."""
        frame, scale = self.frame, (long_side_px or 1e9) / max(self.frame.height, self.frame.width)
        if scale < 1:  # in two steps, since swscale is faster from 4:2:0 to 4:2:0
            size = max(1, round(scale * frame.width)), max(1, round(scale * frame.height))
            frame = frame.reformat(*size, interpolation=exact_scaling("AREA"), threads=1)
        return np.ascontiguousarray(
            upright(frame.to_ndarray(format="rgb24", threads=1), self.rotation_degrees)
        )


def _open(path: Path):
    import av

    if not path.is_file():
        raise FileNotFoundError(f"no video at {path}")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path.name} is empty (0 bytes)")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise UnreadableVideo(
            f"{path.name} is not a readable video: {getattr(error, 'strerror', error)}"
        ) from error
    if not container.streams.video:
        container.close()
        raise UnreadableVideo(f"{path.name} has no video stream")
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    # otherwise damaged frames are concealed silently
    stream.codec_context.options = {"err_detect": "explode"}
    return container, stream


def probe(path: str | Path) -> Stream:
    """Size, rate, rotation and the timestamp of every frame.

    It reads all packets and decodes the first frame only. UnreadableVideo where there is no decodable frame
    or the file is cut off, FileNotFoundError.
    """
    import av

    path = Path(path)
    if path.is_dir():
        return probe_folder(path)
    container, stream = _open(path)
    with container:
        try:
            packets = [(p.pts, p.is_discard) for p in container.demux(stream) if p.pts is not None and p.size]
            _check_complete(path, container, stream, [pts for pts, _ in packets])
            # an edit list may hide frames at the start
            pts = sorted(pts for pts, discarded in packets if not discarded)
            container.seek(0)
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{path.name} is damaged: {error.strerror}") from error
        if first is None or not pts:
            raise UnreadableVideo(f"{path.name} has no decodable frame")
        seconds = (np.asarray(pts, dtype=np.float64) - pts[0]) * float(stream.time_base or 1)
        rotation = _rotation(stream, first)
        height, width = (first.width, first.height) if rotation % 180 else (first.height, first.width)
        average = float(stream.average_rate or 0) or (len(pts) - 1) / max(float(seconds[-1]), 1e-6)
        return Stream(len(pts), average, height, width, rotation, stream.codec_context.name, seconds)


def _check_complete(path: Path, container, stream, pts: list[int]) -> None:
    """Refuse an MP4 whose index names more frames than the file holds; decoders would just stop early.

    An edit list that trims the end shortens frames and duration alike and is no damage; in a truncated file
    only the frames are missing.
    """
    if "mp4" not in container.format.name or not stream.duration or not stream.time_base or not pts:
        return
    # the time of one frame where the file is whole
    missing = float((stream.duration - (max(pts) - min(pts))) * stream.time_base)
    if len(pts) < stream.frames and missing * float(stream.average_rate or 0) > 1.5:
        raise UnreadableVideo(
            f"{path.name} is cut off: it holds {len(pts)} of the {stream.frames} frames that its index names"
        )


def iter_pictures(path: str | Path) -> Iterator[Picture]:
    """Every frame in order, as decoded; raises UnreadableVideo where decoding fails or the size changes.

    Pictures hold the decoder's memory until they are garbage-collected: keep few of them, copy pixels that
    are needed for longer.
    """
    import av

    path = Path(path)
    container, stream = _open(path)
    with container:
        size, rotation = None, 0
        try:
            for frame in container.decode(stream):
                if size is None:
                    size, rotation = (frame.width, frame.height), _rotation(stream, frame)
                if (frame.width, frame.height) != size:
                    raise UnreadableVideo(
                        f"{path.name} changes its size from {size[0]}x{size[1]} to "
                        f"{frame.width}x{frame.height} px"
                    )
                yield Picture(frame, rotation)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{path.name} stops decoding: {error.strerror}") from error


def iter_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, (H, W, 3) uint8 RGB, upright; raises UnreadableVideo where decoding fails."""
    path = Path(path)
    if path.is_dir():
        yield from (read_png(path, i) for i in range(probe_folder(path).num_frames))
    else:
        yield from (picture.rgb() for picture in iter_pictures(path))


def iter_luma(path: str | Path) -> Iterator[np.ndarray]:
    """The Y plane of every frame in order, (H, W) uint8; of a folder of PNG files the grey picture."""
    import cv2

    if Path(path).is_dir():
        yield from (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in iter_frames(path))
    else:
        yield from (picture.planes[0] for picture in iter_pictures(path))


def probe_folder(path: Path) -> Stream:
    """`probe` of a folder of PNG files."""
    try:
        stored = json.loads((path / TIMESTAMPS).read_text(encoding="utf-8"))
        fps, seconds = float(stored["fps"]), np.asarray(stored["seconds"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableVideo(
            f"{path.name} is a folder without a readable {TIMESTAMPS}: expected a face video of PNG files"
        ) from error
    height, width = read_png(path, 0).shape[:2]
    return Stream(len(seconds), fps, height, width, 0, "png", seconds)


def read_png(path: Path, index: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a frame of a folder of PNG files."""
    import cv2

    image = cv2.imread(str(path / f"{index:05d}.png"), cv2.IMREAD_COLOR)
    if image is None:
        raise UnreadableVideo(f"{path.name}: {index:05d}.png is missing or damaged")
    return np.ascontiguousarray(image[..., ::-1])
