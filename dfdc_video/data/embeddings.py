"""Per-frame embeddings of a frozen network, computed once: (N, D) float16 for the N frames of a track.

They are ROOT/cache/embeddings/<key>/<track_id>.npy. A model that is trained on top of them reads some
kilobytes per clip instead of decoding it and running the network, so that an epoch takes seconds. The key
names the network, its weights and the size of its input: every network has its own folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dfdc_video.folders.cache import Arrays, Cache
from dfdc_video.media.reader import UnreadableVideo

log = logging.getLogger(__name__)
FRAMES_AT_ONCE = 64


def read_embeddings(embeddings: Arrays, track_id: str) -> np.ndarray:
    """(N, D) float16 of a track, as a memory map.

    UnreadableVideo where there are none, since its face video could not be read.
    """
    try:
        return embeddings.read(track_id)
    except FileNotFoundError:
        raise UnreadableVideo(f"{track_id} has no embeddings: its face video could not be read") from None


class TrackFrames(torch.utils.data.Dataset):
    """Whole tracks, for loader workers.

    An item is (track_id, frames uint8 (C, N, H, W)), or (track_id, reason why it cannot be read).
    """

    def __init__(self, rows: list[dict[str, Any]], read: Callable[[Path, int], np.ndarray]) -> None:
        self.rows, self.read = rows, read

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor | str]:
        row = self.rows[index]
        try:
            frames = self.read(row["path"], row["num_frames"])
            return row["track_id"], torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)
        except (UnreadableVideo, OSError) as error:
            return row["track_id"], str(error)


def embed_tracks(
    root: Path,
    tracks: pd.DataFrame,
    *,
    key: str,
    embed: Callable[[torch.Tensor], torch.Tensor],
    read: Callable[[Path, int], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
    **loader_settings: Any,
) -> Arrays:
    """Compute the missing embeddings of `tracks` (track_id, crop_path, num_frames); returns all of them.

    `embed` maps uint8 (1, C, T, H, W) to (1, T, D), each frame by itself; `read(path, num_frames)` gives all
    frames of a face video at the size of the clip, in the workers of a loader with `loader_settings`. A file
    that is older than its face video is computed again. Tracks that cannot be read are logged and have no
    file. `progress` is called with (tracks done, tracks to do). ValueError for embeddings that exceed half
    precision.
    """
    embeddings = Cache(Path(root)).embeddings(key)
    todo = list(_missing(Path(root), embeddings, tracks))
    if todo:
        log.info("embedding %d of %d tracks, once, into %s", len(todo), len(tracks), embeddings.folder)
    loader = torch.utils.data.DataLoader(
        TrackFrames(todo, read), batch_size=None, collate_fn=_as_it_is, **loader_settings
    )
    for done, (track_id, frames) in enumerate(loader, start=1):
        if isinstance(frames, str):
            log.warning("track %s cannot be read and has no embeddings: %s", track_id, frames)
        else:
            chunks = frames[None].split(FRAMES_AT_ONCE, dim=2)
            array = torch.cat([embed(chunk)[0].float().cpu() for chunk in chunks]).to(torch.float16)
            if not array.isfinite().all():
                raise ValueError(
                    f"embeddings of track {track_id} exceed half precision: load the weights of the frozen "
                    "network (MODEL.INIT_FROM)"
                )
            embeddings.write(track_id, array.numpy())
        if progress:
            progress(done, len(todo))
    return embeddings


def _missing(root: Path, embeddings: Arrays, tracks: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for track_id, crop_path, num_frames in zip(
        tracks["track_id"], tracks["crop_path"], tracks["num_frames"], strict=True
    ):
        if not embeddings.has(track_id, source=root / crop_path):
            yield {"track_id": track_id, "path": root / crop_path, "num_frames": int(num_frames)}


def _as_it_is(item: Any) -> Any:
    return item
