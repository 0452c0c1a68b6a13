"""Every detector by name: what it finds, what it refuses, and its pure functions. Detectors run in a spawned
worker.
"""

from pathlib import Path

import numpy as np
import pytest

from dfdc_video.benchmarks import detect as bench
from dfdc_video.faces.detect import Consensus, Detector, clip_box
from dfdc_video.faces.kitti import Kitti, find_labels
from dfdc_video.faces.tiled import is_cut, merge, spans, windows
from dfdc_video.faces.track import iou
from dfdc_video.records import Face, Stream
from dfdc_video.registry import DETECTORS

STREAM = Stream(20, 30.0, 240, 320, 0, "h264", np.arange(20) / 30)


@pytest.fixture(scope="module")
def scenes():
    """Two scenes of the benchmark: two near faces, four far ones."""
    return {kind: bench.scene(0, kind, 0) for kind in ("near", "far")}


def packaged_model(name):
    """A model file inside mediapipe 0.10.21, found without importing it."""
    import importlib.util

    package = Path(importlib.util.find_spec("mediapipe").origin).parent
    return str(package / f"modules/face_detection/{name}.tflite")


def found_by(name, frame, settings):
    """In the worker: faces of one frame, and the frame size that the detector asks for."""
    detector = DETECTORS.get(name)(**settings)
    detector.start(Path("v.mp4"), STREAM)
    return detector.detect(frame[None], [7])[0], detector.long_side_px


def hits(faces, boxes):
    """How many of the true boxes were detected."""
    return int((iou(boxes, np.array([f.box_px for f in faces])) >= 0.4).any(axis=1).sum()) if faces else 0


SETTINGS = {
    "blazeface_short": {},
    "blazeface_full": {},
    "tiled": {},
    "consensus": {},
    "mediapipe_tasks": {"model_path": packaged_model("face_detection_short_range")},
}


def test_every_detector_takes_a_confidence():
    for name in DETECTORS.names():  # refused before a model is loaded, hence in this process
        with pytest.raises(ValueError, match="min_confidence 1.5: expected a number between 0 and 1"):
            DETECTORS.get(name)(min_confidence=1.5)


@pytest.mark.parametrize("name", SETTINGS)
def test_near_faces(worker, scenes, name):
    frame, boxes = scenes["near"]
    faces, _ = worker(found_by, name, frame, SETTINGS[name])
    assert len(faces) == hits(faces, boxes) == len(boxes) == 2
    assert [f.confidence for f in faces] == sorted((f.confidence for f in faces), reverse=True)
    for face in faces:
        x0, y0, x1, y1 = face.box_px
        right_eye, left_eye, nose, mouth = face.keypoints_px[:4]
        assert face.frame_index == 7
        assert x0 < right_eye[0] < nose[0] < left_eye[0] < x1
        assert y0 < right_eye[1] < nose[1] < mouth[1] < y1


def test_windows_find_far_faces_that_the_whole_frame_misses(worker, scenes):
    frame, boxes = scenes["far"]
    plain, _ = worker(found_by, "blazeface_full", frame, {})
    tiled, long_side = worker(found_by, "tiled", frame, {})
    assert hits(plain, boxes) <= 2 and hits(tiled, boxes) == 4
    assert long_side == 960
    coarse, _ = worker(found_by, "tiled", frame, {"grid": 1})
    assert [f.box_px for f in coarse] == [f.box_px for f in plain]  # one window is the frame


def test_consensus_is_what_both_detect(worker, scenes):
    frame, boxes = scenes["near"]
    first, second, both = (
        worker(found_by, name, frame, {})[0] for name in ("blazeface_full", "blazeface_short", "consensus")
    )
    assert sorted(f.box_px for f in both) == sorted(f.box_px for f in first)
    for face in both:
        partner = max(second, key=lambda f: iou(face.box_px, f.box_px))
        own = next(f for f in first if f.box_px == face.box_px)
        assert face.confidence == min(own.confidence, partner.confidence)
    apart, _ = worker(found_by, "consensus", frame, {"iou": 0.97})  # no two networks agree to the pixel
    assert apart == []


