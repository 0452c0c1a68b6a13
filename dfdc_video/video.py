"""The only file that opens media: probe a file, read frames by index, iterate over frames, write a face video.

Frames are uint8 RGB, (T, H, W, C), upright: rotation metadata is applied. Decoders run on one thread, since parallelism comes from
workers, and are opened, read and closed, since long-lived readers leak (decord issues).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from dfdc_video.records import Stream
from dfdc_video.registry import DECODERS

log = logging.getLogger(__name__)
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
FALLBACKS = ("decord", "pyav", "opencv")
_warned: set[Path] = set()


class UnreadableVideo(ValueError):
    """A file that is no video, or that does not decode to the end."""


def _rotation(stream, frame) -> int:
    """Clockwise degrees by which the stored picture must be turned; PyAV reports the counter-clockwise display matrix."""
    return int(round(-getattr(frame, "rotation", 0))) % 360


def _upright(image: np.ndarray, rotation_degrees: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, k=-(rotation_degrees // 90))) if rotation_degrees else image


def _open(path: Path):
    import av

    if not path.is_file():
        raise FileNotFoundError(f"no video at {path}")
    if path.stat().st_size == 0:
        raise UnreadableVideo(f"{path.name} is empty (0 bytes)")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise UnreadableVideo(f"{path.name} is not a readable video: {error.strerror if hasattr(error, 'strerror') else error}") from error
    if not container.streams.video:
        container.close()
        raise UnreadableVideo(f"{path.name} has no video stream")
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"err_detect": "explode"}  # or damaged frames are painted over without a word
    return container, stream


def probe(path: str | Path) -> Stream:
    """Size, rate, rotation and the time stamp of every frame. Reads packets and decodes the first frame only."""
    import av

    path = Path(path)
    container, stream = _open(path)
    with container:
        try:
            packets = [(p.pts, p.is_discard) for p in container.demux(stream) if p.pts is not None and p.size]
            _check_complete(path, container, stream, [pts for pts, _ in packets])
            pts = sorted(pts for pts, discarded in packets if not discarded)  # an edit list may hide frames at the start
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
    """Refuse an MP4 whose index, written in front, names more than the file holds; decoders would just stop early.

    An edit list that trims the end shortens frames and duration alike and is no damage, so both must be short.
    """
    if "mp4" not in container.format.name or not stream.duration or not stream.time_base or not pts:
        return
    missing = float((stream.duration - (max(pts) - min(pts))) * stream.time_base)  # one frame's time where the file is whole
    if len(pts) < stream.frames and missing * float(stream.average_rate or 0) > 1.5:
        raise UnreadableVideo(f"{path.name} is cut off: it holds {len(pts)} of the {stream.frames} frames that its index names")


def iter_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, (H, W, 3) uint8 RGB, upright; raises UnreadableVideo where decoding fails."""
    import av

    path = Path(path)
    container, stream = _open(path)
    with container:
        try:
            for frame in container.decode(stream):
                yield _upright(frame.to_ndarray(format="rgb24"), _rotation(stream, frame))
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{path.name} stops decoding: {error.strerror}") from error


@DECODERS.register(name="decord")
def read_decord(path: Path, indices: np.ndarray) -> np.ndarray:
    """decord: random access, applies rotation."""
    from decord import DECORDError, VideoReader, bridge, cpu

    bridge.set_bridge("native")  # pytorchvideo sets another one for the whole process when it is imported
    try:
        reader = VideoReader(str(path), ctx=cpu(0), num_threads=1)
        _check_range(path, indices, len(reader))
        return reader.get_batch(indices.tolist()).asnumpy()
    except (DECORDError, RuntimeError) as error:  # a file that is no video gives the second
        raise UnreadableVideo(f"{path.name}: decord: {str(error).splitlines()[0][:200]}") from error


@DECODERS.register(name="pyav")
def read_pyav(path: Path, indices: np.ndarray) -> np.ndarray:
    """PyAV: decodes from the start up to the last wanted frame; sequential, robust."""
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
    """OpenCV: sequential; it stops early on damaged files without a word, so the count is checked."""
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
        raise UnreadableVideo(f"{path.name}: frames {indices.min()}..{indices.max()} asked for, the file gives {num_frames}")


def read_frames(path: str | Path, indices: Iterable[int], *, decoder: str = "decord") -> np.ndarray:
    """Frames at `indices` (any order, repeats allowed) as (T, H, W, 3) uint8 RGB.

    Where the decoder fails, the others are tried, with one warning a file; UnreadableVideo where all fail. decord 0.6.0 refuses some small
    widths (16, 24, 48 and 72 px of all even ones up to 258).
    """
    path, wanted = Path(path), np.asarray(list(indices), dtype=np.int64)
    if not path.is_file():
        raise FileNotFoundError(f"no video at {path}")
    if not path.stat().st_size:
        raise UnreadableVideo(f"{path.name} is empty (0 bytes)")
    unique, inverse = np.unique(wanted, return_inverse=True)  # ascending order is what every decoder reads fastest
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


class VideoWriter:
    """H.264 with short GOPs, written to a temporary name and renamed on a clean exit: no half-written file is taken for whole.

    `add` takes (H, W, 3) uint8 RGB frames of one even size and, for variable rates, their time in seconds.
    """

    TIME_BASE = Fraction(1, 90000)

    def __init__(self, path: str | Path, *, fps: float, crf: int = 12, gop: int = 12, preset: str = "veryfast") -> None:
        import av

        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")  # two writers never share one
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(self.temporary), "w")
        self.stream = self.container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self.stream.pix_fmt = "yuv420p"
        # Without mbtree: below about 128 pixels x264's differs from run to run on equal frames, and it spends fewer bits where a face moves.
        self.stream.options = {"crf": str(crf), "preset": preset, "threads": "1", "mbtree": "0"}
        self.stream.codec_context.gop_size = gop
        self.stream.codec_context.time_base = self.TIME_BASE
        self.fps = fps
        self.count, self.last_pts = 0, -1

    def add(self, image: np.ndarray, seconds: float | None = None) -> None:
        import av

        if self.count == 0:
            height, width = image.shape[:2]
            if height % 2 or width % 2:
                raise ValueError(f"frames of {width}x{height} given to {self.path.name}; H.264 with 4:2:0 colour needs even sizes")
            self.stream.height, self.stream.width = height, width
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        seconds = self.count / self.fps if seconds is None else seconds
        frame.pts = self.last_pts = max(round(seconds / self.TIME_BASE), self.last_pts + 1)  # sources may repeat a time stamp, MP4 may not
        frame.time_base = self.TIME_BASE
        self.container.mux(self.stream.encode(frame))
        self.count += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        try:
            if kind is None and self.count:
                self.container.mux(self.stream.encode(None))
        finally:
            self.container.close()
            if kind is None and self.count:
                self.temporary.replace(self.path)
            else:
                self.temporary.unlink(missing_ok=True)
