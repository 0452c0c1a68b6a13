"""Against scikit-learn, with weights and with ties."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from sklearn import metrics as oracle

from dfdc_video.cli import main
from dfdc_video.evaluation.metrics import (
    metric,
    metrics_of,
    title_of,
    video_metrics,
    weighted_metrics,
    why_undefined,
)
from dfdc_video.evaluation.results import read_result
from dfdc_video.evaluation.statistics import evaluate
from dfdc_video.registry import METRICS


def sample(seed: int, *, ties: bool, size: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, P(fake) and whole weights, some of them 0, as the bootstrap makes them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0.001, 0.999)
    return (
        labels,
        np.round(scores * 9.5) / 10 + 0.013 if ties else scores,
        rng.integers(0, 4, size).astype(float),
    )


def eer_by_root(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Crossing of the ROC polygon, walked along its corners, with the falling diagonal."""
    fpr, tpr, _ = oracle.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    corner = np.arange(len(fpr))
    t = brentq(
        lambda t: np.interp(t, corner, fpr) + np.interp(t, corner, tpr) - 1, 0, len(fpr) - 1, xtol=1e-12
    )
    return float(np.interp(t, corner, fpr))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_two_classes_agree_with_scikit_learn(seed, ties, weighted):
    labels, scores, weights = sample(seed, ties=ties)
    weights = weights if weighted else np.ones(len(labels))
    got = video_metrics(labels, np.c_[1 - scores, scores], weights if weighted else None)
    assert tuple(got) == tuple(metrics_of(2)) == ("auc", "log_loss", "accuracy", "ap", "eer")
    assert got["auc"] == pytest.approx(oracle.roc_auc_score(labels, scores, sample_weight=weights))
    assert got["ap"] == pytest.approx(oracle.average_precision_score(labels, scores, sample_weight=weights))
    assert got["accuracy"] == pytest.approx(
        oracle.accuracy_score(labels, scores > 0.5, sample_weight=weights)
    )
    assert got["log_loss"] == pytest.approx(
        oracle.log_loss(labels, np.clip(scores, 0.01, 0.99), sample_weight=weights)
    )


@pytest.mark.parametrize("seed", range(8))
def test_equal_error_rate_is_where_the_roc_polygon_crosses_the_diagonal(seed):
    labels, scores, weights = sample(seed, ties=seed % 2 == 0)
    expected = eer_by_root(labels, scores, weights)
    assert video_metrics(labels, np.c_[1 - scores, scores], weights)["eer"] == pytest.approx(
        expected, abs=1e-9
    )


def test_known_equal_error_rates():
    labels = np.array([0, 0, 1, 1])
    cases = {
        (0.1, 0.2, 0.8, 0.9): 0.0,
        (0.8, 0.9, 0.1, 0.2): 1.0,
        (0.1, 0.6, 0.5, 0.9): 0.5,
        (0.5, 0.5, 0.5, 0.5): 0.5,
    }
    for scores, expected in cases.items():
        assert video_metrics(labels, np.c_[1 - np.array(scores), scores])["eer"] == pytest.approx(expected)


def test_weights_are_repetitions():
    labels, scores, weights = sample(3, ties=True)
    repeated = np.repeat(np.arange(len(labels)), weights.astype(int))
    probs = np.c_[1 - scores, scores]
    a, b = video_metrics(labels, probs, weights), video_metrics(labels[repeated], probs[repeated])
    assert a == pytest.approx(b)


def test_many_weight_vectors_are_each_by_itself():
    labels, scores, _ = sample(5, ties=True)
    probs = np.c_[1 - scores, scores]
    weights = np.random.default_rng(0).integers(0, 3, (7, len(labels))).astype(float)
    together = weighted_metrics(labels, probs, weights)
    for row, w in enumerate(weights):
        assert {name: v[row] for name, v in together.items()} == pytest.approx(
            video_metrics(labels, probs, w)
        )


@pytest.mark.parametrize(("num_classes", "last"), [(3, "top2"), (6, "top5"), (9, "top5")])
def test_more_classes_agree_with_scikit_learn(num_classes, last):
    rng = np.random.default_rng(num_classes)
    labels, weights = rng.integers(0, num_classes, 300), rng.random(300)
    probs = rng.dirichlet(np.ones(num_classes), 300)
    got = video_metrics(labels, probs, weights)
    assert tuple(got) == ("log_loss", "top1", last)
    for name in ("top1", last):
        k, classes = int(name[3:]), np.arange(num_classes)
        assert got[name] == pytest.approx(
            oracle.top_k_accuracy_score(labels, probs, k=k, labels=classes, sample_weight=weights)
        )
    unclipped = video_metrics(labels, probs, weights, clip=0)
    assert unclipped["log_loss"] == pytest.approx(
        oracle.log_loss(labels, probs, sample_weight=weights, labels=np.arange(num_classes))
    )


