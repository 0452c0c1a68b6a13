"""The only file that opens media: probe a file, read frames by index, iterate over frames, write a face video.

Frames are uint8 RGB, (T, H, W, C), upright: rotation metadata is applied. Decoders run on one thread, since parallelism comes from
workers, and are opened, read and closed, since long-lived readers leak (decord issues). A face video may also be a folder of PNG files
(00000.png, ...) with their time stamps in timestamps.json: `probe`, `iter_frames` and `read_frames` take it like a file.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.records import Stream
from dfdc_video.registry import DECODERS

log = logging.getLogger(__name__)
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
FORMATS = ("h264", "lossless", "png")
TIMESTAMPS = "timestamps.json"
LIMITED, FULL = 1, 2  # FFmpeg's colour ranges: luma from 16 to 235, or from 0 to 255
SMPTE170M = 6  # FFmpeg's name for the colour matrix of BT.601
FALLBACKS = ("decord", "pyav", "opencv")
_warned: set[Path] = set()


class UnreadableVideo(ValueError):
    """A file that is no video, or that does not decode to the end."""


def _rotation(stream, frame) -> int:
    """Clockwise degrees by which the stored picture must be turned; PyAV reports the counter-clockwise display matrix."""
    return int(round(-getattr(frame, "rotation", 0))) % 360


def upright(image: np.ndarray, rotation_degrees: int) -> np.ndarray:
    """A view of an image or a plane, turned clockwise."""
    return np.rot90(image, k=-(rotation_degrees // 90)) if rotation_degrees else image


@lru_cache
def _exact(way: str) -> Any:
    """swscale's flag for a way to scale, with those for which every processor gives the same."""
    from av.video.reformatter import Interpolation

    return Interpolation[way] | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Picture:
    """One decoded frame, upright, converted only as far as somebody asks.

    `stored` are the Y, U and V planes of 4:2:0, (H, W) and twice (H/2, W/2) uint8, as they lie in the file: views of the decoder's memory
    for the usual yuv420p, for other formats and for the full range converted to it once. `planes` are views of them, upright.
    `color` is what a face video cut from the planes has to say of them: FFmpeg's numbers for matrix, range, primaries, transfer.
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
        return frame.reformat(None, None, "yuv420p", None, matrix, _exact("BICUBIC"), source_range, LIMITED, threads=1)

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
            frame = frame.reformat(*size, interpolation=_exact("AREA"), threads=1)
        return np.ascontiguousarray(upright(frame.to_ndarray(format="rgb24", threads=1), self.rotation_degrees))


class PlaneScaler:
    """Square pictures of 4:2:0, (H * 3 / 2, H) uint8 with Y, U and V below each other, to `size` pixels: the same result on every machine."""

    def __init__(self, size: int) -> None:
        from av.video.reformatter import VideoReformatter

        self.size, self._swscale = size, VideoReformatter()

    def __call__(self, planes: np.ndarray) -> np.ndarray:
        import av

        wrap = av.VideoFrame.from_ndarray if len(planes) % 6 else av.VideoFrame.from_numpy_buffer  # the second cuts heights to a multiple of 4
        way = _exact("AREA" if planes.shape[1] > self.size else "BICUBIC")
        return self._swscale.reformat(wrap(planes, format="yuv420p"), self.size, self.size, interpolation=way, threads=1).to_ndarray()


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
    if path.is_dir():
        return _probe_folder(path)
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


def iter_pictures(path: str | Path) -> Iterator[Picture]:
    """Every frame in order, as the decoder gives it; raises UnreadableVideo where decoding fails or the size changes.

    A picture that is let go gives its memory back to the decoder: hold on to few, copy what is wanted for longer.
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
                    raise UnreadableVideo(f"{path.name} changes its size from {size[0]}x{size[1]} to {frame.width}x{frame.height} px")
                yield Picture(frame, rotation)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{path.name} stops decoding: {error.strerror}") from error


