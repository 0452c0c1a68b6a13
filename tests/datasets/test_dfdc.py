"""The readers of DFDC and of its preview: ids, labels, splits, originals, people, refusals."""

from __future__ import annotations

import json

import pytest
from reader_checks import facts, kinds, put, read

REAL = {"label": "REAL", "split": "train", "original": None}


def training_folder(root, name, entries, *, on_disk=None):
    """A folder of DFDC with a metadata.json of `entries`, and files of their names or those `on_disk`."""
    put(root, f"{name}/metadata.json", *(f"{name}/{f}" for f in (entries if on_disk is None else on_disk)))
    (root / name / "metadata.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))


def test_dfdc_training_folders_and_test_set_under_one_root(miniature):
    videos, rejections = read("dfdc", miniature("dfdc"))
    gone = "gonegonego"
    assert not rejections
    assert facts(videos, "label", "split", "source_id", "method", "folder") == {
        "aaaaaaaaaa": (0, "train", "", "real", "dfdc_train_part_0"),
        "bbbbbbbbbb": (1, "train", "aaaaaaaaaa", "unknown", "dfdc_train_part_0"),
        "cccccccccc": (1, "train", gone, "unknown", "dfdc_train_part_7"),
        "dddddddddd": (1, "train", gone, "unknown", "dfdc_train_part_7"),
        "eeeeeeeeee": (0, "train", "", "real", "dfdc_train_part_7"),
        "ffffffffff": (1, "test", "", "unknown", "test"),
        "gggggggggg": (0, "test", "", "real", "test"),
    }
    assert videos["ffffffffff"].path == "test/videos/ffffffffff.mp4"


def test_dfdc_a_folder_by_itself_gives_the_same_ids(miniature):
    root = miniature("dfdc")
    whole, _ = read("dfdc", root)
    alone, _ = read("dfdc", root / "dfdc_train_part_7")
    assert sorted(alone) == ["cccccccccc", "dddddddddd", "eeeeeeeeee"]
    assert alone["cccccccccc"].path == "cccccccccc.mp4"
    assert facts(alone, "source_id", "folder") == {i: (whole[i].source_id, whole[i].folder) for i in alone}


def test_dfdc_other_names_are_prefixed_with_their_folder(tmp_path):
    for n in (0, 1):
        training_folder(
            tmp_path, f"p{n}", {"aaa.mp4": {"label": "FAKE", "original": "bbb.mp4"}, "bbb.mp4": REAL}
        )
    videos, _ = read("dfdc", tmp_path)
    sources = {"p0__aaa": "p0__bbb", "p0__bbb": "", "p1__aaa": "p1__bbb", "p1__bbb": ""}
    assert facts(videos, "source_id") == sources


def test_dfdc_the_same_video_in_two_folders(miniature):
    root = miniature("dfdc")  # Kaggle's train_sample_videos repeats videos of the training folders
    training_folder(root, "train_sample_videos", {"aaaaaaaaaa.mp4": REAL})
    videos, rejections = read("dfdc", root)
    assert len(videos) == 7 and list(rejections) == ["train_sample_videos/aaaaaaaaaa.mp4"]
    assert rejections["train_sample_videos/aaaaaaaaaa.mp4"].startswith(
        "name clash: its id aaaaaaaaaa is that of dfdc_train_part_0/aaaaaaaaaa.mp4"
    )


def test_dfdc_people_and_methods_where_named(tmp_path):
    named = {"label": "FAKE", "original": "b.mp4", "method": "spatial", "identity": "id1", "donor": "id2"}
    training_folder(tmp_path, "p", {"a.mp4": named, "b.mp4": {"label": "REAL", "identity": "id1"}})
    videos, _ = read("dfdc", tmp_path)
    assert facts(videos, "method", "identities") == {
        "p__a": ("spatial", ("id1", "id2")),
        "p__b": ("real", ("id1",)),
    }


@pytest.mark.parametrize("videos_in", ["", "videos/", "test_videos/", "test/videos/"])
@pytest.mark.parametrize("labels", ["labels.csv", "metadata.json", "both"])
def test_dfdc_test_set(tmp_path, videos_in, labels):
    put(tmp_path, f"{videos_in}x.mp4", f"{videos_in}y.mp4")
    if labels != "metadata.json":
        (tmp_path / "labels.csv").write_text("filename,label\r\nx.mp4,1\r\ny.mp4,0\r\n")
    if labels != "labels.csv":
        table = {
            "x.mp4": {"augmentations": {"augmenter": {}}, "is_fake": 1},
            "y.mp4": {"augmentations": {}, "is_fake": 0},
        }
        (tmp_path / "metadata.json").write_text(json.dumps(table))
    videos, rejections = read("dfdc", tmp_path)
    assert {v.path: (v.label, v.split) for v in videos.values()} == {
        f"{videos_in}x.mp4": (1, "test"),
        f"{videos_in}y.mp4": (0, "test"),
    }
    assert not rejections


def test_dfdc_refusals(tmp_path):
    entries = {
        "aaa.mp4": {"label": "FAKE", "original": "gone.mp4"},
        "gone.mp4": REAL,
        "odd.mp4": {"label": "MAYBE"},
        "none.mp4": {},
        "b b.mp4": REAL,
        "../../etc/x.mp4": REAL,
        "/etc/y.mp4": REAL,
        "self.mp4": {"label": "FAKE", "original": "self.mp4"},
        "out.mp4": {"label": "FAKE", "original": "../x.mp4"},
        "made.mp4": {"label": "REAL", "original": "aaa.mp4"},
        "nan.mp4": {"label": "REAL", "original": float("nan")},
        "twice.mp4": REAL,
    }
    on_disk = [n for n in entries if n not in ("gone.mp4", "twice.mp4") and "/" not in n]
    training_folder(
        tmp_path, "p", entries, on_disk=[*on_disk, "extra.mp4", "notes.txt", "1/twice.mp4", "2/twice.mp4"]
    )
    videos, reasons = read("dfdc", tmp_path)
    assert [i.split("--")[0] for i in sorted(videos)] == ["p__aaa", "p__b_b", "p__nan"]
    assert videos["p__aaa"].source_id == "p__gone"
    assert {path.removeprefix("p/"): kind for path, kind in kinds(reasons).items()} == {
        "gone.mp4": "missing file",
        "odd.mp4": "bad label",
        "none.mp4": "bad label",
        "../../etc/x.mp4": "outside the root",
        "/etc/y.mp4": "outside the root",
        "self.mp4": "bad original",
        "out.mp4": "bad original",
        "made.mp4": "contradictory labels",
        "extra.mp4": "no label",
        "1/twice.mp4": "ambiguous name",
    }


def test_dfdc_contradictory_labels(tmp_path):
    table = (
        '{"a.mp4": {"label": "REAL"}, "a.mp4": {"label": "FAKE"}, '
        '"b.mp4": {"label": "REAL", "label": "FAKE"}, "c.mp4": {"is_fake": 1}}'
    )
    training_folder(tmp_path, "p", table, on_disk=[])
    put(tmp_path, "p/a.mp4", "p/b.mp4", "p/c.mp4", "p/d.mp4", "p/e.mp4")
    (tmp_path / "p/labels.csv").write_text("filename,label\nc.mp4,0\nd.mp4,1\nd.mp4,1\ne.mp4,1\n")
    (tmp_path / "labels.csv").write_text("filename,label\np/e.mp4,0\n")
    videos, reasons = read("dfdc", tmp_path)
    assert facts(videos, "label") == {"p__d": 1}
    assert kinds(reasons) == dict.fromkeys([f"p/{letter}.mp4" for letter in "abce"], "contradictory labels")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"a.mp4": "REAL"}'])
