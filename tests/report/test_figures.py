"""The pictures show the numbers of the comparison."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from sklearn.metrics import auc as area

from dfdc_video.evaluation.compare import compare
from dfdc_video.report import figures


def test_bars_have_the_heights_and_whiskers_of_the_intervals(comparison):
    ax = figures.method_bars(comparison).axes[0]
    bars, whiskers = ax.containers[0::2], ax.containers[1::2]
    for row, bar, whisker in zip(comparison.rows, bars, whiskers, strict=True):
        keys = ["video/auc", "video/auc/spatial", "video/auc/temporal"]
        assert [patch.get_height() for patch in bar] == pytest.approx([row.intervals[k].value for k in keys])
        drawn = np.array([segment[:, 1] for segment in whisker.lines[2][0].get_segments()])
        assert drawn == pytest.approx(np.array([[row.intervals[k].low, row.intervals[k].high] for k in keys]))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["all videos", "spatial", "temporal"]
    assert any(set(line.get_ydata()) == {0.5} for line in ax.lines)


def test_area_under_the_drawn_roc_is_the_auc(comparison):
    axes = figures.roc_curves(comparison).axes
    assert [ax.get_title() for ax in axes] == ["all videos", "spatial", "temporal"]
    for ax, key in zip(axes, ("video/auc", "video/auc/spatial", "video/auc/temporal"), strict=True):
        for row, line in zip(comparison.rows, ax.lines[1:], strict=True):
            assert area(line.get_xdata(), line.get_ydata()) == pytest.approx(row.intervals[key].value)
            assert f"{row.intervals[key].value:.3f}" in line.get_label()


def test_training_curves_are_means_per_epoch(comparison):
    loss, log_loss, auc = figures.training_curves(comparison).axes
    assert list(loss.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert loss.lines[0].get_ydata() == pytest.approx([0.7 / (e + 1) + 0.065 for e in range(4)])
    assert log_loss.lines[1].get_ydata() == pytest.approx([0.7 / (e + 1) for e in range(4)])
    assert auc.lines[1].get_ydata() == pytest.approx([0.5, 0.6, 0.7, 0.8])


def test_curves_take_the_first_column_that_has_values():
    curves = pd.DataFrame({"epoch": [0, 0, 1], "a": [np.nan] * 3, "b": [1.0, 3.0, 5.0]})
    assert figures.curve_of(curves, "missing", "a", "b").to_dict() == {0: 2.0, 1: 5.0}
    assert figures.curve_of(curves, "a") is None
    assert figures.curve_of(None, "b") is None


def test_histograms_count_every_video_once(comparison):
    ax = figures.score_histograms(comparison).axes[0]
    assert sum(
        patch.get_height() for patch in ax.patches if len(patch.get_path().vertices) == 5
    ) == pytest.approx(1)


def test_every_row_keeps_its_colour(comparison):
    for index in range(len(comparison.rows)):
        colour = to_rgb(figures.COLOURS[index])
        assert (
            to_rgb(figures.method_bars(comparison).axes[0].containers[2 * index][0].get_facecolor()) == colour
        )
        assert to_rgb(figures.roc_curves(comparison).axes[0].lines[index + 1].get_color()) == colour
        assert to_rgb(figures.training_curves(comparison).axes[0].lines[index].get_color()) == colour


def test_an_arm_draws_one_line_per_seed_in_one_colour(runs, tmp_path):
    entries = [{"experiment": "question", "arm": "frame", "seed": seed} for seed in range(3)]
    comparison = compare([runs.write(tmp_path / f"r{e['seed']}", report=e) for e in entries], num_samples=5)
    lines = figures.training_curves(comparison).axes[0].lines
    assert len(lines) == 3 and len({line.get_color() for line in lines}) == 1
    assert len(figures.roc_curves(comparison).axes[0].lines) == 2  # the chance line and the averaged scores


def test_svg_is_well_formed_reproducible_and_takes_the_colour_of_the_page(comparison):
    text = figures.to_svg(figures.roc_curves(comparison), salt="roc")
    root = ET.fromstring(text.replace("xlink:href", "href"))
    assert root.tag == "svg" and "viewBox" in root.attrib
    assert figures.INK not in text and "currentColor" in text
    assert "all videos" in "".join(root.itertext())
    assert text == figures.to_svg(figures.roc_curves(comparison), salt="roc")
    other = figures.to_svg(figures.method_bars(comparison), salt="bars")
    ids = [
        [e.get("id") for e in ET.fromstring(t.replace("xlink:href", "href")).iter() if e.get("id")]
        for t in (text, other)
    ]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    used = {e.get("href")[1:] for e in root.iter() if e.get("href")}
    assert used and used <= set(ids[0])


def test_more_than_two_classes(seven_classes):
    assert figures.roc_curves(seven_classes) is None
    assert figures.score_histograms(seven_classes) is None
    assert figures.training_curves(seven_classes) is None
    ax = figures.method_bars(seven_classes).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["top-1", "top-5"]


def test_no_global_state_of_pyplot():
    """Importing pyplot picks a backend and keeps every figure alive."""
    code = "import sys, dfdc_video.report.page; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(figures.__file__).parents[2]).returncode == 0
