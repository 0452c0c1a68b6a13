"""Tools of readers, and every reader on untrusted input: hostile names are refused one by one, ids depend on
the path only.
"""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest

from dfdc_video.preparation.reading import (
    Repeated,
    agreed,
    distinct,
    list_files,
    load_csv,
    load_lines,
    load_table,
    read_metadata,
    refuse,
    usable,
    values,
    video_id_of,
)
from dfdc_video.records import ID_PATTERN, Video
from dfdc_video.registry import DATASETS

LONG = "n" * 300 + ".mp4"
HOSTILE = {
    **dict.fromkeys(["../../etc/passwd", "/etc/passwd", "a\\b.mp4", "C:/x.mp4"], "outside the root"),
    **dict.fromkeys(["nul\0.mp4", "new\nline.mp4", "half\ud800.mp4", "./a.mp4", "a//b.mp4", ""], "bad name"),
    **dict.fromkeys(["gone.mp4", "/".join(["d" * 200] * 30), "a.mp4/b.mp4"], "missing file"),
    LONG: "implausible name",
}
LAYOUTS = ["dfdc", "dfdcp", "ffpp", "dfd", "celebdf", "kinetics", "kinetics_lists", "folder"]


def test_unusable_names_have_a_reason(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert usable(tmp_path, "a.mp4") == ""
    for name, kind in HOSTILE.items():
        assert usable(tmp_path, name).startswith(f"{kind}:"), name
    for name in ("folder.mp4", "pipe.mp4"):
        assert usable(tmp_path, name).startswith("not a regular file")


def test_links_are_refused_wherever_they_lead(tmp_path):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (root / "inside/a.mp4").write_bytes(b"x")
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "in.mp4").symlink_to(root / "inside/a.mp4")
    (root / "dangling.mp4").symlink_to("nowhere")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root)
    for name in ("out.mp4", "in.mp4", "dangling.mp4", "up/secret.mp4", "loop/inside/a.mp4"):
        assert usable(root, name).startswith("a link:"), name
    (tmp_path / "alias").symlink_to(root)  # the root itself may be a link: the user chose it
    assert usable(tmp_path / "alias", "inside/a.mp4") == ""
    assert list_files(root, (".mp4",)) == ["dangling.mp4", "in.mp4", "inside/a.mp4", "loop", "out.mp4", "up"]


def test_ids():
    plain = {"aaa.mp4": "aaa", "real/anna/a.mp4": "real__anna__a", "p_0/a.b-c.mp4": "p_0__a.b-c"}
    assert {path: video_id_of(path) for path in plain} == plain
    tricky = ["a b.mp4", *"a_b.mp4 a-b.mp4 a/b.mp4 a__b.mp4 a_/b.mp4 a/_b.mp4 c/a.mp4 c__a.mp4".split()]
    tricky += "A.mp4 a.mp4 a.MP4 a.mov a.mov.mp4 a..mp4 .a.mp4 -a.mp4 _a.mp4 va.mp4 é.mp4 ü.mp4".split()
    tricky += ["x" * 200 + "1.mp4", "x" * 200 + "2.mp4"]
    tricky += [f"{video_id_of(path)}.mp4" for path in tricky]  # names that imitate ids
    ids = [video_id_of(path) for path in dict.fromkeys(tricky)]
    assert len({i.lower() for i in ids}) == len(ids), "unique also where a file system ignores case"
    assert all(ID_PATTERN.match(i) and len(i) < 110 for i in ids)


