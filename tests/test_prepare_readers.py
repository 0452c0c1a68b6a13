"""The readers of datasets/dfdc and datasets/folder: layouts, and files that do not fit."""

from __future__ import annotations

import json

import pytest

from dfdc_video.registry import DATASETS


def part(root, name, entries, *, on_disk=None):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    for file in on_disk if on_disk is not None else entries:
        (folder / file).write_bytes(file.encode())
    return folder


def dfdc(root):
    videos, rejections = DATASETS.get("dfdc")(root)
    return {v.video_id: v for v in videos}, {r.path: r.reason for r in rejections}


REAL = {"label": "REAL", "split": "train", "original": None}


def test_dfdc_fields(tmp_path):
    fake = {"label": "FAKE", "split": "train", "original": "bbb.mp4"}
    named = {**fake, "method": "spatial", "identity": "id1", "donor": "id2"}
    part(tmp_path, "dfdc_train_part_0", {"aaa.mp4": fake, "bbb.mp4": REAL, "ccc.mp4": named, "ddd.mp4": {"label": "REAL", "identity": "id1"}})
    videos, rejections = dfdc(tmp_path)
    assert sorted(videos) == ["aaa", "bbb", "ccc", "ddd"] and not rejections
    assert (videos["aaa"].label, videos["aaa"].source_id, videos["aaa"].method, videos["aaa"].split) == (1, "bbb", "unknown", "train")
    assert (videos["bbb"].label, videos["bbb"].source_id, videos["bbb"].method, videos["bbb"].identities) == (0, "", "real", ())
    assert (videos["ccc"].method, videos["ccc"].identities, videos["ddd"].identities) == ("spatial", ("id1", "id2"), ("id1",))
    assert videos["aaa"].path == "dfdc_train_part_0/aaa.mp4" and videos["aaa"].folder == "dfdc_train_part_0"


def test_dfdc_one_part_is_enough(tmp_path):
    folder = part(tmp_path, "dfdc_train_part_7", {"aaa.mp4": REAL})
    videos, _ = dfdc(folder)
    assert videos["aaa"].path == "aaa.mp4" and videos["aaa"].folder == "dfdc_train_part_7"


def test_dfdc_files_that_do_not_fit_are_rejected_one_by_one(tmp_path):
    entries = {
        "aaa.mp4": {"label": "FAKE", "original": "gone.mp4"}, "gone.mp4": REAL, "odd.mp4": {"label": "MAYBE"}, "b b.mp4": REAL,
        "../../etc/x.mp4": REAL, "/etc/y.mp4": REAL,
    }  # fmt: skip
    part(tmp_path, "dfdc_train_part_0", entries, on_disk=["aaa.mp4", "odd.mp4", "b b.mp4", "extra.mp4", "notes.txt"])
    videos, reasons = dfdc(tmp_path)
    assert list(videos) == ["aaa"] and videos["aaa"].source_id == ""
    reasons = {path.replace("dfdc_train_part_0/", ""): reason for path, reason in reasons.items()}
    assert reasons["gone.mp4"].startswith("missing file") and reasons["extra.mp4"].startswith("no label")
    assert "MAYBE" in reasons["odd.mp4"] and "letters, digits" in reasons["b b.mp4"]
    assert sum(r.startswith("outside the root") for r in reasons.values()) == 2 and len(reasons) == 6


def test_dfdc_same_stem_in_two_parts(tmp_path):
    for n in (0, 1):
        part(tmp_path, f"dfdc_train_part_{n}", {"aaa.mp4": {"label": "FAKE", "original": "bbb.mp4"}, "bbb.mp4": REAL, f"u{n}.mp4": REAL})
    videos, _ = dfdc(tmp_path)
    assert len(videos) == 6 and {"u0", "u1"} <= set(videos)
    for v in videos.values():
        if v.label:
            assert videos[v.source_id].folder == v.folder


def test_dfdc_test_set(tmp_path):
    folder = part(tmp_path, "test", {"x.mp4": {"augmentations": {}, "is_fake": 1}, "y.mp4": {"augmentations": {}, "is_fake": 0}})
    videos, _ = dfdc(folder)
    assert {i: (v.label, v.split) for i, v in videos.items()} == {"x": (1, "test"), "y": (0, "test")}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"a.mp4": "REAL"}'])
def test_dfdc_damaged_metadata(tmp_path, content):
    part(tmp_path, "dfdc_train_part_3", content, on_disk=[])
    with pytest.raises(ValueError, match="dfdc_train_part_3/metadata.json"):
        dfdc(tmp_path)


@pytest.mark.parametrize("dataset", ["dfdc", "folder"])
def test_empty_folder_says_what_was_expected(tmp_path, dataset):
    with pytest.raises(ValueError, match="expected .*folder"):
        DATASETS.get(dataset)(tmp_path)


def files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    videos, rejections = DATASETS.get("folder")(root)
    return {v.video_id: v for v in videos}, {r.path: r.reason for r in rejections}


def test_folder_real_and_fake(tmp_path):
    names = ("real/a.mp4", "fake/a.mp4", "real/anna/b c.mp4", "fake/readme.txt", "loose.mp4", "real/p.jpg", ".hidden/x.mp4")
    videos, rejections = files(tmp_path, *names)
    assert {i: v.label for i, v in videos.items()} == {"real__a": 0, "fake__a": 1, "real__anna__b_c": 0}
    assert videos["real__anna__b_c"].folder == "anna" and videos["real__a"].folder == "" and videos["fake__a"].method == "unknown"
    assert {v.split for v in videos.values()} == {""}
    assert "beside the class folders" in rejections["loose.mp4"] and "image" in rejections["real/p.jpg"] and len(rejections) == 2


def test_folder_only_fakes_are_still_fakes(tmp_path):
    videos, _ = files(tmp_path, "fake/a.mp4")
    assert videos["fake__a"].label == 1


def test_folder_many_classes(tmp_path):
    videos, _ = files(tmp_path, "swap/a.mp4", "pristine/a.mp4", "reenact/a.mp4")
    assert {v.method: v.label for v in videos.values()} == {"pristine": 0, "reenact": 1, "swap": 2}


def test_folder_with_its_own_split(tmp_path):
    videos, _ = files(tmp_path, "train/real/a.mp4", "train/fake/b.mp4", "test/real/c.mp4")
    expected = {"train__real__a": ("train", 0), "train__fake__b": ("train", 1), "test__real__c": ("test", 0)}
    assert {i: (v.split, v.label) for i, v in videos.items()} == expected


def test_folder_unlabelled(tmp_path):
    videos, rejections = files(tmp_path, "a.mp4", "b.MOV", "c.jpg", "README.md", "-odd.mp4")
    assert {(v.label, v.split, v.method) for v in videos.values()} == {(0, "test", "unknown")}
    assert set(videos) == {"a", "b", "v-odd"} and list(rejections) == ["c.jpg"]


def test_folder_names_that_clash_get_different_ids(tmp_path):
    videos, _ = files(tmp_path, "real/a b.mp4", "real/a_b.mp4", "real/a_b.mov")
    assert len(videos) == 3