def test_a_prior_is_neither_rewarded_nor_punished():
    labels = np.array([0, 1, 1, 1])
    got = video_metrics(labels, np.full((4, 2), 0.5))
    assert got == pytest.approx({"auc": 0.5, "accuracy": 0.5, "eer": 0.5, "log_loss": np.log(2), "ap": 0.75})
    assert video_metrics(labels, np.full((4, 5), 0.2))["top4"] == pytest.approx(0.8)


def test_clip_bounds_what_one_confident_error_costs():
    labels, probs = np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert video_metrics(labels, probs)["log_loss"] == pytest.approx(-(np.log(0.01) + np.log(0.99)) / 2)
    assert video_metrics(labels, probs, clip=0)["log_loss"] == np.inf
    assert video_metrics(labels, probs, np.array([0.0, 1.0]), clip=0)["log_loss"] == 0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_leaves_ranking_undefined_with_a_reason(label):
    labels, probs = np.full(6, label), np.random.default_rng(0).dirichlet([1, 1], 6)
    got = video_metrics(labels, probs)
    assert all(np.isnan(got[name]) for name in ("auc", "ap", "eer"))
    assert np.isfinite(got["log_loss"]) and np.isfinite(got["accuracy"])
    why = why_undefined(labels, 2)
    assert set(why) == {"auc", "ap", "eer"}
    assert why["eer"] == f"all 6 videos are {'fake' if label else 'real'}; AUC, AP and EER need both classes"
    assert why_undefined(np.array([0, 1]), 2) == why_undefined(np.array([0, 0]), 3) == {}


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "expected \\(N,\\) and \\(N, K\\)"),
        ([0, 1], [[0.5, 0.5], [0.9, 0.9]], "sum to 1"),
        ([0, 1], [[0.5, 0.5], [np.nan, 1]], "finite"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "expected 0 … 1"),
    ],
)
def test_bad_input_is_refused(labels, probs, message):
    with pytest.raises(ValueError, match=message):
        video_metrics(np.array(labels), np.array(probs))
    with pytest.raises(ValueError, match="clip 0.7"):
        video_metrics(np.array([0, 1]), np.full((2, 2), 0.5), clip=0.7)


@pytest.fixture
def brier():
    """A metric that only this test has: the Brier score."""

    @METRICS.register
    @metric(title="Brier score", lower_is_better=True, more_classes=False)
    def brier(scores):
        """Mean squared distance of P(fake) from the label."""
        return scores.mean((scores.probs[:, 1] - scores.labels) ** 2)

    yield brier
    del METRICS._obj_map["brier"]


def test_a_registered_metric_is_in_reports_tables_and_lists(brier, runs, tmp_path, capsys):
    runs.write(tmp_path / "a", strength=1.0)
    scores = read_result(tmp_path / "a").scores
    expected = oracle.brier_score_loss(scores["label"], scores["score"])
    report = evaluate(scores, num_samples=50)
    assert report["metrics"]["video/brier"]["value"] == pytest.approx(expected)
    assert report["metrics"]["video/brier"]["low"] < expected < report["metrics"]["video/brier"]["high"]
    assert "brier" in report["per_method"]["spatial"]
    runs.write(tmp_path / "b", seed=1)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 0
    assert "Brier score ↓" in capsys.readouterr().out
    assert "Brier score ↓" in (tmp_path / "out" / "report.html").read_text()
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("name")
    assert table.loc["a", "video/brier"] == pytest.approx(expected) and "delta/video/brier" in table.columns
    assert main(["list", "metrics", "brier"]) == 0
    assert "Mean squared distance" in capsys.readouterr().out


def test_a_metric_without_its_decorator_is_refused(brier, monkeypatch):
    monkeypatch.setitem(METRICS._obj_map, "brier", brier.function)
    with pytest.raises(ValueError, match=r"metric 'brier' is a function: put @metric"):
        metrics_of(2)


def test_a_metric_of_another_shape_is_refused(brier):
    brier.function = lambda scores: 0.5
    with pytest.raises(
        ValueError, match=r"metric brier gave shape \(\), expected one value for each of the 1"
    ):
        video_metrics(np.array([0, 1]), np.full((2, 2), 0.5))


def test_titles():
    assert [title_of(n) for n in ("auc", "log_loss", "top1", "top4")] == ["AUC", "log loss", "top-1", "top-4"]
    with pytest.raises(ValueError, match="unknown metric 'acu'; did you mean auc"):
        title_of("acu")
