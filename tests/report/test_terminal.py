"""The terminal's tables fit 120 columns and carry the numbers."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dfdc_video.evaluation.compare import compare
from dfdc_video.report.terminal import duration, number, parameters, print_comparison


def printed(comparison, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_comparison(comparison, console=console)
    return console.file.getvalue()


def test_fits_and_says_what_the_comparison_says(comparison):
    text = printed(comparison)
    assert max(map(len, text.splitlines())) <= 120 and "…" not in text
    for row in comparison.rows:
        for key in (
            "video/auc",
            "video/log_loss",
            "video/accuracy",
            "video/ap",
            "video/eer",
            "video/auc/temporal",
        ):
            interval = row.intervals[key]
            assert f"{interval.value:.3f}" in text
            assert f"[{interval.low:.3f}, {interval.high:.3f}]" in text
    assert f"{comparison.differences['slowfast']['video/auc/temporal'].value:+.3f}" in text
    assert "73 of 75 videos scored, 1 without a face, 1 unreadable" in text


def test_names_of_the_families_stay_on_one_line_and_seeds_are_shown(runs, tmp_path):
    entries = [
        {"experiment": "q", "arm": arm, "seed": s} for arm in ("frame", "efficientnet3d") for s in range(2)
    ]
    comparison = compare(
        [runs.write(tmp_path / f"{e['arm']}{e['seed']}", report=e, seed=e["seed"]) for e in entries],
        num_samples=20,
    )
    text = printed(comparison)
    assert "efficientnet3d" in text and "(2 seeds)" in text and "mean ± standard deviation" in text
    row = comparison.rows[1]
    assert f"{row.intervals['video/log_loss'].value:.3f} ± {row.seed_sd['video/log_loss']:.3f}" in text
    assert "…" not in text


def test_warnings_are_printed_as_they_are(runs, tmp_path):
    a, b = (runs.write(tmp_path / n, report={"clip": {"sizes": [n, 4]}}) for n in "ab")
    text = printed(compare([a, b], num_samples=20, allow_different_frames=True))
    assert "note: The runs saw different frames: a: sizes=['a', 4]; b: sizes=['b', 4]." in text


def test_seven_classes(seven_classes):
    text = printed(seven_classes)
    assert "top-5 ↑" in text and "per method" not in text


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (duration, 59.6, "1 min 00 s"),
        (duration, 3725, "1 h 02 min"),
        (duration, 0.2, "0 s"),
        (duration, None, "–"),
        (parameters, 33_600_000, "33.6 M"),
        (parameters, 820_000, "820 k"),
        (parameters, 7, "7"),
        (number, float("nan"), "–"),
        (number, 0.12345, "0.123"),
    ],
)
def test_numbers_for_people(function, value, expected):
    assert function(value) == expected
