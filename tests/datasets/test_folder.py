"""The reader of your own folders: classes, splits, unlabelled videos, refusals."""

from __future__ import annotations

from reader_checks import facts, kinds, put, read


def test_folder_real_and_fake(tmp_path):
    put(tmp_path, "real/a.mp4", "fake/a.mp4", "real/anna/b_c.mp4", "loose.mp4", "real/p.jpg")
    put(tmp_path, "fake/readme.txt", ".hidden/x.mp4", "real/._a.mp4")  # ignored
    videos, rejections = read("folder", tmp_path)
    assert facts(videos, "label", "folder", "method", "split") == {
        "real__a": (0, "", "real", ""),
        "fake__a": (1, "", "unknown", ""),
        "real__anna__b_c": (0, "anna", "real", ""),
    }
    assert "beside the class folders" in rejections["loose.mp4"]
    assert "image" in rejections["real/p.jpg"] and len(rejections) == 2


def test_folder_only_fakes_are_still_fakes(tmp_path):
    put(tmp_path, "fake/a.mp4")
    assert facts(read("folder", tmp_path)[0], "label") == {"fake__a": 1}


def test_folder_many_classes(tmp_path):
    put(tmp_path, "swap/a.mp4", "pristine/a.mp4", "reenact/a.mp4")
    labels = {v.method: v.label for v in read("folder", tmp_path)[0].values()}
    assert labels == {"pristine": 0, "reenact": 1, "swap": 2}
    videos, rejections = read("folder", tmp_path, classes=("pristine", "swap"))
    assert {v.method: v.label for v in videos.values()} == {"pristine": 0, "swap": 1}
    assert kinds(rejections) == {"reenact/a.mp4": "unknown class"}


def test_folder_with_its_own_split(miniature):
    videos, _ = read("folder", miniature("folder"))
    found = {v.folder: (v.split, v.label) for v in videos.values()}
    assert found == {"anna": ("train", 0), "bob": ("train", 1), "carl": ("test", 0), "dora": ("test", 1)}


def test_folder_unlabelled(tmp_path):
    put(tmp_path, "a.mp4", "b.MOV", "c.jpg", "README.md", "-odd.mp4", "Bildschirmfoto um 10.00\u202fAM.mp4")
    videos, rejections = read("folder", tmp_path)
    assert {(v.label, v.split, v.method) for v in videos.values()} == {(0, "test", "unknown")}
    assert len(videos) == 4
    assert "a" in videos and list(rejections) == ["c.jpg"]
