"""Small real videos for every room's tests: a tiny synthetic data set, and single files from arrays or with a
drawn face.
"""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from dfdc_video.media.writer import VideoWriter

# A shell gives its background jobs an ignored Ctrl-C, which every program that a test starts and interrupts
# would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def one_thread():
    """Layers of a few channels are done sooner than a second thread has woken up."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def synthetic():
    """The generator of synthetic deepfakes."""
    from dfdc_video.synthetic import deepfakes

    return deepfakes


@pytest.fixture(scope="session")
def synthetic_root(synthetic, tmp_path_factory) -> Path:
    """Eight identities, two seconds, all methods and extras, in DFDC's layout. Shared by all tests: read it,
    do not write to it.
    """
    root = tmp_path_factory.mktemp("synthetic") / "raw"
    synthetic.generate(
        root, num_identities=8, seconds=2.0, parts=3, seed=0, progress=lambda done, total: None
    )
    return root


@pytest.fixture
def make_video(synthetic, tmp_path):
    """make_video(name, frames=None, ...) -> Path: a video of `frames` (T, H, W, 3) uint8, or of a drawn,
    moving person.
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


def _write_prepared(
    root: Path, *, per_split: dict[str, int], num_frames: int = 36, size_px: int = 64, seed: int = 0
) -> Path:
    """A prepared data set without detection: small face videos of moving blobs; a fake has a red corner, its
    original has none.
    """
    import pandas as pd

    from dfdc_video.folders.prepared import TRACK_COLUMNS, VIDEO_COLUMNS, Manifest, track_row
    from dfdc_video.records import Track

    rng = np.random.default_rng(seed)
    videos, tracks = [], []
    y, x = np.mgrid[:size_px, :size_px] / size_px
    for split, count in per_split.items():
        for n in range(count):
            phase, base = rng.uniform(0, 6), rng.integers(60, 120)
            for method in ("real", "marked"):
                video_id = f"{split}{n:02d}{method}"
                crop_path = f"tracks/{video_id}/{video_id}_00.mp4"
                with VideoWriter(root / crop_path, fps=30) as writer:
                    for t in range(num_frames):
                        blob = np.exp(-8 * ((x - 0.5 - 0.2 * np.sin(phase + t / 8)) ** 2 + (y - 0.5) ** 2))
                        image = np.repeat((base + 90 * blob)[..., None], 3, axis=2)
                        if method == "marked":
                            image[: size_px // 2, : size_px // 2] = (230, 30, 30)
                        writer.add(image.astype(np.uint8))
                stamps, boxes = (
                    np.arange(num_frames) / 30,
                    np.tile([0.0, 0.0, size_px, size_px], (num_frames, 1)),
                )
                box = (0, 0, size_px, size_px)
                tracks.append(
                    track_row(Track(f"{video_id}_00", video_id, 0, boxes, stamps, 0.9, 1.0, crop_path, box))
                )
                row = dict.fromkeys(VIDEO_COLUMNS, "") | {
                    "num_frames": num_frames,
                    "fps": 30.0,
                    "rotation_degrees": 0,
                }
                row |= {"height_px": size_px, "width_px": size_px}
                row |= {
                    "video_id": video_id,
                    "dataset": "made",
                    "path": f"{video_id}.mp4",
                    "label": int(method == "marked"),
                    "split": split,
                }
                row |= {
                    "source_id": f"{split}{n:02d}real" if method == "marked" else "",
                    "group_id": f"{split}{n:02d}",
                    "method": method,
                }
                videos.append(row | {"status": "ok"})
    Manifest(
        root,
        pd.DataFrame(videos, columns=VIDEO_COLUMNS),
        pd.DataFrame(tracks, columns=TRACK_COLUMNS),
        {"split_rule": "group"},
    ).write()
    return root


@pytest.fixture(scope="session")
def write_prepared():
    """write_prepared(root, per_split={"train": n, …}, num_frames=…) -> root: see `_write_prepared`."""
    return _write_prepared


@pytest.fixture(scope="session")
def prepared_root(tmp_path_factory) -> Path:
    """16 + 8 + 8 small face videos in pairs, split by group. Shared by all tests: read it, do not write to
    it.
    """
    return _write_prepared(tmp_path_factory.mktemp("prepared"), per_split={"train": 8, "val": 4, "test": 4})


@pytest.fixture(scope="session")
def masked_root(tmp_path_factory) -> Path:
    """8 + 4 + 4 small face videos in pairs, every fake with its difference mask. Shared by all tests: read
    it, do not write to it.
    """
    from dfdc_video.faces.annotate import write_mask
    from dfdc_video.folders.prepared import mask_path

    root = _write_prepared(tmp_path_factory.mktemp("masked"), per_split={"train": 4, "val": 2, "test": 2})
    for fake in sorted(root.glob("tracks/*marked/*.mp4")):
        write_mask(mask_path(fake), fake, Path(str(fake).replace("marked", "real")), fps=30)
    return root


@pytest.fixture
def small_config(prepared_root):
    """small_config(*overrides) -> a config that trains in seconds: the smallest frame model on 4 frames of 32
    x 32 pixels.
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
