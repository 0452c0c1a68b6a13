"""Frames -> faces.

Detectors are created in spawned workers only: one that ran in the parent deadlocks after a fork. Here are the
detectors of whole frames; `tiled` searches windows of them, `kitti` reads the boxes of another program. A new
detector is one more file in this folder that registers itself.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dfdc_video.faces.track import iou as overlap
from dfdc_video.records import Face, Stream
from dfdc_video.registry import DETECTORS

Box = tuple[float, float, float, float]
# of 148 synthetic faces 28 to 320 pixels tall in 1280x720, the full model found 63 at 640 and 1280, 62 at 480
SIZE_PX = 640


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to /dev/null: nothing else silences mediapipe's native log."""
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


def clip_box(box: Box, *, width_px: int, height_px: int) -> Box | None:
    """The box clipped to the frame; None where less than two pixels of it lie inside."""
    x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
    x1, y1 = min(box[2], float(width_px)), min(box[3], float(height_px))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


class Detector(ABC):
    """Base of the detectors; a subclass defines `_faces`.

    `long_side_px` is the length of the frame's longer side that the detector needs: the caller may reduce
    larger frames to it and scale the faces back; 0 asks for frames of the original size.
    """

    long_side_px = 0

    def __init__(self, min_confidence: float) -> None:
        if not 0 < min_confidence < 1:
            raise ValueError(f"min_confidence {min_confidence}: expected a number between 0 and 1")
        self.min_confidence = min_confidence

    def start(self, path: Path, stream: Stream) -> None:  # noqa: B027 (most detectors need nothing)
        """Called once before the frames of a video, for detectors that depend on which video it is."""

    def detect(self, frames: np.ndarray, frame_indices: Sequence[int]) -> list[list[Face]]:
        """Faces of each of `frames` (T, H, W, 3) uint8 RGB, best first; boxes are clipped to the frame."""
        if (
            frames.ndim != 4
            or frames.shape[3] != 3
            or frames.dtype != np.uint8
            or len(frames) != len(frame_indices)
        ):
            raise ValueError(
                f"frames {frames.dtype} {frames.shape} with {len(frame_indices)} indices: expected uint8 "
                "(T, H, W, 3) with T indices"
            )
        found = (
            self._faces(np.ascontiguousarray(frame), int(index))
            for frame, index in zip(frames, frame_indices, strict=True)
        )
        return [sorted(faces, key=lambda f: (-f.confidence, f.box_px)) for faces in found]

    @abstractmethod
    def _faces(self, frame: np.ndarray, index: int) -> list[Face]:
        """Faces of one contiguous frame (H, W, 3)."""


class BlazeFace(Detector):
    """mediapipe's BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047): a box and six keypoints per face.

    Keypoints: right eye, left eye, nose tip, mouth centre, right ear, left ear, from the subject's view.
    """

    long_side_px = SIZE_PX

    def __init__(self, model_selection: int, min_confidence: float) -> None:
        super().__init__(min_confidence)
        with quiet_stderr():
            from mediapipe.python.solutions.face_detection import FaceDetection

            self._detector = FaceDetection(
                model_selection=model_selection, min_detection_confidence=min_confidence
            )
            # the graph starts, and logs, on its first frame
            self._detector.process(np.zeros((64, 64, 3), dtype=np.uint8))

    def unclipped(self, frame: np.ndarray) -> list[tuple[Box, float, np.ndarray]]:
        """(box, confidence, keypoints (6, 2)) of every face of an image (H, W, 3), in its pixels.

        Boxes may extend beyond the image.
        """
        height, width = frame.shape[:2]
        found = []
        for face in self._detector.process(np.ascontiguousarray(frame)).detections or ():
            r = face.location_data.relative_bounding_box
            box = (r.xmin * width, r.ymin * height, (r.xmin + r.width) * width, (r.ymin + r.height) * height)
            keypoints = np.array([(p.x * width, p.y * height) for p in face.location_data.relative_keypoints])
            found.append((box, float(face.score[0]), keypoints))
        return found

    def _faces(self, frame: np.ndarray, index: int) -> list[Face]:
        height, width = frame.shape[:2]
        faces = []
        for box, confidence, keypoints in self.unclipped(frame):
            clipped = clip_box(box, width_px=width, height_px=height)
            if clipped is not None:
                points = tuple((float(x), float(y)) for x, y in keypoints)
                faces.append(Face(index, clipped, confidence, points))
        return faces


