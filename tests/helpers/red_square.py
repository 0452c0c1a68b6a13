"""A detector whose every box is known: it finds a red square. Videos of one, and extraction with defaults."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from dfdc_video.faces.extract import extract
from dfdc_video.preparation.settings import PrepareSettings
from dfdc_video.records import Face
from dfdc_video.registry import settings_of


def extract_with(path, out, **settings):
    """extract() with the settings of `prepare`, except for those that a test gives."""
    defaults = {k: v for k, v in PrepareSettings().extraction().items() if k in settings_of(extract)}
    return extract(path, out, **{**defaults, "video_id": "v", "size": 64, **settings})


class RedSquare:
    """Finds a red square of any size; its eyes are at a third and two thirds of the top side. Remembers the
    frames that it was given.
    """

    def __init__(self, long_side_px: int = 0, confidence: float = 0.9, keypoints: bool = True) -> None:
        self.long_side_px, self.confidence, self.keypoints = long_side_px, confidence, keypoints
        self.shapes, self.indices, self.started = [], [], []

    def start(self, path, stream) -> None:
        self.started.append((Path(path).name, stream.num_frames))

    def detect(self, frames, frame_indices):
        assert frames.dtype == np.uint8 and len(frames) == len(frame_indices) == 1
        self.shapes.append(frames.shape[1:3])
        self.indices += list(frame_indices)
        rows, columns = np.nonzero((frames[0, ..., 0] > 150) & (frames[0, ..., 1] < 90))
        if not len(rows):
            return [[]]
        x0, y0 = float(columns.min()), float(rows.min())
        x1, y1 = float(columns.max() + 1), float(rows.max() + 1)
        eyes = tuple((x0 + share * (x1 - x0), y0) for share in (1 / 3, 2 / 3)) if self.keypoints else ()
        return [[Face(frame_indices[0], (x0, y0, x1, y1), self.confidence, eyes)]]


def squares(
    num_frames: int = 24, height: int = 180, width: int = 240, *, step: float = 1.0, side: int = 40
) -> np.ndarray:
    """A red square with a blue bar below it that moves to the right over a smooth picture; the square's
    corner in frame t is (60 + step t, 50).
    """
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 100 / width, 60 + y * 160 / height, 255 - x * 200 / width], axis=-1)
    frames = np.repeat(ground.astype(np.uint8)[None], num_frames, axis=0)
    for t, frame in enumerate(frames):
        left = int(60 + step * t)
        frame[50 : 50 + side, left : left + side] = (230, 20, 20)
        frame[50 + side : 55 + side, left : left + side] = (20, 20, 230)
    return frames


def tree(folder: Path) -> dict[str, str]:
    """Path -> hash of every file below a folder."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