def test_every_value_of_a_repeated_key_is_seen(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(
        '\ufeff{"a": {"label": "REAL"}, "a": {"label": "FAKE"}, "b": {"label": 1, "label": 0}, '
        '"c": {"x": null}, "c": {"x": null}}'
    )
    table = load_table(path, "entries")
    assert table["a"] == [{"label": "REAL"}, {"label": "FAKE"}]
    assert table["b"] == [{"label": Repeated([1, 0])}] and table["c"] == [{"x": None}]
    assert [values(table[k], "label") for k in "abc"] == [["REAL", "FAKE"], [1, 0], []]
    assert values([{"x": float("nan")}], "x") == []
    assert agreed("labels", [1, 1]) == 1 and agreed("labels", []) is None
    with pytest.raises(ValueError, match="^contradictory labels: 'REAL' and 'FAKE'$"):
        agreed("labels", values(table["a"], "label"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_damaged_json_names_its_file(tmp_path, content):
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(ValueError, match="m.json is not .*download it again"):
        read_metadata(tmp_path / "m.json")


def test_lines_and_rows(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbffirst\r\n\r\n third \r\nlast\x0cpage")
    assert load_lines(tmp_path / "l.txt") == [(1, "first"), (3, "third"), (4, "last\x0cpage")]
    (tmp_path / "r.csv").write_text('a, b\n1,"x, y"\nshort\n3,4,5\n"open,1\n')
    rows = [(2, {"a": "1", "b": "x, y"}), (3, {}), (4, {"a": "3", "b": "4"}), (5, {})]
    assert list(load_csv(tmp_path / "r.csv")) == rows


def test_a_refusal_fits_into_a_table(tmp_path):
    shown = [refuse(name, "why: not").path for name in HOSTILE]
    assert len(set(shown)) == len(HOSTILE) and all(len(p) < 310 and p.isprintable() for p in shown)
    with (tmp_path / "q.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([p] for p in shown)


def test_two_videos_of_one_id():
    copies = [Video("a", "x", "2/a.mp4", 0), Video("A", "x", "1/A.mp4", 0), Video("b", "x", "b.mp4", 1)]
    kept, rejections = distinct(copies)
    assert [v.path for v in kept] == ["1/A.mp4", "b.mp4"]
    assert [r.path for r in rejections] == ["2/a.mp4"] and "name clash: " in rejections[0].reason


def read(name, root):
    return DATASETS.get(name.removesuffix("_lists"))(root)


def plant_dfdc(root, name):
    path = root / "dfdc_train_part_0/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: {"label": "REAL"}}))


def plant_dfdcp(root, name):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: {"label": "real", "set": "train"}}))


def plant_ffpp(root, name):
    path = root / "splits/train.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), [name, "071"]]))


def plant_line(file, pattern):
    def plant(root, name):
        with (root / file).open("a", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(pattern.format(name) + "\n")

    return plant


# How a name gets into the metadata of each layout; `dfd` and `folder` have no metadata, only names on disk.
PLANT = {
    "dfdc": plant_dfdc,
    "dfdcp": plant_dfdcp,
    "ffpp": plant_ffpp,
    "celebdf": plant_line("List_of_testing_videos.txt", "0 {}"),
    "kinetics": plant_line("annotations/kinetics_3.csv", "riding a bike,{},1,11,train,0"),
    "kinetics_lists": plant_line("train.csv", "{} 1"),
}
NAMES = ["../../etc/passwd.mp4", "/etc/passwd.mp4", "a\\b.mp4", "nul\0.mp4", "new\nline.mp4", "./x.mp4"]
NAMES += [LONG, "gone.mp4", "link.mp4"]


@pytest.mark.parametrize("layout", sorted(PLANT))
def test_hostile_names_in_metadata_are_refused_one_by_one(miniature, tmp_path, layout):
    (tmp_path / "outside.mp4").write_bytes(b"secret")
    kinds = {"link.mp4": "a link", "gone.mp4": "missing file", LONG: "implausible name"}
    for number, name in enumerate(NAMES):
        root = miniature(layout, tmp_path / str(number))
        clean, before = read(layout, root)
        for folder in (root, root / "dfdc_train_part_0"):
            if folder.is_dir():
                (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
        PLANT[layout](root, name)
        videos, rejections = read(layout, root)
        new = [r for r in rejections if r not in before]
        assert videos == clean, name
        assert 1 <= len(new) <= 3 and all(":" in r.reason and r.path.isprintable() for r in new), name
        if layout in ("dfdc", "dfdcp", "celebdf", "kinetics_lists") and "\n" not in name:
            kind = kinds.get(name, ("outside the root", "bad name"))
            assert any(r.reason.startswith(kind) for r in new), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hostile_files_on_disk_are_refused_one_by_one(miniature, tmp_path, layout):
    root = miniature(layout)
    clean, before = read(layout, root)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.mp4").write_bytes(b"secret")
    places = {
        "ffpp": "original_sequences/youtube/c23/videos",
        "dfd": "original_sequences/actors/c23/videos",
        "celebdf": "Celeb-real",
    }
    place = root / places.get(layout, "train/real/anna" if layout == "folder" else ".")
    for name in (b"a\\b.mp4", b"new\nline.mp4", b"latin\xe9.mp4"):
        (place / os.fsdecode(name)).write_bytes(b"x")
    (place / "id9_0009.mp4").symlink_to(tmp_path / "outside/x.mp4")
    (place / "linked").symlink_to(tmp_path / "outside")
    videos, rejections = read(layout, root)
    new = {r.path: r.reason for r in rejections if r not in before}
    assert videos == clean and len(new) == 5 and all(p.isprintable() for p in new)
    assert sum(reason.startswith("a link:") for reason in new.values()) == 2
    assert sum(reason.startswith(("bad name:", "outside the root:")) for reason in new.values()) == 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_do_not_depend_on_other_files(miniature, tmp_path, layout):
    root = miniature(layout)
    whole = {v.path: v for v in read(layout, root)[0]}
    assert len({v.video_id.lower() for v in whole.values()}) == len(whole) >= 4
    for path in whole:
        single = tmp_path / "single"
        shutil.rmtree(single, ignore_errors=True)
        shutil.copytree(root, single)
        for other in whole.keys() - {path}:
            (single / other).unlink()
        alone = {v.path: v for v in read(layout, single)[0]}
        assert list(alone) == [path]
        assert alone[path].video_id == whole[path].video_id
        assert alone[path].source_id == whole[path].source_id


def test_an_empty_folder_is_an_error_that_names_the_layout(tmp_path):
    for name in DATASETS.names():
        with pytest.raises(ValueError, match="expected "):
            DATASETS.get(name)(tmp_path)
