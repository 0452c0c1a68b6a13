"""The records of the framework, in the order in which data flows: video, stream, face, track, clip.

Records are small, immutable and check their own shapes. Identity (`video_id`, `track_id`) travels with the
data and is never derived from a path or from a position in a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

SPLIT_NAMES = ("train", "val", "test")
STATUSES = ("ok", "no_face", "unreadable")
ID_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")


@dataclass(frozen=True)
class Video:
    """One source video as its data set describes it, before anything was decoded."""

    video_id: str
    dataset: str
    path: str  # relative to the data set's root, POSIX
    label: int  # 0 real, 1 fake, or a class index
    split: str = ""  # train, val, test, or "" before a split rule has run
    # video_id of the original that a fake was made from, also where that video is missing
    source_id: str = ""
    group_id: str = ""  # videos of one group stay in one split
    method: str = ""  # how it was made: "real", "unknown", or the name of a method
    folder: str = ""  # the part of the data set that it lies in
    # the people in it, donors of a face included, where the data set names them
    identities: tuple[str, ...] = ()
    mask_path: str = ""  # video of the altered pixels, relative to the root, where the data set has one

    def __post_init__(self) -> None:
        if not ID_PATTERN.match(self.video_id):
            raise ValueError(
                f"video_id {self.video_id!r}: expected letters, digits, '_', '.', '-' only; the reader of "
                "the data set must make it so"
            )
        if self.label < 0:
            raise ValueError(f"video {self.video_id}: label {self.label}, expected 0 or more")
        if self.split not in ("", *SPLIT_NAMES):
            raise ValueError(f"video {self.video_id}: split {self.split!r}, expected one of {SPLIT_NAMES}")


@dataclass(frozen=True)
class Rejection:
    """A file that a stage refused, with the reason: a row of quarantine.csv."""

    video_id: str
    path: str
    stage: str  # read, probe, decode, faces, clean
    reason: str


@dataclass(frozen=True)
class Stream:
    """The video stream of a file, after rotation metadata was applied."""

    num_frames: int
    fps: float
    height_px: int
    width_px: int
    rotation_degrees: int
    codec: str
    # (num_frames,) presentation times, first = 0
    timestamps_seconds: np.ndarray = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.timestamps_seconds.shape == (self.num_frames,), self.timestamps_seconds.shape


@dataclass(frozen=True)
class Face:
    """One detection. The box is (x0, y0, x1, y1) in pixels of the rotated frame."""

    frame_index: int
    box_px: tuple[float, float, float, float]
    confidence: float
    keypoints_px: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Track:
    """One person over consecutive frames of one shot, and the face video that was cut from it."""

    track_id: str
    video_id: str
    start_frame: int  # of the source video
    boxes_px: np.ndarray = field(repr=False, compare=False)  # (N, 4) x0, y0, x1, y1, one per source frame
    timestamps_seconds: np.ndarray = field(repr=False, compare=False)  # (N,) of the source video
    confidence: float = 0.0  # mean over the detections of the track
    # share of the detection frames, from the first to the last detection, on which the face was found
    detection_rate: float = 1.0
    crop_path: str = ""  # face video (or a folder of PNG files), relative to the prepared folder, POSIX
    # fixed square box (for other crops: the one over all frames), may extend beyond the frame
    crop_box_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    # (N, 4) right and left x, y, for aligned crops
    eyes_px: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)), repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.boxes_px.ndim != 2 or self.boxes_px.shape[1] != 4:
            raise ValueError(f"track {self.track_id}: boxes of shape {self.boxes_px.shape}, expected (N, 4)")
        if self.timestamps_seconds.shape != (len(self.boxes_px),):
            raise ValueError(
                f"track {self.track_id}: {len(self.boxes_px)} boxes, timestamps of shape "
                f"{self.timestamps_seconds.shape}"
            )

    @property
    def num_frames(self) -> int:
        return len(self.boxes_px)


@dataclass(frozen=True)
class Clip:
    """Frames of one face video that a model sees at once. Indices count from the start of the face video."""

    video_id: str
    track_id: str
    frame_indices: np.ndarray = field(repr=False, compare=False)  # (T,) int
    label: int = 0

    @property
    def start_frame(self) -> int:
        return int(self.frame_indices[0])