def test_dfdc_damaged_metadata(tmp_path, content):
    training_folder(tmp_path, "dfdc_train_part_3", content, on_disk=[])
    with pytest.raises(ValueError, match="dfdc_train_part_3/metadata.json"):
        read("dfdc", tmp_path)


def test_dfdc_labels_with_another_header(tmp_path):
    put(tmp_path, "x.mp4")
    (tmp_path / "labels.csv").write_text("name;fake\nx.mp4;1\n")
    with pytest.raises(ValueError, match="labels.csv:2: expected the columns filename,label"):
        read("dfdc", tmp_path)


def test_dfdcp(miniature):
    videos, rejections = read("dfdcp", miniature("dfdcp"))
    first, second = "original_videos__1003254_a_001", "original_videos__1260311_c_001"
    missing = "original_videos__1260311_c_002"
    assert not rejections
    assert facts(videos, "label", "split", "method", "source_id", "identities") == {
        first: (0, "test", "real", "", ("1003254",)),
        second: (0, "train", "real", "", ("1260311",)),
        "method_a__1255229_1003254_a_001": (1, "test", "method_A", first, ("1003254", "1255229")),
        "method_b__1255300_1260311_c_001": (1, "train", "method_B", second, ("1260311", "1255300")),
        "method_b__1255300_1260311_c_002": (1, "train", "method_B", missing, ("1260311", "1255300")),
    }


def test_dfdcp_refusals(miniature):
    root = miniature("dfdcp")
    put(root, "method_A/1/1_A/2_1_A_001.mp4", "method_A/1/1_A/3_1_A_001.mp4", "method_A/odd.mp4")
    put(root, "original_videos/1/1_A_001.mp4", "method_B/loose.mp4")
    text = (root / "dataset.json").read_text().rstrip("} \n") + "}"
    text += (
        ', "method_A/1/1_A/2_1_A_001.mp4": {"label": "real", "set": "train"}, '
        '"original_videos/1/1_A_001.mp4": {"label": "real", "set": "maybe"}'
    )
    text += ', "method_A/odd.mp4": {"label": "fake", "set": "train", "target_id": 9, "swapped_id": 8}'
    text += (
        ', "method_A/1/1_A/3_1_A_001.mp4": {"label": "fake"}, "method_A/1/1_A/3_1_A_001.mp4": '
        '{"label": "real"}}'
    )
    (root / "dataset.json").write_text(text)
    videos, reasons = read("dfdcp", root)
    assert kinds(reasons) == {
        "method_A/1/1_A/2_1_A_001.mp4": "contradictory labels",
        "method_A/1/1_A/3_1_A_001.mp4": "contradictory labels",
        "original_videos/1/1_A_001.mp4": "bad split",
        "method_B/loose.mp4": "no label",
    }
    # for a name of another form, dataset.json alone counts
    odd = next(v for v in videos.values() if v.path == "method_A/odd.mp4")
    assert (odd.label, odd.source_id, odd.identities) == (1, "", ("9", "8"))
