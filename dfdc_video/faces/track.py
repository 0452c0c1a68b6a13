"""Faces -> boxes over time. Pure functions: nothing here decodes or detects.

A tracklet is one person within one shot. A hard cut ends every tracklet, so that an identity never continues
over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from dfdc_video.records import Face

CUT_REACH = 3  # frames to either side that a jump is compared with
CUT_THUMBNAIL = (32, 18)  # width, height


@dataclass(frozen=True)
class Tracklet:
    """Boxes (N, 4) of one face on N consecutive frames from `start_frame`.

    `confidence` is the mean over its detections. `detection_rate` is the share of the detection frames, from
    its first to its last detection, on which it was found. `eyes_px` (N, 4) are the x and y of the right and
    of the left eye, (0, 4) where the detector gives no keypoints.
    """

    start_frame: int
    boxes_px: np.ndarray = field(repr=False, compare=False)
    confidence: float
    best_confidence: float = 1.0
    detection_rate: float = 1.0
    eyes_px: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)), repr=False, compare=False)

    @property
    def end_frame(self) -> int:
        """One past the last frame."""
        return self.start_frame + len(self.boxes_px)


def jump(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute difference of two grey thumbnails after the best common gain (0.5 to 2).

    With the gain, flicker does not count as a jump.
    """
    before, after = before.astype(np.float64), after.astype(np.float64)
    gain = np.clip((before * after).sum() / max((before * before).sum(), 1e-6), 0.5, 2.0)
    return float(np.abs(after - gain * before).mean())


def find_cuts(
    thumbnails: np.ndarray,
    *,
    threshold: float = 14.0,
    ratio: float = 2.0,
    low_threshold: float = 6.0,
    low_ratio: float = 4.0,
) -> list[int]:
    """First frames of new shots, from grey thumbnails (T, h, w) on a scale of 0 to 255.

    A cut is a jump that is large by itself (`threshold`) and relative to its surroundings: at least `ratio`
    times the second largest jump within three frames to either side, which allows for one more cut nearby and
    for repeated frames; at the ends of the video, where one side is short, the largest. A smaller jump
    (`low_threshold`, dark scenes) has to stand out more (`low_ratio`). One odd frame between two equal ones
    (a flash) is no cut.
    """
    jumps = np.array([0.0] + [jump(a, b) for a, b in zip(thumbnails, thumbnails[1:], strict=False)])
    cuts = []
    for t in range(1, len(jumps)):
        before, after = jumps[max(1, t - CUT_REACH) : t], jumps[t + 1 : t + 1 + CUT_REACH]
        around = np.sort(np.concatenate((before, after)))
        usual = float(around[-2] if len(around) == 2 * CUT_REACH else around[-1]) if len(around) else 0.0
        if (jumps[t] >= threshold and jumps[t] >= ratio * usual) or (
            jumps[t] >= low_threshold and jumps[t] >= low_ratio * usual
        ):
            cuts.append(t)
    flashes = {
        t for t in cuts if t + 1 in cuts and jump(thumbnails[t - 1], thumbnails[t + 1]) < low_threshold
    }
    return [t for t in cuts if t not in flashes and t - 1 not in flashes]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4) and (M, 4) as (N, M)."""
    a, b = np.asarray(a, dtype=np.float64).reshape(-1, 4), np.asarray(b, dtype=np.float64).reshape(-1, 4)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(axis=1), (b[:, 2:] - b[:, :2]).prod(axis=1)
    return intersection / np.maximum(area_a[:, None] + area_b[None, :] - intersection, 1e-12)


def interpolate(faces: Sequence[Face]) -> np.ndarray:
    """Boxes (N, 4) on every frame from the first to the last detection, linear in between."""
    frames = np.arange(faces[0].frame_index, faces[-1].frame_index + 1)
    return _linear(faces, [f.box_px for f in faces], frames)


def _linear(faces: Sequence[Face], values: Sequence[Sequence[float]], wanted: np.ndarray) -> np.ndarray:
    """Four values per face, linear between the faces' frames, constant before and after them."""
    at, known = np.array([f.frame_index for f in faces]), np.array(values, dtype=np.float64)
    return np.stack([np.interp(wanted, at, known[:, i]) for i in range(4)], axis=1)


