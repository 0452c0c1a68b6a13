"""The reader of Celeb-DF v2: folders, the list of test videos, refusals."""

from __future__ import annotations

import pytest
from reader_checks import facts, kinds, put, read


def test_celebdf(miniature, caplog):
    root = miniature("celebdf")
    videos, rejections = read("celebdf", root)
    assert not rejections and "has 3 lines, that of Celeb-DF v2 has 518" in caplog.text
    assert facts(videos, "label", "split", "source_id", "identities") == {
        "youtube-real__00170": (0, "test", "", ("youtube-00170",)),  # the first line of the list
        "youtube-real__00000": (0, "train", "", ("youtube-00000",)),
        "celeb-real__id1_0001": (0, "test", "", ("id1",)),
        "celeb-synthesis__id1_id0_0001": (1, "test", "celeb-real__id1_0001", ("id1", "id0")),
        "celeb-synthesis__id2_id3_0007": (1, "train", "celeb-real__id2_0007", ("id2", "id3")),
    }


def test_celebdf_the_whole_list_of_518(tmp_path, caplog):
    names = [
        f"1 YouTube-real/{n:05d}.mp4" if n % 2 else f"0 Celeb-synthesis/id{n}_id1_0000.mp4"
        for n in range(518)
    ]
    (tmp_path / "List_of_testing_videos.txt").write_text("\n".join(names))
    put(tmp_path, *(name.split()[1] for name in names))
    videos, rejections = read("celebdf", tmp_path)
    assert sum(v.split == "test" for v in videos.values()) == 518
    assert sum(v.label for v in videos.values()) == 259
    assert not rejections and not caplog.text


def test_celebdf_refusals(miniature):
    root = miniature("celebdf")
    extra = ["0 Celeb-real/id5_0000.mp4", "1 Celeb-real/id6_0000.mp4", "0 Celeb-real/id6_0000.mp4"]
    extra += ["1,Celeb-real/id7_0000.mp4", "1 Other/x.mp4", "2 x.mp4"]
    with (root / "List_of_testing_videos.txt").open("a") as stream:
        stream.write("\n".join([*extra, "1 YouTube-real/99999.mp4"]))
    put(root, "Celeb-real/id5_0000.mp4", "Celeb-real/id6_0000.mp4", "Other/x.mp4", "Celeb-synthesis/x.mp4")
    videos, reasons = read("celebdf", root)
    assert len(videos) == 5
    assert kinds(reasons) == {
        "Celeb-real/id5_0000.mp4": "contradictory labels",
        "Celeb-real/id6_0000.mp4": "contradictory labels",
        "List_of_testing_videos.txt:7": "bad line",
        "List_of_testing_videos.txt:9": "bad line",
        "Other/x.mp4": "unknown name",
        "Celeb-synthesis/x.mp4": "unknown name",
        "YouTube-real/99999.mp4": "missing file",
    }
    (root / "List_of_testing_videos.txt").unlink()
    with pytest.raises(ValueError, match="the test videos would be trained on"):
        read("celebdf", root)
