"""Landmarks and difference masks of face videos. The face mesh runs in a spawned worker."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dfdc_video.faces.annotate import (
    GROUPS,
    annotate,
    difference,
    face_hull,
    find_landmarks,
    landmarks_path,
    load_landmarks,
    load_mask,
    mask_path,
    write_landmarks,
)
from dfdc_video.media.reader import iter_frames
from dfdc_video.media.writer import VideoWriter
from dfdc_video.records import Track

SIZE = 128
NUM_FRAMES = 8


def person(synthetic, method, *, identity=0):
    """Frames (SIZE, SIZE, 3) of a synthetic person's head, and half the width of the head in their pixels."""
    settings = {"seed": 0, "seconds": NUM_FRAMES / 30, "clip_seconds": 1.07}
    settings |= {"strength": 1.0, "spatial_strength": 1.0}
    donor = None if method == "real" else identity ^ 1
    video = {"identity": identity, "donor": donor, "second": None, "take": 0}
    video |= {"fps": 30, "method": method, "size": (240, 320)}
    scene = synthetic.film.scene_of(video, 0)
    (x, y), half = scene["centres_px"][0], int(1.8 * scene["unit_px"])
    rows, columns = slice(int(y) - half, int(y) + half), slice(int(x) - half, int(x) + half)
    frames = [
        cv2.resize(frame[rows, columns], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        for frame in synthetic.frames_of(video, settings)
    ]
    return frames, scene["unit_px"] * SIZE / (2 * half)


def write_track(out, video_id, frames, *, format="h264", start_frame=0):
    """A face video of `frames` and its track."""
    crop_path = f"tracks/{video_id}/{video_id}_00" + ("" if format == "png" else ".mp4")
    with VideoWriter(out / crop_path, fps=30, format=format) as writer:
        for frame in frames:
            writer.add(frame)
    boxes, stamps = np.tile([0.0, 0, SIZE, SIZE], (len(frames), 1)), np.arange(len(frames)) / 30
    box = (0, 0, SIZE, SIZE)
    return Track(f"{video_id}_00", video_id, start_frame, boxes, stamps, 0.9, 1.0, crop_path, box)


def test_landmarks_lie_on_the_synthetic_face(worker, synthetic, tmp_path):
    frames, unit = person(synthetic, "real")
    track = write_track(tmp_path, "v", frames)
    worker(annotate, tmp_path, [track], None, landmarks=True, masks=True)
    # an original has no mask
    assert sorted(p.name for p in (tmp_path / "tracks/v").iterdir()) == ["v_00.mp4", "v_00_landmarks.npz"]
    points, found = load_landmarks(tmp_path / "tracks/v/v_00_landmarks.npz")
    assert points.shape == (NUM_FRAMES, 468, 3) and points.dtype == np.float32
    assert found.shape == (NUM_FRAMES,) and found.all()
    for face in points:
        right, left, mouth = (
            face[list(GROUPS[name]), :2].mean(axis=0) for name in ("right_eye", "left_eye", "mouth")
        )
        # in half-widths of the head, eyes are 0.36 to 0.44 beside the centre and the mouth 0.72 to 0.88 below
        # them
        assert abs(left[0] - right[0] - 0.8 * unit) < 0.2 * unit and abs(left[1] - right[1]) < 0.15 * unit
        assert abs(mouth[1] - (left[1] + right[1]) / 2 - 0.8 * unit) < 0.2 * unit
        hull = face_hull(face, SIZE)
        assert hull[int(mouth[1]), int(mouth[0])] and not hull[2, 2]
        assert 0.8 < np.sqrt(hull.sum()) / unit < 2.5


def test_frames_without_a_face_are_nan(worker, synthetic, tmp_path):
    frames, _ = person(synthetic, "real")
    track = write_track(tmp_path, "v", [np.full((SIZE, SIZE, 3), 90, np.uint8)] * 3 + frames[:3])
    worker(annotate, tmp_path, [track], None, landmarks=True, masks=False)
    points, found = load_landmarks(tmp_path / "tracks/v/v_00_landmarks.npz")
    assert found.tolist() == [False] * 3 + [True] * 3
    assert np.isnan(points[:3]).all() and np.isfinite(points[3:]).all()
    assert not face_hull(points[0], SIZE).any()


def test_landmarks_do_not_depend_on_the_previous_video(worker, synthetic, tmp_path):
    tracks = [write_track(tmp_path, f"v{i}", person(synthetic, "real", identity=i)[0]) for i in (0, 3)]
    found = []
    for order in (tracks, tracks[::-1]):
        worker(annotate, tmp_path, order, None, landmarks=True, masks=False)
        found.append([landmarks_path(tmp_path / t.crop_path).read_bytes() for t in tracks])
    assert found[0] == found[1]


class Mesh:
    """A face mesh whose single face has all points in one place, on every second frame."""

    def __init__(self):
        self.frames = 5

    def reset(self):
        self.frames = 0

    def process(self, frame):
        self.frames += 1
        point = type("Point", (), {"x": 0.5, "y": 0.25, "z": -0.125})()
        face = type("Face", (), {"landmark": [point] * 478})()
        return type("Found", (), {"multi_face_landmarks": [face] if self.frames % 2 else None})()


def test_points_are_in_pixels(tmp_path):
    track = write_track(tmp_path, "v", [np.zeros((64, 64, 3), np.uint8)] * 4, format="png")
    points = find_landmarks(tmp_path / track.crop_path, Mesh())
    assert points.shape == (4, 468, 3)
    assert (points[[0, 2]] == (32, 16, -8)).all() and np.isnan(points[[1, 3]]).all()
    path = landmarks_path(tmp_path / track.crop_path)
    write_landmarks(path, points)
    assert path.name == "v_00_landmarks.npz"
    assert np.array_equal(load_landmarks(path)[0], points, equal_nan=True)


def test_missing_and_damaged_landmarks(tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare the data set with landmarks"):
        load_landmarks(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="a.npz: expected the arrays points and found"):
        load_landmarks(tmp_path / "a.npz")


def test_groups_are_those_of_mediapipe(worker):
    expected = worker(mesh_groups)
    assert {name: set(indices) for name, indices in GROUPS.items()} == expected


def mesh_groups():
    from mediapipe.python.solutions import face_mesh_connections as mesh

    edges = {
        "right_eye": mesh.FACEMESH_RIGHT_EYE,
        "left_eye": mesh.FACEMESH_LEFT_EYE,
        "mouth": mesh.FACEMESH_LIPS,
    }
    return {name: {i for edge in group for i in edge} for name, group in edges.items()}


def test_a_hull_is_convex_and_holds_its_points():
    rng = np.random.default_rng(0)
    points = rng.uniform(10, 50, (40, 3)).astype(np.float32)
    hull = face_hull(points, 64)
    assert hull.shape == (64, 64) and hull.dtype == bool
    assert all(hull[int(round(y)), int(round(x))] for x, y, _ in points)
    square = face_hull(np.array([(10, 10), (20, 10), (20, 30), (10, 30), (15, 15)]), 64)
    assert square.sum() == 11 * 21 and square[10:31, 10:21].all()


@pytest.mark.parametrize("format", ["h264", "lossless", "png"])
def test_the_mask_lies_on_the_altered_region(synthetic, tmp_path, format):
    real, unit = person(synthetic, "real")
    fake = [frame.copy() for frame in real]
    inside = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(inside, (SIZE // 2, SIZE // 2), (int(0.7 * unit), int(0.8 * unit)), 0, 0, 360, 1, -1)
    for frame in fake[2:]:
        frame[inside > 0] = np.clip(frame[inside > 0].astype(int) + (25, -15, 5), 0, 255)
    pair = [
        write_track(tmp_path, name, frames, format=format)
        for name, frames in (("real", real), ("fake", fake))
    ]
    annotate(tmp_path, pair[1:], pair[:1], landmarks=False, masks=True)
    path = mask_path(tmp_path / pair[1].crop_path)
    assert path.name == ("fake_00_mask" if format == "png" else "fake_00_mask.mp4")
    assert not mask_path(tmp_path / pair[0].crop_path).exists()
    mask = load_mask(path)
    assert mask.shape == (NUM_FRAMES, SIZE, SIZE) and mask.dtype == bool
    assert mask[:2].mean() < 0.01
    for found in mask[2:]:
        assert (found & (inside > 0)).sum() / (found | (inside > 0)).sum() > 0.8
    assert load_mask(path, threshold=60).sum() == 0


def test_the_mask_of_a_synthetic_fake_is_its_inner_face(synthetic, tmp_path):
    (real, unit), (fake, _) = person(synthetic, "real"), person(synthetic, "spatial")
    pair = [write_track(tmp_path, name, frames) for name, frames in (("real", real), ("fake", fake))]
    annotate(tmp_path, pair[1:], pair[:1], landmarks=False, masks=True)
    mask = load_mask(mask_path(tmp_path / pair[1].crop_path))
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    # the region of the inner face, which moves by a fifth of a unit
    radius = np.hypot(x / (0.72 * unit), (y - 0.13 * unit) / (0.84 * unit))
    assert mask[:, radius < 0.5].mean() > 0.5 and mask[:, radius > 1.7].mean() < 0.05


def test_masks_are_stored_without_loss(tmp_path):
    rng = np.random.default_rng(0)
    real, fake = (rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8) for _ in range(2))
    for format in ("lossless", "png"):
        pair = [
            write_track(tmp_path, f"{name}{format}", frames, format=format)
            for name, frames in (("real", real), ("fake", fake))
        ]
        annotate(tmp_path, pair[1:], pair[:1], landmarks=False, masks=True)
        decoded = [list(iter_frames(tmp_path / t.crop_path)) for t in pair]
        expected = np.stack([difference(b, a) for a, b in zip(*decoded, strict=True)])
        assert expected.max() > 60
        path = mask_path(tmp_path / pair[1].crop_path)
        for threshold in (1, 20, 40, int(expected.max())):
            assert np.array_equal(load_mask(path, threshold), expected >= threshold)


def test_a_difference_is_symmetric_and_zero_for_equal_frames():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(2))
    assert np.array_equal(difference(a, b), difference(b, a)) and difference(a, a).max() == 0
    assert (difference(np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)) == 255).all()


def test_only_aligned_tracks_have_a_mask(tmp_path):
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    real, fake = (write_track(tmp_path, name, frames) for name in ("real", "fake"))
    expected = "track fake_00: no track of its original has its frames and its crop box"
    with pytest.raises(ValueError, match=expected):
        annotate(tmp_path, [fake], [replace(real, start_frame=1)], landmarks=False, masks=True)
    with pytest.raises(FileNotFoundError, match="only fakes aligned with their original have one"):
        load_mask(mask_path(tmp_path / fake.crop_path))
    shorter = write_track(tmp_path, "short", frames[:2])
    shorter = replace(shorter, boxes_px=real.boxes_px, timestamps_seconds=real.timestamps_seconds)
    with pytest.raises(ValueError, match="shorter"):
        annotate(tmp_path, [fake], [shorter], landmarks=False, masks=True)
    assert not [p for p in (tmp_path / "tracks/fake").iterdir() if "mask" in p.name]  # no partial file
