"""The benchmark of the face detectors: reproducible scenes, correct counts, a row or a reason for every
detector.
"""

import numpy as np
import pytest

from dfdc_video.benchmarks import detect
from dfdc_video.records import Face
from dfdc_video.registry import BENCHMARKS, DETECTORS


class Fixed:
    """Detects the whole frame as one face, and a dot beside it."""

    long_side_px = 100

    def detect(self, frames, frame_indices):
        height, width = frames.shape[1:3]
        self.seen = (height, width)
        return [[Face(0, (0, 0, width, height), 0.9), Face(0, (0, 0, 3, 3), 0.6)]]


def test_a_scene_is_a_function_of_its_arguments():
    frame, boxes = detect.scene(0, "far", 1)
    again, same = detect.scene(0, "far", 1)
    assert np.array_equal(frame, again) and np.array_equal(boxes, same)
    assert frame.shape == (720, 1280, 3) and frame.dtype == np.uint8 and boxes.shape == (4, 4)
    assert not np.array_equal(detect.scene(1, "far", 1)[1], boxes)
    assert detect.scene(0, "nobody", 0)[1].shape == (0, 4)
    heights = (boxes[:, 3] - boxes[:, 1]) / 720
    assert heights.min() > 0.035 and heights.max() < 0.1
    assert (boxes >= 0).all() and (boxes[:, 2:] <= (1280, 720)).all()


def test_a_true_box_holds_the_face():
    """Where heads are, the frame differs from the same room without people: cheeks end at the box."""
    frame, boxes = detect.scene(0, "near", 0)
    room = np.clip(detect.room(np.random.default_rng([0, 0, 0])), 0, 255)
    person = np.abs(frame.astype(float) - room).max(axis=2) > 25
    for x0, y0, x1, y1 in boxes.astype(int):
        middle = person[(y0 + y1) // 2 - 15 : (y0 + y1) // 2 + 15]
        assert person[y0:y1, x0:x1].mean() > 0.7
        assert middle[:, x0 : x0 + 20].mean() > 0.6 and middle[:, x1 - 20 : x1].mean() > 0.6
        assert middle[:, max(0, x0 - 60) : x0 - 40].mean() < 0.3  # beyond the ear


def test_hits_and_false_positives_are_counted_one_to_one():
    score = detect.Score(Fixed(), reduce=True)
    frame = np.zeros((150, 200, 3), np.uint8)
    found = score.detect(frame)
    assert score.detector.seen == (75, 100) and len(score.seconds) == 1
    assert found.tolist() == [[0, 0, 200, 150], [0, 0, 6, 6]]
    # a box hits one of the two that it covers
    score.judge(found, np.array([(0.0, 0, 200, 140), (10, 0, 200, 150), (500, 500, 600, 600)]))
    assert (score.faces, score.hits, score.false_positives) == (3, 1, 1)
    score.judge(found, np.zeros((0, 4)))
    assert (score.faces, score.hits, score.false_positives) == (3, 1, 3)
    assert detect.Score(Fixed(), reduce=False).detect(frame).tolist()[0] == [0, 0, 200, 150]


def test_every_detector_goes_first_in_turn():
    assert [detect.turns(["a", "b", "c"], n)[0] for n in range(4)] == ["a", "b", "c", "a"]
    assert sorted(detect.turns(["a", "b", "c"], 2)) == ["a", "b", "c"]


def test_every_detector_has_a_row_or_a_reason(make_video):
    text = BENCHMARKS.get("detect")(num_scenes=1, footage=str(make_video(num_frames=6)))
    table = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = {cells[0]: dict(zip(table[0], cells, strict=True)) for cells in table[2:]}
    skipped = {name for name in DETECTORS.names() if f"Left out: {name}: " in text}
    assert rows.keys() | skipped == {*DETECTORS.names(), *detect.VARIANTS}
    for row in rows.values():
        assert row["near faces found, %"] == row["with a face, %"] == "100"
        assert row["footage: faces per frame"] == "1.00" and float(row["frames/s"]) > 0
    assert "Left out: kitti: folder '': expected the folder of KITTI label files." in text
    far = {name: int(row["far faces found, %"]) for name, row in rows.items()}
    assert far["tiled"] > far["blazeface_full"]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="num_scenes 0"):
        BENCHMARKS.get("detect")(num_scenes=0)
    with pytest.raises(FileNotFoundError, match="no such video"):
        BENCHMARKS.get("detect")(footage="/nowhere.mp4")
