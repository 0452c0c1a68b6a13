"""One pass over a video: detection on every k-th frame, an overview, and the planes if memory allows."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.crop import Planes
from dfdc_video.faces.track import CUT_THUMBNAIL, find_cuts
from dfdc_video.media.reader import Picture, UnreadableVideo, iter_pictures, upright
from dfdc_video.records import Face, Stream

SIGNATURE_FRAMES = 8


class FrameStore:
    """The planes of all frames of one video, in a block of memory that the process uses again for the next.

    Fresh memory costs more than the copy. The system may reclaim a released block at any time.
    """

    _block: mmap.mmap | None = None

    def __init__(self, num_frames: int, planes: Planes) -> None:
        sizes = [p.size for p in planes]
        length = num_frames * sum(sizes)
        block = FrameStore._block
        if block is None or len(block) < length:
            block = FrameStore._block = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                block.madvise(mmap.MADV_HUGEPAGE)
        flat = np.split(np.frombuffer(block, np.uint8, length), np.cumsum(sizes)[:2] * num_frames)
        self.y, self.u, self.v = (f.reshape(num_frames, *p.shape) for f, p in zip(flat, planes, strict=True))

    def put(self, index: int, planes: Planes) -> None:
        """Copy the planes of frame `index`."""
        self.y[index], self.u[index], self.v[index] = planes

    def all(self) -> Iterator[tuple[int, Planes]]:
        """Number and planes of every frame, in order."""
        return ((i, planes) for i, planes in enumerate(zip(self.y, self.u, self.v, strict=True)))

    @staticmethod
    def release() -> None:
        """Let the system have the memory until the next video needs it."""
        if FrameStore._block is not None and hasattr(mmap, "MADV_FREE"):
            FrameStore._block.madvise(mmap.MADV_FREE)


def _timed(items: Iterable[Any], seconds: dict[str, float], key: str) -> Iterator[Any]:
    """The items; the time until each arrives is added to `seconds[key]`."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        item = next(iterator, None)
        seconds[key] += time.perf_counter() - started
        if item is None:
            return
        yield item


def pictures(path: Path, stream: Stream, seconds: dict[str, float]) -> Iterator[tuple[int, Picture]]:
    """Every frame with its number; UnreadableVideo where their count is not that of the container."""
    count = 0
    for picture in _timed(iter_pictures(path), seconds, "decode"):
        if count < stream.num_frames:
            yield count, picture
        count += 1
    if count != stream.num_frames:
        raise UnreadableVideo(f"{path.name} decodes {count} of {stream.num_frames} frames")


class Overview:
    """What a pass keeps of all frames: thumbnails, in which cuts are found, and perceptual hashes.

    Both come from a coarse grid of the Y planes; the hashes are the signature.
    """

    def __init__(self, num_frames: int) -> None:
        self.color = (0, 0, 0, 0)  # of the video, see Picture
        self.thumbnails: list[np.ndarray] = []
        self.hashes: dict[int, str] = {}
        self.hashed = np.linspace(0, num_frames - 1, SIGNATURE_FRAMES).round().astype(int).tolist()

    def add(self, index: int, picture: Picture) -> None:
        """Take in frame `index`; every frame once, in order."""
        luma = picture.stored[0]
        if index == 0:
            self.color = picture.color
        step = max(1, min(luma.shape) // 96)
        coarse = np.ascontiguousarray(luma[step // 2 :: step, step // 2 :: step])
        self.thumbnails.append(cv2.resize(coarse, CUT_THUMBNAIL, interpolation=cv2.INTER_AREA))
        if index in self.hashed:
            import imagehash
            from PIL import Image

            image = Image.fromarray(np.ascontiguousarray(upright(coarse, picture.rotation_degrees)))
            self.hashes[index] = str(imagehash.phash(image))

    @property
    def signature(self) -> list[str]:
        """Perceptual hashes of SIGNATURE_FRAMES evenly spaced frames."""
        return [self.hashes[i] for i in self.hashed]

    def cuts(self) -> list[int]:
        """First frames of new shots."""
        # luma is 16 to 235, `find_cuts` expects 0 to 255
        return find_cuts((np.stack(self.thumbnails).astype(np.float32) - 16) * (255 / 219))


def _detect(detector: Any, picture: Picture, index: int, pad_aspect: str) -> list[Face]:
    """Faces of one frame, in its pixels.

    The detector gets the frame reduced to the size that it needs and padded with black to an aspect ratio.
    """
    height, width = picture.size_px
    across, down = (float(n) for n in pad_aspect.split(":")) if pad_aspect else (width, height)
    padded = max(width, height * across / down), max(height, width * down / across)
    side = getattr(detector, "long_side_px", 0)
    image = picture.rgb(long_side_px=round(max(width, height) * side / max(padded)) if side else 0)
    scale = np.array([width / image.shape[1], height / image.shape[0]])
    bottom, right = (
        round((p / s - n) / 2) for p, s, n in zip(padded[::-1], scale[::-1], image.shape[:2], strict=True)
    )
    if bottom or right:
        image = cv2.copyMakeBorder(image, bottom, bottom, right, right, cv2.BORDER_CONSTANT)
    faces = []
    for face in detector.detect(image[None], [index])[0]:
        corners = (np.reshape(face.box_px, (2, 2)) - (right, bottom)) * scale
        box = np.clip(corners, 0, (width, height))
        if (box[1] - box[0] >= 2).all():
            points = tuple(
                (float(x), float(y))
                for x, y in (np.reshape(face.keypoints_px, (-1, 2)) - (right, bottom)) * scale
            )
            faces.append(Face(face.frame_index, tuple(box.ravel().tolist()), face.confidence, points))
    return faces


def scan(
    path: Path,
    stream: Stream,
    detector: Any,
    overview: Overview,
    seconds: dict[str, float],
    *,
    every: int,
    pad_aspect: str,
    buffer_mb: int,
) -> tuple[list[list[Face]], list[int], FrameStore | None]:
    """The detection pass: faces on every k-th frame, the indices of these frames, and a `FrameStore`.

    The store is None where the planes of all frames exceed `buffer_mb`.
    """
    detections, detection_frames = [], []
    store: FrameStore | None = None
    for index, picture in pictures(path, stream, seconds):
        started = time.perf_counter()
        if index == 0:
            planes = picture.stored
            if stream.num_frames * sum(p.size for p in planes) <= buffer_mb * 1e6:
                store = FrameStore(stream.num_frames, planes)
        if store is not None:
            store.put(index, picture.stored)
        overview.add(index, picture)
        seconds["decode"] += time.perf_counter() - started
        if index % every == 0:
            started = time.perf_counter()
            detections.append(_detect(detector, picture, index, pad_aspect))
            detection_frames.append(index)
            seconds["detect"] += time.perf_counter() - started
    return detections, detection_frames, store


def stream_planes(
    path: Path, stream: Stream, seconds: dict[str, float], overview: Overview | None
) -> Iterator[tuple[int, Planes]]:
    """Number and planes of every frame, decoded now; `overview` takes them in where no pass has filled it."""
    for index, picture in pictures(path, stream, seconds):
        if overview is not None:
            overview.add(index, picture)
        yield index, picture.stored
