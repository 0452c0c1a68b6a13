"""Intervals cover what they should, respect groups, and differences are paired."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dfdc_video.evaluation.metrics import video_metrics
from dfdc_video.evaluation.pooling import pool_predictions
from dfdc_video.evaluation.statistics import (
    Difference,
    Interval,
    difference,
    evaluate,
    group_weights,
    resample,
)


def two_normals(rng: np.random.Generator, size: int, distance: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(size) % 2
    scores = 1 / (1 + np.exp(-rng.normal(distance * labels, 1)))
    return labels, np.c_[1 - scores, scores]


def intervals_of(
    labels: np.ndarray, probs: np.ndarray, groups: np.ndarray, **settings
) -> dict[str, Interval]:
    return resample(labels, probs, groups, **settings).intervals()


def differences_of(
    labels: np.ndarray, probs: np.ndarray, other: np.ndarray, groups: np.ndarray
) -> dict[str, Difference]:
    return difference(resample(labels, probs, groups), resample(labels, other, groups))


def test_weights_draw_whole_groups():
    groups = np.array(["b", "a", "b", "c"])
    weights = group_weights(groups, num_samples=400, rng=np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(4), abs=0.15)


def test_agrees_with_a_bootstrap_that_repeats_rows():
    """The same draws, written out as repeated rows and scored one by one."""
    rng = np.random.default_rng(1)
    labels, probs = two_normals(rng, 60)
    groups = rng.integers(0, 20, 60)
    samples = resample(labels, probs, groups, num_samples=50, seed=9)
    weights = group_weights(groups, num_samples=50, rng=np.random.default_rng(9))
    assert samples.num_dropped == 0
    for b, w in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(60), w)
        assert {name: v[b] for name, v in samples.samples.items()} == pytest.approx(
            video_metrics(labels[rows], probs[rows])
        )


def test_chunks_do_not_change_the_samples(monkeypatch):
    labels, probs = two_normals(np.random.default_rng(1), 40)
    whole = resample(labels, probs, labels + np.arange(40), num_samples=30)
    monkeypatch.setattr("dfdc_video.evaluation.statistics.CHUNK_ELEMENTS", 200)
    parts = resample(labels, probs, labels + np.arange(40), num_samples=30)
    for name in whole.samples:
        np.testing.assert_allclose(whole.samples[name], parts.samples[name], rtol=0, atol=1e-12)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Accuracy of a classifier that is right with P = 0.8 on 80 independent videos: 200 intervals of 95 %."""
    rng, hits = np.random.default_rng(2), 0
    for trial in range(200):
        labels = np.arange(80) % 2
        right = rng.random(80) < 0.8
        scores = np.where(right == (labels == 1), 0.9, 0.1)
        low, high = intervals_of(
            labels, np.c_[1 - scores, scores], np.arange(80), num_samples=300, seed=trial
        )["accuracy"][1:]
        hits += low <= 0.8 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_groups_that_agree_make_the_interval_wider():
    """Ten copies of each video: naively the interval shrinks by sqrt(10), over groups it stays."""
    labels, probs = two_normals(np.random.default_rng(3), 60)
    labels_10, probs_10 = np.tile(labels, 10), np.tile(probs, (10, 1))
    alone = intervals_of(labels, probs, np.arange(60))["auc"]
    naive = intervals_of(labels_10, probs_10, np.arange(600))["auc"]
    grouped = intervals_of(labels_10, probs_10, np.tile(np.arange(60), 10))["auc"]
    assert grouped == pytest.approx(alone)
    assert (naive.high - naive.low) * 2 < grouped.high - grouped.low


def test_a_fixed_seed_repeats_and_the_order_of_videos_is_irrelevant():
    rng = np.random.default_rng(4)
    labels, probs = two_normals(rng, 50)
    groups, order = rng.integers(0, 15, 50), rng.permutation(50)
    first = intervals_of(labels, probs, groups, seed=7)
    assert first == intervals_of(labels, probs, groups, seed=7)
    assert first != intervals_of(labels, probs, groups, seed=8)
    shuffled = intervals_of(labels[order], probs[order], groups[order], seed=7)
    for name, interval in first.items():
        assert shuffled[name] == pytest.approx(interval)


