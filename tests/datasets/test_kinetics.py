"""The reader of Kinetics: official lists, 'path label' lists, refusals."""

from __future__ import annotations

import pytest
from reader_checks import kinds, put, read


def test_kinetics(miniature):
    videos, rejections = read("kinetics", miniature("kinetics"))
    assert not rejections
    found = {v.path.split("/")[-1]: (v.label, v.split, v.method, v.identities) for v in videos.values()}
    assert found == {
        "---0dWlqevI_000019_000029.mp4": (0, "train", "riding a bike", ("---0dWlqevI",)),
        "-0AAAAAAAAA_000000_000010.mp4": (1, "train", "singing, loudly", ("-0AAAAAAAAA",)),
        "-0aaaaaaaaa_000005_000015.mp4": (0, "val", "riding a bike", ("-0aaaaaaaaa",)),
        "zzzzzzzzzz__000001_000011.mp4": (1, "test", "singing, loudly", ("zzzzzzzzzz_",)),
        "zzzzzzzzzz__000030_000040.mp4": (0, "test", "riding a bike", ("zzzzzzzzzz_",)),
    }


def test_kinetics_ids_stay_when_files_are_sorted_into_folders(miniature, tmp_path):
    before, _ = read("kinetics", miniature("kinetics"))
    root = tmp_path / "raw"
    (root / "test/riding a bike").mkdir(parents=True)
    (root / "zzzzzzzzzz__000030_000040.mp4").rename(root / "test/riding a bike/zzzzzzzzzz__000030_000040.mp4")
    assert set(read("kinetics", root)[0]) == set(before)


def test_kinetics_refusals(miniature):
    root = miniature("kinetics")
    rows = [
        "riding a bike,longgone000,1,11,train,0",
        "riding a bike,badtimes000,x,11,train,0",
        "short,row",
        ",nolabel0000,1,11,test,0",
        "riding a bike,twolabels00,1,11,train,0",
        '"singing, loudly",twolabels00,1,11,train,0',
        "riding a bike,twosplits00,1,11,train,0",
        "riding a bike,twosplits00,1,11,test,0",
        "riding a bike,infolder000,1,11,train,0",
        "riding a bike,twoplaces00,1,11,train,0",
        "riding a bike,floats00000,1.0,11.0,train,0",
    ]
    with (root / "annotations/kinetics_3.csv").open("a") as stream:
        stream.write("\n".join(rows))
    names = "nolabel0000 twolabels00 twosplits00 1/twoplaces00 2/twoplaces00 extra000000 floats00000".split()
    names += ["train/singing, loudly/infolder000"]
    put(root, *(f"{name}_000001_000011.mp4" for name in names))
    videos, reasons = read("kinetics", root)
    assert len(videos) == 6 and any(v.path.startswith("floats") for v in videos.values())
    assert {path.replace("_000001_000011.mp4", ""): kind for path, kind in kinds(reasons).items()} == {
        "longgone000": "missing file",
        "annotations/kinetics_3.csv:8": "bad line",
        "annotations/kinetics_3.csv:9": "bad line",
        "nolabel0000": "no label",
        "twolabels00": "contradictory labels",
        "twosplits00": "contradictory splits",
        "train/singing, loudly/infolder000": "contradictory labels",
        "1/twoplaces00": "ambiguous name",
        "extra000000": "no label",
    }


def test_kinetics_a_set_without_labels_is_all_test(tmp_path):
    put(tmp_path, "aaaaaaaaaaa_000001_000011.mp4")
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\naaaaaaaaaaa,1,11,test\n")
    videos, _ = read("kinetics", tmp_path)
    assert [(v.label, v.split, v.method) for v in videos.values()] == [(0, "test", "unknown")]


def test_kinetics_path_label_lists(miniature):
    root = miniature("kinetics_lists")
    videos, rejections = read("kinetics", root)
    assert not rejections
    assert {v.path: (v.label, v.split, v.identities) for v in videos.values()} == {
        "clips/a.mp4": (0, "train", ()),
        "clips/b c.mp4": (2, "train", ()),
        "clips/---0dWlqevI_000019_000029.mp4": (1, "test", ("---0dWlqevI",)),
        "clips/---0dWlqevI_000029_000039.mp4": (1, "test", ("---0dWlqevI",)),
    }
    with (root / "train.csv").open("a") as stream:
        stream.write("clips/a.mp4,3\nclips/b c.mp4 1\nclips/none.mp4 1\nclips/a.mp4 00\n")
    videos, reasons = read("kinetics", root)
    assert len(videos) == 3 and reasons["train.csv:3"].endswith("this one has commas")
    assert reasons["clips/b c.mp4"] == "contradictory labels: '2' and '1'"
    assert kinds(reasons)["clips/none.mp4"] == "missing file"
    (root / "validate.csv").write_text("label,youtube_id,time_start,time_end,split\n")
    with pytest.raises(ValueError, match="both kinds of list"):
        read("kinetics", root)
