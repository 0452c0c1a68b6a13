"""Extraction of the faces of one video: detection, tracks, rejections, signatures, what cannot be written.

Most tests use a detector that finds a red square (tests/helpers/red_square.py), so that every box is known.
mediapipe runs in a spawned worker only: a later fork would deadlock.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image
from red_square import RedSquare, extract_with, squares

import dfdc_video.faces.extract as module
from dfdc_video.faces.scan import FrameStore
from dfdc_video.media.reader import UnreadableVideo, iter_frames, probe
from dfdc_video.records import Stream, Track
from dfdc_video.registry import DETECTORS

FOOTAGE = Path(__file__).parents[2] / "../shared/media/white_house_640x360.mp4"


def test_a_synthetic_person_gives_one_track(worker, make_video, tmp_path):
    path = make_video(num_frames=33)
    found = worker(extract_with, path, tmp_path / "out")
    (track,) = found.tracks
    assert (track.track_id, track.start_frame, track.num_frames, found.cuts) == ("v_00", 0, 33, [])
    assert np.allclose(track.timestamps_seconds, np.arange(33) / 30, atol=1e-3)
    assert track.confidence > 0.5 and found.own_boxes
    assert set(found.seconds) == {"probe", "decode", "detect", "crop", "encode"}
    crop = probe(tmp_path / "out" / track.crop_path)
    assert (crop.num_frames, crop.height_px, crop.width_px) == (33, 64, 64)
    assert np.allclose(crop.timestamps_seconds, track.timestamps_seconds, atol=1e-3)


@pytest.mark.parametrize("detector", ["blazeface_short", "blazeface_full"])
def test_detectors_find_two_people(worker, make_video, tmp_path, detector):
    found = worker(extract_with, make_video(num_frames=20, people=2), tmp_path / "out", detector=detector)
    assert [t.num_frames for t in found.tracks] == [20, 20]
    left, right = sorted(t.crop_box_px[0] for t in found.tracks)
    assert right - left > 50


def test_a_fake_takes_its_originals_boxes_where_the_shapes_agree(worker, make_video, tmp_path):
    out = tmp_path / "out"
    original = worker(extract_with, make_video("a.mp4", num_frames=20), out, video_id="a")
    pair = (original.stream, original.tracks)
    # no face can be detected in it
    noise = np.random.default_rng(0).integers(0, 255, (20, 240, 320, 3), dtype=np.uint8)
    fake = worker(extract_with, make_video("b.mp4", noise), out, video_id="b", original=pair)
    assert not fake.own_boxes
    assert [t.crop_box_px for t in fake.tracks] == [t.crop_box_px for t in original.tracks]
    assert [t.start_frame for t in fake.tracks] == [t.start_frame for t in original.tracks]
    assert (out / "tracks/b/b_00.mp4").is_file()
    shorter = worker(extract_with, make_video("c.mp4", noise[:19]), out, video_id="c", original=pair)
    assert shorter.own_boxes and shorter.tracks == []


def test_rejected_tracks_have_a_reason(red, make_video, tmp_path):
    def only_reason(found) -> str:
        assert found.tracks == [] and len(found.rejections) == 1
        return found.rejections[0].reason

    red(confidence=0.6)
    grey = extract_with(make_video("g.mp4", np.full((20, 64, 64, 3), 128, np.uint8)), tmp_path / "out")
    assert only_reason(grey) == "no face: blazeface_full found none in 4 detection frames"
    short = extract_with(make_video("s.mp4", squares(6)), tmp_path / "out", min_seconds=0.1)
    assert only_reason(short) == "short track: 6 frames from frame 0, expected 8 or more"
    path = make_video("u.mp4", squares(20))
    low = extract_with(path, tmp_path / "out", min_track_confidence=0.7)
    expected = "low-confidence track: confidence 0.60 at best from frame 0, expected 0.7"
    assert only_reason(low) == expected
    assert extract_with(path, tmp_path / "out", min_confidence=0.7).rejections[0].reason.startswith("no face")
    (track,) = extract_with(path, tmp_path / "out", min_track_confidence=0.6).tracks
    assert track.confidence == pytest.approx(0.6)


def test_a_damaged_file_leaves_no_face_video(worker, make_video, tmp_path):
    path = make_video(num_frames=20)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 400] = np.random.default_rng(0).integers(0, 255, 400, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    stream = Stream(20, 30.0, 240, 320, 0, "h264", np.arange(20) / 30)
    boxes = np.tile([100.0, 80, 160, 140], (20, 1))
    box = (90, 70, 170, 150)
    track = Track("a_00", "a", 0, boxes, np.arange(20) / 30, 0.9, 1.0, "tracks/a/a_00.mp4", box)
    with pytest.raises(UnreadableVideo):
        # with its original's boxes no detector runs in this process
        extract_with(path, tmp_path / "out", original=(stream, [track]))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.skipif(not FOOTAGE.is_file(), reason="no real footage on this machine")
def test_real_footage_shot_by_shot(worker, tmp_path):
    found = worker(extract_with, FOOTAGE, tmp_path, video_id="w", size=64)
    assert found.cuts == [20, 82, 211]
    spans = [(t.start_frame, t.start_frame + t.num_frames) for t in found.tracks]
    assert not [s for s in spans for cut in found.cuts if s[0] < cut < s[1]]
    # the singer twice, then two guests side by side
    assert (0, 20) in spans and (82, 211) in spans and spans.count((211, 275)) == 2


def grown(path: str, out: str) -> list[int]:
    """Resident memory in kB after each of a few videos."""
    module._detector = lambda *_: RedSquare()
    sizes = []
    for _ in range(8):
        extract_with(path, out)
        status = Path("/proc/self/smaps_rollup").read_text()
        sizes.append(int(status.split("Rss:")[1].split()[0]))
    return sizes


def test_memory_stays_flat_and_is_released_between_videos(red, worker, make_video, tmp_path):
    path = make_video(frames=squares(120, 480, 640))
    sizes = worker(grown, path, tmp_path / "out")
    assert max(sizes[2:]) - sizes[1] < 20_000, sizes
    red()
    extract_with(make_video("s.mp4", squares()), tmp_path / "out")
    small = len(FrameStore._block or b"")
    extract_with(path, tmp_path / "out", buffer_mb=40)
    # its 55 MB do not fit: nothing was kept
    assert len(FrameStore._block or b"") == small < 120 * 480 * 640 * 3 // 2
    lines = Path("/proc/self/smaps").read_text().splitlines()
    free = sum(int(line.split()[1]) for line in lines if line.startswith("LazyFree"))
    assert free * 1024 > 0.5 * small


@pytest.mark.parametrize(
    ("long_side_px", "pad_aspect", "shape"),
    [
        (0, "", (240, 180)),
        (120, "", (120, 90)),
        (400, "", (240, 180)),
        (0, "16:9", (240, 426)),
        (120, "16:9", (68, 120)),
        (0, "1:2", (360, 180)),
    ],
)
def test_frames_are_reduced_and_padded_for_the_detector_and_boxes_mapped_back(
    red, make_video, tmp_path, long_side_px, pad_aspect, shape
):
    detector = red(long_side_px=long_side_px)
    found = extract_with(
        make_video(frames=squares(24, 240, 180), crf=4), tmp_path, pad_aspect=pad_aspect, every=4
    )
    assert detector.shapes == [pytest.approx(shape, abs=1)] * 6 and detector.indices == [0, 4, 8, 12, 16, 20]
    assert detector.started == [("video.mp4", 24)]
    at = np.arange(21)[:, None]  # from then on the last detection is held
    expected = np.concatenate((60 + at, 50 + 0 * at, 100 + at, 90 + 0 * at), axis=1)
    near = 2.1 * max(1, 240 / shape[0])  # two pixels of the detector's frame
    assert np.abs(found.tracks[0].boxes_px[:21] - expected).max() <= near
    assert np.abs(found.tracks[0].eyes_px[:21, 2] - (60 + 40 * 2 / 3 + at[:, 0])).max() <= near


def test_detector_settings_reach_the_detector(monkeypatch, make_video, tmp_path):
    made = []

    def maker(*, min_confidence: float, windows: list[int]):
        made.append((min_confidence, windows))
        return RedSquare()

    monkeypatch.setitem(DETECTORS._obj_map, "red", maker)
    path = make_video(frames=squares(10))
    for windows in ([1, 2], [1, 2], [3]):
        settings = {"detector": "red", "detector_settings": {"windows": windows}, "min_confidence": 0.25}
        assert extract_with(path, tmp_path, **settings).tracks
    assert made == [(0.25, [1, 2]), (0.25, [3])]  # one detector per process and settings
    module._detector.cache_clear()


def test_signature_is_a_perceptual_hash_of_the_frames(red, make_video, tmp_path, synthetic):
    red()
    path = make_video(num_frames=30, crf=18)
    found = extract_with(path, tmp_path)
    frames = list(iter_frames(path))
    for text, index in zip(found.signature, np.linspace(0, 29, 8).round().astype(int), strict=True):
        assert imagehash.hex_to_hash(text) - imagehash.phash(Image.fromarray(frames[index])) <= 6
    smaller = np.stack([cv2.resize(f, (192, 144), interpolation=cv2.INTER_AREA) for f in frames])
    copied, other = (
        extract_with(p, tmp_path)
        for p in (make_video("c.mp4", smaller, crf=28), make_video("o.mp4", identity=5, seed=3))
    )

    def distance(a, b):
        pairs = zip(a.signature, b.signature, strict=True)
        return np.mean([imagehash.hex_to_hash(x) - imagehash.hex_to_hash(y) for x, y in pairs])

    assert distance(found, copied) < 4 and distance(found, other) > 12
    assert len(extract_with(make_video("one.mp4", squares(1)), tmp_path, min_seconds=0.01).signature) == 8


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"fps": 0.0}, "frame rate: 0 frames/s, expected more than 0 and at most 1000"),
        ({"fps": 90000.0}, "frame rate: 90000 frames/s"),
        ({"timestamps_seconds": np.zeros(20)}, "duration: 0 s, expected 0.2 to 3600 s"),
        ({"timestamps_seconds": np.arange(20) * 600.0}, "duration: 1.14e+04 s, expected 0.2 to 3600 s"),
    ],
)
def test_implausible_durations_and_frame_rates_are_refused(
    make_video, tmp_path, monkeypatch, stream, message
):
    path = make_video(frames=squares(20))
    good = probe(path)
    monkeypatch.setattr(module, "probe", lambda _: replace(good, **stream))
    with pytest.raises(UnreadableVideo) as error:
        extract_with(path, tmp_path)
    assert str(error.value).startswith(f"implausible {message}")


def test_a_real_file_that_is_too_short_or_too_long(make_video, tmp_path):
    with pytest.raises(UnreadableVideo, match="implausible duration: 0.0667 s, expected 0.2 to 3600 s"):
        extract_with(make_video(frames=squares(2)), tmp_path)
    with pytest.raises(UnreadableVideo, match="implausible duration: 0.667 s, expected 0.2 to 0.5 s"):
        extract_with(make_video(frames=squares(20)), tmp_path, max_seconds=0.5)


@pytest.mark.parametrize("settings", [{"crop": "round"}, {"format": "gif"}])
def test_unknown_crops_and_formats(make_video, tmp_path, settings):
    expected = "expected one of fixed, smoothed, aligned, and one of h264, lossless, png"
    with pytest.raises(ValueError, match=expected):
        extract_with(make_video(frames=squares(10)), tmp_path, **settings)


def fill(path: str, out: str, format: str) -> str:
    """What extraction raises where no file may exceed 2 kB, which has the effect of a full disk."""
    import resource

    module._detector = lambda *_: RedSquare()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        extract_with(path, out, format=format)
    except (OSError, ValueError) as error:
        return "OSError" if isinstance(error, OSError) and not isinstance(error, ValueError) else repr(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return "written"


@pytest.mark.parametrize("format", ["h264", "lossless", "png"])
def test_a_full_disk_is_not_blamed_on_the_video(worker, make_video, tmp_path, format):
    noise = np.random.default_rng(0).integers(0, 80, (24, 180, 240, 3), dtype=np.uint8)
    frames = np.where(squares() == (230, 20, 20), squares(), noise)
    path = make_video(frames=frames)
    assert worker(fill, path, tmp_path / "out", format) == "OSError"
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not list((tmp_path / "out/tracks/v").iterdir())