class Fixed(Detector):
    """Returns given faces, so that the rule of agreement is tested by itself."""

    def __init__(self, *faces, long_side_px=0):
        super().__init__(0.5)
        self.faces, self.long_side_px, self.video = faces, long_side_px, None

    def start(self, path, stream):
        self.video = path.name

    def _faces(self, frame, index):
        return [Face(index, box, confidence) for box, confidence in self.faces]


def test_consensus_keeps_the_first_ones_box_and_the_smaller_confidence():
    frame = np.zeros((1, 100, 100, 3), np.uint8)
    first = Fixed(((0, 0, 40, 40), 0.9), ((60, 60, 90, 90), 0.8), long_side_px=640)
    second = Fixed(((2, 0, 42, 40), 0.6), ((60, 60, 70, 70), 0.95), long_side_px=960)
    ((face,),) = Consensus(first, second, 0.5, 0.5).detect(frame, [3])
    assert (face.box_px, face.confidence, face.frame_index) == ((0, 0, 40, 40), 0.6, 3)
    assert Consensus(first, second, 0.5, 0.5).long_side_px == 960
    assert Consensus(first, Fixed(), 0.5, 0.5).long_side_px == 0
    assert Consensus(first, Fixed(), 0.5, 0.5).detect(frame, [3]) == [[]]
    Consensus(first, second, 0.5, 0.5).start(Path("a/v.mp4"), STREAM)
    assert (first.video, second.video) == ("v.mp4", "v.mp4")


def test_tasks_give_the_boxes_of_the_solutions(worker, scenes):
    frame = scenes["near"][0]
    solutions, _ = worker(found_by, "blazeface_short", frame, {})
    tasks, _ = worker(found_by, "mediapipe_tasks", frame, SETTINGS["mediapipe_tasks"])
    assert len(solutions) == len(tasks) == 2
    for a, b in zip(solutions, tasks, strict=True):
        assert np.abs(np.subtract(a.box_px, b.box_px)).max() < 3 and abs(a.confidence - b.confidence) < 0.02
        assert np.abs(np.subtract(a.keypoints_px, b.keypoints_px)).max() < 3


def test_tasks_name_the_file_that_they_need(worker, tmp_path):
    expected = (
        "expected the .tflite file of a face detector; download blaze_face_short_range.tflite from https"
    )
    for wrong in ("", str(tmp_path / "absent.tflite")):
        with pytest.raises(FileNotFoundError, match=expected):
            DETECTORS.get("mediapipe_tasks")(model_path=wrong)
    bad, frame = tmp_path / "bad.tflite", np.zeros((64, 64, 3), np.uint8)
    bad.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="bad.tflite is not a face detector that mediapipe"):
        worker(found_by, "mediapipe_tasks", frame, {"model_path": str(bad)})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tiled", {"model": "long"}, "model 'long': expected short or full"),
        ("consensus", {"first": "consensus"}, "two different detectors"),
        ("consensus", {"first": "blazeface_full", "second": "blazeface_full"}, "two different detectors"),
        ("kitti", {}, "expected the folder of KITTI label files"),
        ("kitti", {"folder": "x", "width_px": 1920}, "width_px 1920, height_px 0"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        DETECTORS.get(name)(**settings)


def test_spans_cover_evenly():
    assert spans(100, 1, 0.3) == [(0, 100)]
    for length, count, overlap in ((1280, 3, 0.3), (719, 4, 0.25), (640, 2, 0.0)):
        found = spans(length, count, overlap)
        assert (found[0][0], found[-1][1], len(found)) == (0, length, count)
        sizes = [b - a for a, b in found]
        shared = [b - a for (_, b), (a, _) in zip(found, found[1:], strict=False)]
        assert max(sizes) - min(sizes) <= 2 and all(abs(s - overlap * sizes[0]) <= 2 for s in shared)


def test_windows_are_the_frame_strips_and_the_grid():
    found = windows(1280, 720, grid=3, overlap=0.3)
    assert len(found) == 16 and found[0] == (0, 0, 1280, 720)
    assert [(w[0], w[2]) for w in found[1:4]] == [(w[0], w[2]) for w in found[7:10]]
    assert all((w[1], w[3]) == (0, 720) for w in found[1:4])
    assert all((w[0], w[2]) == (0, 1280) for w in found[4:7]) and len(set(found)) == 16
    assert windows(1280, 720, grid=1, overlap=0.3) == [(0, 0, 1280, 720)]


def test_complete_boxes_win_over_cut_ones():
    window, size = (0, 0, 100, 100), (300, 100)
    assert is_cut((70, 20, 99.5, 50), window, *size) and not is_cut((50, 20, 80, 50), window, *size)
    # at the edge of the frame itself a box counts as complete
    assert not is_cut((-3, -2, 40, 40), window, *size)
    whole, piece, other = (60, 20, 120, 80), (62, 22, 99, 78), (200, 20, 240, 60)
    boxes = np.array([piece, whole, other], dtype=float)
    assert merge(boxes, np.array([0.99, 0.6, 0.7]), np.array([True, False, False]), nms_iou=0.3) == [2, 1]
    assert merge(boxes, np.array([0.99, 0.6, 0.7]), np.array([False, False, False]), nms_iou=0.3) == [0, 2]
    # a cut box remains where there is no better one
    assert merge(boxes[:1], np.array([0.9]), np.array([True]), nms_iou=0.3) == [0]
    inside = np.array([(0, 0, 100, 100), (10, 10, 30, 30)], dtype=float)
    # a piece of a face inside the whole
    assert merge(inside, np.array([0.9, 0.95]), np.array([False, True]), nms_iou=0.3) == [0]
    assert merge(np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool), nms_iou=0.3) == []


