"""Small real videos for every room's tests: a tiny synthetic data set, and single files from arrays or with a drawn face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfdc_video.registry import load_file, top_level
from dfdc_video.video import VideoWriter


@pytest.fixture(scope="session")
def synthetic():
    """The module datasets/synthetic/generate.py."""
    return load_file(top_level("datasets") / "synthetic" / "generate.py")


@pytest.fixture(scope="session")
def synthetic_root(synthetic, tmp_path_factory) -> Path:
    """Eight identities, two seconds, all methods and extras, in DFDC's layout. Shared by all tests: read it, do not write to it."""
    root = tmp_path_factory.mktemp("synthetic") / "raw"
    synthetic.generate(root, num_identities=8, seconds=2.0, parts=3, seed=0, progress=lambda done, total: None)
    return root


@pytest.fixture
def make_video(synthetic, tmp_path):
    """make_video(name, frames=None, ...) -> Path: a video of `frames` (T, H, W, 3) uint8, or of a drawn, moving person."""

    def make(
        name: str = "video.mp4",
        frames: np.ndarray | None = None,
        *,
        fps: float = 30,
        num_frames: int = 30,
        height: int = 240,
        width: int = 320,
        identity: int = 0,
        people: int = 1,
        seed: int = 0,
        crf: int = 18,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if frames is None:
            settings = {"seed": seed, "seconds": num_frames / fps, "strength": 1.0, "spatial_strength": 1.0, "clip_seconds": 1.07}
            second = identity ^ 1 if people == 2 else None
            video = {"identity": identity, "donor": None, "second": second, "take": 0, "fps": fps, "method": "real", "size": (height, width)}
            frames = synthetic.frames_of(video, settings)
        with VideoWriter(path, fps=fps, crf=crf) as writer:
            for frame in frames:
                writer.add(frame)
        return path

    return make
