"""Boxes from label files in KITTI's format, of tracking benchmarks and DeepStream, instead of a detector.

For a video a/b/c.mp4 the first of these that exists is read; a/b stands for every end of the path, longest
first:

    FOLDER/a/b/c.txt      tracking labels, one file per video, with the fields
                              frame track_id type truncated occluded alpha left top right bottom
                              h w l x y z rotation_y [score]
    FOLDER/a/b/c/*.txt    one file per frame; the last digits of its name are the frame's number (000012.txt,
                          DeepStream's 00_000_000012.txt), with the fields
                              type truncated occluded alpha left top right bottom
                              h w l x y z rotation_y [score]
                          or, from DeepStream's tracker, with the track's number after the type, and a score
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from dfdc_video.faces.detect import Box, Detector, clip_box
from dfdc_video.records import Face, Stream
from dfdc_video.registry import DETECTORS

TRACKING = {17: 6, 18: 6}  # number of fields -> index of `left`; one file per video
PER_FRAME = {15: 4, 16: 4, 17: 5}
WITH_SCORE = {("video", 18), ("frame", 16), ("frame", 17)}


def find_labels(folder: Path, video: Path) -> Path:
    """The label file, or the folder of label files, of a video.

    ValueError where it has none; a missing `folder`, which concerns all videos, is a FileNotFoundError.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}: expected the folder of KITTI label files")
    parts = video.with_suffix("").parts[1 if video.anchor else 0 :]
    for start in range(len(parts)):
        stem = folder.joinpath(*parts[start:])
        file = stem.with_name(f"{stem.name}.txt")
        if file.is_file():
            return file
        if stem.is_dir() and any(stem.glob("*.txt")):
            return stem
    raise ValueError(
        f"no KITTI labels of {video.name} in {folder}: expected {parts[-1]}.txt, or a folder {parts[-1]} "
        "with one file per frame"
    )


def read_line(line: str, kind: str, place: str, *, type_name: str) -> tuple[int, Box, float] | None:
    """(frame, or 0 in the file of one frame; box; score) of a line; None for another type of object.

    `kind` says whether the file is that of a "video" or of a "frame". Without a score, or with a negative
    one, which is DeepStream's for unknown, the score is 1. ValueError names `place`.
    """
    fields, columns = line.split(), TRACKING if kind == "video" else PER_FRAME
    if len(fields) not in columns:
        raise ValueError(
            f"{place}: {len(fields)} fields, expected {' or '.join(map(str, columns))} for the labels of "
            f"one {kind}"
        )
    left, scored = columns[len(fields)], (kind, len(fields)) in WITH_SCORE
    try:
        frame = int(fields[0]) if kind == "video" else 0
        x0, y0, x1, y1 = (float(v) for v in fields[left : left + 4])
        score = float(fields[-1]) if scored else 1.0
    except ValueError as error:
        raise ValueError(f"{place}: {line.strip()[:80]!r}: {error}") from None
    if fields[2 if kind == "video" else 0].lower() != type_name.lower():
        return None
    if frame < 0 or not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"{place}: frame {frame}, box {x0, y0, x1, y1}: expected a frame from 0 on and left < right, "
            "top < bottom"
        )
    if not score <= 1:
        raise ValueError(f"{place}: score {score:g}, expected 0 to 1")
    return frame, (x0, y0, x1, y1), score if score >= 0 else 1.0


class Kitti(Detector):
    """Faces of label files.

    It ignores pixels, so that frames must come in full size; they may be padded evenly on opposite sides.
    """

    def __init__(
        self, folder: str, type_name: str, width_px: int, height_px: int, min_confidence: float
    ) -> None:
        super().__init__(min_confidence)
        if not folder:
            raise ValueError("folder '': expected the folder of KITTI label files")
        if (width_px > 0) != (height_px > 0) or min(width_px, height_px) < 0:
            raise ValueError(
                f"width_px {width_px}, height_px {height_px}: expected the labels' frame size, or 0 and 0 "
                "for the video's"
            )
        self.folder, self.type_name = Path(folder).expanduser(), type_name
        self.label_size_px = (width_px, height_px)
        self._known: dict[int, list[Face]] | None = None
        self._size = (0, 0)

    def start(self, path: Path, stream: Stream) -> None:
        """Read the labels of one video; a frame without a line has no face.

        ValueError where there are none, or where they do not fit the video.
        """
        self._known = None
        labels = find_labels(self.folder, Path(path))
        known: dict[int, list[Face]] = {}
        kind = "video" if labels.is_file() else "frame"
        for file in [labels] if kind == "video" else sorted(labels.glob("*.txt")):
            number = re.search(r"\d+$", file.stem)
            if kind == "frame" and not number:
                raise ValueError(f"{file}: expected a name that ends in a frame's number, such as 000012.txt")
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{file}: cannot be read as text: {error}") from error
            for row, line in enumerate(lines, start=1):
                place = f"{file}:{row}"
                found = read_line(line, kind, place, type_name=self.type_name) if line.strip() else None
                if found is not None:
                    frame = int(number.group()) if kind == "frame" and number else found[0]
                    box = self._in_frame(found[1], frame, place, stream)
                    if box is not None and found[2] >= self.min_confidence:
                        known.setdefault(frame, []).append(Face(frame, box, found[2]))
        self._known, self._size = known, (stream.height_px, stream.width_px)

    def _in_frame(self, box: Box, frame: int, place: str, stream: Stream) -> Box | None:
        """A box of the labels in pixels of the video."""
        if frame >= stream.num_frames:
            raise ValueError(
                f"{place}: frame {frame} of a video with {stream.num_frames} frames: are these the labels "
                "of another video?"
            )
        own = (stream.width_px, stream.height_px)
        width, height = self.label_size_px if all(self.label_size_px) else own
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            raise ValueError(
                f"{place}: box {box} lies outside {width}x{height} pixels: set width_px and height_px to "
                "the size of the labels"
            )
        x, y = stream.width_px / width, stream.height_px / height
        scaled = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
        return clip_box(scaled, width_px=stream.width_px, height_px=stream.height_px)

    def _faces(self, frame: np.ndarray, index: int) -> list[Face]:
        if self._known is None:
            raise ValueError(
                "the kitti detector does not know which video this is: call start(path, stream) before detect"
            )
        bottom, right = ((n - own) // 2 for n, own in zip(frame.shape, self._size, strict=False))
        if bottom < 0 or right < 0:
            raise ValueError(
                f"frame of {frame.shape[1]}x{frame.shape[0]} of a video of "
                f"{self._size[1]}x{self._size[0]}: expected it in full size"
            )
        faces = []
        for face in self._known.get(index, ()):
            x0, y0, x1, y1 = np.add(face.box_px, (right, bottom, right, bottom)).tolist()
            faces.append(Face(index, (x0, y0, x1, y1), face.confidence))
        return faces


@DETECTORS.register(name="kitti")
def kitti(
    *,
    min_confidence: float = 0.5,
    folder: str = "",
    type_name: str = "Face",
    width_px: int = 0,
    height_px: int = 0,
) -> Kitti:
    """Boxes from KITTI label files in `folder`, as tracking benchmarks and DeepStream write them."""
    return Kitti(folder, type_name, width_px, height_px, min_confidence)