def _eyes(chain: Sequence[Face], wanted: np.ndarray) -> np.ndarray:
    """Eyes (N, 4) on the `wanted` frames, from the faces with keypoints; (0, 4) where none has any.

    The first two keypoints are the eyes.
    """
    seen = [f for f in chain if len(f.keypoints_px) >= 2]
    if not seen:
        return np.zeros((0, 4))
    return _linear(seen, [(*f.keypoints_px[0], *f.keypoints_px[1]) for f in seen], wanted)


def smooth(values: np.ndarray, timestamps_seconds: np.ndarray, *, seconds: float) -> np.ndarray:
    """(N, K) values smoothed with a Gaussian over the timestamps.

    Its standard deviation is `seconds`; 0 leaves the values unchanged.
    """
    if not seconds or not len(values):
        return values
    first = np.searchsorted(timestamps_seconds, timestamps_seconds - 4 * seconds)
    last = np.searchsorted(timestamps_seconds, timestamps_seconds + 4 * seconds, side="right")
    result = np.empty_like(values, dtype=np.float64)
    for i, (a, b) in enumerate(zip(first, last, strict=True)):
        weights = np.exp(-0.5 * ((timestamps_seconds[a:b] - timestamps_seconds[i]) / seconds) ** 2)
        result[i] = weights @ values[a:b] / weights.sum()
    return result


def link_faces(
    detections: Sequence[Sequence[Face]], *, iou_threshold: float = 0.3, max_gap: int = 3
) -> list[list[Face]]:
    """Chains of faces over the detection frames of one shot.

    The assignment maximises the total IoU with each chain's last box. A chain ends when its face is missed on
    more than `max_gap` consecutive detection frames.
    """
    chains: list[list[Face]] = []
    last_step: list[int] = []
    for step, faces in enumerate(detections):
        active = [c for c in range(len(chains)) if step - last_step[c] <= max_gap + 1]
        taken = set()
        if active and faces:
            overlap = iou(
                np.array([chains[c][-1].box_px for c in active]), np.array([f.box_px for f in faces])
            )
            overlap[overlap < iou_threshold] = 0.0
            for row, column in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
                if overlap[row, column] > 0:
                    chains[active[row]].append(faces[column])
                    last_step[active[row]] = step
                    taken.add(int(column))
        for column, face in enumerate(faces):
            if column not in taken:
                chains.append([face])
                last_step.append(step)
    return chains


def build_tracks(
    detections: Sequence[Sequence[Face]],
    detection_frames: Sequence[int],
    *,
    num_frames: int,
    cuts: Sequence[int] = (),
    min_confidence: float = 0.0,
    iou_threshold: float = 0.3,
    max_gap: int = 3,
) -> list[Tracklet]:
    """Tracklets from the detections on `detection_frames` (ascending), ordered by first frame, then position.

    Detections below `min_confidence` are ignored. A chain that is alive on the first or last detection frame
    of its shot is extended to the shot's edge, since no frame beyond was searched.
    """
    assert len(detections) == len(detection_frames), (len(detections), len(detection_frames))
    edges = [0, *sorted(cuts), num_frames]
    tracklets = []
    for start, end in zip(edges, edges[1:], strict=False):
        steps = [i for i, frame in enumerate(detection_frames) if start <= frame < end]
        if not steps:
            continue
        frames = [detection_frames[i] for i in steps]
        confident = [[f for f in detections[i] if f.confidence >= min_confidence] for i in steps]
        for chain in link_faces(confident, iou_threshold=iou_threshold, max_gap=max_gap):
            first, last = chain[0].frame_index, chain[-1].frame_index
            begin = start if first == frames[0] else first
            wanted = np.arange(begin, end if last == frames[-1] else last + 1)
            confidences = [f.confidence for f in chain]
            tracklet = Tracklet(
                start_frame=begin,
                boxes_px=_linear(chain, [f.box_px for f in chain], wanted),
                confidence=float(np.mean(confidences)),
                best_confidence=max(confidences),
                detection_rate=len(chain) / sum(first <= frame <= last for frame in frames),
                eyes_px=_eyes(chain, wanted),
            )
            tracklets.append(tracklet)
    return sorted(tracklets, key=lambda t: (t.start_frame, *t.boxes_px[0]))
