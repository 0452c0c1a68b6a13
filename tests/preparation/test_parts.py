"""parts.py and assemble.py: parts made anywhere give the data set that one run gives, and one set of faces
gives many splits.
"""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from dfdc_video.cli import main
from dfdc_video.folders.prepared import load_prepared
from dfdc_video.preparation.assemble import merge_parts
from dfdc_video.preparation.parts import in_part, resolve_sources
from dfdc_video.preparation.prepare import prepare
from dfdc_video.records import Video

SETTINGS = {"size": 64, "ratios": (0.5, 0.25, 0.25), "every": 6}


def outputs(out) -> dict[str, bytes]:
    """Every table, list, label file and face video, byte for byte; summary.json without the times that it
    took.
    """
    kept = {
        p.relative_to(out).as_posix(): p.read_bytes()
        for folder in ("tracks", "kitti")
        for p in (out / folder).rglob("*")
        if p.is_file()
    }
    kept |= {
        p.name: p.read_bytes() for p in [*out.glob("*.csv"), *out.glob("*.parquet"), out / "leak_audit.json"]
    }
    summary = json.loads((out / "summary.json").read_text())
    kept["summary.json"] = json.dumps(
        {k: v for k, v in summary.items() if k not in ("seconds", "settings")}
    ).encode()
    return kept


def assert_same(a, b):
    left, right = outputs(a), outputs(b)
    assert sorted(left) == sorted(right)
    assert [name for name in left if left[name] != right[name]] == []


@pytest.fixture(scope="module")
def whole(synthetic_root, tmp_path_factory):
    """The synthetic set in one run. Read it, do not write to it."""
    return prepare("dfdc", synthetic_root, tmp_path_factory.mktemp("whole") / "out", **SETTINGS).root


def test_the_number_of_parts_does_not_matter(synthetic_root, whole, tmp_path):
    num_parts = 3  # two in test_parts_in_one_folder
    folders = [tmp_path / f"part{n}" for n in range(num_parts)]
    for n in reversed(range(num_parts)):
        assert (
            prepare(
                "dfdc",
                synthetic_root,
                folders[n],
                part=n + 1,
                num_parts=num_parts,
                workers=1 + n % 2,
                **SETTINGS,
            )
            is None
        )
        assert not (folders[n] / "manifest.parquet").exists()
    with pytest.raises(ValueError, match=f"part {num_parts} of {num_parts} is missing"):
        merge_parts(folders[:-1], tmp_path / "short")
    merge_parts(folders, tmp_path / "merged")
    assert_same(tmp_path / "merged", whole)
    before = {
        p: p.stat().st_mtime_ns
        for p in (tmp_path / "merged").rglob("*")
        if p.is_file() and p.name != "summary.html"
    }
    merge_parts(list(reversed(folders)), tmp_path / "merged")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_parts_in_one_folder(synthetic_root, whole, tmp_path, capsys):
    words = [
        "--root",
        str(synthetic_root),
        "--out",
        str(tmp_path / "out"),
        "--size",
        "64",
        "--every",
        "6",
        "--ratios",
        "0.5",
        "0.25",
        "0.25",
    ]
    assert main(["prepare", "dfdc", *words, "--num-parts", "2", "--part", "2"]) == 0
    assert main(["merge", str(tmp_path / "out")]) == 2
    assert "part 1 of 2 is missing" in capsys.readouterr().err
    assert main(["prepare", "dfdc", *words, "--num-parts", "2", "--part", "1"]) == 0
    assert main(["merge", str(tmp_path / "out")]) == 0
    assert "split" in capsys.readouterr().out
    assert_same(tmp_path / "out", whole)


