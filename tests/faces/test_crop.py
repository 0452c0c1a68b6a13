"""crop.py: one square box per segment, and what is cut out of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dfdc_video.faces.crop import MAX_GROWTH, crop_box, cut_out, face_sizes, split_track
from dfdc_video.faces.track import Tracklet


def moving(count: int, *, step: float, size: float = 40, growth: float = 0.0) -> np.ndarray:
    t = np.arange(count)[:, None]
    low = np.concatenate((20 + step * t, 30 + 0 * t), axis=1)
    return np.concatenate((low, low + size + growth * t), axis=1)


def test_a_still_face_gets_margin_times_its_size_around_its_centre():
    assert crop_box(np.array([[100.0, 80, 140, 120]] * 9), margin=1.5) == (90, 70, 150, 130)


@pytest.mark.parametrize("seed", range(10))
def test_the_box_is_square_even_and_covers_every_face(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 200, (20, 2))
    boxes = np.concatenate((low, low + rng.uniform(10, 80, (20, 2))), axis=1)
    x0, y0, x1, y1 = crop_box(boxes, margin=1.3)
    assert x1 - x0 == y1 - y0 and (x1 - x0) % 2 == 0
    assert x0 <= boxes[:, 0].min() and y0 <= boxes[:, 1].min() and x1 >= boxes[:, 2].max() and y1 >= boxes[:, 3].max()


def test_a_still_track_stays_whole():
    track = Tracklet(5, moving(100, step=0.1), 0.8)
    assert split_track(track, margin=1.5, min_frames=8) == [track]


@pytest.mark.parametrize(("step", "growth"), [(3.0, 0.0), (0.0, 1.5), (-2.0, 1.0)])
def test_a_moving_or_growing_track_is_divided(step, growth):
    track = Tracklet(5, moving(200, step=step, growth=growth), 0.8)
    pieces = split_track(track, margin=1.5, min_frames=8)
    assert len(pieces) > 1
    assert [p.start_frame for p in pieces] == [5, *(p.end_frame for p in pieces[:-1])] and pieces[-1].end_frame == 205
    assert np.array_equal(np.concatenate([p.boxes_px for p in pieces]), track.boxes_px)
    for p in pieces:
        box = crop_box(p.boxes_px, margin=1.5)
        assert len(p.boxes_px) >= 8
        assert box[2] - box[0] <= MAX_GROWTH * 1.5 * np.median(face_sizes(p.boxes_px)) + 2


def test_pieces_are_never_too_short():
    pieces = split_track(Tracklet(0, moving(30, step=40), 0.8), margin=1.5, min_frames=8)
    assert [len(p.boxes_px) for p in pieces] == [p.end_frame - p.start_frame for p in pieces] and min(len(p.boxes_px) for p in pieces) >= 8


def test_a_jump_is_where_the_track_is_divided():
    boxes = np.concatenate((moving(20, step=0), moving(30, step=0) + [300, 0, 300, 0]))
    assert [p.start_frame for p in split_track(Tracklet(0, boxes, 0.8), margin=1.5, min_frames=8)] == [0, 20]


def test_cut_out_inside_is_a_slice():
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    assert np.array_equal(cut_out(frame, (10, 20, 42, 52), 32), frame[20:52, 10:42])


def test_cut_out_repeats_the_edge():
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    padded = np.pad(frame, ((20, 20), (20, 20), (0, 0)), mode="edge")
    for box in ((-10, -6, 22, 26), (60, 40, 92, 72), (-10, 20, 22, 52)):
        assert np.array_equal(cut_out(frame, box, 32), padded[box[1] + 20 : box[3] + 20, box[0] + 20 : box[2] + 20])


@pytest.mark.parametrize(("size", "method"), [(16, cv2.INTER_AREA), (64, cv2.INTER_CUBIC)])
def test_cut_out_resizes(size, method):
    frame = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    assert np.array_equal(cut_out(frame, (10, 20, 42, 52), size), cv2.resize(frame[20:52, 10:42], (size, size), interpolation=method))


def test_a_box_outside_the_frame():
    with pytest.raises(ValueError, match="outside a frame of 80x60"):
        cut_out(np.zeros((60, 80, 3), dtype=np.uint8), (80, 0, 100, 20), 32)