def test_boxes_are_clipped():
    assert clip_box((-5, 10, 20, 50), width_px=100, height_px=40) == (0, 10, 20, 40)
    assert clip_box((-30, 10, 1, 50), width_px=100, height_px=40) is None


def kitti_line(frame, box, *, track=1, kind="Face", score=None):
    numbers = " ".join(f"{v:.2f}" for v in box)
    line = f"{frame} {track} {kind} -1 -1 -10 {numbers} -1 -1 -1 -1000 -1000 -1000 -10"
    return line if score is None else f"{line} {score}"


def start_kitti(folder, video="a/clip.mp4", **settings):
    detector = DETECTORS.get("kitti")(folder=str(folder), **settings)
    detector.start(Path("/raw") / video, STREAM)
    return lambda *frames: detector.detect(np.zeros((len(frames), 240, 320, 3), np.uint8), frames)


def test_kitti_tracking_labels(tmp_path):
    lines = [
        kitti_line(0, (10, 20, 50, 60)),
        kitti_line(0, (100, 20, 140, 60), track=2, score=0.7),
        "",
        kitti_line(5, (-8, 20, 30, 60), score=0.3),
    ]
    lines += [kitti_line(5, (1, 2, 9, 9), kind="Person"), kitti_line(6, (200, 100, 260, 180), score=-0.1)]
    (tmp_path / "clip.txt").write_text("\n".join(lines))
    none, both, low, negative = start_kitti(tmp_path)(1, 0, 5, 6)
    assert none == [] and low == []
    assert [(f.frame_index, f.box_px, f.confidence) for f in both] == [
        (0, (10, 20, 50, 60), 1.0),
        (0, (100, 20, 140, 60), 0.7),
    ]
    assert [(f.box_px, f.confidence) for f in negative] == [((200, 100, 260, 180), 1.0)]
    assert start_kitti(tmp_path, min_confidence=0.2)(5)[0][0].box_px == (0, 20, 30, 60)
    assert start_kitti(tmp_path, type_name="person")(5)[0][0].box_px == (1, 2, 9, 9)
    (tmp_path / "clip.txt").write_text(kitti_line(0, (10, 20, 50, 60)))
    # labels made at another size
    assert start_kitti(tmp_path, width_px=160, height_px=80)(0)[0][0].box_px == (20, 60, 100, 180)


