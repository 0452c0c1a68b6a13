"""Boxes -> square crops.

One fixed box per segment, the default, keeps the motion of the face and adds no jitter of the detector. Crops
are cut from the Y, U and V planes of 4:2:0 video, so that nothing is converted to RGB and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from dfdc_video.faces.track import Tracklet

CROPS = ("fixed", "smoothed", "aligned")
# distance between the eyes, and from them down to the middle, as shares of the side of BlazeFace's box:
# medians of 47 real faces
EYE_DISTANCE, EYE_HEIGHT = 0.36, 0.19
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y (H, W), U and V (H / 2, W / 2), uint8
MAX_GROWTH = 2.0  # a segment's box may be this many times as large as its smaller faces need


def face_sizes(boxes_px: np.ndarray) -> np.ndarray:
    """Longer side of each box (N, 4), in pixels."""
    return np.maximum(boxes_px[:, 2] - boxes_px[:, 0], boxes_px[:, 3] - boxes_px[:, 1])


def _side(low: np.ndarray, high: np.ndarray, size: float, margin: float) -> np.ndarray:
    """Side of the square over a union of boxes, with the border of `margin` around a face of `size`."""
    return (high - low).max(axis=-1) + (margin - 1) * size


def crop_box(boxes_px: np.ndarray, *, margin: float) -> tuple[int, int, int, int]:
    """The square (x0, y0, x1, y1) of even side over all of `boxes_px` (N, 4).

    For a face at rest it is `margin` times the face. Its corner is even, as 4:2:0 colour requires. It may
    extend beyond the frame: see `cut_planes`.
    """
    boxes_px = np.asarray(boxes_px, dtype=np.float64)
    low, high = boxes_px[:, :2].min(axis=0), boxes_px[:, 2:].max(axis=0)
    exact = float(_side(low, high, float(np.median(face_sizes(boxes_px))), margin))
    # rounded, so that an excess from floating-point error alone does not count
    side = max(2, int(np.ceil(round(exact / 2, 3))) * 2)
    x0, y0 = (2 * int(round(v)) for v in ((low + high) / 2 - side / 2) / 2)
    return x0, y0, x0 + side, y0 + side


def split_track(
    track: Tracklet, *, margin: float, min_frames: int, max_growth: float = MAX_GROWTH
) -> list[Tracklet]:
    """Divide a track whose face moves or grows so much that it would be small in one fixed box.

    While the box over a segment is more than `max_growth` times the box of one of its smaller faces (the
    lower quartile), the segment is divided where the larger of the two new boxes is smallest. Segments are
    never shorter than `min_frames`, so that a very fast motion may stay in one large box.
    """
    boxes, sizes = track.boxes_px, face_sizes(track.boxes_px)
    size = float(np.median(sizes))
    whole = float(_side(boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0), size, margin))
    at = np.arange(min_frames, len(boxes) - min_frames + 1)
    if whole <= max_growth * margin * float(np.quantile(sizes, 0.25)) or not len(at):
        return [track]
    low, high = np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])
    low_after = np.minimum.accumulate(boxes[::-1, :2])[::-1]
    high_after = np.maximum.accumulate(boxes[::-1, 2:])[::-1]
    before = _side(low[at - 1], high[at - 1], size, margin)
    after = _side(low_after[at], high_after[at], size, margin)
    best = int(at[np.maximum(before, after).argmin()])
    first = replace(track, boxes_px=boxes[:best], eyes_px=track.eyes_px[:best])
    start = track.start_frame + best
    second = replace(track, start_frame=start, boxes_px=boxes[best:], eyes_px=track.eyes_px[best:])
    return [
        segment
        for half in (first, second)
        for segment in split_track(half, margin=margin, min_frames=min_frames, max_growth=max_growth)
    ]


def _check_inside(box: Sequence[int], width: int, height: int) -> None:
    x0, y0, x1, y1 = box
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height or x1 <= x0 or y1 <= y0:
        raise ValueError(f"crop box {tuple(box)} lies outside a frame of {width}x{height}")


def _cut_into(target: np.ndarray, plane: np.ndarray, x0: int, y0: int) -> None:
    """Fill `target` with the region of a plane that starts at (x0, y0); outside, the edge is replicated."""
    (rows, columns), (height, width) = target.shape, plane.shape
    top, left = max(-y0, 0), max(-x0, 0)
    bottom, right = min(height - y0, rows), min(width - x0, columns)
    inside = target[top:bottom, left:right]
    np.copyto(inside, plane[y0 + top : y0 + bottom, x0 + left : x0 + right])
    target[top:bottom, :left], target[top:bottom, right:] = inside[:, :1], inside[:, -1:]
    target[:top], target[bottom:] = target[top], target[bottom - 1]


def _empty(side: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A picture of 4:2:0, (side * 3 / 2, side), as VideoWriter.add_planes takes it, and its three planes."""
    picture, half = np.empty((side * 3 // 2, side), np.uint8), side // 2
    y, u, v = np.split(picture.reshape(-1), (side * side, side * side + half * half))
    return picture, [y.reshape(side, side), u.reshape(half, half), v.reshape(half, half)]


def cut_planes(planes: Planes, box: Sequence[int]) -> np.ndarray:
    """The even `box` of the Y, U and V planes of 4:2:0 as one array (side * 3 / 2, side) uint8.

    Pixels outside of the frame repeat its edge: black bars would be a sharp line that a network can learn
    from.
    """
    assert not any(c % 2 for c in box), box
    _check_inside(box, planes[0].shape[1], planes[0].shape[0])
    picture, targets = _empty(box[2] - box[0])
    for target, plane, subsampling in zip(targets, planes, (1, 2, 2), strict=True):
        _cut_into(target, plane, box[0] // subsampling, box[1] // subsampling)
    return picture


def eye_transform(eyes_px: np.ndarray, *, size: int, margin: float) -> np.ndarray:
    """The similarity (2, 3) that maps both eyes to their places in a crop of `size` pixels.

    `eyes_px` are x and y of the right and of the left eye. They are level, EYE_DISTANCE / margin of the size
    apart and EYE_HEIGHT / margin above the middle, so that `margin` means about the same as for boxes.
    Coordinates count from the corner of a pixel, whose centre is at one half.
    """
    (rx, ry, lx, ly), apart = np.asarray(eyes_px, dtype=np.float64), EYE_DISTANCE / margin * size
    across = np.array([lx - rx, ly - ry])
    # scaled cosine and sine of the rotation back to level
    a, b = apart * across / max(float(across @ across), 1e-6)
    turn = np.array([[a, b], [-b, a]])
    middle = np.array([0.5, 0.5 - EYE_HEIGHT / margin]) * size
    return np.column_stack((turn, middle - turn @ [(rx + lx) / 2, (ry + ly) / 2]))


def warp_planes(planes: Planes, transform: np.ndarray, size: int) -> np.ndarray:
    """The planes of 4:2:0 after a similarity of `eye_transform`, as one array (size * 3 / 2, size) uint8.

    Edges are replicated as in `cut_planes`.
    """
    # source and target of the colour planes both have half the size: only the shift is halved
    half = transform * [[1, 1, 0.5]]
    picture, targets = _empty(size)
    for target, plane, matrix in zip(targets, planes, (transform, half, half), strict=True):
        target[:] = _warp(plane, matrix, len(target))
    return picture


def _warp(plane: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """One plane.

    Where it shrinks to less than half, pixels are averaged first, since interpolation uses four only.
    """
    square = np.array([[[0.0, 0], [size, 0], [0, size], [size, size]]])
    corners = cv2.transform(square, cv2.invertAffineTransform(transform))[0]
    x0, y0 = np.floor(corners.min(axis=0)).astype(int) - 2
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 2
    height, width = plane.shape
    (x0, x1), (y0, y1) = np.clip((x0, x1), 0, width), np.clip((y0, y1), 0, height)
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    inside = np.ascontiguousarray(plane[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
    matrix = transform @ [[1, 0, x0], [0, 1, y0], [0, 0, 1]]
    shrink = int(1 / max(float(np.hypot(*transform[0, :2])), 1e-3))
    if shrink > 1:
        target = (max(1, inside.shape[1] // shrink), max(1, inside.shape[0] // shrink))
        matrix = matrix @ np.diag([inside.shape[1] / target[0], inside.shape[0] / target[1], 1])
        inside = cv2.resize(inside, target, interpolation=cv2.INTER_AREA)
    matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5  # OpenCV counts from the centre of a pixel
    return cv2.warpAffine(
        inside, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