def test_one_folder_at_a_time_on_a_small_disk(synthetic_root, whole, tmp_path):
    names = sorted(p.name for p in synthetic_root.iterdir() if p.is_dir())
    root, log = tmp_path / "raw", tmp_path / "log.txt"
    root.mkdir()
    settings = {
        "folders": (*names[1:], names[0]),
        "fetch": (
            f'test -z "$(ls {{root}})" && echo $FOLDER >> {log} && cp -r {synthetic_root}/{{folder}} '
            f"{{root}}/"
        ),
        "delete": "rm -r {root}/{folder}",
    }
    with pytest.raises(ValueError, match="ended with exit code"):
        prepare("dfdc", root, tmp_path / "out", **SETTINGS, **settings | {"folders": (names[1], "nowhere")})
    manifest = prepare("dfdc", root, tmp_path / "out", **SETTINGS, **settings)
    assert_same(manifest.root, whole)
    assert not any(root.iterdir()) and sorted(log.read_text().split()) == sorted([*names, "nowhere"])
    # nothing is fetched again
    assert prepare("dfdc", root, tmp_path / "out", **SETTINGS, **settings).split_hash == manifest.split_hash
    assert sorted(log.read_text().split()) == sorted([*names, "nowhere"])
    record = manifest.root / "records" / f"{names[0]}.json"
    failure = {
        "video_id": "x",
        "path": f"{names[0]}/x.mp4",
        "stage": "decode",
        "reason": "timeout: not done after 1 s",
    }
    record.write_text(json.dumps({**json.loads(record.read_text()), "failures": [failure]}))
    assert_same(prepare("dfdc", root, tmp_path / "out", **SETTINGS, **settings).root, whole)
    assert log.read_text().split()[-1] == names[0], "a folder with failures is downloaded again"


def test_prepared_halves_become_one_set(synthetic_root, whole, tmp_path):
    names = sorted(p.name for p in synthetic_root.iterdir() if p.is_dir())
    for number, half in enumerate((names[:1], names[1:])):
        for name in half:
            shutil.copytree(synthetic_root / name, tmp_path / f"raw{number}" / name)
        prepare(
            "dfdc",
            tmp_path / f"raw{number}",
            tmp_path / f"out{number}",
            **SETTINGS,
            group_by="identity",
            split="random",
        )
    merge_parts([tmp_path / "out0", tmp_path / "out1"], tmp_path / "merged", split="group", group_by="auto")
    assert_same(tmp_path / "merged", whole)


def test_the_same_faces_in_another_split(whole, tmp_path):
    before = outputs(whole)
    tests = []
    for fold in range(3):
        out = tmp_path / f"fold{fold}"
        words = [
            "merge",
            str(whole),
            "--out",
            str(out),
            "--split",
            "kfold",
            "--split-set",
            "folds",
            "3",
            "fold",
            str(fold),
        ]
        assert main(words) == 0
        manifest = load_prepared(out)
        assert (
            manifest.summary["split_rule"] == "kfold" and manifest.summary["split_settings"]["fold"] == fold
        )
        first = manifest.tracks["crop_path"].iloc[0]
        assert (out / first).samefile(whole / first)
        tests.append(set(manifest.videos_of("test")["video_id"]))
    assert set.union(*tests) == set(load_prepared(whole).videos["video_id"]) and sum(map(len, tests)) == len(
        set.union(*tests)
    )
    assert outputs(whole) == before


