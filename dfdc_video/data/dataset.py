"""Face videos -> clips: the same items for every model of a comparison."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from dfdc_video.data.sampling import ClipSpec, clip_indices, last_start, random_start, view_starts
from dfdc_video.data.transforms import Augmentation
from dfdc_video.records import Clip
from dfdc_video.video import UnreadableVideo, read_frames

log = logging.getLogger(__name__)
Item = dict[str, Any]


def fit(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T, h, w, C) -> (T, height, width, C): scaled until it covers the target, then cut in the centre."""
    h, w = frames.shape[1:3]
    if (h, w) == (height, width):
        return frames
    scale = max(height / h, width / w)
    new_h, new_w = max(height, round(h * scale)), max(width, round(w * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    top, left = (new_h - height) // 2, (new_w - width) // 2
    return np.stack([cv2.resize(f, (new_w, new_h), interpolation=how)[top : top + height, left : left + width] for f in frames])


class ClipDataset(Dataset):
    """Clips of the tracks of one split.

    Training (`num_views` 0): an item is addressed by (track index, sample seed), which decides start and augmentation.
    Validation and test: item n is view n of the flat list `views`, the same on every run.
    An item has frames uint8 (C, T, H, W), label, video_id, track_id, start_frame; or `error` and track_id where the file cannot be read.
    """

    def __init__(
        self,
        root: Path,
        tracks: pd.DataFrame,
        spec: ClipSpec,
        *,
        num_views: int = 0,
        augment: Augmentation | None = None,
        decoder: str = "decord",
        cache: bool = False,
    ) -> None:
        self.root, self.spec, self.augment, self.decoder, self.cache = Path(root), spec, augment, decoder, cache
        stamps = [np.asarray(t, dtype=np.float64) for t in tracks["timestamps_seconds"]]
        short = [last_start(t, spec) < 0 for t in stamps]
        self.num_short = int(sum(short))
        keep = [i for i, s in enumerate(short) if not (s and spec.short == "drop")]
        self.tracks = tracks.iloc[keep].reset_index(drop=True)
        self.timestamps = [stamps[i] for i in keep]
        self.rows = self.tracks[["track_id", "video_id", "label", "crop_path"]].to_dict("records")
        self.views = [(i, s) for i, t in enumerate(self.timestamps) for s in view_starts(t, spec, num_views)] if num_views else []
        self.training = not num_views

    def __len__(self) -> int:
        return len(self.rows) if self.training else len(self.views)

    def clip(self, index: int, start: int) -> Clip:
        row = self.rows[index]
        return Clip(row["video_id"], row["track_id"], clip_indices(self.timestamps[index], start, self.spec), int(row["label"]))

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        if isinstance(key, tuple):
            index, seed = key
            start = random_start(self.timestamps[index], self.spec, np.random.default_rng(seed))
        else:
            (index, start), seed = self.views[key], 0
        clip = self.clip(index, start)
        try:
            frames = self._read(index, clip.frame_indices)
        except (UnreadableVideo, OSError) as error:
            return {"error": str(error), "track_id": clip.track_id, "video_id": clip.video_id}
        tensor = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if self.training and self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                tensor = self.augment(tensor)
        return {
            "frames": tensor.permute(1, 0, 2, 3).contiguous(),  # (C, T, H, W)
            "label": clip.label,
            "video_id": clip.video_id,
            "track_id": clip.track_id,
            "start_frame": clip.start_frame,
        }

    def _read(self, index: int, frame_indices: np.ndarray) -> np.ndarray:
        path = self.root / self.rows[index]["crop_path"]
        if self.cache:
            return self._cached(path, index)[frame_indices]
        return fit(read_frames(path, frame_indices, decoder=self.decoder), self.spec.height, self.spec.width)

    def _cached(self, path: Path, index: int) -> np.ndarray:
        """The whole track at clip size as a memory map under ROOT/cache, shared by workers and later runs; made on first use."""
        spec = self.spec
        file = self.root / "cache" / f"{spec.height}x{spec.width}" / f"{self.rows[index]['track_id']}.npy"
        if not (file.is_file() and file.stat().st_mtime_ns >= path.stat().st_mtime_ns):
            frames = fit(read_frames(path, range(len(self.timestamps[index])), decoder=self.decoder), spec.height, spec.width)
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.stem}.{os.getpid()}.part")
            with temporary.open("wb") as handle:
                np.save(handle, frames)
            os.replace(temporary, file)
        return np.load(file, mmap_mode="r")


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Items -> batch: frames uint8 (B, C, T, H, W), label (B,), lists of ids, and `errors` of the items that could not be read.

    Unreadable items are left out, never replaced by others; a batch of none has frames None.
    """
    good = [item for item in items if "error" not in item]
    return {
        "frames": torch.stack([item["frames"] for item in good]) if good else None,
        "label": torch.tensor([item["label"] for item in good], dtype=torch.long),
        "video_id": [item["video_id"] for item in good],
        "track_id": [item["track_id"] for item in good],
        "start_frame": [item["start_frame"] for item in good],
        "errors": [(item["track_id"], item["error"]) for item in items if "error" in item],
    }
