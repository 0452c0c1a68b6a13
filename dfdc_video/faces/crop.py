"""Boxes -> one fixed square crop per segment. A fixed box keeps the motion of the face and adds none of the detector's."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dfdc_video.faces.track import Tracklet

MAX_GROWTH = 2.0  # a segment's box may be this many times the box that its smaller faces need


def face_sizes(boxes_px: np.ndarray) -> np.ndarray:
    """Longer side of each box (N, 4), in pixels."""
    return np.maximum(boxes_px[:, 2] - boxes_px[:, 0], boxes_px[:, 3] - boxes_px[:, 1])


def _side(low: np.ndarray, high: np.ndarray, size: float, margin: float) -> np.ndarray:
    """Side of the square over a union of boxes, with the border that `margin` gives a face of `size` that does not move."""
    return (high - low).max(axis=-1) + (margin - 1) * size


def crop_box(boxes_px: np.ndarray, *, margin: float) -> tuple[int, int, int, int]:
    """The square (x0, y0, x1, y1) of even side over all of `boxes_px` (N, 4); `margin` times the face for a face that stands still.

    It may reach over the frame's edge: see `cut_out`.
    """
    low, high = boxes_px[:, :2].min(axis=0), boxes_px[:, 2:].max(axis=0)
    side = max(2, int(np.ceil(_side(low, high, float(np.median(face_sizes(boxes_px))), margin) / 2)) * 2)
    x0, y0 = (int(round(v)) for v in (low + high) / 2 - side / 2)
    return x0, y0, x0 + side, y0 + side


def split_track(track: Tracklet, *, margin: float, min_frames: int, max_growth: float = MAX_GROWTH) -> list[Tracklet]:
    """Cut a track whose face moves or grows so much that one fixed box would show it small.

    While the box over a piece is more than `max_growth` times the box of one of its smaller faces (the lower quartile), the piece is
    divided where the larger of the two new boxes is smallest. Pieces are never shorter than `min_frames`, so a very fast move may stay
    in one large box.
    """
    boxes, sizes = track.boxes_px, face_sizes(track.boxes_px)
    size = float(np.median(sizes))
    whole = float(_side(boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0), size, margin))
    at = np.arange(min_frames, len(boxes) - min_frames + 1)
    if whole <= max_growth * margin * float(np.quantile(sizes, 0.25)) or not len(at):
        return [track]
    low, high = np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])
    low_after, high_after = np.minimum.accumulate(boxes[::-1, :2])[::-1], np.maximum.accumulate(boxes[::-1, 2:])[::-1]
    sides = np.maximum(_side(low[at - 1], high[at - 1], size, margin), _side(low_after[at], high_after[at], size, margin))
    best = int(at[sides.argmin()])
    pieces = (
        Tracklet(track.start_frame, boxes[:best], track.confidence),
        Tracklet(track.start_frame + best, boxes[best:], track.confidence),
    )
    return [part for piece in pieces for part in split_track(piece, margin=margin, min_frames=min_frames, max_growth=max_growth)]


def cut_out(frame: np.ndarray, box: Sequence[int], size: int) -> np.ndarray:
    """The part of a frame (H, W, 3) in `box`, resized to (size, size, 3).

    What lies outside the frame repeats its edge: black bars would be a sharp line that a network can learn from.
    """
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = box
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height or x1 <= x0 or y1 <= y0:
        raise ValueError(f"crop box {tuple(box)} lies outside a frame of {width}x{height}")
    inside = frame[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    border = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(border):
        inside = cv2.copyMakeBorder(inside, *border, cv2.BORDER_REPLICATE)
    if inside.shape[0] == size:
        return np.ascontiguousarray(inside)
    return cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA if inside.shape[0] > size else cv2.INTER_CUBIC)
