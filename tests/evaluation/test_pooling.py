"""Clips become videos by identity, and tables that do not fit together are refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dfdc_video.evaluation.pooling import pool_predictions
from dfdc_video.folders.run import RunFolder
from dfdc_video.registry import POOLINGS


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


@pytest.fixture
def tables():
    """Video b has two tracks, one of them with three clips; c was decoded without a face; d gave no
    prediction.
    """
    clips = [
        ("a", "a_0", 0, 0, 0.2),
        ("b", "b_0", 0, 1, 0.9),
        ("b", "b_1", 0, 1, 0.1),
        ("b", "b_1", 16, 1, 0.3),
        ("b", "b_1", 32, 1, 0.2),
    ]
    predictions = pd.DataFrame(clips, columns=["video_id", "track_id", "start_frame", "label", "p"])
    predictions["logit_0"], predictions["logit_1"] = 0.0, predictions.pop("p").map(logit)
    rows = [
        ("a", 0, "real", "g0", "ok"),
        ("b", 1, "swap", "g0", "ok"),
        ("c", 1, "swap", "g1", "no_face"),
        ("d", 0, "real", "g1", "ok"),
    ]
    return predictions, pd.DataFrame(rows, columns=["video_id", "label", "method", "group_id", "status"])


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 0.55), ("max_track", 0.9), ("mean_clips", 0.375)])
def test_known_scores(tables, pooling, expected):
    scores = pool_predictions(*tables, pooling=pooling).set_index("video_id")
    assert scores.loc["b", "score"] == pytest.approx(expected)
    assert scores.loc["a", "score"] == pytest.approx(0.2)
    assert scores.loc["b", ["num_tracks", "num_clips"]].tolist() == [2, 4]


def test_videos_without_a_prediction_get_the_prior_and_their_status(tables):
    scores = pool_predictions(*tables).set_index("video_id")
    assert scores["status"].to_dict() == {"a": "scored", "b": "scored", "c": "no_face", "d": "unreadable"}
    assert scores.loc[["c", "d"], ["prob_0", "prob_1", "score"]].to_numpy().tolist() == [[0.5] * 3] * 2
    assert scores.loc[["c", "d"], "num_clips"].tolist() == [0, 0]


@pytest.mark.parametrize("pooling", POOLINGS.names())
@pytest.mark.parametrize("num_classes", [2, 4])
def test_order_of_rows_is_irrelevant_and_probabilities_sum_to_one(runs, pooling, num_classes):
    videos = runs.videos(8)
    predictions = runs.predictions(videos, num_classes=num_classes)
    scores = pool_predictions(predictions, videos, pooling=pooling)
    shuffled = pool_predictions(
        predictions.sample(frac=1, random_state=3), videos.sample(frac=1, random_state=4), pooling=pooling
    )
    pd.testing.assert_frame_equal(scores, shuffled, check_exact=True)
    assert np.allclose(scores.filter(like="prob_").sum(axis=1), 1)
    assert list(scores["video_id"]) == sorted(videos["video_id"])


def test_large_logits_do_not_overflow(tables):
    predictions, videos = tables
    predictions.loc[0, "logit_1"] = 1e5
    assert pool_predictions(predictions, videos).loc[0, "score"] == 1.0


def test_missing_group_is_a_group_by_itself(tables):
    predictions, videos = tables
    videos["group_id"] = ["", "", None, "x"]
    assert list(pool_predictions(predictions, videos)["group_id"]) == ["a", "b", "c", "x"]


def _set(column, value, row=0):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (0, _set("logit_1", float("nan"), 2), "not finite.*video b, track b_1"),
        (0, _set("video_id", "zz"), "not among the tested ones.*zz"),
        (0, _set("label", 1), "video a has label 1"),
        (0, _set("label", 7), "label 7 of video a, expected a class 0 … 1"),
        (0, lambda t: t.drop(columns="track_id"), "lacks the columns track_id"),
        (0, lambda t: t.drop(columns="logit_0"), "expected logit_0, logit_1"),
        (0, lambda t: t.iloc[:0], "no clip was scored"),
        (1, lambda t: t.drop(columns=["method", "status"]), "lacks the columns method, status"),
        (1, lambda t: pd.concat([t, t.iloc[[1]]]), "has b twice"),
        (1, _set("status", "fine"), "status 'fine', expected one of ok"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables, which, change, message):
    changed = list(tables)
    changed[which] = change(changed[which])
    with pytest.raises(ValueError, match=message):
        pool_predictions(*changed)


def test_one_class_is_refused(tables):
    predictions, videos = tables
    with pytest.raises(ValueError, match="all 4 videos have label 0"):
        pool_predictions(predictions.assign(label=0), videos.assign(label=0))


def test_unknown_pooling_is_refused(tables):
    with pytest.raises(ValueError, match="unknown pooling 'max_trak'; did you mean max_track"):
        pool_predictions(*tables, pooling="max_trak")


def test_ids_that_look_like_numbers_or_gaps_stay_text(tables, tmp_path):
    predictions, videos = tables
    names = {"a": "007", "b": "NA", "c": "1e3", "d": "d"}
    predictions["video_id"], videos["video_id"] = (
        predictions["video_id"].map(names),
        videos["video_id"].map(names),
    )
    predictions.to_csv(tmp_path / "predictions.csv", index=False)
    videos.to_csv(tmp_path / "videos.csv", index=False)
    scores = pool_predictions(RunFolder(tmp_path).predictions(), RunFolder(tmp_path).videos())
    assert sorted(scores["video_id"]) == ["007", "1e3", "NA", "d"]
    assert scores.set_index("video_id").loc["NA", "score"] == pytest.approx(0.55)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "predictions.csv"
    with pytest.raises(FileNotFoundError, match="no predictions.csv"):
        RunFolder(tmp_path).predictions()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="predictions.csv is damaged"):
        RunFolder(tmp_path).predictions()
    path.write_text("video_id,label\na,1\n")
    with pytest.raises(ValueError, match="predictions.csv lacks the columns track_id, start_frame"):
        RunFolder(tmp_path).predictions()
