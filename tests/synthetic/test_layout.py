"""The synthetic data set on disk: DFDC's layout, determinism, resuming, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo, iter_frames, probe

SMALL = {
    "num_identities": 2,
    "seconds": 0.4,
    "height": 96,
    "width": 128,
    "parts": 1,
    "progress": lambda done, total: None,
}


def tables(root):
    return {
        p.parent.name: json.loads(p.read_text()) for p in sorted(root.glob("dfdc_train_part_*/metadata.json"))
    }


def test_layout_is_that_of_dfdc(synthetic_root):
    folders = tables(synthetic_root)
    assert len(folders) == 3
    for folder, rows in folders.items():
        assert set(rows) == {p.name for p in (synthetic_root / folder).glob("*.mp4")}
        for name, row in rows.items():
            assert len(name) == len("abcdefghij.mp4") and name[:10].islower()
            if row["label"] == "REAL":
                assert row["original"] is None and row["method"] == "real" and "donor" not in row
            else:
                assert rows[row["original"]]["label"] == "REAL"  # in the same folder
                assert rows[row["original"]]["identity"] == row["identity"] != row["donor"]
    rows = [row for table in folders.values() for row in table.values()]
    methods = [row["method"] for row in rows]
    assert [methods.count(m) for m in ("real", "spatial", "temporal", "both")] == [8 + 2, 8, 8, 8]
    pairs = {frozenset((row["identity"], row["donor"])) for row in rows if "donor" in row}
    assert len(pairs) == 4  # groups of two


def test_a_fake_has_the_stream_of_its_original(synthetic_root):
    for folder, rows in tables(synthetic_root).items():
        for name, row in rows.items():
            if row["original"]:
                fake, real = (probe(synthetic_root / folder / n) for n in (name, row["original"]))
                for field in ("num_frames", "fps", "height_px", "width_px"):
                    assert getattr(fake, field) == getattr(real, field)


def test_one_file_is_corrupt_and_one_is_a_copy(synthetic, synthetic_root):
    folders = tables(synthetic_root)
    files = [synthetic_root / folder / name for folder, rows in folders.items() for name in rows]
    broken = []
    for path in files:
        try:
            assert sum(1 for _ in iter_frames(path)) >= 24
        except UnreadableVideo:
            broken.append(path)
    assert len(broken) == 1
    with pytest.raises(UnreadableVideo):
        read_frames(broken[0], [0])
    assert folders[broken[0].parent.name][broken[0].name]["label"] == "REAL"
    by_content: dict[bytes, list] = {}
    for path in files:
        by_content.setdefault(path.read_bytes(), []).append(path)
    assert sorted(map(len, by_content.values()))[-2:] == [1, 2]


def test_extras_are_planned_at_their_rates(synthetic):
    settings = {
        "seed": 0,
        "num_identities": 400,
        "originals_per_identity": 1,
        "methods": ["temporal"],
        "parts": 5,
        "height": 240,
        "width": 320,
    }
    videos = synthetic.plan({**settings, "extras": True})
    reals = [v for v in videos if v["method"] == "real"]
    assert {v["fps"] for v in reals} == {24, 25, 30}
    assert 0.04 < np.mean([v["size"] == (320, 240) for v in reals]) < 0.13
    assert 0.01 < np.mean([v["second"] is not None for v in reals]) < 0.08
    plain = synthetic.plan({**settings, "extras": False})
    assert {(v["fps"], v["size"], v["second"]) for v in plain} == {(30, (240, 320), None)}


def test_same_seed_same_frames_whatever_the_workers(synthetic, tmp_path):
    for folder, kw in (("a", {"workers": 0}), ("b", {"workers": 2}), ("c", {"workers": 0, "seed": 1})):
        synthetic.generate(tmp_path / folder, **{**SMALL, "extras": False, "methods": ("temporal",), **kw})
    a, b, c = (sorted((tmp_path / f).glob("*/*.mp4")) for f in "abc")
    assert [p.name for p in a] == [p.name for p in b] and not {p.name for p in a} & {p.name for p in c}
    for one, two in zip(a, b, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(iter_frames(one), iter_frames(two), strict=True))
    first = [next(iter_frames(p)) for p in (*a, *c)]
    assert all(not np.array_equal(first[i], first[j]) for i in range(len(first)) for j in range(i))


def test_a_killed_run_continues_and_other_settings_are_refused(synthetic, tmp_path):
    root, calls = tmp_path / "raw", []
    first = synthetic.generate(root, **SMALL, workers=0)
    assert first["rendered"] == 8 and first["videos"] == 10
    files = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in root.glob("*/*.mp4")}
    lost = sorted(p for p in files if p.name not in "".join(first["corrupt"] + first["duplicate"]))[3]
    lost.unlink()
    settings = {**SMALL, "progress": lambda done, total: calls.append((done, total))}
    again = synthetic.generate(root, **settings, workers=0)
    assert again["rendered"] == 1 and calls == [(7, 8), (8, 8)]
    assert lost.read_bytes() == files[lost][1]
    assert all(p.stat().st_mtime_ns == time for p, (time, _) in files.items() if p != lost)
    with pytest.raises(ValueError, match="seed=0 there, 3 asked for"):
        synthetic.generate(root, **SMALL, seed=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_identities": 3}, "even number"),
        ({"methods": ("spatail",)}, "did you mean spatial"),
        ({"height": 97}, "even size"),
        ({"parts": 2}, "pairs of identities"),
        ({"crf": 60}, "0 .lossless. to 51"),
        ({"seconds": 0.0}, "0.2 or more"),
    ],
)
def test_settings_that_cannot_be_met(synthetic, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        synthetic.generate(tmp_path / "raw", **{**SMALL, **wrong})
    assert not (tmp_path / "raw").exists()


def test_a_folder_with_something_else_is_refused(synthetic, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        synthetic.generate(tmp_path, **SMALL)