def test_folders_that_do_not_belong_together(synthetic_root, whole, tmp_path, capsys):
    prepare("dfdc", synthetic_root, tmp_path / "other", **SETTINGS | {"size": 32}, limit=5, split="random")
    with pytest.raises(ValueError, match="other settings .size 64, now 32; split 'group', now 'random'"):
        merge_parts([whole, tmp_path / "other"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert (
        main(["merge", str(whole), str(tmp_path / "other")]) == 2
        and "give it as --out" in capsys.readouterr().err
    )
    assert main(["merge", str(tmp_path)]) == 2 and "no settings.json" in capsys.readouterr().err
    assert main(["merge", str(whole), "--split", "kfold", "--split-set", "folds", "3"]) == 2
    assert "prepared with other settings" in capsys.readouterr().err


def test_parts_hold_whole_families():
    videos = [Video(f"r{i}", "t", f"r{i}.mp4", 0) for i in range(50)]
    videos += [Video(f"x{i}", "t", f"x{i}.mp4", 1, source_id=f"r{i % 50}") for i in range(100)]
    for num_parts in (1, 3, 8):
        owner = {v.video_id: [n for n in range(1, num_parts + 1) if in_part(v, n, num_parts)] for v in videos}
        assert all(len(parts) == 1 for parts in owner.values())
        assert all(owner[v.video_id] == owner[v.source_id] for v in videos if v.source_id)
        assert len({parts[0] for parts in owner.values()}) == num_parts


def test_chains_and_circles_of_originals():
    real, first, second = (
        Video("r", "t", "r.mp4", 0),
        Video("a", "t", "a.mp4", 1, source_id="r"),
        Video("b", "t", "b.mp4", 1, source_id="a"),
    )
    lost = Video("l", "t", "l.mp4", 1, source_id="gone")
    ring = [
        Video("x", "t", "x.mp4", 1, source_id="y"),
        Video("y", "t", "y.mp4", 1, source_id="x"),
        Video("z", "t", "z.mp4", 1, source_id="z"),
    ]
    videos, refused = resolve_sources([second, first, real, lost, *ring])
    assert {v.video_id: v.source_id for v in videos} == {"r": "", "a": "r", "b": "r", "l": "gone"}
    assert [r.reason for r in refused] == [
        "circular originals: x -> y",
        "circular originals: x -> y",
        "circular originals: z",
    ]
    with pytest.raises(ValueError, match="'r' stands for .* and for other.mp4"):
        resolve_sources([real, Video("r", "t", "other.mp4", 0)])


def test_fakes_that_show_nothing_fake_and_fakes_without_an_original(synthetic_root, tmp_path):
    """A fake that is its original with another name, re-wrapped with other sound or tags, is one that differs
    in no frame.
    """
    part = next(p for p in sorted(synthetic_root.iterdir()) if p.is_dir())
    names = json.loads((part / "metadata.json").read_text())
    real = next(n for n in sorted(names) if names[n]["label"] == "REAL" and (part / n).stat().st_size > 2000)
    fake = next(n for n in sorted(names) if names[n].get("original") == real)
    folder = tmp_path / "raw/dfdc_train_part_0"
    folder.mkdir(parents=True)
    for name in (real, fake):
        shutil.copy(part / name, folder / name)
    (folder / "sound.mp4").write_bytes((part / real).read_bytes() + b"\x00\x00\x00\x0cfreeabcd")
    shutil.copy(part / fake, folder / "orphan.mp4")
    (folder / "orphan.mp4").write_bytes((part / fake).read_bytes() + b"\x00\x00\x00\x0cfreeefgh")
    entries = {
        real: {"label": "REAL"},
        fake: {"label": "FAKE", "original": real},
        "sound.mp4": {"label": "FAKE", "original": real},
    }
    entries["orphan.mp4"] = {"label": "FAKE", "original": "gone.mp4"}
    (folder / "metadata.json").write_text(json.dumps(entries))
    settings = {"size": 64, "split": "random", "ratios": (1.0, 0.0, 0.0)}
    kept = prepare("dfdc", tmp_path / "raw", tmp_path / "out", **settings)
    assert (
        len(kept.videos) == 4 and kept.summary["equal_fakes"] == 1 and kept.summary["missing_originals"] == 1
    )
    less = merge_parts([tmp_path / "out"], tmp_path / "less", drop_equal_fakes=True, drop_orphans=True)
    assert len(less.videos) == 2
    table = (
        pd.read_csv(less.root / "quarantine.csv", keep_default_na=False).set_index("path")["reason"].to_dict()
    )
    assert table["dfdc_train_part_0/sound.mp4"].startswith("equal frames:") and table[
        "dfdc_train_part_0/orphan.mp4"
    ].startswith("missing original:")
