"""Small real videos for every test: a tiny synthetic data set, prepared folders, and single files from arrays
or of a synthetic person.
"""

from __future__ import annotations

import os

# Before numpy and torch are imported, here and in the processes that tests start: layers this small gain
# nothing from a second thread, and pytest-xdist keeps the other cores busy.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from prepared_folders import write_prepared as _write_prepared

from dfdc_video.media.writer import VideoWriter

# A shell starts background jobs with SIGINT ignored, which programs that a test starts and interrupts would
# inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take longest, first: otherwise one of two processes would be idle while the other ends the last.
LONGEST = (
    "test_failing_well test_recipes test_registry_of_models test_parts test_run test_cli test_demo "
    "test_cluster test_signal test_packaging test_adding_a_model"
).split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by LONGEST, the rest as collected."""
    items.sort(key=lambda i: LONGEST.index(i.path.stem) if i.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """shared_folder(name, make) -> folder: `make(folder)` runs once per test session, in the xdist worker
    that needs the folder first. Tests read it and do not write to it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = root / "shared" / name, root / "shared" / f"{name}.complete"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed half-way
                make(folder)
                complete.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def synthetic():
    """The generator of synthetic deepfakes."""
    from dfdc_video.synthetic import deepfakes

    return deepfakes


@pytest.fixture(scope="session")
def synthetic_root(synthetic, shared_folder) -> Path:
    """Eight identities, one second, all methods and extras, in DFDC's layout. Do not write to it."""

    def make(folder: Path) -> None:
        synthetic.generate(
            folder / "raw", num_identities=8, seconds=1.0, parts=3, seed=0, progress=lambda done, total: None
        )

    return shared_folder("synthetic", make) / "raw"


@pytest.fixture
def make_video(synthetic, tmp_path):
    """make_video(name, frames=None, ...) -> Path: a video of `frames` (T, H, W, 3) uint8, or of a moving,
    synthetic person.
    """

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
            settings = {
                "seed": seed,
                "seconds": num_frames / fps,
                "strength": 1.0,
                "spatial_strength": 1.0,
                "clip_seconds": 1.07,
            }
            second = identity ^ 1 if people == 2 else None
            video = {
                "identity": identity,
                "donor": None,
                "second": second,
                "take": 0,
                "fps": fps,
                "method": "real",
                "size": (height, width),
            }
            frames = synthetic.frames_of(video, settings)
        with VideoWriter(path, fps=fps, crf=crf) as writer:
            for frame in frames:
                writer.add(frame)
        return path

    return make


@pytest.fixture(scope="session")
def write_prepared():
    """write_prepared(root, per_split={"train": n, …}, num_frames=…) -> root: see helpers/prepared_folders."""
    return _write_prepared


@pytest.fixture(scope="session")
def prepared_root(shared_folder) -> Path:
    """16 + 8 + 8 small face videos in pairs, split by group. Do not write to it."""
    return shared_folder(
        "prepared", lambda folder: _write_prepared(folder, per_split={"train": 8, "val": 4, "test": 4})
    )


@pytest.fixture(scope="session")
def masked_root(shared_folder) -> Path:
    """8 + 4 + 4 small face videos in pairs, every fake with its difference mask. Do not write to it."""
    from dfdc_video.faces.annotate import write_mask
    from dfdc_video.folders.prepared import mask_path

    def make(folder: Path) -> None:
        _write_prepared(folder, per_split={"train": 4, "val": 2, "test": 2})
        for fake in sorted(folder.glob("tracks/*marked/*.mp4")):
            write_mask(mask_path(fake), fake, Path(str(fake).replace("marked", "real")), fps=30)

    return shared_folder("masked", make)


@pytest.fixture
def small_config(prepared_root):
    """small_config(*overrides) -> a config that trains in seconds: the smallest frame model on 4 frames of
    32 × 32 pixels.
    """
    from dfdc_video.config import resolve

    base = (
        "DATA.CACHE false CLIP.NUM_FRAMES 4 CLIP.HEIGHT 32 CLIP.WIDTH 32 TRAIN.EPOCHS 2 TRAIN.BATCH_SIZE "
        "4 OPTIM.WARMUP_EPOCHS 0 "
        "TEST.NUM_CLIPS 2 TEST.NUM_BOOTSTRAP 100 WANDB.MODE disabled TRAIN.PRECISION 32-true "
        "TRAIN.CHECKPOINT_EVERY_STEPS 1"
    ).split()

    def make(*overrides: str, name: str = "frame_small", path: Path = prepared_root):
        return resolve(name, overrides=[*base, "DATA.PATH", str(path), *overrides])

    return make


@pytest.fixture
def runs():
    """Run folders with predictions whose scores are known: the functions of helpers/run_folders."""
    from types import SimpleNamespace

    import run_folders

    return SimpleNamespace(
        videos=run_folders.make_videos,
        predictions=run_folders.make_predictions,
        curves=run_folders.make_curves,
        write=run_folders.write_run,
    )