def test_samples_with_one_class_are_dropped_and_counted():
    labels, scores = np.array([0, 1, 1]), np.array([0.2, 0.7, 0.6])
    samples = resample(labels, np.c_[1 - scores, scores], np.array(["a", "b", "b"]), num_samples=1000)
    assert 400 < samples.num_dropped < 600  # both draws hit one group in half of the samples
    assert all(
        len(v) == 1000 - samples.num_dropped and np.isfinite(v).all() for v in samples.samples.values()
    )


def test_one_group_gives_no_interval():
    labels, probs = two_normals(np.random.default_rng(5), 20)
    interval = intervals_of(labels, probs, np.zeros(20))["auc"]
    assert np.isfinite(interval.value) and np.isnan([interval.low, interval.high]).all()


def test_paired_difference_is_narrower_than_unpaired_ones():
    """Two runs that share their errors: the difference is known far better than either value."""
    rng = np.random.default_rng(6)
    labels, probs = two_normals(rng, 200)
    scores = np.clip(probs[:, 1] + 0.05 * (2 * labels - 1), 0.001, 0.999)
    other = np.c_[1 - scores, scores]
    delta = differences_of(labels, probs, other, np.arange(200))["auc"]
    alone = intervals_of(labels, probs, np.arange(200))["auc"]
    assert delta.value == pytest.approx(
        video_metrics(labels, other)["auc"] - video_metrics(labels, probs)["auc"]
    )
    assert 0 < delta.low <= delta.value <= delta.high
    assert delta.high - delta.low < 0.5 * (alone.high - alone.low)
    assert delta.fraction_above == 1.0


def test_a_run_does_not_differ_from_itself():
    labels, probs = two_normals(np.random.default_rng(6), 50)
    for delta in differences_of(labels, probs, probs, np.arange(50)).values():
        assert delta == (0, 0, 0, 0.5)


def test_a_thousand_samples_of_500_videos_take_less_than_a_second():
    labels, probs = two_normals(np.random.default_rng(8), 500)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        intervals_of(labels, probs, np.arange(500) // 5, num_samples=1000)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


def test_evaluate_reports_methods_coverage_and_groups(runs):
    videos = runs.videos(30)
    videos.loc[[0, 5], "status"] = ["no_face", "unreadable"]
    scores = pool_predictions(runs.predictions(videos, strength=1.0, blind_to=("temporal",)), videos)
    result = evaluate(scores, num_samples=300)
    assert result["coverage"] == {"num_videos": 90, "scored": 88, "no_face": 1, "unreadable": 1}
    assert result["num_groups"] == 30 and result["undefined"] == {}
    assert set(result["metrics"]) == {
        "video/auc",
        "video/log_loss",
        "video/accuracy",
        "video/ap",
        "video/eer",
    }
    assert set(result["per_method"]) == {"spatial", "temporal"}
    part = scores[scores["method"] != "spatial"]
    expected = video_metrics(part["label"].to_numpy(), part[["prob_0", "prob_1"]].to_numpy())
    temporal = result["per_method"]["temporal"]
    assert {name: temporal[name]["value"] for name in expected} == pytest.approx(expected)
    assert (temporal["num_videos"], temporal["num_fake"]) == (60, 30)
    assert (
        temporal["auc"]["low"] < 0.5 < temporal["auc"]["high"] < result["per_method"]["spatial"]["auc"]["low"]
    )


def test_evaluate_says_why_a_metric_is_undefined(runs):
    videos = runs.videos(5)
    scores = pool_predictions(runs.predictions(videos), videos)
    result = evaluate(scores[scores["label"] == 0], num_samples=10)
    assert np.isnan(result["metrics"]["video/auc"]["value"])
    assert "all 5 videos are real" in result["undefined"]["video/auc"]


def test_more_than_two_classes_have_no_methods(runs):
    videos = runs.videos(10)
    videos["label"] = np.arange(len(videos)) % 7
    scores = pool_predictions(runs.predictions(videos, num_classes=7), videos)
    result = evaluate(scores, num_samples=50)
    assert set(result["metrics"]) == {"video/log_loss", "video/top1", "video/top5"}
    assert result["per_method"] == {} and result["dropped_samples"] == 0


def test_bad_settings_are_refused():
    labels, probs = two_normals(np.random.default_rng(8), 10)
    with pytest.raises(ValueError, match="9 groups for 10 videos"):
        resample(labels, probs, np.arange(9))
    with pytest.raises(ValueError, match="num_samples 0"):
        resample(labels, probs, np.arange(10), num_samples=0)
    with pytest.raises(ValueError, match="level 95"):
        resample(labels, probs, np.arange(10)).intervals(level=95)
