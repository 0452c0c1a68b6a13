"""Frames -> faces. Detectors are created in spawned workers only: one that ran in the parent deadlocks after a fork."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dfdc_video.records import Face
from dfdc_video.registry import DETECTORS


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Point file descriptor 2 at nothing: mediapipe's native log lines obey no setting and no environment variable."""
    sys.stderr.flush()
    saved = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(nothing)
        os.close(saved)


def clip_box(box: tuple[float, float, float, float], *, width_px: int, height_px: int) -> tuple[float, float, float, float] | None:
    """The part of a box that lies in the frame, or None where less than two pixels of it do."""
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width_px)), min(box[3], float(height_px))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


class BlazeFace:
    """mediapipe's embedded BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047): box and six key points a face.

    Key points: right eye, left eye, nose tip, mouth centre, right ear, left ear, of the person that is seen.
    """

    def __init__(self, model_selection: int, min_confidence: float) -> None:
        if not 0 < min_confidence < 1:
            raise ValueError(f"min_confidence {min_confidence}: expected a number between 0 and 1")
        with quiet_stderr():
            from mediapipe.python.solutions.face_detection import FaceDetection

            self._detector = FaceDetection(model_selection=model_selection, min_detection_confidence=min_confidence)
            self._detector.process(np.zeros((64, 64, 3), dtype=np.uint8))  # the graph starts, and logs, on its first frame

    def detect(self, frames: np.ndarray, frame_indices: Sequence[int]) -> list[list[Face]]:
        """Faces of each of `frames` (T, H, W, 3) uint8 RGB, best first; boxes are clipped to the frame."""
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or len(frames) != len(frame_indices):
            raise ValueError(f"frames {frames.dtype} {frames.shape} with {len(frame_indices)} indices: expected uint8 (T, H, W, 3) with T indices")
        return [self._faces(frame, int(index)) for frame, index in zip(frames, frame_indices, strict=True)]

    def _faces(self, frame: np.ndarray, index: int) -> list[Face]:
        height, width = frame.shape[:2]
        faces = []
        for found in self._detector.process(np.ascontiguousarray(frame)).detections or ():
            relative = found.location_data.relative_bounding_box
            x0, y0 = relative.xmin * width, relative.ymin * height
            box = clip_box((x0, y0, x0 + relative.width * width, y0 + relative.height * height), width_px=width, height_px=height)
            if box is not None:
                keypoints = tuple((p.x * width, p.y * height) for p in found.location_data.relative_keypoints)
                faces.append(Face(index, box, float(found.score[0]), keypoints))
        return sorted(faces, key=lambda f: (-f.confidence, f.box_px))


@DETECTORS.register(name="blazeface_short")
def blazeface_short(*, min_confidence: float = 0.5) -> BlazeFace:
    """BlazeFace for faces within about 2 m of the camera: faster, misses small faces."""
    return BlazeFace(0, min_confidence)


@DETECTORS.register(name="blazeface_full")
def blazeface_full(*, min_confidence: float = 0.5) -> BlazeFace:
    """BlazeFace for faces within about 5 m of the camera; the default."""
    return BlazeFace(1, min_confidence)
