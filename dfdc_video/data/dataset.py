"""Face videos -> clips: the same items for every model of a comparison.

For a model on cached features an item has embeddings instead of frames (see `embeddings`); for one that
learns which pixels were altered, it has their mask beside the frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from dfdc_video.data.embeddings import read_embeddings
from dfdc_video.data.sampling import ClipSpec, clip_indices, last_start, random_start, view_starts
from dfdc_video.data.transforms import Augmentation
from dfdc_video.folders.cache import Arrays, Cache
from dfdc_video.folders.prepared import mask_path
from dfdc_video.media.decoders import read_frames
from dfdc_video.media.reader import UnreadableVideo
from dfdc_video.records import Clip

log = logging.getLogger(__name__)
Item = dict[str, Any]


def scale_and_crop(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T, h, w) or (T, h, w, C) -> (T, height, width, …): scaled to cover the target, then centre-cropped."""
    h, w = frames.shape[1:3]
    if (h, w) == (height, width):
        return frames
    scale = max(height / h, width / w)
    new_h, new_w = max(height, round(h * scale)), max(width, round(w * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    top, left = (new_h - height) // 2, (new_w - width) // 2
    scaled = (cv2.resize(f, (new_w, new_h), interpolation=how) for f in frames)
    return np.stack([f[top : top + height, left : left + width] for f in scaled])


def whole_track(path: Path, num_frames: int, *, height: int, width: int, decoder: str) -> np.ndarray:
    """(N, height, width, 3): every frame of a face video at the size of a clip."""
    return scale_and_crop(read_frames(path, range(num_frames), decoder=decoder), height, width)


class ClipDataset(Dataset):
    """Clips of the tracks of one split.

    Training (`num_views` 0): an item is addressed by (track index, sample seed); the seed decides start and
    augmentation. Validation and test: item n is view n of the flat list `views`, the same in every run. An
    item has frames uint8 (C, T, H, W), label, video_id, track_id, start_frame; or `error`, track_id and
    video_id where the file cannot be read. With `masks`, a threshold in grey levels (see `faces.annotate`),
    it also has mask uint8 (T, H, W), 255 where altered, and mask_known, False for a fake without a difference
    mask. With `embeddings`, a folder of `embed_tracks`, it has embeddings float32 (T, D) and no frames.
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
        masks: float | None = None,
        embeddings: Arrays | None = None,
    ) -> None:
        self.root, self.spec, self.augment = Path(root), spec, augment
        self.decoder, self.cache = decoder, cache
        self.masks, self.embeddings = masks, embeddings
        self.cached_frames = Cache(self.root).frames(spec.height, spec.width)
        stamps = [np.asarray(t, dtype=np.float64) for t in tracks["timestamps_seconds"]]
        short = [last_start(t, spec) < 0 for t in stamps]
        self.num_short = int(sum(short))
        keep = [i for i, s in enumerate(short) if not (s and spec.short == "drop")]
        self.tracks = tracks.iloc[keep].reset_index(drop=True)
        self.timestamps = [stamps[i] for i in keep]
        self.rows = self.tracks[["track_id", "video_id", "label", "crop_path"]].to_dict("records")
        self.training = not num_views
        self.views: list[tuple[int, int]] = []
        if num_views:
            stamped = enumerate(self.timestamps)
            self.views = [(i, start) for i, t in stamped for start in view_starts(t, spec, num_views)]
        self.has_mask: list[bool] = []
        if masks is not None:
            self.has_mask = [mask_path(self.root / row["crop_path"]).exists() for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows) if self.training else len(self.views)

    def clip(self, index: int, start: int) -> Clip:
        """The clip of track `index` that starts at its frame `start`."""
        row, frames = self.rows[index], clip_indices(self.timestamps[index], start, self.spec)
        return Clip(row["video_id"], row["track_id"], frames, int(row["label"]))

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        if isinstance(key, tuple):
            index, seed = key
            start = random_start(self.timestamps[index], self.spec, np.random.default_rng(seed))
        else:
            (index, start), seed = self.views[key], 0
        clip = self.clip(index, start)
        try:
            inputs = self._embedded(clip) if self.embeddings else self._frames(index, clip, seed)
        except (UnreadableVideo, OSError) as error:
            return {"error": str(error), "track_id": clip.track_id, "video_id": clip.video_id}
        return {
            **inputs,
            "label": clip.label,
            "video_id": clip.video_id,
            "track_id": clip.track_id,
            "start_frame": clip.start_frame,
        }

    def _embedded(self, clip: Clip) -> Item:
        assert self.embeddings is not None
        embeddings = read_embeddings(self.embeddings, clip.track_id)[clip.frame_indices]
        return {"embeddings": torch.from_numpy(embeddings.astype(np.float32))}

    def _frames(self, index: int, clip: Clip, seed: int) -> Item:
        """The frames, in training augmented with `seed`, and their mask, cropped and mirrored alike."""
        path = self.root / self.rows[index]["crop_path"]
        images = np.ascontiguousarray(self._read(path, index, clip.frame_indices))
        frames = torch.from_numpy(images).permute(0, 3, 1, 2)
        mask = None
        if self.masks is not None:
            if self.has_mask[index]:
                altered = self._read(mask_path(path), index, clip.frame_indices)
            else:
                altered = np.zeros_like(images[..., 0])
            mask = torch.from_numpy(np.ascontiguousarray(altered))
        if self.training and self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                frames, mask = self.augment(frames, mask)
        item: Item = {"frames": frames.permute(1, 0, 2, 3).contiguous()}  # (C, T, H, W)
        if mask is not None:
            item |= {"mask": mask, "mask_known": clip.label == 0 or self.has_mask[index]}
        return item

    def _read(self, path: Path, index: int, frame_indices: Any) -> np.ndarray:
        """Frames (T, H, W, 3) of a face video at clip size, or (T, H, W) of a mask.

        A mask is 0 and 255, with values in between where it was scaled.
        """
        altered = path.name != Path(self.rows[index]["crop_path"]).name
        if self.cache:
            return self._cached(path, index, altered)[frame_indices]
        return self._sized(path, frame_indices, altered)

    def _sized(self, path: Path, frame_indices: Any, altered: bool) -> np.ndarray:
        frames = read_frames(path, frame_indices, decoder=self.decoder)
        if altered:
            frames = np.where(frames[..., 0] >= self.masks, np.uint8(255), np.uint8(0))
        return scale_and_crop(frames, self.spec.height, self.spec.width)

    def _cached(self, path: Path, index: int, altered: bool) -> np.ndarray:
        """The whole track at clip size as a memory map below ROOT/cache, written on first use.

        Workers and later runs share it.
        """
        kind = f"_mask{self.masks:g}" if altered else ""
        cached, name = self.cached_frames, f"{self.rows[index]['track_id']}{kind}"
        if not cached.has(name, source=path):
            cached.write(name, self._sized(path, range(len(self.timestamps[index])), altered))
        return cached.read(name)


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Items -> batch: frames uint8 (B, C, T, H, W), label (B,), lists of ids, and `errors`.

    `errors` are those of the items that could not be read. Where the items have them, also mask uint8 (B, T,
    H, W) and mask_known bool (B,), or embeddings (B, T, D) instead of frames. Unreadable items are left out,
    never replaced by others; an empty batch has frames None.
    """
    good = [item for item in items if "error" not in item]
    tensors = [name for name in ("frames", "mask", "embeddings") if good and name in good[0]]
    batch: dict[str, Any] = {name: torch.stack([item[name] for item in good]) for name in tensors}
    if "mask" in batch:
        batch["mask_known"] = torch.tensor([item["mask_known"] for item in good])
    return {
        "frames": None,
        **batch,
        "label": torch.tensor([item["label"] for item in good], dtype=torch.long),
        "video_id": [item["video_id"] for item in good],
        "track_id": [item["track_id"] for item in good],
        "start_frame": [item["start_frame"] for item in good],
        "errors": [(item["track_id"], item["error"]) for item in items if "error" in item],
    }
