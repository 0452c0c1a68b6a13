"""Square boxes, transforms that level the eyes, and crops of the planes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dfdc_video.faces.crop import (
    EYE_DISTANCE,
    EYE_HEIGHT,
    MAX_GROWTH,
    crop_box,
    cut_planes,
    eye_transform,
    face_sizes,
    split_track,
    warp_planes,
)
from dfdc_video.faces.track import Tracklet


def moving(count: int, *, step: float, size: float = 40, growth: float = 0.0) -> np.ndarray:
    """Boxes (count, 4) of a face that moves to the right by `step` and grows by `growth` pixels a frame."""
    t = np.arange(count)[:, None]
    low = np.concatenate((20 + step * t, 30 + 0 * t), axis=1)
    return np.concatenate((low, low + size + growth * t), axis=1)


def test_a_still_face_gets_margin_times_its_size_around_its_centre():
    assert crop_box(np.array([[100.0, 80, 140, 120]] * 9), margin=1.5) == (90, 70, 150, 130)


def test_the_box_is_square_even_and_covers_every_face():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        low = rng.uniform(0, 200, (20, 2))
        boxes = np.concatenate((low, low + rng.uniform(10, 80, (20, 2))), axis=1)
        x0, y0, x1, y1 = crop_box(boxes, margin=1.3)
        assert x1 - x0 == y1 - y0 and (x1 - x0) % 2 == x0 % 2 == y0 % 2 == 0
        assert (boxes[:, :2] >= (x0, y0)).all() and (boxes[:, 2:] <= (x1, y1)).all()


def test_a_box_of_one_frame_has_margin_times_the_face():
    for box in np.random.default_rng(0).uniform(0, 50, (20, 2)):
        x0, y0, x1, y1 = crop_box(np.array([[*box, *(box + 40)]]), margin=1.5)
        assert x1 - x0 == 60 and np.abs(np.array([x0, y0]) + 30 - box - 20).max() <= 1


def test_a_still_track_stays_whole():
    track = Tracklet(5, moving(100, step=0.1), 0.8)
    assert split_track(track, margin=1.5, min_frames=8) == [track]


@pytest.mark.parametrize(("step", "growth"), [(3.0, 0.0), (0.0, 1.5), (-2.0, 1.0)])
def test_a_moving_or_growing_track_is_divided(step, growth):
    boxes = moving(200, step=step, growth=growth)
    track = Tracklet(5, boxes, 0.8, detection_rate=0.7, eyes_px=boxes + 1)
    pieces = split_track(track, margin=1.5, min_frames=8)
    assert len(pieces) > 1
    assert [p.start_frame for p in pieces] == [5, *(p.end_frame for p in pieces[:-1])]
    assert pieces[-1].end_frame == 205
    assert np.array_equal(np.concatenate([p.boxes_px for p in pieces]), track.boxes_px)
    assert np.array_equal(np.concatenate([p.eyes_px for p in pieces]), track.eyes_px)
    assert {p.detection_rate for p in pieces} == {0.7}
    for p in pieces:
        box = crop_box(p.boxes_px, margin=1.5)
        assert len(p.boxes_px) >= 8
        assert box[2] - box[0] <= MAX_GROWTH * 1.5 * np.median(face_sizes(p.boxes_px)) + 2


def test_pieces_are_never_too_short():
    pieces = split_track(Tracklet(0, moving(30, step=40), 0.8), margin=1.5, min_frames=8)
    lengths = [len(p.boxes_px) for p in pieces]
    assert lengths == [p.end_frame - p.start_frame for p in pieces] and min(lengths) >= 8


def test_a_track_is_divided_at_a_jump():
    boxes = np.concatenate((moving(20, step=0), moving(30, step=0) + [300, 0, 300, 0]))
    assert [p.start_frame for p in split_track(Tracklet(0, boxes, 0.8), margin=1.5, min_frames=8)] == [0, 20]


def planes_of(height: int, width: int, *, smooth: float = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random Y, U and V planes of 4:2:0, blurred by `smooth` pixels."""
    rng = np.random.default_rng(0)
    y, u, v = (rng.integers(0, 255, (-(-height // p), -(-width // p)), dtype=np.uint8) for p in (1, 2, 2))
    if smooth:
        y, u, v = (cv2.GaussianBlur(p, (0, 0), smooth / q) for p, q in ((y, 1), (u, 2), (v, 2)))
    return y, u, v


def split(picture: np.ndarray) -> list[np.ndarray]:
    """The three planes of a picture (side * 3 / 2, side)."""
    side = picture.shape[1]
    y, u, v = np.split(picture.ravel(), (side * side, side * side * 5 // 4))
    return [y.reshape(side, side), u.reshape(side // 2, -1), v.reshape(side // 2, -1)]


@pytest.mark.parametrize("turns", range(4))  # planes of a rotated video are views with different strides
@pytest.mark.parametrize(
    "box", [(10, 20, 42, 52), (-10, -6, 22, 26), (40, 30, 72, 62), (-10, 20, 22, 52), (-20, -20, 120, 120)]
)
def test_planes_are_cut_alike_and_repeat_their_edges(box, turns):
    planes = tuple(np.rot90(p, turns) for p in planes_of(60, 80))
    for got, plane, subsampling in zip(split(cut_planes(planes, box)), planes, (1, 2, 2), strict=True):
        padded = np.pad(plane, 100, mode="edge")
        x0, y0, x1, y1 = (c // subsampling + 100 for c in box)
        assert np.array_equal(got, padded[y0:y1, x0:x1])


def test_a_box_outside_the_frame():
    with pytest.raises(ValueError, match="outside a frame of 80x60"):
        cut_planes(planes_of(60, 80), (80, 0, 100, 20))


@pytest.mark.parametrize("turn_degrees", [0, 25, -70, 180])
@pytest.mark.parametrize(("apart", "size"), [(30, 64), (90, 32), (8, 64)])
def test_eyes_are_mapped_to_their_places(turn_degrees, apart, size):
    turn, centre = np.radians(turn_degrees), np.array([101.3, 90.8])
    across = apart / 2 * np.array([np.cos(turn), np.sin(turn)])
    eyes = np.concatenate((centre - across, centre + across))
    matrix = eye_transform(eyes, size=size, margin=1.5)
    right, left = (matrix @ (*eye, 1) for eye in eyes.reshape(2, 2))
    height = (0.5 - EYE_HEIGHT / 1.5) * size
    assert np.allclose(right, (size / 2 * (1 - EYE_DISTANCE / 1.5), height))
    assert np.allclose(left, (size / 2 * (1 + EYE_DISTANCE / 1.5), height))
    y, x = np.mgrid[:180, :200] + 0.5
    squares = [(x - ex) ** 2 + (y - ey) ** 2 for ex, ey in eyes.reshape(2, 2)]
    spots = sum(np.exp(-square / (2 * (apart / 6) ** 2)) for square in squares)
    plane = (30 + 200 * spots).astype(np.uint8)
    half = cv2.resize(plane, (100, 90), interpolation=cv2.INTER_AREA)
    warped = split(warp_planes((plane, half, half), matrix, size))
    for got, subsampling in zip(warped, (1, 2, 2), strict=True):
        middle = size // subsampling // 2
        for other_side, expected in ((slice(middle, None), right), (slice(0, middle), left)):
            weights = got.astype(float) - 30
            weights[:, other_side] = 0
            weights[weights < 60] = 0
            rows, columns = np.mgrid[: len(got), : len(got)] + 0.5
            seen = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
            assert np.abs(seen * subsampling - expected).max() < 0.25 * subsampling, subsampling


def test_warping_is_opencvs_inside_and_repeats_the_edge_outside():
    y, u, v = planes_of(60, 80, smooth=2)
    matrix = eye_transform(np.array([30.0, 30, 42, 33]), size=48, margin=1.5)
    index = matrix.copy()
    index[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
    expected = cv2.warpAffine(y, index, (48, 48), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.array_equal(split(warp_planes((y, u, v), matrix, 48))[0], expected)
    corner = split(warp_planes((y, u, v), eye_transform(np.array([2.0, 2, 8, 2]), size=48, margin=1.5), 48))
    assert (corner[0][:2, :2] == y[0, 0]).all() and (corner[1][0, 0] == u[0, 0]).all()


def test_a_large_face_is_averaged_and_not_subsampled():
    y = np.zeros((400, 400), np.uint8)
    y[::2] = 200  # lines that subsampling would show as stripes
    matrix = eye_transform(np.array([120.0, 200, 280, 200]), size=32, margin=1.5)
    luma = split(warp_planes((y, y[::2, ::2], y[::2, ::2]), matrix, 32))[0]
    assert np.abs(luma.astype(int) - 100).max() < 15
