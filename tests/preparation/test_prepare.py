"""prepare.py end to end: real videos in, tables and face videos out; duplicates, damage, resuming, and other
readers of the lists.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from dfdc_video.folders.lists import read_list
from dfdc_video.folders.manifest import Manifest, track_from_row
from dfdc_video.folders.prepared import load_prepared
from dfdc_video.media.reader import iter_frames, probe
from dfdc_video.media.writer import VideoWriter
from dfdc_video.preparation.prepare import prepare

SETTINGS = {"size": 64, "ratios": (0.5, 0.25, 0.25)}
SCRIPT = """
import sys, json
from dfdc_video.preparation.prepare import prepare
root, out, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    prepare("dfdc", root, out, workers=1, **settings)
except KeyboardInterrupt as stop:
    print(stop); sys.exit(130)
"""


def quarantine(out) -> pd.DataFrame:
    return pd.read_csv(out / "quarantine.csv", keep_default_na=False)


def tables(manifest: Manifest) -> tuple[str, str]:
    return manifest.videos.to_json(orient="records"), manifest.tracks.to_json(orient="records")


@pytest.fixture(scope="module")
def prepared(synthetic_root, tmp_path_factory) -> Manifest:
    """The synthetic set, prepared by two workers. Read it, do not write to it."""
    return prepare("dfdc", synthetic_root, tmp_path_factory.mktemp("prepared") / "out", **SETTINGS)


def test_tables_and_files_agree(prepared, synthetic_root):
    videos, tracks = prepared.videos.set_index("video_id"), prepared.tracks
    named = {name for p in synthetic_root.glob("*/metadata.json") for name in json.loads(p.read_text())}
    removed = quarantine(prepared.root).query("stage == 'clean'")
    assert len(videos) == len(named) - len(removed) and len(removed) >= 1
    assert (videos["status"] == "ok").sum() >= 0.9 * len(videos)
    for row in tracks.to_dict("records"):
        track = track_from_row(row)
        crop = probe(prepared.root / track.crop_path)
        assert (crop.num_frames, crop.height_px, crop.width_px) == (track.num_frames, 64, 64)
        stamps = track.timestamps_seconds - track.timestamps_seconds[0]
        assert np.allclose(crop.timestamps_seconds, stamps, atol=1e-3)
        assert track.start_frame + track.num_frames <= videos.loc[track.video_id, "num_frames"]
    on_disk = {p.relative_to(prepared.root).as_posix() for p in prepared.root.glob("tracks/*/*")}
    assert {p for p in on_disk if p.split("/")[1] not in set(removed["video_id"])} == set(tracks["crop_path"])
    listed = [p for s in ("train", "val", "test") for p, _ in read_list(prepared.root / f"{s}.csv")]
    assert sorted(listed) == sorted(tracks["crop_path"])
    assert tables(load_prepared(prepared.root)) == tables(prepared)


def test_fakes_are_aligned_with_their_originals(prepared):
    plain = prepared.tracks.assign(crop_box_px=[str(list(b)) for b in prepared.tracks["crop_box_px"]])
    boxes = plain.groupby("video_id")[["crop_box_px", "start_frame", "num_frames"]].agg(list)
    fakes = prepared.videos[(prepared.videos["label"] == 1) & (prepared.videos["source_id"] != "")]
    compared = 0
    for fake, source in zip(fakes["video_id"], fakes["source_id"], strict=True):
        if fake in boxes.index and source in boxes.index:
            assert boxes.loc[fake].tolist() == boxes.loc[source].tolist()
            compared += 1
    assert compared >= 10 and prepared.summary["fakes_with_own_boxes"] == len(fakes) - compared


def test_no_person_is_in_two_splits(prepared):
    splits: dict[str, set[str]] = {}
    for people, split in zip(prepared.videos["identities"], prepared.videos["split"], strict=True):
        for person in people.split(","):
            splits.setdefault(person, set()).add(split)
    assert len(splits) == 8 and all(len(s) == 1 for s in splits.values())
    assert set(prepared.videos["split"]) == {"train", "val", "test"}


def test_summary_counts_what_is_there(prepared):
    summary = prepared.summary
    assert sum(c["videos"] for c in summary["counts"]) == summary["num_videos"] == len(prepared.videos)
    assert sum(c["tracks"] for c in summary["counts"]) == summary["num_tracks"] == len(prepared.tracks)
    assert {c["method"] for c in summary["counts"]} == {"real", "spatial", "temporal", "both"}
    assert sum(summary["quarantine"].values()) == len(quarantine(prepared.root))
    assert summary["split_hash"] == prepared.split_hash and summary["split_rule"] == "group"
    assert set(summary["seconds"]) == {"probe", "decode", "detect", "crop"} and summary["seconds"]["crop"] > 0


def test_corrupt_file_and_duplicate_are_quarantined(prepared):
    table = quarantine(prepared.root)
    unreadable = prepared.videos[prepared.videos["status"] == "unreadable"]["video_id"].tolist()
    assert unreadable and set(unreadable) <= set(table.loc[table["stage"] == "decode", "video_id"])
    duplicate = table[table["stage"] == "clean"].iloc[0]
    kept = duplicate["reason"].split("of ")[1]
    assert (
        duplicate["video_id"] not in set(prepared.videos["video_id"])
        and kept in set(prepared.videos["path"])
        and kept < duplicate["path"]
    )


def test_running_again_changes_nothing(prepared, synthetic_root):
    before = {
        p: p.stat().st_mtime_ns
        for p in prepared.root.rglob("*")
        if p.is_file() and p.name != "quarantine.csv"
    }
    again = prepare("dfdc", synthetic_root, prepared.root, **SETTINGS)
    assert {p: p.stat().st_mtime_ns for p in before} == before and tables(again) == tables(prepared)


def test_other_settings_in_the_same_folder(prepared, synthetic_root):
    with pytest.raises(ValueError, match=r"other settings .margin 1.5, now 1.4; seed 0, now 1."):
        prepare("dfdc", synthetic_root, prepared.root, **SETTINGS, margin=1.4, seed=1)


def started(root, out) -> subprocess.Popen:
    """A run in a process of its own, once it has finished something new."""
    before = len(list(out.glob("work/*.json")))
    command = [sys.executable, "-c", SCRIPT, str(root), str(out), json.dumps(SETTINGS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("work/*.json"))) < before + 2:
        assert process.poll() is None and time.monotonic() < deadline, (
            "the run ended before it could be stopped"
        )
        time.sleep(0.02)
    return process


def test_stopped_and_killed_runs_continue_to_the_same_result(prepared, synthetic_root, tmp_path):
    out = tmp_path / "out"
    process = started(synthetic_root, out)
    process.send_signal(signal.SIGINT)
    message, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "run the same command again" in message
    process = started(synthetic_root, out)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    done = {p: p.stat().st_mtime_ns for p in out.glob("work/*.json")}
    assert not (out / "manifest.parquet").exists() and 4 <= len(done) < len(prepared.videos)
    manifest = prepare("dfdc", synthetic_root, out, workers=1, **SETTINGS)  # the other run had two workers
    assert tables(manifest) == tables(prepared)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert quarantine(out).equals(quarantine(prepared.root))
    for path in prepared.tracks["crop_path"][:5]:
        assert (out / path).read_bytes() == (prepared.root / path).read_bytes()


def test_lists_open_in_pytorchvideo(prepared):
    from pytorchvideo.data import LabeledVideoDataset, UniformClipSampler
    from pytorchvideo.data.labeled_video_paths import LabeledVideoPaths

    paths = LabeledVideoPaths.from_path(str(prepared.root / "train.csv"))
    paths.path_prefix = str(prepared.root)
    dataset = LabeledVideoDataset(paths, UniformClipSampler(0.5), decode_audio=False, decoder="pyav")
    first = next(iter(dataset))
    listed = read_list(prepared.root / "train.csv")
    assert len(paths) == len(listed) and first["label"] in (0, 1)
    assert (
        first["video"].shape[0] == 3
        and first["video"].shape[1] >= 10
        and first["video"].shape[2:] == (64, 64)
    )


@pytest.fixture
def raw(make_video, tmp_path):
    """A folder data set in the making: raw(name, ...) adds a video to it."""
    return lambda name, *a, **k: make_video(f"raw/{name}", *a, **k)


def test_bad_files_are_kept_apart_and_named(raw, tmp_path):
    good = raw("real/good.mp4", num_frames=20)
    data = good.read_bytes()
    (tmp_path / "raw/fake").mkdir()
    (tmp_path / "raw/fake/cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "raw/fake/empty.mp4").write_bytes(b"")
    (tmp_path / "raw/real/empty.mp4").write_bytes(b"")
    (tmp_path / "raw/fake/text.mp4").write_text("Dear sirs,\n")
    (tmp_path / "raw/fake/copy.mp4").write_bytes(data)
    raw("fake/grey.mp4", np.full((20, 64, 96, 3), 127, np.uint8))
    raw("fake/short.mp4", num_frames=7, identity=2)
    raw("fake/flash.mp4", num_frames=3, identity=3)
    raw("real/whole.mp4", num_frames=20, identity=4)
    manifest = prepare("folder", tmp_path / "raw", tmp_path / "out", **SETTINGS, group_by="original")
    status = dict(zip(manifest.videos["video_id"], manifest.videos["status"], strict=True))
    unreadable = ("fake__cut", "fake__empty", "real__empty", "fake__text", "fake__flash")
    assert status == {
        **dict.fromkeys(unreadable, "unreadable"),
        "fake__grey": "no_face",
        "fake__short": "no_face",
        "real__whole": "ok",
    }
    reasons = dict(
        zip(quarantine(tmp_path / "out")["path"], quarantine(tmp_path / "out")["reason"], strict=True)
    )
    assert (
        reasons.pop("real/good.mp4")
        == "contradictory labels: same content as fake/copy.mp4, which has label 1"
    )
    assert (
        reasons.pop("fake/copy.mp4")
        == "contradictory labels: same content as real/good.mp4, which has label 0"
    )
    assert "0 bytes" in reasons["fake/empty.mp4"] and "not a readable video" in reasons["fake/text.mp4"]
    assert "implausible duration: 0.1 s" in reasons["fake/flash.mp4"]
    assert reasons["fake/grey.mp4"].startswith("no face") and reasons["fake/short.mp4"].startswith(
        "short track: 7 frames"
    )
    assert set(reasons) == {f"fake/{n}.mp4" for n in ("cut", "empty", "text", "grey", "short", "flash")} | {
        "real/empty.mp4"
    }


def test_nothing_but_bad_files(raw, tmp_path, caplog):
    for i in range(3):
        raw(f"real/grey{i}.mp4", np.full((12, 64, 96, 3), 90 + 20 * i, np.uint8))
    with pytest.raises(
        ValueError, match="none of 3 videos gave a face track .3 × faces: no face.*quarantine.csv"
    ):
        prepare("folder", tmp_path / "raw", tmp_path / "out", **SETTINGS)
    assert len(quarantine(tmp_path / "out")) == 3 and "every video has label 0" in caplog.text


def test_a_video_without_a_label_is_a_test_video(raw, tmp_path):
    raw("a.mp4", num_frames=12)
    manifest = prepare("folder", tmp_path / "raw", tmp_path / "out", size=64)
    assert (
        len(manifest.tracks) == 1
        and manifest.summary["split_rule"] == "official"
        and quarantine(tmp_path / "out").empty
    )
    assert manifest.videos["split"].tolist() == ["test"] and not (tmp_path / "out/train.csv").exists()


def test_a_changed_raw_file_is_done_again(raw, tmp_path):
    raw("a.mp4", num_frames=20)
    kept = raw("b.mp4", num_frames=12, identity=1)
    assert kept.is_file()
    first = prepare("folder", tmp_path / "raw", tmp_path / "out", size=64)
    before = (tmp_path / "out/work/b.json").stat().st_mtime_ns
    raw("a.mp4", num_frames=14, identity=3)
    second = prepare("folder", tmp_path / "raw", tmp_path / "out", size=64)
    assert first.tracks["num_frames"].tolist() == [20, 12] and second.tracks["num_frames"].tolist() == [
        14,
        12,
    ]
    assert (tmp_path / "out/work/b.json").stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "out/tracks/a")
    prepare("folder", tmp_path / "raw", tmp_path / "out", size=64)
    assert len(list(iter_frames(tmp_path / "out/tracks/a/a_00.mp4"))) == 14


def test_limit_keeps_pairs_together(synthetic_root, tmp_path):
    manifest = prepare(
        "dfdc", synthetic_root, tmp_path / "out", size=64, limit=4, split="random", ratios=(1.0, 0.0, 0.0)
    )
    sources = set(manifest.videos["source_id"]) - {""}
    assert len(manifest.videos) == 4 and sources <= set(manifest.videos["video_id"]) and sources


def test_a_leak_in_an_official_split(raw, tmp_path):
    raw("train/real/anna/a.mp4", num_frames=10)
    raw("test/real/anna/b.mp4", num_frames=11)
    settings = {"split": "official", "group_by": "folder", "size": 64, "near_distance": 0.0}
    with pytest.raises(
        ValueError,
        match=(
            r"leaks .group: 1 of 1 groups .* first anna: .*; use another split rule .* or --allow-leaks "
            r"group"
        ),
    ):
        prepare("folder", tmp_path / "raw", tmp_path / "out", **settings)
    audit = json.loads((tmp_path / "out/leak_audit.json").read_text())
    assert audit["group"]["leaking"] == 1 and not (tmp_path / "out/manifest.parquet").exists()
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("work/*")}
    # nothing was finished: still open
    allowed = prepare("folder", tmp_path / "raw", tmp_path / "out", **settings, allow_leaks=("group",))
    assert len(made) == 2 and {p: p.stat().st_mtime_ns for p in made} == made
    assert load_prepared(allowed.root).summary["allowed_leaks"] == ["group"]


def test_near_duplicates_stay_together(raw, tmp_path):
    """Re-encoded copies of videos under other names: content differs, and one of each pair may not test what
    the other taught.
    """
    for identity in range(6):
        frames = list(iter_frames(raw(f"{identity % 2}/a{identity}.mp4", num_frames=12, identity=identity)))
        raw(f"{identity % 2}/b{identity}.mp4", np.stack(frames), crf=30)
    manifest = prepare("folder", tmp_path / "raw", tmp_path / "out", **SETTINGS, group_by="original")
    splits = manifest.videos.set_index("video_id")["split"]
    assert manifest.summary["leak_audit"]["near_duplicate"]["compared"] >= 6
    for identity in range(6):
        assert splits[f"{identity % 2}__a{identity}"] == splits[f"{identity % 2}__b{identity}"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 65}, "even"),
        ({"ratios": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"group_by": "foldr"}, "expected auto, identity, folder or original"),
    ],
)
def test_settings_that_cannot_work(synthetic_root, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        prepare("dfdc", synthetic_root, tmp_path / "out", **settings)


def test_paths_and_names_that_cannot_work(synthetic_root, tmp_path):
    with pytest.raises(ValueError, match="unknown dataset 'dfcd'; did you mean dfd or dfdc"):
        prepare("dfcd", synthetic_root, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere"):
        prepare("dfdc", tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not made by `dfdc-video prepare`"):
        prepare("dfdc", synthetic_root, tmp_path / "other")
    assert not (tmp_path / "out").exists() and [p.name for p in (tmp_path / "other").iterdir()] == [
        "thesis.txt"
    ]


def test_metadata_that_names_only_missing_files(tmp_path):
    (tmp_path / "metadata.json").write_text(
        '{"a.mp4": {"label": "REAL"}, "b.mp4": {"label": "FAKE", "original": "a.mp4"}}'
    )
    with pytest.raises(ValueError, match="no usable video in .*: 2 × read: missing file"):
        prepare("dfdc", tmp_path, tmp_path / "out")


def test_variable_frame_rate_is_kept(make_video, tmp_path):
    frames = list(iter_frames(make_video(num_frames=20)))
    times = np.cumsum([0, *[0.02, 0.05] * 9, 0.1])
    (tmp_path / "raw").mkdir()
    with VideoWriter(tmp_path / "raw/v.mp4", fps=30) as writer:
        for frame, seconds in zip(frames, times, strict=True):
            writer.add(frame, seconds)
    manifest = prepare("folder", tmp_path / "raw", tmp_path / "out", size=64)
    assert np.allclose(manifest.tracks.iloc[0]["timestamps_seconds"], times, atol=1e-3)
    assert np.allclose(probe(tmp_path / "out/tracks/v/v_00.mp4").timestamps_seconds, times, atol=1e-3)
