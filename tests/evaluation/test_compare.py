"""Only runs that can be compared are compared, and the table says what the predictions say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dfdc_video.evaluation.compare import compare
from dfdc_video.evaluation.results import read_result


@pytest.fixture
def pair(runs, tmp_path):
    """A frame model that is blind to `temporal`, and a sequence model."""
    videos = runs.videos(25)
    frame = runs.write(tmp_path / "frame", videos=videos, strength=1.5, blind_to=("temporal",))
    return [frame, runs.write(tmp_path / "slowfast", videos=videos, strength=1.5, seed=1)]


def test_table_says_what_the_predictions_say(pair, tmp_path):
    comparison = compare(pair, num_samples=300)
    table = comparison.table().set_index("name")
    assert list(table.index) == ["frame", "slowfast"]
    for run in map(read_result, pair):
        part = run.scores[run.scores["method"] != "spatial"]
        assert table.loc[run.name, "video/auc"] == pytest.approx(
            roc_auc_score(run.scores["label"], run.scores["score"])
        )
        assert table.loc[run.name, "video/auc/temporal"] == pytest.approx(
            roc_auc_score(part["label"], part["score"])
        )
        low, high = table.loc[run.name, ["video/auc_low", "video/auc_high"]]
        assert low <= table.loc[run.name, "video/auc"] <= high
    assert table.loc["frame", "video/auc/temporal_low"] < 0.5 < table.loc["frame", "video/auc/temporal_high"]
    assert table.loc["slowfast", ["num_parameters", "train_seconds", "num_videos", "scored"]].tolist() == [
        11_200_000,
        95.0,
        75,
        75,
    ]
    read = pd.read_csv(comparison.to_csv(tmp_path / "table.csv"))
    pd.testing.assert_frame_equal(read, comparison.table(), check_dtype=False)


def test_differences_are_to_the_baseline(pair):
    comparison = compare(pair, num_samples=300)
    delta = comparison.differences["slowfast"]["video/auc/temporal"]
    table = comparison.table().set_index("name")["video/auc/temporal"]
    assert delta.value == pytest.approx(table["slowfast"] - table["frame"])
    assert delta.low > 0 and delta.fraction_above == 1
    assert "frame" not in comparison.differences
    turned = compare(pair, num_samples=300, baseline="slowfast").differences["frame"]["video/auc/temporal"]
    assert turned.value == pytest.approx(-delta.value) and turned.low == pytest.approx(-delta.high)
    with pytest.raises(ValueError, match="unknown baseline 'slowfst'; did you mean slowfast"):
        compare(pair, num_samples=10, baseline="slowfst")


def test_other_splits_videos_and_frames_are_refused(runs, pair, tmp_path):
    other = runs.write(tmp_path / "hash", videos=runs.videos(25), report={"split_hash": "ffffffffffff"})
    with pytest.raises(ValueError, match="frame has split_hash 0123456789ab and hash has ffffffffffff"):
        compare([pair[0], other])
    other = runs.write(tmp_path / "val", videos=runs.videos(25), report={"split": "val"})
    with pytest.raises(ValueError, match="frame has split test and val has val"):
        compare([pair[0], other])
    other = runs.write(tmp_path / "fewer", videos=runs.videos(24))
    with pytest.raises(ValueError, match="not tested on the same videos \\(3 rows differ, first g24_real"):
        compare([pair[0], other])
    other = runs.write(
        tmp_path / "long", videos=runs.videos(25), report={"clip": {"num_frames": 32, "frame_stride": 2}}
    )
    with pytest.raises(ValueError, match="different frames \\(frame: num_frames=16; long: num_frames=32\\)"):
        compare([pair[0], other])
    allowed = compare([pair[0], other], num_samples=20, allow_different_frames=True)
    assert any("long: num_frames=32" in warning for warning in allowed.warnings)


def test_seeds_of_an_arm_become_one_row(runs, tmp_path):
    videos, paths, values = runs.videos(20), [], []
    for arm, strength in (("frame", 0.3), ("sequence", 1.0)):
        for seed in range(3):
            entries = {"experiment": "question", "arm": arm, "seed": seed, "train_seconds": 10.0 * seed}
            paths.append(
                runs.write(
                    tmp_path / f"{arm}_{seed}", videos=videos, strength=strength, seed=seed, report=entries
                )
            )
    comparison = compare(paths, num_samples=200)
    assert [(row.name, len(row.runs)) for row in comparison.rows] == [("frame", 3), ("sequence", 3)]
    row, table = comparison.rows[0], comparison.table().set_index("name")
    members = [read_result(p) for p in paths[:3]]
    values = [roc_auc_score(m.scores["label"], m.scores["score"]) for m in members]
    assert table.loc["frame", "video/auc_seed_sd"] == pytest.approx(np.std(values, ddof=1))
    assert table.loc["frame", "video/auc"] == pytest.approx(np.mean(values)), (
        "the mean of the runs, not their ensemble"
    )
    assert (
        row.intervals["video/auc"].low <= table.loc["frame", "video/auc"] <= row.intervals["video/auc"].high
    )
    assert table.loc["frame", "train_seconds"] == 10.0
    again = runs.write(
        tmp_path / "again", videos=videos, report={"experiment": "question", "arm": "frame", "seed": 1}
    )
    with pytest.raises(ValueError, match="arm frame has seed 1 twice"):
        compare([*paths, again])
    elsewhere = runs.write(
        tmp_path / "elsewhere", videos=videos, report={"experiment": "other", "arm": "frame", "seed": 1}
    )
    assert [r.name for r in compare([*paths, elsewhere], num_samples=5).rows] == [
        "question/frame",
        "question/sequence",
        "other/frame",
    ]


def test_runs_of_one_name_are_told_apart(runs, pair, tmp_path):
    other = runs.write(tmp_path / "later", videos=runs.videos(25), report={"name": "frame"})
    assert [row.name for row in compare([pair[0], other], num_samples=5).rows] == [
        "frame (frame)",
        "frame (later)",
    ]
    with pytest.raises(ValueError, match="was given twice"):
        compare([pair[0], pair[0]])
    with pytest.raises(ValueError, match="no run given"):
        compare([])


def test_recorded_and_chosen_pooling(runs, tmp_path):
    path = runs.write(tmp_path / "run", report={"pooling": {"NAME": "max_track"}})
    recorded, chosen = read_result(path), read_result(path, pooling="mean")
    assert (recorded.scores["score"] >= chosen.scores["score"]).all()
    assert (recorded.scores["score"] > chosen.scores["score"]).any()


def test_missing_and_damaged_pieces_are_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder at .*nowhere"):
        read_result(tmp_path / "nowhere")
    run = runs.write(tmp_path / "parent" / "run")
    with pytest.raises(FileNotFoundError, match="has no report.json; it contains the runs run: name them"):
        read_result(tmp_path / "parent")
    report = (run / "report.json").read_text()
    for text, message in (
        (report[:40], "report.json is damaged"),
        ("{}", "lacks name, split, split_hash, clip, pooling"),
        ("[]", "lacks name"),
    ):
        (run / "report.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_result(run)
    (run / "report.json").write_text(report.replace('"mean"', '"meen"'))
    with pytest.raises(ValueError, match="run: unknown pooling 'meen'; did you mean mean"):
        read_result(run)
    (run / "report.json").write_text(report)
    (run / "metrics.csv").write_text('epoch,step\n"1,2\n3')
    with pytest.raises(ValueError, match="metrics.csv is damaged"):
        read_result(run)
    (run / "metrics.csv").unlink()
    assert read_result(run).curves is None
    (run / "videos.csv").unlink()
    with pytest.raises(FileNotFoundError, match="no videos.csv"):
        read_result(run)


def test_cautions(runs, tmp_path):
    videos = runs.videos(5)
    worse = videos.assign(status=["no_face", *["ok"] * 14])
    a = runs.write(tmp_path / "a", videos=videos, strength=20)
    b = runs.write(tmp_path / "b", videos=videos, predictions=runs.predictions(worse, strength=0.5))
    warnings = " ".join(compare([a, b], num_samples=50).warnings)
    assert (
        "has 5 groups" in warnings
        and "a scored 15 of 15, b scored 14 of 15" in warnings
        and "zero width" in warnings
    )


def test_worst_videos_are_those_with_the_least_probability_of_the_truth(pair):
    row = compare(pair, num_samples=5).rows[0]
    worst = row.worst(7)
    own = np.where(row.scores["label"] == 1, row.scores["score"], 1 - row.scores["score"])
    shown = np.where(worst["label"] == 1, worst["score"], 1 - worst["score"])
    assert shown == pytest.approx(np.sort(own)[:7])
