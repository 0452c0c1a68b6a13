"""Frames of a video by index: three decoders, of which the others step in where one fails.

Decoders run on one thread, since parallelism comes from workers, and are opened, read and closed, since
long-lived readers leak (decord issues).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dfdc_video.media.reader import UnreadableVideo, iter_frames, probe_folder, read_png
from dfdc_video.registry import DECODERS

log = logging.getLogger(__name__)
FALLBACKS = ("decord", "pyav", "opencv")
_warned: set[Path] = set()


@DECODERS.register(name="decord")
def read_decord(path: Path, indices: np.ndarray) -> np.ndarray:
    """decord: random access; applies rotation."""
    from decord import DECORDError, VideoReader, bridge, cpu

    bridge.set_bridge("native")  # pytorchvideo sets a different one for the whole process at import
    try:
        reader = VideoReader(str(path), ctx=cpu(0), num_threads=1)
        _check_range(path, indices, len(reader))
        return reader.get_batch(indices.tolist()).asnumpy()
    except (DECORDError, RuntimeError) as error:  # RuntimeError for a file that is not a video
        raise UnreadableVideo(f"{path.name}: decord: {str(error).splitlines()[0][:200]}") from error


@DECODERS.register(name="pyav")
def read_pyav(path: Path, indices: np.ndarray) -> np.ndarray:
    """PyAV: decodes from the start to the last wanted frame; sequential, robust."""
    wanted = set(indices.tolist())
    found: dict[int, np.ndarray] = {}
    count = 0
    for count, image in enumerate(iter_frames(path), start=1):
        if count - 1 in wanted:
            found[count - 1] = image
        if len(found) == len(wanted):
            break
    if len(found) < len(wanted):
        _check_range(path, indices, count)
    return np.stack([found[i] for i in indices.tolist()])


@DECODERS.register(name="opencv")
def read_opencv(path: Path, indices: np.ndarray) -> np.ndarray:
    """OpenCV: sequential; stops silently on damaged files, so that frames are counted."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    found: dict[int, np.ndarray] = {}
    wanted, index = set(indices.tolist()), 0
    try:
        while len(found) < len(wanted) and capture.grab():
            if index in wanted:
                ok, image = capture.retrieve()
                if not ok:
                    break
                found[index] = image[..., ::-1]
            index += 1
    finally:
        capture.release()
    if len(found) < len(wanted):
        _check_range(path, indices, index)
    return np.stack([found[i] for i in indices.tolist()])


def _check_range(path: Path, indices: np.ndarray, num_frames: int) -> None:
    if len(indices) and (indices.min() < 0 or indices.max() >= num_frames):
        raise UnreadableVideo(
            f"{path.name}: frames {indices.min()}..{indices.max()} requested, the file gives {num_frames}"
        )


def read_frames(path: str | Path, indices: Iterable[int], *, decoder: str = "decord") -> np.ndarray:
    """Frames at `indices` (any order, repeats allowed) as (T, H, W, 3) uint8 RGB, upright.

    Where the decoder fails, the others are tried, with one warning per file; UnreadableVideo where all fail.
    decord 0.6.0 refuses some small widths (16, 24, 48 and 72 px of all even ones up to 258). A folder of PNG
    files is read like a file.
    """
    path, wanted = Path(path), np.asarray(list(indices), dtype=np.int64)
    if path.is_dir():
        _check_range(path, wanted, probe_folder(path).num_frames)
        return np.stack([read_png(path, i) for i in wanted.tolist()])
    if not path.is_file():
        raise FileNotFoundError(f"no video at {path}")
    if not path.stat().st_size:
        raise UnreadableVideo(f"{path.name} is empty (0 bytes)")
    # ascending order is the fastest for every decoder
    unique, inverse = np.unique(wanted, return_inverse=True)
    errors: list[str] = []
    for name in (decoder, *(f for f in FALLBACKS if f != decoder)):
        try:
            frames = DECODERS.get(name)(path, unique)[inverse]
            if errors and path not in _warned:
                _warned.add(path)
                log.warning("%s; read with %s instead", "; ".join(errors), name)
            return frames
        except (UnreadableVideo, ImportError) as error:
            errors.append(f"{name}: {error}")
    raise UnreadableVideo("; ".join(errors))