def iter_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, (H, W, 3) uint8 RGB, upright; raises UnreadableVideo where decoding fails."""
    path = Path(path)
    if path.is_dir():
        yield from (_read_png(path, i) for i in range(_probe_folder(path).num_frames))
    else:
        yield from (picture.rgb() for picture in iter_pictures(path))


def iter_luma(path: str | Path) -> Iterator[np.ndarray]:
    """The Y plane of every frame in order, (H, W) uint8; of a folder of PNG files the grey picture."""
    import cv2

    if Path(path).is_dir():
        yield from (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in iter_frames(path))
    else:
        yield from (picture.planes[0] for picture in iter_pictures(path))


def _probe_folder(path: Path) -> Stream:
    try:
        stored = json.loads((path / TIMESTAMPS).read_text(encoding="utf-8"))
        fps, seconds = float(stored["fps"]), np.asarray(stored["seconds"], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableVideo(f"{path.name} is a folder without a readable {TIMESTAMPS}: expected a face video of PNG files") from error
    height, width = _read_png(path, 0).shape[:2]
    return Stream(len(seconds), fps, height, width, 0, "png", seconds)


def _read_png(path: Path, index: int) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path / f"{index:05d}.png"), cv2.IMREAD_COLOR)
    if image is None:
        raise UnreadableVideo(f"{path.name}: {index:05d}.png is missing or damaged")
    return np.ascontiguousarray(image[..., ::-1])


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
    if path.is_dir():
        _check_range(path, wanted, _probe_folder(path).num_frames)
        return np.stack([_read_png(path, i) for i in wanted.tolist()])
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
    """A face video, written to a temporary name and renamed on a clean exit: no half-written one is taken for whole.

    `format` is h264 (`crf`, short GOPs), lossless (x264 with qp 0), or png: `path` is then a folder of 00000.png, ... and timestamps.json.
    `add` takes (H, W, 3) uint8 RGB frames of one even size, `add_planes` the Y, U and V planes of 4:2:0 below each other, whose colours
    `color` describes (see Picture); both take, for variable rates, the time in seconds. What cannot be written is an OSError.
    """

    TIME_BASE = Fraction(1, 90000)

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float,
        crf: int = 12,
        gop: int = 12,
        preset: str = "veryfast",
        format: str = "h264",
        color: tuple[int, int, int, int] | None = None,
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"format {format!r} of a face video, expected one of {', '.join(FORMATS)}")
        self.path, self.fps, self.format, self.color = Path(path), fps, format, color
        self.temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")  # two writers never share one
        self.seconds: list[float] = []
        self.last_pts = -1
        self.container: Any = None
        (self.temporary if format == "png" else self.path.parent).mkdir(parents=True, exist_ok=True)
        if format != "png":
            with self._writing():
                self._open(crf, gop, preset)

    def _open(self, crf: int, gop: int, preset: str) -> None:
        import av

        self.container = av.open(str(self.temporary), "w")
        self.stream = self.container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1001))
        self.stream.pix_fmt = "yuv420p"
        quality = {"crf": str(crf)} if self.format == "h264" else {"qp": "0"}
        # Without mbtree: below about 128 pixels x264's differs from run to run on equal frames, and it spends fewer bits where a face moves.
        self.stream.options = {**quality, "preset": preset, "threads": "1", "mbtree": "0"}
        context = self.stream.codec_context
        context.gop_size, context.time_base = gop, self.TIME_BASE
        if self.color:
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.color

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What FFmpeg cannot write concerns the disk and not the video that is read: an OSError."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            raise OSError(error.errno, f"{error.strerror}; cannot write", str(self.path)) from error

    @property
    def count(self) -> int:
        return len(self.seconds)

    def add(self, image: np.ndarray, seconds: float | None = None) -> None:
        self._put(image, "rgb24", image.shape[:2], seconds)

    def add_planes(self, planes: np.ndarray, seconds: float | None = None) -> None:
        """`planes` are uint8 (H * 3 / 2, W): Y, then U, then V, each without gaps."""
        self._put(planes, "yuv420p", (planes.shape[0] * 2 // 3, planes.shape[1]), seconds)

    def _put(self, array: np.ndarray, pixel_format: str, size: tuple[int, ...], seconds: float | None) -> None:
        import av

        if not self.count and (size[0] % 2 or size[1] % 2):
            raise ValueError(f"frames of {size[1]}x{size[0]} given to {self.path.name}; H.264 with 4:2:0 colour needs even sizes")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=pixel_format)
        seconds = self.count / self.fps if seconds is None else seconds
        if self.format == "png":
            self._put_png(frame)
        else:
            if not self.count:
                self.stream.height, self.stream.width = size
            frame.pts = self.last_pts = max(round(seconds / self.TIME_BASE), self.last_pts + 1)  # sources may repeat a time stamp, MP4 may not
            frame.time_base = self.TIME_BASE
            with self._writing():
                self.container.mux(self.stream.encode(frame))
        self.seconds.append(float(seconds))

    def _put_png(self, frame: Any) -> None:
        import cv2

        if self.color and frame.format.name == "yuv420p":
            frame.colorspace, frame.color_range = self.color[:2]
        coded = cv2.imencode(".png", frame.to_ndarray(format="bgr24", threads=1))[1]
        (self.temporary / f"{self.count:05d}.png").write_bytes(coded.tobytes())

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        whole = False
        try:
            if kind is None and self.count:
                self._finish()
                whole = True
        finally:
            if not whole:
                self._drop()

    def _finish(self) -> None:
        if self.format == "png":
            stamps = {"fps": self.fps, "seconds": [round(s, 6) for s in self.seconds]}
            (self.temporary / TIMESTAMPS).write_text(json.dumps(stamps) + "\n", encoding="utf-8")
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with self._writing():
                self.container.mux(self.stream.encode(None))
                self.container.close()
        self.temporary.replace(self.path)

    def _drop(self) -> None:
        if self.format == "png":
            shutil.rmtree(self.temporary, ignore_errors=True)
            return
        with suppress(OSError), self._writing():
            self.container.close()
        self.temporary.unlink(missing_ok=True)
