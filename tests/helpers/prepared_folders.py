"""Prepared folders without detection: small face videos of a moving blob, real and fake in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.folders.manifest import TRACK_COLUMNS, VIDEO_COLUMNS, Manifest, track_row
from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.media.writer import VideoWriter
from dfdc_video.records import Track


def face_frames(
    num_frames: int, size_px: int, *, phase: float, brightness: int, marked: bool
) -> Iterator[np.ndarray]:
    """Frames (size_px, size_px, 3) uint8 of a blob moving sideways; `marked` adds a red corner."""
    y, x = np.mgrid[:size_px, :size_px] / size_px
    for t in range(num_frames):
        blob = np.exp(-8 * ((x - 0.5 - 0.2 * np.sin(phase + t / 8)) ** 2 + (y - 0.5) ** 2))
        image = np.repeat((brightness + 90 * blob)[..., None], 3, axis=2)
        if marked:
            image[: size_px // 2, : size_px // 2] = (230, 30, 30)
        yield image.astype(np.uint8)


def video_row(video_id: str, *, split: str, pair: str, method: str, num_frames: int, size_px: int) -> dict:
    """A row of the videos table."""
    values: dict[str, Any] = {
        "video_id": video_id,
        "dataset": "made",
        "path": f"{video_id}.mp4",
        "label": int(method == "marked"),
        "split": split,
        "source_id": f"{pair}real" if method == "marked" else "",
        "group_id": pair,
        "method": method,
        "num_frames": num_frames,
        "fps": 30.0,
        "height_px": size_px,
        "width_px": size_px,
        "rotation_degrees": 0,
        "status": "ok",
    }
    return dict.fromkeys(VIDEO_COLUMNS, "") | values


def write_prepared(
    root: Path, *, per_split: dict[str, int], num_frames: int = 36, size_px: int = 64, seed: int = 0
) -> Path:
    """Write `per_split` pairs of a real and a fake to `root`; fakes have a red corner, reals have none."""
    rng = np.random.default_rng(seed)
    box = (0, 0, size_px, size_px)
    stamps, boxes = np.arange(num_frames) / 30, np.tile(np.array(box, dtype=float), (num_frames, 1))
    videos, tracks = [], []
    for split, count in per_split.items():
        for n in range(count):
            pair = f"{split}{n:02d}"
            phase, brightness = rng.uniform(0, 6), int(rng.integers(60, 120))
            for method in ("real", "marked"):
                video_id = f"{pair}{method}"
                crop_path = f"tracks/{video_id}/{video_id}_00.mp4"
                with VideoWriter(root / crop_path, fps=30) as writer:
                    for frame in face_frames(
                        num_frames, size_px, phase=phase, brightness=brightness, marked=method == "marked"
                    ):
                        writer.add(frame)
                track = Track(f"{video_id}_00", video_id, 0, boxes, stamps, 0.9, 1.0, crop_path, box)
                tracks.append(track_row(track))
                videos.append(
                    video_row(
                        video_id,
                        split=split,
                        pair=pair,
                        method=method,
                        num_frames=num_frames,
                        size_px=size_px,
                    )
                )
    manifest = Manifest(
        root,
        pd.DataFrame(videos, columns=VIDEO_COLUMNS),
        pd.DataFrame(tracks, columns=TRACK_COLUMNS),
        {"split_rule": "group"},
    )
    PreparedFolder(manifest.root).write(manifest)
    return root
