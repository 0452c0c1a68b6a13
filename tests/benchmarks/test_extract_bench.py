"""The extraction benchmark decodes, extracts and loops over every frame, and measures the quality of its
files.
"""

from __future__ import annotations

import numpy as np
import pytest

from dfdc_video.benchmarks import extract
from dfdc_video.media.writer import VideoWriter
from dfdc_video.registry import BENCHMARKS


def test_every_method_is_measured():
    text = BENCHMARKS.get("extract")(num_videos=2, num_frames=20, height=360, width=640, repeats=1)
    for method in extract.METHODS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {method} |")]
        cells = [c.strip() for c in row.split("|")[2:-1]]
        assert len(cells) == 4 and all(float(c.rstrip("%")) > 0 for c in cells)
    assert text.count("| 100% |") == 2  # decoding is the reference
    formats = ("| h264", "| lossless", "| png")
    rows = [line.split("|") for line in text.splitlines() if line.startswith(formats)]
    sizes = {row[1].strip(): float(row[3]) for row in rows}
    assert sizes["h264, crf 12, gop 12"] < sizes["lossless"] < sizes["png"]


def test_psnr_by_hand(tmp_path):
    base = np.full((4, 32, 32, 3), 100, np.uint8)
    for name, frames in (("a", base), ("b", base + 5)):
        with VideoWriter(tmp_path / name, fps=25, format="png") as writer:
            for frame in frames:
                writer.add(frame)
    assert extract.psnr(tmp_path / "a", tmp_path / "b") == pytest.approx([10 * np.log10(255**2 / 25)] * 4)
