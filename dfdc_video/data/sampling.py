"""Which frames make up a clip: index arithmetic over timestamps, separate from decoding.

A clip is `num_frames` frames at a spacing in seconds (so that 24, 25, 30 and variable frame rates mean the
same) or in source frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClipSpec:
    """Number of frames, spacing and size of a model's input.

    `stride_frames` above 0 takes precedence over `stride_seconds`.
    """

    num_frames: int
    stride_seconds: float
    stride_frames: int
    height: int
    width: int
    short: str  # policy for tracks shorter than the clip: repeat_last, loop, drop

    def policy(self, *, num_clips: int) -> dict[str, float | int | str]:
        """The settings that two runs must share to have seen the same frames of a video."""
        stride: dict[str, float | int] = {"stride_seconds": round(self.stride_seconds, 6)}
        if self.stride_frames:
            stride = {"stride_frames": self.stride_frames}
        return {"num_frames": self.num_frames, **stride, "short": self.short, "num_clips": num_clips}


def _times(timestamps: np.ndarray, spec: ClipSpec) -> tuple[np.ndarray, float, float]:
    """The axis of the frames (seconds or frame numbers), the stride on it, and half a frame as tolerance."""
    if spec.stride_frames:
        return np.arange(len(timestamps), dtype=np.float64), float(spec.stride_frames), 0.0
    frame = float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else spec.stride_seconds
    return np.asarray(timestamps, dtype=np.float64), spec.stride_seconds, 0.5 * frame


def last_start(timestamps: np.ndarray, spec: ClipSpec) -> int:
    """The last frame at which a whole clip can start; -1 where the track is too short for one."""
    axis, stride, tolerance = _times(timestamps, spec)
    latest = axis[-1] + tolerance - stride * (spec.num_frames - 1)
    return int(np.searchsorted(axis, latest + 1e-9, side="right")) - 1


def clip_indices(timestamps: np.ndarray, start: int, spec: ClipSpec) -> np.ndarray:
    """(num_frames,) indices of the frames nearest to evenly spaced instants from frame `start` on.

    Past the end of a short track, `repeat_last` repeats the last frame and `loop` starts over.
    """
    assert 0 <= start < len(timestamps), (start, len(timestamps))
    axis, stride, tolerance = _times(timestamps, spec)
    wanted = axis[start] + stride * np.arange(spec.num_frames)
    if spec.short == "loop":
        period = axis[-1] - axis[0] + max(2 * tolerance, 1.0 if spec.stride_frames else 0.0)
        if period > 0:
            beyond = wanted > axis[-1] + tolerance
            wanted = np.where(beyond, axis[0] + (wanted - axis[0]) % period, wanted)
        else:
            wanted = np.full_like(wanted, axis[0])
    right = np.clip(np.searchsorted(axis, wanted - 1e-9), 0, len(axis) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(axis[left] - wanted) <= np.abs(axis[right] - wanted), left, right)


def random_start(timestamps: np.ndarray, spec: ClipSpec, rng: np.random.Generator) -> int:
    """A random start, uniform over those with a whole clip; 0 for a short track."""
    return int(rng.integers(0, max(last_start(timestamps, spec), 0) + 1))


def view_starts(timestamps: np.ndarray, spec: ClipSpec, num_clips: int) -> list[int]:
    """Evenly spaced starts over the whole track, without repeats: the views of validation and test."""
    latest = max(last_start(timestamps, spec), 0)
    if num_clips == 1:
        return [latest // 2]
    return sorted({int(round(s)) for s in np.linspace(0, latest, num_clips)})
