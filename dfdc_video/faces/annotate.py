"""Annotations beside the face videos of one video: landmarks of every frame, masks of altered pixels.

    tracks/<video_id>/<track_id>_landmarks.npz    points (N, 468, 3) float16 in pixels of the face video,
                                                  found (N,) bool
    tracks/<video_id>/<track_id>_mask.mp4         lossless grey video of the differences; a folder of PNG
                                                  files where the face video is one

Both have the frames of the face video. `load_landmarks`, `load_mask`, `face_hull` and `GROUPS` are for
training and need no mediapipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.detect import quiet_stderr
from dfdc_video.files import whole_file
from dfdc_video.folders.prepared import landmarks_path, mask_path
from dfdc_video.media.reader import FULL, SMPTE170M, iter_frames
from dfdc_video.media.writer import VideoWriter
from dfdc_video.records import Track

NUM_POINTS = 468
UNSPECIFIED = 2  # FFmpeg's value for colour primaries and transfer that do not matter
# at 256 pixels: blur of the frames against the codec's noise, and of their difference into regions
NOISE_PX, SPREAD_PX = 1.0, 2.0
GROUPS = {  # indices of mediapipe's face mesh; right and left from the subject's view
    "right_eye": (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246),
    "left_eye": (249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466),
    "mouth": (
        *(0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191),
        *(267, 269, 270, 291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415),
    ),
}


def annotate(
    out: Path, tracks: Sequence[Track], originals: Sequence[Track] | None, *, landmarks: bool, masks: bool
) -> None:
    """Write landmarks or masks beside the face videos of `tracks`, whole or not at all.

    Call it in a spawned worker (see `detect`). `originals` are the tracks of the original from which an
    aligned fake took its boxes; without them there is no mask. Raises ValueError where a track of the fake
    has no counterpart in the original, UnreadableVideo, and OSError where the disk is full.
    """
    out = Path(out)
    of_original = {(t.start_frame, t.num_frames, t.crop_box_px): t for t in originals or ()}
    for track in tracks:
        path = out / track.crop_path
        if landmarks:
            write_landmarks(landmarks_path(path), find_landmarks(path, _mesh()))
        if masks and originals is not None:
            twin = of_original.get((track.start_frame, track.num_frames, track.crop_box_px))
            if twin is None:
                raise ValueError(
                    f"track {track.track_id}: no track of its original has its frames and its crop box: "
                    "not an aligned pair"
                )
            write_mask(mask_path(path), path, out / twin.crop_path, fps=_rate(track))


def _rate(track: Track) -> float:
    seconds = float(track.timestamps_seconds[-1] - track.timestamps_seconds[0])
    return (track.num_frames - 1) / seconds if seconds > 0 else 1.0


@lru_cache(maxsize=1)
def _mesh() -> Any:
    """mediapipe's face mesh (Kartynnik et al. 2019, arXiv:1907.06724), one per worker process."""
    with quiet_stderr():
        from mediapipe.python.solutions.face_mesh import FaceMesh

        return FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=False)


def find_landmarks(path: Path, mesh: Any) -> np.ndarray:
    """(N, 468, 3) float32: points of one face on each frame of a face video, NaN where no face is found.

    x and y are in pixels of the face video, depth is on the same scale. `mesh` tracks the face from frame to
    frame, so that points do not jitter; it is reset for every video.
    """
    with quiet_stderr():
        mesh.reset()
        return np.stack([_points(mesh, frame) for frame in iter_frames(path)])


def _points(mesh: Any, frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    faces = mesh.process(frame).multi_face_landmarks
    if not faces:
        return np.full((NUM_POINTS, 3), np.nan, dtype=np.float32)
    return np.array(
        [(p.x * width, p.y * height, p.z * width) for p in faces[0].landmark[:NUM_POINTS]], dtype=np.float32
    )


def write_landmarks(path: Path, points: np.ndarray) -> None:
    """Write points (N, 468, 3) in half precision.

    Its error, an eighth of a pixel for coordinates from 128 to 256, is less than the jitter of the mesh.
    """
    found = np.isfinite(points).all(axis=(1, 2))
    with whole_file(path, shared=True) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, points=points.astype(np.float16), found=found)


def load_landmarks(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 468, 3) float32 in pixels of the face video, and found (N,) bool; NaN where not found."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no landmarks at {path}: prepare the data set with landmarks")
    try:
        with np.load(path, allow_pickle=False) as table:
            return table["points"].astype(np.float32), table["found"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: expected the arrays points and found of `prepare`: {error}") from error


def face_hull(points: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bool: the convex hull of points (P, 2 or 3) in pixels; all False without points.

    The points are, for example, the landmarks of a frame or a group of them.
    """
    mask: np.ndarray = np.zeros((size, size), dtype=np.uint8)
    known = np.asarray(points, dtype=np.float32)[:, :2]
    known = known[np.isfinite(known).all(axis=1)]
    if len(known):
        cv2.fillConvexPoly(mask, np.round(cv2.convexHull(known)).astype(np.int32), (1,))
    return mask.astype(bool)


def difference(fake: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the difference of two frames (H, W, 3) uint8, in the colour channel with the largest.

    Both are blurred by a pixel first, which removes half of the codec's noise, and the difference by two, so
    that altered texture, whose signs alternate, becomes a region and not speckle.
    """
    scale = len(fake) / 256
    change = cv2.GaussianBlur(fake.astype(np.float32) - real, (0, 0), max(0.3, NOISE_PX * scale))
    region = cv2.GaussianBlur(np.abs(change).max(axis=2), (0, 0), max(0.3, SPREAD_PX * scale))
    return np.round(region).astype(np.uint8)


def write_mask(path: Path, fake: Path, real: Path, *, fps: float) -> None:
    """Write the difference of two face videos, frame by frame, as a lossless grey video (a folder of PNG
    files where `path` has no suffix).
    """
    kind = "lossless" if path.suffix else "png"
    with VideoWriter(path, fps=fps, format=kind, color=(SMPTE170M, FULL, UNSPECIFIED, UNSPECIFIED)) as writer:
        for ours, theirs in zip(iter_frames(fake), iter_frames(real), strict=True):
            grey = difference(ours, theirs)
            neutral = np.full((len(grey) // 2, len(grey)), 128, dtype=np.uint8)
            writer.add_planes(np.concatenate((grey, neutral)))


def load_mask(path: str | Path, threshold: float = 5.0) -> np.ndarray:
    """(N, H, W) bool: the altered pixels, those that differ by `threshold` levels of 255 or more.

    5 suits lightly compressed face videos; raise it where real and fake were strongly compressed, each for
    itself.
    """
    if not Path(path).exists():
        raise FileNotFoundError(
            f"no difference mask at {path}: prepare the data set with masks; only fakes aligned with "
            "their original have one"
        )
    return np.stack([frame[..., 0] >= threshold for frame in iter_frames(path)])
