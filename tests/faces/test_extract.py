"""extract.py: decoded once or twice, cut on the planes, upright, aligned. mediapipe runs in a spawned worker
only: a later fork would hang.

Most tests use a detector that finds a red square, so that every box has a right answer.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import replace
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from pebble import ProcessPool
from PIL import Image
from video_files import i420, rotate_in_place

import dfdc_video.faces.extract as module
import dfdc_video.faces.scan as scanning
from dfdc_video.faces.crop import EYE_DISTANCE, EYE_HEIGHT, crop_box
from dfdc_video.faces.extract import extract, face_difference
from dfdc_video.faces.scan import FrameStore
from dfdc_video.folders.prepared import track_from_row, track_row
from dfdc_video.media.reader import UnreadableVideo, iter_frames, iter_pictures, probe
from dfdc_video.media.writer import VideoWriter
from dfdc_video.preparation.settings import PrepareSettings
from dfdc_video.records import Face, Stream, Track
from dfdc_video.registry import DETECTORS, settings_of

FOOTAGE = Path(__file__).parents[2] / "../shared/media/white_house_640x360.mp4"


def extract_with(path, out, **settings):
    """extract() with the settings of `prepare`, but for those that a test gives."""
    own = {k: v for k, v in PrepareSettings().extraction().items() if k in settings_of(extract)}
    return extract(path, out, **{**own, "video_id": "v", "size": 64, **settings})


class RedSquare:
    """Finds a red square of any size; its eyes are a third and two thirds along the top side, upright.
    Remembers what it was shown.
    """

    def __init__(self, long_side_px: int = 0, confidence: float = 0.9, keypoints: bool = True) -> None:
        self.long_side_px, self.confidence, self.keypoints = long_side_px, confidence, keypoints
        self.shapes, self.indices, self.started = [], [], []

    def start(self, path, stream) -> None:
        self.started.append((Path(path).name, stream.num_frames))

    def detect(self, frames, frame_indices):
        assert frames.dtype == np.uint8 and len(frames) == len(frame_indices) == 1
        self.shapes.append(frames.shape[1:3])
        self.indices += list(frame_indices)
        rows, columns = np.nonzero((frames[0, ..., 0] > 150) & (frames[0, ..., 1] < 90))
        if not len(rows):
            return [[]]
        x0, y0, x1, y1 = (
            float(columns.min()),
            float(rows.min()),
            float(columns.max() + 1),
            float(rows.max() + 1),
        )
        eyes = tuple((x0 + share * (x1 - x0), y0) for share in (1 / 3, 2 / 3)) if self.keypoints else ()
        return [[Face(frame_indices[0], (x0, y0, x1, y1), self.confidence, eyes)]]


def squares(
    num_frames: int = 24, height: int = 180, width: int = 240, *, step: float = 1.0, side: int = 40
) -> np.ndarray:
    """A red square with a blue lower half-bar that moves right over a smooth picture; the square's corner in
    frame t is (60 + step t, 50).
    """
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 100 / width, 60 + y * 160 / height, 255 - x * 200 / width], axis=-1).astype(
        np.uint8
    )
    frames = np.repeat(ground[None], num_frames, axis=0)
    for t, frame in enumerate(frames):
        left = int(60 + step * t)
        frame[50 : 50 + side, left : left + side] = (230, 20, 20)
        frame[50 + side : 55 + side, left : left + side] = (20, 20, 230)
    return frames


@pytest.fixture
def red(monkeypatch):
    """red(...) makes a RedSquare the only detector of this process."""

    def use(*args, **kwargs) -> RedSquare:
        detector = RedSquare(*args, **kwargs)
        monkeypatch.setattr(module, "_detector", lambda name, min_confidence, settings: detector)
        return detector

    return use


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def worker():
    """worker(function, *args, **kwargs): call it in one spawned process that keeps its detector."""
    with ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *args, **kwargs: pool.schedule(
            function, args=args, kwargs=kwargs, timeout=120
        ).result()


def test_a_drawn_person_gives_one_track(worker, make_video, tmp_path):
    path = make_video(num_frames=33)
    found = worker(extract_with, path, tmp_path / "out")
    (track,) = found.tracks
    assert (track.track_id, track.start_frame, track.num_frames, found.cuts) == ("v_00", 0, 33, [])
    assert np.allclose(track.timestamps_seconds, np.arange(33) / 30, atol=1e-3)
    assert (
        track.confidence > 0.5
        and found.own_boxes
        and set(found.seconds) == {"probe", "decode", "detect", "crop", "encode"}
    )
    crop = probe(tmp_path / "out" / track.crop_path)
    assert (crop.num_frames, crop.height_px, crop.width_px) == (33, 64, 64)
    assert np.allclose(crop.timestamps_seconds, track.timestamps_seconds, atol=1e-3)


def test_the_face_video_is_the_crop_of_the_source(worker, make_video, tmp_path):
    path = make_video(num_frames=20)
    found = worker(extract_with, path, tmp_path / "out", video_id="v", size=96, crf=4)
    x0, y0, x1, y1 = found.tracks[0].crop_box_px
    for source, crop in zip(
        iter_frames(path), iter_frames(tmp_path / "out" / found.tracks[0].crop_path), strict=True
    ):
        expected = cv2.resize(
            source[max(y0, 0) : y1, max(x0, 0) : x1], (96, 96), interpolation=cv2.INTER_AREA
        )
        assert min(x0, y0) >= 0 and np.abs(crop.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("detector", ["blazeface_short", "blazeface_full"])
def test_detectors_find_two_people(worker, make_video, tmp_path, detector):
    found = worker(extract_with, make_video(num_frames=20, people=2), tmp_path / "out", detector=detector)
    assert [t.num_frames for t in found.tracks] == [20, 20]
    left, right = sorted(t.crop_box_px[0] for t in found.tracks)
    assert right - left > 50


def test_a_fake_takes_its_originals_boxes_where_the_shapes_agree(worker, make_video, tmp_path):
    original = worker(
        extract_with, make_video("a.mp4", num_frames=20), tmp_path / "out", video_id="a", size=64
    )
    pair = (original.stream, original.tracks)
    # no face to be found in it
    noise = np.random.default_rng(0).integers(0, 255, (20, 240, 320, 3), dtype=np.uint8)
    fake = worker(
        extract_with, make_video("b.mp4", noise), tmp_path / "out", video_id="b", size=64, original=pair
    )
    assert not fake.own_boxes and [t.crop_box_px for t in fake.tracks] == [
        t.crop_box_px for t in original.tracks
    ]
    assert [t.start_frame for t in fake.tracks] == [t.start_frame for t in original.tracks]
    assert (tmp_path / "out/tracks/b/b_00.mp4").is_file()
    shorter = worker(
        extract_with, make_video("c.mp4", noise[:19]), tmp_path / "out", video_id="c", size=64, original=pair
    )
    assert shorter.own_boxes and shorter.tracks == []


def test_no_face_and_short_and_unsure_tracks_say_why(red, make_video, tmp_path):
    red(confidence=0.6)
    grey = extract_with(make_video("g.mp4", np.full((20, 64, 64, 3), 128, np.uint8)), tmp_path / "out")
    assert (
        grey.tracks == []
        and grey.rejections[0].reason
        == "no face: blazeface_full found none in the 4 frames that it looked at"
    )
    short = extract_with(make_video("s.mp4", squares(6)), tmp_path / "out", min_seconds=0.1)
    assert (
        short.tracks == []
        and short.rejections[0].reason == "short track: 6 frames from frame 0, expected 8 or more"
    )
    path = make_video("u.mp4", squares(20))
    unsure = extract_with(path, tmp_path / "out", min_track_confidence=0.7)
    assert unsure.tracks == []
    assert unsure.rejections[0].reason == "unsure track: confidence 0.60 at best from frame 0, expected 0.7"
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
    track = Track(
        "a_00",
        "a",
        0,
        np.tile([100.0, 80, 160, 140], (20, 1)),
        np.arange(20) / 30,
        0.9,
        1.0,
        "tracks/a/a_00.mp4",
        (90, 70, 170, 150),
    )
    with pytest.raises(UnreadableVideo):
        # no detector in this path
        extract_with(path, tmp_path / "out", video_id="v", original=(stream, [track]), size=64)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.skipif(not FOOTAGE.is_file(), reason="real footage is not here")
def test_real_footage_shot_by_shot(worker, tmp_path):
    found = worker(extract_with, FOOTAGE, tmp_path, video_id="w", size=64)
    assert found.cuts == [20, 82, 211]
    spans = [(t.start_frame, t.start_frame + t.num_frames) for t in found.tracks]
    assert not [s for s in spans for cut in found.cuts if s[0] < cut < s[1]]
    # the singer twice, then two guests side by side
    assert (0, 20) in spans and (82, 211) in spans and spans.count((211, 275)) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crop": "smoothed"},
        {"crop": "aligned", "smooth_seconds": 0.1},
        {"format": "png"},
        {"format": "lossless"},
    ],
)
def test_one_pass_and_two_give_the_same_bytes(red, make_video, tmp_path, monkeypatch, settings):
    red()
    passes = []
    monkeypatch.setattr(scanning, "iter_pictures", lambda path: passes.append(path) or iter_pictures(path))
    path = make_video(frames=squares())
    whole = extract_with(path, tmp_path / "whole", **settings)
    assert len(passes) == 1
    streamed = extract_with(path, tmp_path / "streamed", buffer_mb=1, **settings)
    assert len(passes) == 3 and len(tree(tmp_path / "whole")) > 0
    assert tree(tmp_path / "whole") == tree(tmp_path / "streamed")
    assert [track_row(t) for t in whole.tracks] == [
        track_row(t) for t in streamed.tracks
    ] and whole.signature == streamed.signature
    assert [p.name for p in (tmp_path / "whole/tracks/v").iterdir()] == [
        "v_00" if settings.get("format") == "png" else "v_00.mp4"
    ]
    crop = probe(tmp_path / "whole" / whole.tracks[0].crop_path)
    assert (crop.num_frames, crop.height_px, crop.width_px) == (24, 64, 64)


def grown(path: str, out: str) -> list[int]:
    """Resident memory in kB after each of a few videos."""
    module._detector = lambda *_: RedSquare()
    sizes = []
    for _ in range(8):
        extract_with(path, out)
        status = Path("/proc/self/smaps_rollup").read_text()
        sizes.append(int(status.split("Rss:")[1].split()[0]))
    return sizes


def test_memory_stays_flat_and_is_the_systems_between_videos(red, worker, make_video, tmp_path):
    path = make_video(frames=squares(120, 480, 640))
    sizes = worker(grown, path, tmp_path / "out")
    assert max(sizes[2:]) - sizes[1] < 20_000, sizes
    red()
    extract_with(make_video("s.mp4", squares()), tmp_path / "out")
    small = len(FrameStore._block or b"")
    extract_with(path, tmp_path / "out", buffer_mb=40)
    # 55 MB were too many: nothing was kept
    assert len(FrameStore._block or b"") == small < 120 * 480 * 640 * 3 // 2
    free = sum(
        int(line.split()[1])
        for line in Path("/proc/self/smaps").read_text().splitlines()
        if line.startswith("LazyFree")
    )
    assert free * 1024 > 0.5 * small


MATRICES = {
    0: None,
    90: (0, 1, 0, -1, 0, 0, 180, 0, 1),
    180: (-1, 0, 0, 0, -1, 0, 240, 180, 1),
    270: (0, -1, 0, 1, 0, 0, 0, 240, 1),
}


@pytest.mark.parametrize("crop", ["fixed", "smoothed", "aligned"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("buffer_mb", [0, 100])
def test_rotated_videos_give_upright_boxes_and_crops(red, make_video, tmp_path, degrees, crop, buffer_mb):
    detector = red(long_side_px=120 if buffer_mb else 0)
    near = 4.5 if buffer_mb else 2.5  # two pixels of what the detector sees
    upright = squares(12, 240, 180) if degrees % 180 else squares(12)
    stored = np.rot90(upright, degrees // 90, axes=(1, 2))
    path = make_video("r.mp4", np.ascontiguousarray(stored), crf=4)
    height, width = stored.shape[1:3]
    shift = {90: (height, 0), 180: (width, height), 270: (0, width)}[degrees]
    rotate_in_place(path, (*MATRICES[degrees][:6], *shift, 1))
    expected = extract_with(
        make_video("u.mp4", upright, crf=4), tmp_path / "u", crop=crop, buffer_mb=buffer_mb
    )
    found = extract_with(path, tmp_path / "r", crop=crop, buffer_mb=buffer_mb)
    assert (found.stream.height_px, found.stream.width_px) == upright.shape[
        1:3
    ] and found.stream.rotation_degrees == degrees
    assert set(detector.shapes) == {tuple(n // 2 if buffer_mb else n for n in upright.shape[1:3])}
    (a,), (b,) = expected.tracks, found.tracks
    assert (
        np.abs(a.boxes_px - b.boxes_px).max() <= near
        and np.abs(np.array(a.crop_box_px) - b.crop_box_px).max() <= near + 2
    )
    assert np.abs(b.boxes_px[0] - (60, 50, 100, 90)).max() <= near
    for x, y in zip(
        iter_frames(tmp_path / "u" / a.crop_path), iter_frames(tmp_path / "r" / b.crop_path), strict=True
    ):
        assert np.abs(x.astype(int) - y).mean() < 5 * near  # the blue bar is below the red square in both


@pytest.mark.parametrize(("long_side_px", "pad_aspect", "shape"), [
    (0, "", (240, 180)), (120, "", (120, 90)), (400, "", (240, 180)), (0, "16:9", (240, 426)), (120, "16:9", (68, 120)), (0, "1:2", (360, 180)),
])  # fmt: skip
def test_detectors_see_what_they_ask_for_and_boxes_come_back(
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
    near = 2.1 * max(1, 240 / shape[0])  # two pixels of what the detector sees
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
        assert extract_with(
            path, tmp_path, detector="red", detector_settings={"windows": windows}, min_confidence=0.25
        ).tracks
    assert made == [(0.25, [1, 2]), (0.25, [3])]  # one detector per process and settings
    module._detector.cache_clear()


@pytest.mark.parametrize("crop", ["fixed", "smoothed"])
def test_crops_follow_the_face_only_where_asked(red, make_video, tmp_path, crop):
    red()
    (track,) = extract_with(
        make_video(frames=squares(40, step=2), crf=4), tmp_path, crop=crop, crf=4, every=1, margin=2.0
    ).tracks
    centres = []
    for frame in iter_frames(tmp_path / track.crop_path):
        rows, columns = np.nonzero((frame[..., 0] > 150) & (frame[..., 1] < 90))
        centres.append((columns.min() + columns.max() + 1) / 2)
    if crop == "fixed":
        scale = 64 / (track.crop_box_px[2] - track.crop_box_px[0])
        assert np.allclose(centres, centres[0] + 2 * scale * np.arange(40), atol=1.5) and np.ptp(centres) > 25
    else:
        assert np.ptp(centres) <= 2.5  # corners are even, so a pixel of the source to either side
        assert crop_box(track.boxes_px[:1], margin=2.0)[2] - crop_box(track.boxes_px[:1], margin=2.0)[0] in (
            80,
            82,
            84,
        )


def test_smoothing_takes_the_jitter_out_of_boxes_and_eyes(red, make_video, tmp_path):
    red()
    frames = squares(60, step=0)
    for t in range(60):
        frames[t] = np.roll(frames[t], (0, 3 * (-1) ** t), axis=(0, 1))
    path = make_video(frames=frames, crf=4)
    (rough,), (even,) = (
        extract_with(path, tmp_path / str(s), every=1, smooth_seconds=s, crop="smoothed").tracks
        for s in (0.0, 0.2)
    )
    assert (
        np.ptp(rough.boxes_px[:, 0]) >= 5
        and np.ptp(even.boxes_px[10:-10, 0]) < 0.5
        and np.ptp(even.eyes_px[10:-10, 0]) < 0.5
    )
    assert np.abs(even.boxes_px.mean(axis=0) - rough.boxes_px.mean(axis=0)).max() < 1


def test_aligned_crops_hold_the_eyes_and_a_fake_takes_its_originals_transforms(red, make_video, tmp_path):
    red()
    settings = {"crop": "aligned", "every": 1, "crf": 4, "margin": 1.5}
    original = extract_with(
        make_video("a.mp4", squares(20, step=2.5), crf=4), tmp_path, video_id="a", **settings
    )
    for frame in iter_frames(tmp_path / original.tracks[0].crop_path):
        rows, columns = np.nonzero((frame[..., 0] > 140) & (frame[..., 1] < 100))
        assert abs((columns.min() + columns.max() + 1) / 2 - 32) < 2  # between the eyes
        assert abs(rows.min() - (0.5 - EYE_HEIGHT / 1.5) * 64) < 2
        assert abs(columns.max() + 1 - columns.min() - min(64, 3 * EYE_DISTANCE / 1.5 * 64)) < 4
    pair = (original.stream, [track_from_row(track_row(t)) for t in original.tracks])  # as it comes from disk
    same = extract_with(
        make_video("b.mp4", squares(20, step=2.5), crf=4), tmp_path, video_id="b", original=pair, **settings
    )
    assert (tmp_path / "tracks/b/b_00.mp4").read_bytes() == (tmp_path / "tracks/a/a_00.mp4").read_bytes()
    assert (
        not same.own_boxes
        and same.difference == 0.0
        and same.tracks[0].detection_rate == original.tracks[0].detection_rate
    )
    assert same.signature == original.signature and original.difference is None
    red(keypoints=False)
    with pytest.raises(ValueError, match="needs the eyes"):
        extract_with(tmp_path / "a.mp4", tmp_path, **settings)


@pytest.mark.parametrize("crop", ["fixed", "smoothed", "aligned"])
@pytest.mark.parametrize("format", ["h264", "png"])
def test_difference_is_the_largest_block_of_all_frames(red, make_video, tmp_path, crop, format):
    red()
    frames = squares(20)
    settings = {"crop": crop, "format": format, "every": 1, "crf": 4}
    original = extract_with(make_video("a.mp4", frames, crf=4), tmp_path, video_id="a", **settings)
    pair = (original.stream, [track_from_row(track_row(t)) for t in original.tracks])
    altered = frames.copy()
    altered[13, 55:85, 80:105] += 15  # one frame of twenty, a part of the face
    one = extract_with(make_video("b.mp4", altered, crf=4), tmp_path, video_id="b", original=pair, **settings)
    assert 6 < one.difference < 20
    audio_only = extract_with(
        make_video("c.mp4", frames, crf=4, fps=30.2), tmp_path, video_id="c", original=pair, **settings
    )
    # equal frames under other time stamps are coded with other bits
    assert not audio_only.own_boxes and audio_only.difference < 3
    assert audio_only.difference == 0.0 or format == "h264"


def test_face_difference_by_hand(tmp_path):
    base = np.full((3, 40, 40, 3), 100, np.uint8)
    altered = base.copy()
    altered[1, 16:32, 0:8] += 30  # half a block of 16 x 16
    for name, frames in (("a", base), ("b", altered)):
        with VideoWriter(tmp_path / name, fps=25, format="png") as writer:
            for frame in frames:
                writer.add(frame)
    assert (
        face_difference(tmp_path / "a", tmp_path / "b") == pytest.approx(15)
        and face_difference(tmp_path / "a", tmp_path / "a") == 0.0
    )


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
        return np.mean(
            [
                imagehash.hex_to_hash(x) - imagehash.hex_to_hash(y)
                for x, y in zip(a.signature, b.signature, strict=True)
            ]
        )

    assert distance(found, copied) < 4 and distance(found, other) > 12
    assert len(extract_with(make_video("one.mp4", squares(1)), tmp_path, min_seconds=0.01).signature) == 8


@pytest.mark.parametrize(("stream", "message"), [
    ({"fps": 0.0}, "absurd rate: 0 frames/s, expected more than 0 and at most 1000"),
    ({"fps": 90000.0}, "absurd rate: 90000 frames/s"),
    ({"timestamps_seconds": np.zeros(20)}, "absurd duration: 0 s, expected 0.2 to 3600 s"),
    ({"timestamps_seconds": np.arange(20) * 600.0}, "absurd duration: 1.14e+04 s, expected 0.2 to 3600 s"),
])  # fmt: skip
def test_absurd_lengths_and_rates_are_refused(make_video, tmp_path, monkeypatch, stream, message):
    path = make_video(frames=squares(20))
    good = probe(path)
    monkeypatch.setattr(module, "probe", lambda _: replace(good, **stream))
    with pytest.raises(UnreadableVideo) as error:
        extract_with(path, tmp_path)
    assert str(error.value).startswith(message)


def test_a_real_file_that_is_too_short_or_too_long(make_video, tmp_path):
    with pytest.raises(UnreadableVideo, match="absurd duration: 0.0667 s, expected 0.2 to 3600 s"):
        extract_with(make_video(frames=squares(2)), tmp_path)
    with pytest.raises(UnreadableVideo, match="absurd duration: 0.667 s, expected 0.2 to 0.5 s"):
        extract_with(make_video(frames=squares(20)), tmp_path, max_seconds=0.5)


@pytest.mark.parametrize("settings", [{"crop": "round"}, {"format": "gif"}])
def test_unknown_crops_and_formats(make_video, tmp_path, settings):
    with pytest.raises(
        ValueError, match="expected one of fixed, smoothed, aligned, and one of h264, lossless, png"
    ):
        extract_with(make_video(frames=squares(10)), tmp_path, **settings)


def fill(path: str, out: str, format: str) -> str:
    """What extraction raises where no file may grow beyond 2 kB, which looks to a program like a full disk."""
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
def test_a_full_disk_is_no_fault_of_the_video(worker, make_video, tmp_path, format):
    noise = np.random.default_rng(0).integers(0, 80, (24, 180, 240, 3), dtype=np.uint8)
    frames = np.where(squares() == (230, 20, 20), squares(), noise)
    path = make_video(frames=frames)
    assert worker(fill, path, tmp_path / "out", format) == "OSError"
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()] and not list(
        (tmp_path / "out/tracks/v").iterdir()
    )


def test_colours_of_the_source_come_out_of_the_face_video(red, make_video, tmp_path):
    import av

    red()
    frames = squares(12)
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.pix_fmt, stream.width, stream.height, stream.options = "yuv420p", 240, 180, {"crf": "4"}
        stream.codec_context.colorspace = stream.codec_context.color_range = 1  # BT.709, limited
        for t, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709"
            )
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = extract_with(path, tmp_path / "out", crf=4)
    x0, y0, x1, y1 = found.tracks[0].crop_box_px
    shown = next(iter_frames(tmp_path / "out" / found.tracks[0].crop_path)).astype(int)
    expected = cv2.resize(frames[0, y0:y1, x0:x1], (64, 64), interpolation=cv2.INTER_AREA)
    assert (
        np.abs((shown - expected).mean(axis=(0, 1))).max() < 2
        and np.abs(shown[26:38, 26:38] - (230, 20, 20)).max() < 8
    )
    y, u, v = next(iter_pictures(path)).planes
    exact = i420([y[y0:y1, x0:x1], *(p[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for p in (u, v))])
    lossless = extract_with(path, tmp_path / "exact", format="lossless", size=x1 - x0)
    assert np.array_equal(
        i420(next(iter_pictures(tmp_path / "exact" / lossless.tracks[0].crop_path)).planes), exact
    )