def test_kitti_boxes_follow_the_padding_of_the_frame(tmp_path):
    (tmp_path / "clip.txt").write_text(kitti_line(0, (10, 20, 50, 60)))
    detector = DETECTORS.get("kitti")(folder=str(tmp_path))
    detector.start(Path("clip.mp4"), STREAM)
    padded = np.zeros((1, 240, 426, 3), np.uint8)  # 53 pixels at either side
    assert detector.detect(padded, [0])[0][0].box_px == (63, 20, 103, 60)
    with pytest.raises(ValueError, match="frame of 160x120 of a video of 320x240: expected it in full size"):
        detector.detect(padded[:, :120, :160], [0])


def test_kitti_files_of_single_frames(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    zeros = " ".join(["0.0"] * 7)
    (folder / "000003.txt").write_text(f"Face 0.0 0 0.0 10 20 50 60 {zeros}\n")
    (folder / "00_000_000004.txt").write_text(
        f"face 0.0 0 0.0 11 20 50 60 {zeros} 0.8\nface 17 0.0 0 0.0 100 20 150 60 {zeros} 0.9\n"
    )
    (folder / "000005.txt").write_text("")
    found = start_kitti(tmp_path)(3, 4, 5, 6)
    assert [[(f.box_px, f.confidence) for f in faces] for faces in found] == [
        [((10, 20, 50, 60), 1.0)],
        [((100, 20, 150, 60), 0.9), ((11, 20, 50, 60), 0.8)],
        [],
        [],
    ]
    (folder / "first.txt").write_text("")
    with pytest.raises(ValueError, match="first.txt: expected a name that ends in a frame's number"):
        start_kitti(tmp_path)


def test_kitti_prefers_the_longest_path(tmp_path):
    for name in ("clip.txt", "a/clip.txt", "b/clip/000001.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert find_labels(tmp_path, Path("/raw/a/clip.mp4")) == tmp_path / "a/clip.txt"
    assert find_labels(tmp_path, Path("/raw/b/clip.mp4")) == tmp_path / "b/clip"
    assert find_labels(tmp_path, Path("/raw/c/clip.mp4")) == tmp_path / "clip.txt"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 1 Face 10 20 50 60", "clip.txt:2: 7 fields, expected 17 or 18"),
        (kitti_line(0, (50, 20, 10, 60)), "clip.txt:2: frame 0, box .50.0, 20.0.*expected .* left < right"),
        (kitti_line(0, (float("nan"), 20, 50, 60)), "clip.txt:2: .*left < right"),
        (kitti_line("x", (10, 20, 50, 60)), "clip.txt:2: 'x 1 Face"),
        (kitti_line(0, (10, 20, 50, 60), score=87), "clip.txt:2: score 87, expected 0 to 1"),
        (kitti_line(20, (10, 20, 50, 60)), "clip.txt:2: frame 20 of a video with 20 frames"),
        (kitti_line(0, (900, 20, 950, 60)), "clip.txt:2: box .* lies outside 320x240 pixels: set width_px"),
    ],
)
def test_kitti_errors_name_file_and_line(tmp_path, line, message):
    (tmp_path / "clip.txt").write_text(kitti_line(0, (10, 20, 50, 60)) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        start_kitti(tmp_path)


def test_a_video_without_labels_never_gets_those_of_the_previous_one(tmp_path):
    (tmp_path / "clip.txt").write_text(kitti_line(0, (10, 20, 50, 60)))
    detector = DETECTORS.get("kitti")(folder=str(tmp_path))
    frame = np.zeros((1, 240, 320, 3), np.uint8)
    with pytest.raises(ValueError, match="does not know which video"):
        detector.detect(frame, [0])
    detector.start(Path("clip.mp4"), STREAM)
    assert len(detector.detect(frame, [0])[0]) == 1
    expected = "no KITTI labels of other.mp4 in .*: expected other.txt, or a folder other"
    with pytest.raises(ValueError, match=expected):
        detector.start(Path("other.mp4"), STREAM)
    with pytest.raises(ValueError, match="does not know which video"):
        detector.detect(frame, [0])
    with pytest.raises(FileNotFoundError, match="no folder at"):
        Kitti(str(tmp_path / "absent"), "Face", 0, 0, 0.5).start(Path("clip.mp4"), STREAM)


def test_frames_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="expected uint8"):
        Fixed().detect(np.zeros((1, 8, 8, 3), np.float32), [0])
