"""track.py: cuts, linking and interpolation on constructed scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from torch import from_numpy
from torchvision.ops import box_iou

from dfdc_video.faces.track import (
    CUT_THUMBNAIL,
    build_tracks,
    find_cuts,
    interpolate,
    iou,
    link_faces,
    smooth,
)
from dfdc_video.media.reader import iter_frames
from dfdc_video.records import Face

FOOTAGE = Path(__file__).parents[2] / "../shared/media/white_house_640x360.mp4"


def face(frame: int, x: float, y: float = 50, size: float = 40, confidence: float = 0.9) -> Face:
    return Face(frame, (x, y, x + size, y + size), confidence)


def scene(seed: int, count: int, *, amplitude: float = 60) -> np.ndarray:
    """Thumbnails (T, h, w) of one shot: a smooth picture that pans slowly, with noise."""
    rng = np.random.default_rng(seed)
    width, height = CUT_THUMBNAIL
    picture = cv2.GaussianBlur(rng.normal(0, 1, (height, width + count)), (0, 0), 3)
    picture = 110 + amplitude * picture / np.abs(picture).max()
    frames = np.stack([picture[:, i // 3 : i // 3 + width] for i in range(count)])
    return np.clip(frames + rng.normal(0, 1, frames.shape), 0, 255)


@pytest.mark.parametrize("seed", range(4))
def test_hard_cuts_are_found_where_they_are(seed):
    shots = [scene(10 * seed + i, n) for i, n in enumerate((20, 31, 9, 40))]
    assert find_cuts(np.concatenate(shots)) == [20, 51, 60]


@pytest.mark.parametrize("amplitude", [0.12, 0.25])
def test_flicker_is_no_cut(amplitude):
    frames = scene(0, 80)
    series = 1 + amplitude * np.random.default_rng(1).uniform(-1, 1, 80)
    assert find_cuts(np.clip(frames * series[:, None, None], 0, 255)) == []
    inner = frames.copy()
    inner[:, 4:14, 8:24] *= series[:, None, None]  # the face alone flickers
    assert find_cuts(np.clip(inner, 0, 255)) == []


def test_fast_motion_flashes_and_repeated_frames_are_no_cuts():
    t, y, x = np.ogrid[:60, :18, :32]
    # back and forth over a third of the width
    block = 40 + 160 * np.exp(-(((x - 16 - 14 * np.sin(t / 4)) / 5) ** 4) - ((y - 9) / 6) ** 4)
    assert find_cuts(block) == []
    assert find_cuts(np.repeat(block, 2, axis=0)) == []  # every frame shown twice
    flash = scene(3, 30)
    flash[12] = 255 - flash[12]
    assert find_cuts(flash) == []


def test_a_still_and_a_single_frame():
    assert find_cuts(np.full((10, 18, 32), 90.0)) == []
    assert find_cuts(np.zeros((1, 18, 32))) == []


@pytest.mark.skipif(not FOOTAGE.is_file(), reason="no real footage on this machine")
def test_cuts_of_real_footage():
    frames = iter_frames(FOOTAGE)
    grey = [
        cv2.cvtColor(cv2.resize(f, CUT_THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for f in frames
    ]
    assert find_cuts(np.stack(grey)) == [20, 82, 211]  # found by watching


def test_iou_is_torchvisions():
    rng = np.random.default_rng(0)
    a, b = (
        np.concatenate((low := rng.uniform(0, 50, (n, 2)), low + rng.uniform(1, 60, (n, 2))), axis=1)
        for n in (7, 5)
    )
    assert np.allclose(iou(a, b), box_iou(from_numpy(a), from_numpy(b)).numpy())


def test_interpolation_is_exact_for_linear_motion():
    path = np.array([[3 + 2.5 * t, 7 - t, 43 + 3 * t, 50 + 0.5 * t] for t in range(31)])
    faces = [Face(t, tuple(path[t]), 0.8) for t in (0, 5, 10, 20, 30)]
    assert np.allclose(interpolate(faces), path)


def test_two_people_stay_two():
    detections = [[face(t, 10 + t), face(t, 200 - t)][:: 1 if t % 2 else -1] for t in range(0, 50, 5)]
    chains = link_faces(detections)
    assert sorted(len(c) for c in chains) == [10, 10]
    for chain in chains:
        xs = [f.box_px[0] for f in chain]
        assert xs == sorted(xs) or xs == sorted(xs, reverse=True)


def test_assignment_is_the_best_in_total_and_not_greedy():
    before = [face(0, 0), face(0, 16)]
    # greedily, the second chain would get the first face and the first chain none
    after = [face(5, 12), face(5, 26)]
    chains = link_faces([before, after])
    assert [[f.box_px[0] for f in c] for c in chains] == [[0, 12], [16, 26]]


@pytest.mark.parametrize(("gap", "expected"), [(3, 1), (4, 2)])
def test_gap_tolerance(gap, expected):
    detections = [[face(0, 10)], *[[] for _ in range(gap)], [face(5 * (gap + 1), 12)]]
    assert len(link_faces(detections, max_gap=3)) == expected


def test_identity_never_continues_over_a_cut():
    detection_frames = list(range(0, 40, 5))
    detections = [[face(t, 100)] for t in detection_frames]  # the same place on both sides
    tracks = build_tracks(detections, detection_frames, num_frames=40, cuts=[18])
    assert [(t.start_frame, t.end_frame) for t in tracks] == [(0, 18), (18, 40)]
    (uncut,) = build_tracks(detections, detection_frames, num_frames=40)
    assert (uncut.start_frame, uncut.end_frame) == (0, 40)


def test_two_people_who_change_places_at_a_cut_are_four_tracks():
    detection_frames = list(range(0, 40, 5))
    detections = [
        [face(t, 20, size=40), face(t, 200, size=60)]
        if t < 20
        else [face(t, 20, size=60), face(t, 200, size=40)]
        for t in detection_frames
    ]
    tracks = build_tracks(detections, detection_frames, num_frames=40, cuts=[20])
    assert len(tracks) == 4
    for track in tracks:
        assert not track.start_frame < 20 < track.end_frame
        assert np.ptp(track.boxes_px[:, 2] - track.boxes_px[:, 0]) == 0


def test_a_face_that_appears_and_leaves_is_not_extended_to_the_edge():
    detection_frames = list(range(0, 40, 5))
    detections = [[face(t, 50 + t)] if 10 <= t <= 20 else [] for t in detection_frames]
    (track,) = build_tracks(detections, detection_frames, num_frames=40)
    assert (track.start_frame, track.end_frame) == (10, 21)
    assert track.boxes_px[3, 0] == pytest.approx(63)


def test_no_face_no_track():
    assert build_tracks([[], []], [0, 5], num_frames=8) == []


def test_weak_detections_are_ignored_and_the_best_is_remembered():
    detection_frames = list(range(0, 40, 5))
    detections = [
        [face(t, 50, confidence=0.35 + 0.01 * t), face(t, 200, confidence=0.2)] for t in detection_frames
    ]
    (track,) = build_tracks(detections, detection_frames, num_frames=40, min_confidence=0.3)
    assert track.best_confidence == pytest.approx(0.7) and track.confidence == pytest.approx(0.525)
    assert len(build_tracks(detections, detection_frames, num_frames=40)) == 2


def test_detection_rate_counts_detection_frames_between_the_first_and_the_last_detection():
    detection_frames = list(range(0, 60, 5))
    detections = [[face(t, 50)] if t in (10, 15, 30, 40) else [] for t in detection_frames]
    (track,) = build_tracks(detections, detection_frames, num_frames=60)
    assert track.detection_rate == pytest.approx(4 / 7)  # 10, 15, 20, 25, 30, 35, 40
    assert build_tracks([[face(0, 50)], [], []], [0, 5, 10], num_frames=15)[0].detection_rate == 1


def test_eyes_are_interpolated_like_boxes():
    def with_eyes(t: int) -> Face:
        return Face(t, (t, 0, t + 40, 40), 0.9, ((t + 10, 15 + t), (t + 30, 15 - t), (0, 0)))

    detections = [[with_eyes(0)], [face(5, 5, 0)], [with_eyes(10)], []]
    (track,) = build_tracks(detections, [0, 5, 10, 15], num_frames=18)
    assert (track.start_frame, track.end_frame) == (0, 11) and track.eyes_px.shape == (11, 4)
    assert np.allclose(track.eyes_px[[0, 5, 7]], [[10, 15, 30, 15], [15, 20, 35, 10], [17, 22, 37, 8]])
    (without,) = build_tracks([[face(0, 5)]], [0], num_frames=3)
    assert without.eyes_px.shape == (0, 4) and len(without.boxes_px) == 3


def test_smoothing_follows_time_and_not_the_frame_number():
    from scipy.ndimage import gaussian_filter1d

    values = np.random.default_rng(0).normal(0, 1, (200, 4)).cumsum(axis=0)
    even = np.arange(200) / 25
    expected = gaussian_filter1d(values, 0.2 * 25, axis=0, truncate=4)
    assert np.abs(smooth(values, even, seconds=0.2) - expected)[25:-25].max() < 2e-3
    assert np.array_equal(smooth(values, even, seconds=0), values)
    assert smooth(values[:0], even[:0], seconds=1).shape == (0, 4)
    pause = np.array([0, 0.04, 0.08, 30, 30.04])  # values half a minute away have no influence
    steps = np.array([[1.0], [1], [1], [9], [9]])
    assert np.allclose(smooth(steps, pause, seconds=0.2), steps)
    assert np.allclose(smooth(np.full((200, 4), 3.5), even, seconds=0.5), 3.5)
