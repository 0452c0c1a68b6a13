"""Face videos: scaled on their planes, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.files import partial_path, publish
from dfdc_video.media.reader import TIMESTAMPS, exact_scaling

FORMATS = ("h264", "lossless", "png")


class PlaneScaler:
    """Scales square pictures of 4:2:0, (H * 3 / 2, H) uint8 with Y, U and V below each other, to `size`
    pixels, with the same result on every machine.
    """

    def __init__(self, size: int) -> None:
        from av.video.reformatter import VideoReformatter

        self.size, self._swscale = size, VideoReformatter()

    def __call__(self, planes: np.ndarray) -> np.ndarray:
        import av

        # from_numpy_buffer needs no copy, but truncates heights to a multiple of 4
        wrap = av.VideoFrame.from_ndarray if len(planes) % 6 else av.VideoFrame.from_numpy_buffer
        frame = wrap(planes, format="yuv420p")
        way = exact_scaling("AREA" if planes.shape[1] > self.size else "BICUBIC")
        return self._swscale.reformat(frame, self.size, self.size, interpolation=way, threads=1).to_ndarray()


class VideoWriter:
    """Context manager that writes a face video, whole or not at all (see `files.publish`).

    `format` is h264 (`crf`, short GOPs), lossless (x264 with qp 0), or png: `path` is then a folder of
    00000.png, ... and timestamps.json. `add` takes (H, W, 3) uint8 RGB frames of one even size, `add_planes`
    the Y, U and V planes of 4:2:0 below each other, with the colours that `color` describes (see Picture);
    both take, for variable rates, the time in seconds. OSError where it cannot be written.
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
        self.temporary = partial_path(self.path, shared=True, keep_suffix=True)
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
        # Without mbtree, which below about 128 pixels makes x264 differ from run to run on equal frames, and
        # spends fewer bits where a face moves.
        self.stream.options = {**quality, "preset": preset, "threads": "1", "mbtree": "0"}
        context = self.stream.codec_context
        context.gop_size, context.time_base = gop, self.TIME_BASE
        if self.color:
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.color

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of FFmpeg into OSError: they concern the disk, not the video that is read."""
        import av

        try:
            yield
        except av.FFmpegError as error:
            raise OSError(error.errno, f"{error.strerror}; cannot write", str(self.path)) from error

    @property
    def count(self) -> int:
        """Frames so far."""
        return len(self.seconds)

    def add(self, image: np.ndarray, seconds: float | None = None) -> None:
        """`image` is (H, W, 3) uint8 RGB."""
        self._put(image, "rgb24", image.shape[:2], seconds)

    def add_planes(self, planes: np.ndarray, seconds: float | None = None) -> None:
        """`planes` are uint8 (H * 3 / 2, W): Y, then U, then V, each without gaps."""
        self._put(planes, "yuv420p", (planes.shape[0] * 2 // 3, planes.shape[1]), seconds)

    def _put(
        self, array: np.ndarray, pixel_format: str, size: tuple[int, ...], seconds: float | None
    ) -> None:
        import av

        if not self.count and (size[0] % 2 or size[1] % 2):
            raise ValueError(
                f"frames of {size[1]}x{size[0]} px for {self.path.name}: H.264 with 4:2:0 colour needs even "
                "sizes"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=pixel_format)
        seconds = self.count / self.fps if seconds is None else seconds
        if self.format == "png":
            self._put_png(frame)
        else:
            if not self.count:
                self.stream.height, self.stream.width = size
            # sources may repeat a timestamp, MP4 must not
            frame.pts = self.last_pts = max(round(seconds / self.TIME_BASE), self.last_pts + 1)
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
        else:
            with self._writing():
                self.container.mux(self.stream.encode(None))
                self.container.close()
        publish(self.temporary, self.path)

    def _drop(self) -> None:
        if self.format == "png":
            shutil.rmtree(self.temporary, ignore_errors=True)
            return
        with suppress(OSError), self._writing():
            self.container.close()
        self.temporary.unlink(missing_ok=True)
