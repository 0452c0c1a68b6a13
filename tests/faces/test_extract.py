"""detect.py, extract.py and batch.py. The detector runs in spawned workers only: a later fork of this process would hang."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pebble import ProcessPool

from dfdc_video.faces.batch import run_pool
from dfdc_video.faces.detect import clip_box
from dfdc_video.faces.extract import extract
from dfdc_video.prepare import prepare
from dfdc_video.records import Stream, Track, Video
from dfdc_video.registry import DETECTORS, settings_of
from dfdc_video.video import UnreadableVideo, iter_frames, probe

FOOTAGE = Path(__file__).parents[2] / "../shared/media/white_house_640x360.mp4"


def extract_with(path, out, **settings):
    """extract() with the settings of `prepare`, but for those that a test gives."""
    own = settings_of(extract).keys() & settings_of(prepare).keys()
    return extract(path, out, **{name: settings_of(prepare)[name].default for name in own} | settings)


@pytest.fixture(scope="module")
def worker():
    """worker(function, *args, **kwargs): call it in one spawned process that keeps its detector."""
    with ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *args, **kwargs: pool.schedule(function, args=args, kwargs=kwargs, timeout=120).result()


def test_a_drawn_person_gives_one_track(worker, make_video, tmp_path):
    path = make_video(num_frames=33)
    found = worker(extract_with, path, tmp_path / "out", video_id="v", size=64)
    (track,) = found.tracks
    assert (track.track_id, track.start_frame, track.num_frames, found.cuts) == ("v_00", 0, 33, [])
    assert np.allclose(track.timestamps_seconds, np.arange(33) / 30, atol=1e-3)
    assert track.confidence > 0.5 and found.own_boxes and set(found.seconds) == {"probe", "decode", "detect", "crop"}
    crop = probe(tmp_path / "out" / track.crop_path)
    assert (crop.num_frames, crop.height_px, crop.width_px) == (33, 64, 64)
    assert np.allclose(crop.timestamps_seconds, track.timestamps_seconds, atol=1e-3)


def test_the_face_video_is_the_crop_of_the_source(worker, make_video, tmp_path):
    path = make_video(num_frames=20)
    found = worker(extract_with, path, tmp_path / "out", video_id="v", size=96, crf=4)
    x0, y0, x1, y1 = found.tracks[0].crop_box_px
    for source, crop in zip(iter_frames(path), iter_frames(tmp_path / "out" / found.tracks[0].crop_path), strict=True):
        expected = cv2.resize(source[max(y0, 0) : y1, max(x0, 0) : x1], (96, 96), interpolation=cv2.INTER_AREA)
        assert min(x0, y0) >= 0 and np.abs(crop.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("detector", DETECTORS.names())
def test_detectors_find_two_people(worker, make_video, tmp_path, detector):
    found = worker(extract_with, make_video(num_frames=20, people=2), tmp_path / "out", video_id="v", size=64, detector=detector)
    assert [t.num_frames for t in found.tracks] == [20, 20]
    left, right = sorted(t.crop_box_px[0] for t in found.tracks)
    assert right - left > 50


def test_a_fake_takes_its_originals_boxes_where_the_shapes_agree(worker, make_video, tmp_path):
    original = worker(extract_with, make_video("a.mp4", num_frames=20), tmp_path / "out", video_id="a", size=64)
    pair = (original.stream, original.tracks)
    noise = np.random.default_rng(0).integers(0, 255, (20, 240, 320, 3), dtype=np.uint8)  # no face to be found in it
    fake = worker(extract_with, make_video("b.mp4", noise), tmp_path / "out", video_id="b", size=64, original=pair)
    assert not fake.own_boxes and [t.crop_box_px for t in fake.tracks] == [t.crop_box_px for t in original.tracks]
    assert [t.start_frame for t in fake.tracks] == [t.start_frame for t in original.tracks]
    assert (tmp_path / "out/tracks/b/b_00.mp4").is_file()
    shorter = worker(extract_with, make_video("c.mp4", noise[:19]), tmp_path / "out", video_id="c", size=64, original=pair)
    assert shorter.own_boxes and shorter.tracks == []


def test_no_face_and_short_track_say_why(worker, make_video, tmp_path):
    grey = worker(extract_with, make_video("g.mp4", np.full((20, 64, 64, 3), 128, np.uint8)), tmp_path / "out", video_id="g")
    assert grey.tracks == [] and grey.rejections[0].reason.startswith("no face: blazeface_full found none in the 4 frames")
    short = worker(extract_with, make_video("s.mp4", num_frames=6), tmp_path / "out", video_id="s")
    assert short.tracks == [] and short.rejections[0].reason == "short track: 6 frames from frame 0, expected 8 or more"


def test_a_damaged_file_leaves_no_face_video(worker, make_video, tmp_path):
    path = make_video(num_frames=20)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 400] = np.random.default_rng(0).integers(0, 255, 400, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    stream = Stream(20, 30.0, 240, 320, 0, "h264", np.arange(20) / 30)
    track = Track("a_00", "a", 0, np.tile([100.0, 80, 160, 140], (20, 1)), np.arange(20) / 30, 0.9, 1.0, "tracks/a/a_00.mp4", (90, 70, 170, 150))
    with pytest.raises(UnreadableVideo):
        extract_with(path, tmp_path / "out", video_id="v", original=(stream, [track]), size=64)  # no detector in this path
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.skipif(not FOOTAGE.is_file(), reason="real footage is not here")
def test_real_footage_shot_by_shot(worker, tmp_path):
    found = worker(extract_with, FOOTAGE, tmp_path, video_id="w", size=64)
    assert found.cuts == [20, 82, 211]
    spans = [(t.start_frame, t.start_frame + t.num_frames) for t in found.tracks]
    assert not [s for s in spans for cut in found.cuts if s[0] < cut < s[1]]
    assert (0, 20) in spans and (82, 211) in spans and spans.count((211, 275)) == 2  # the singer twice, then two guests side by side


def test_detector_settings():
    with pytest.raises(ValueError, match="between 0 and 1"):
        DETECTORS.get("blazeface_full")(min_confidence=1.5)
    with pytest.raises(ValueError, match="unknown face detector 'blazeface'; did you mean"):
        DETECTORS.get("blazeface")


def test_boxes_are_clipped():
    assert clip_box((-5, 10, 20, 50), width_px=100, height_px=40) == (0, 10, 20, 40)
    assert clip_box((-30, 10, 1, 50), width_px=100, height_px=40) is None


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (time.sleep, (60,), "timeout: not done after 2 s"),
        (os._exit, (3,), "crash: the worker died, exit code 3"),
        (int, ("x",), "failure: ValueError"),
    ],
)
def test_a_hang_or_a_crash_costs_one_video(tmp_path, function, arguments, reason):
    bad, good = (Video(name, "t", f"{name}.mp4", 0) for name in ("bad", "good"))
    marker = tmp_path / "done"
    jobs = [(bad, arguments), (good, (0.0,) if function is time.sleep else arguments)]
    if function is time.sleep:
        failures = run_pool(function, jobs, tmp_path, workers=1, timeout_seconds=2, done=marker.touch)
        assert [f.video_id for f in failures] == ["bad"]
    else:
        failures = run_pool(function, jobs, tmp_path, workers=1, timeout_seconds=30, done=marker.touch)
        assert [f.video_id for f in failures] == ["bad", "good"]
    assert failures[0].reason.startswith(reason) and failures[0].stage == "decode" and marker.exists()


def test_a_lack_that_concerns_every_video_stops_the_run(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_pool(os.stat, [(Video("a", "t", "a.mp4", 0), ("/nowhere",))], tmp_path, workers=1, timeout_seconds=30, done=int)
