"""The soak benchmark prepares all of its videos, watches its workers, and reports the slope of memory."""

import math

import pytest

from dfdc_video.benchmarks import soak
from dfdc_video.registry import BENCHMARKS


def test_growth_is_the_slope_between_quarters():
    start, end, slope = soak.growth([(n, 5e6 + 2000 * n) for n in range(1001)], 0, 1000)
    assert (start, end, slope) == pytest.approx((5e6 + 2000 * 145, 5e6 + 2000 * 875, 2e6))
    assert all(map(math.isnan, soak.growth([(990, 1.0)], 0, 1000)))


def test_a_small_soak(tmp_path):
    text = BENCHMARKS.get("soak")(num_videos=12, num_identities=2, every_seconds=0.02)
    assert "12 videos of 0.5 s (12 ok), 2 workers" in text
    assert "videos/s" in text and "a second run with nothing to do" in text
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 3
    parent, detecting, _ = (float(row[-1]) for row in rows)
    assert min(parent, detecting) > 30, "megabytes of a Python process with its libraries"
