"""manifest.py: what is written is what is loaded, and broken invariants are refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dfdc_video.folders.lists import read_list, write_list
from dfdc_video.folders.manifest import (
    TRACK_COLUMNS,
    VIDEO_COLUMNS,
    Manifest,
    quarantine_table,
    split_hash,
    track_from_row,
    track_row,
)
from dfdc_video.folders.prepared import PreparedFolder, load_prepared
from dfdc_video.records import Rejection, Track


def track(video_id: str, number: int = 0) -> Track:
    boxes = np.random.default_rng(number).uniform(0, 100, (5, 4)).astype(np.float32).round(2)
    name = f"{video_id}_{number:02d}"
    return Track(
        name,
        video_id,
        7,
        boxes,
        np.arange(5) / 25,
        0.9,
        1.0,
        f"tracks/{video_id}/{name}.mp4",
        (-4, 2, 60, 66),
    )


def video(video_id: str, label: int, split: str, status: str = "ok", group: str = "") -> dict:
    values = ["t", f"raw/{video_id}.mp4", label, split, "", group or video_id, "real", "", "p1,p2"]
    values += [status, 12, 25.0, 240, 320, 0, "h264", "ab" * 32, ""]
    return dict(zip(VIDEO_COLUMNS, [video_id, *values], strict=True))


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    videos = pd.DataFrame(
        [
            video("a", 0, "train"),
            video("b", 1, "train", group="a"),
            video("c", 1, "test"),
            video("d", 0, "test", "no_face"),
        ]
    )
    tracks = pd.DataFrame(
        [track_row(t) for t in (track("b"), track("a"), track("c"), track("a", 1))], columns=TRACK_COLUMNS
    )
    return Manifest(tmp_path / "out", videos, tracks, {"split_rule": "group"})


def test_tracks_survive_their_row():
    before = track("a", 3)
    row = json.loads(json.dumps(track_row(before)))
    after = track_from_row(row)
    assert after == before  # the fields that compare
    assert np.array_equal(after.boxes_px, before.boxes_px) and np.allclose(
        after.timestamps_seconds, before.timestamps_seconds
    )


def test_write_and_load(manifest):
    PreparedFolder(manifest.root).write(manifest)
    loaded = load_prepared(manifest.root)
    assert loaded.videos.to_json(orient="records") == manifest.videos.to_json(orient="records")
    assert loaded.tracks.to_json(orient="records") == manifest.tracks.to_json(orient="records")
    assert loaded.summary == manifest.summary and loaded.split_hash == manifest.split_hash
    assert np.array_equal(
        track_from_row(loaded.tracks_of("test").iloc[0].to_dict()).boxes_px, track("c").boxes_px
    )
    assert read_list(manifest.root / "train.csv") == [
        ("tracks/a/a_00.mp4", 0),
        ("tracks/a/a_01.mp4", 0),
        ("tracks/b/b_00.mp4", 1),
    ]
    assert read_list(manifest.root / "test.csv") == [("tracks/c/c_00.mp4", 1)]
    assert not (manifest.root / "val.csv").exists()
    assert not [p for p in manifest.root.iterdir() if p.name.startswith(".")]


def test_videos_without_a_face_are_counted(manifest):
    assert manifest.videos_of("test")["video_id"].tolist() == ["c", "d"]
    assert manifest.tracks_of("test")["video_id"].tolist() == ["c"]
    with pytest.raises(ValueError, match="train, val, test"):
        manifest.videos_of("validation")


def test_split_hash_depends_on_the_split_and_not_on_the_order(manifest):
    videos = manifest.videos
    assert (
        split_hash(videos)
        == split_hash(videos.sample(frac=1, random_state=1))
        == split_hash(videos.assign(method="other"))
    )
    assert split_hash(videos) != split_hash(videos.assign(split="train"))
    assert split_hash(videos) != split_hash(videos.assign(label=0))


def test_broken_invariants(manifest):
    videos, tracks = manifest.videos, manifest.tracks
    cases = {
        "lacks the columns label": (videos.drop(columns="label"), tracks),
        "'a' occurs twice": (pd.concat([videos, videos[:1]]), tracks),
        "does not have": (videos[1:], tracks),
        "status": (videos.assign(status="fine"), tracks),
        "a leak": (videos.assign(split=["train", "test", "test", "test"]), tracks),
    }
    for message, (v, t) in cases.items():
        with pytest.raises(ValueError, match=message):
            Manifest(manifest.root, v, t, {"split_rule": "group"})
    leaking = videos.assign(split=["train", "test", "test", "test"])
    for summary in (
        {"split_rule": "random"},
        {"split_rule": "folders", "allowed_leaks": ["group"]},
        {"allowed_leaks": ["all"]},
    ):
        assert len(Manifest(manifest.root, leaking, tracks, summary).videos) == 4
    with pytest.raises(ValueError, match="group 'a' lies in 2 splits"):
        Manifest(manifest.root, leaking, tracks, {"split_rule": "folders", "allowed_leaks": ["identity"]})


def test_load_names_what_is_missing_or_damaged(manifest):
    with pytest.raises(FileNotFoundError, match="manifest.parquet.*dfdc-video prepare"):
        load_prepared(manifest.root)
    PreparedFolder(manifest.root).write(manifest)
    (manifest.root / "tracks.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match="damaged"):
        load_prepared(manifest.root)


@pytest.mark.parametrize("text", ["", '{"name": "al', "[]", "{}", "5"])
def test_json_that_holds_something_else_is_damaged(tmp_path, text):
    folder = PreparedFolder(tmp_path)
    for name in ("settings.json", "records/all.json", "work/a.json", "hashes/all.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="settings.json is damaged; use another --out"):
        folder.settings()
    with pytest.raises(ValueError, match="all.json is damaged; delete it"):
        folder.records()
    assert folder.record("all") is None and folder.result("a") is None and folder.hashes("all") == {}


def test_number_of_classes(manifest):
    assert manifest.num_classes == 2
    assert (
        Manifest(manifest.root, manifest.videos.assign(label=[0, 4, 1, 0]), manifest.tracks, {}).num_classes
        == 5
    )


def test_lists_refuse_what_other_readers_cannot_read(tmp_path):
    for path in ("my video.mp4", "/abs/a.mp4", "../a.mp4"):
        with pytest.raises(ValueError, match="relative path without blanks"):
            write_list(tmp_path / "train.csv", [(path, 0)])
    (tmp_path / "bad.csv").write_text("a.mp4 0\nb.mp4,1\n")
    with pytest.raises(ValueError, match=r"bad.csv:2.*commas"):
        read_list(tmp_path / "bad.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="no line"):
        read_list(tmp_path / "empty.csv")
    with pytest.raises(FileNotFoundError):
        read_list(tmp_path / "none.csv")


def test_a_list_that_becomes_empty_goes(tmp_path):
    write_list(tmp_path / "train.csv", [("a.mp4", 0)])
    write_list(tmp_path / "train.csv", [])
    assert not (tmp_path / "train.csv").exists()


def test_quarantine_is_sorted_and_quoted(tmp_path):
    rejections = [
        Rejection("b", "b.mp4", "decode", 'cut off, "half"'),
        Rejection("", "a.mp4", "read", "missing file"),
    ]
    (tmp_path / "q.csv").write_text(quarantine_table(rejections).to_csv(index=False))
    table = pd.read_csv(tmp_path / "q.csv", keep_default_na=False)
    assert table.values.tolist() == [
        ["", "a.mp4", "read", "missing file"],
        ["b", "b.mp4", "decode", 'cut off, "half"'],
    ]
