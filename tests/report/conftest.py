"""Comparisons of run folders."""

from __future__ import annotations

import pytest

from dfdc_video.evaluation.compare import compare


@pytest.fixture
def comparison(runs, tmp_path):
    """A frame model that is blind to `temporal` and a sequence model; one video without a face, one
    unreadable.
    """
    videos = runs.videos(25)
    videos.loc[[4, 9], "status"] = ["no_face", "unreadable"]
    paths = [
        runs.write(
            tmp_path / "frame",
            videos=videos,
            blind_to=("temporal",),
            report={"seed": 3, "train_seconds": 3905},
        ),
        runs.write(tmp_path / "slowfast", videos=videos, seed=1),
    ]
    return compare(paths, num_samples=200)


@pytest.fixture
def seven_classes(runs, tmp_path):
    """One run over seven classes, without a training log."""
    videos = runs.videos(14)
    videos["label"] = [i % 7 for i in range(len(videos))]
    path = runs.write(tmp_path / "seven", videos=videos, num_classes=7)
    (path / "metrics.csv").unlink()
    return compare([path], num_samples=50)