@DETECTORS.register(name="blazeface_short")
def blazeface_short(*, min_confidence: float = 0.5) -> BlazeFace:
    """BlazeFace for faces within about 2 m of the camera: faster, misses small faces."""
    return BlazeFace(0, min_confidence)


@DETECTORS.register(name="blazeface_full")
def blazeface_full(*, min_confidence: float = 0.5) -> BlazeFace:
    """BlazeFace for faces within about 5 m of the camera; the default."""
    return BlazeFace(1, min_confidence)


class MediapipeTasks(Detector):
    """The face detector of mediapipe's Tasks API, for versions without `solutions`; boxes in whole pixels.

    Same keypoints as BlazeFace. mediapipe 0.10.21 runs short-range models only.
    """

    long_side_px = SIZE_PX

    def __init__(self, model_path: str, min_confidence: float) -> None:
        super().__init__(min_confidence)
        if not model_path or not Path(model_path).expanduser().is_file():
            raise FileNotFoundError(
                f"model_path {model_path!r}: expected the .tflite file of a face detector; download "
                "blaze_face_short_range.tflite from "
                "https://ai.google.dev/edge/mediapipe/solutions/vision/face_detector, or use "
                "mediapipe/modules/face_detection/*.tflite of the package mediapipe 0.10.21"
            )
        with quiet_stderr():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision

            self._image = lambda frame: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_path=str(Path(model_path).expanduser())),
                min_detection_confidence=min_confidence,
            )
            try:
                self._detector = vision.FaceDetector.create_from_options(options)
                self._detector.detect(self._image(np.zeros((64, 64, 3), dtype=np.uint8)))
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[-1][:200]
                raise ValueError(
                    f"{model_path} is not a face detector that mediapipe {mediapipe.__version__} can run: "
                    f"{reason}"
                ) from error

    def _faces(self, frame: np.ndarray, index: int) -> list[Face]:
        height, width = frame.shape[:2]
        faces = []
        for found in self._detector.detect(self._image(frame)).detections:
            r = found.bounding_box
            box = clip_box(
                (r.origin_x, r.origin_y, r.origin_x + r.width, r.origin_y + r.height),
                width_px=width,
                height_px=height,
            )
            if box is not None:
                keypoints = tuple((p.x * width, p.y * height) for p in found.keypoints or ())
                faces.append(Face(index, box, float(found.categories[0].score), keypoints))
        return faces


@DETECTORS.register(name="mediapipe_tasks")
def mediapipe_tasks(*, min_confidence: float = 0.5, model_path: str = "") -> MediapipeTasks:
    """A face detector of mediapipe's Tasks API, any version, from the model file at `model_path`."""
    return MediapipeTasks(model_path, min_confidence)


class Consensus(Detector):
    """Faces of one detector that another one confirms."""

    def __init__(self, first: Detector, second: Detector, iou: float, min_confidence: float) -> None:
        super().__init__(min_confidence)
        if not 0 < iou < 1:
            raise ValueError(f"iou {iou}: expected a number between 0 and 1")
        self.first, self.second, self.iou = first, second, iou
        sizes = (first.long_side_px, second.long_side_px)
        self.long_side_px = max(sizes) if all(sizes) else 0

    def start(self, path: Path, stream: Stream) -> None:
        self.first.start(path, stream)
        self.second.start(path, stream)

    def _faces(self, frame: np.ndarray, index: int) -> list[Face]:
        (ours,), (theirs,) = (d.detect(frame[None], [index]) for d in (self.first, self.second))
        if not ours or not theirs:
            return []
        shared = overlap(np.array([f.box_px for f in ours]), np.array([f.box_px for f in theirs]))
        return [
            Face(index, f.box_px, min(f.confidence, theirs[int(row.argmax())].confidence), f.keypoints_px)
            for f, row in zip(ours, shared, strict=True)
            if row.max() >= self.iou
        ]


@DETECTORS.register(name="consensus")
def consensus(
    *,
    min_confidence: float = 0.5,
    first: str = "blazeface_full",
    second: str = "blazeface_short",
    iou: float = 0.5,
) -> Consensus:
    """Faces on which two detectors agree: boxes of the first, lower confidence. Few false positives.

    Reported: 0.1 % false positives at 60 % detection (indust.ai's account of DFDC).
    """
    if "consensus" in (first, second) or first == second:
        raise ValueError(
            f"first {first!r} and second {second!r}: expected two different detectors, neither of them "
            "consensus"
        )
    ours, theirs = (DETECTORS.get(name)(min_confidence=min_confidence) for name in (first, second))
    return Consensus(ours, theirs, iou, min_confidence)
