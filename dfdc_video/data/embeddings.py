"""What a frozen network says of every frame, computed once: ROOT/cache/embeddings/<key>/<track_id>.npy, (N,
D) float16 for N frames.

A model that learns only on top of it then reads some kilobytes a clip instead of decoding it and passing it
through the network, so that an epoch takes seconds. The key names the network, its weights and the size of
its input: another network has another folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dfdc_video.media.reader import UnreadableVideo

log = logging.getLogger(__name__)
FRAMES_AT_ONCE = 64


def write_array(path: Path, array: np.ndarray) -> None:
    """A `.npy` file, whole or not at all."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as handle:
            np.save(handle, array)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_embeddings(folder: Path, track_id: str) -> np.ndarray:
    """(N, D) float16 of a track, as a memory map. UnreadableVideo where its face video could not be read when
    they were made.
    """
    file = folder / f"{track_id}.npy"
    if not file.is_file():
        raise UnreadableVideo(f"{track_id} has no embeddings: its face video could not be read")
    return np.load(file, mmap_mode="r")


class TrackFrames(torch.utils.data.Dataset):
    """Whole tracks, for loader workers: item n is (track_id, frames uint8 (C, N, H, W)) or (track_id, why it
    cannot be read).
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
) -> Path:
    """Make the embeddings of `tracks` (track_id, crop_path, num_frames) that are not there yet; the folder
    that holds them.

    `embed` maps uint8 (1, C, T, H, W) to (1, T, D), each frame by itself; `read(path, num_frames)` gives all
    frames of a face video at the size of the clip, in the workers of a loader with `loader_settings`. A file
    that is older than its face video is made anew. Tracks that cannot be read are named in the log and have
    no file. ValueError for embeddings that half precision cannot hold.
    """
    folder = Path(root) / "cache" / "embeddings" / key
    folder.mkdir(parents=True, exist_ok=True)
    todo = list(_missing(Path(root), folder, tracks))
    if todo:
        log.info("embedding %d of %d tracks, once, into %s", len(todo), len(tracks), folder)
    loader = torch.utils.data.DataLoader(
        TrackFrames(todo, read), batch_size=None, collate_fn=_as_it_is, **loader_settings
    )
    for done, (track_id, frames) in enumerate(loader, start=1):
        if isinstance(frames, str):
            log.warning("track %s cannot be read and has no embeddings: %s", track_id, frames)
        else:
            parts = [embed(part)[0].float().cpu() for part in frames[None].split(FRAMES_AT_ONCE, dim=2)]
            array = torch.cat(parts).to(torch.float16)
            if not array.isfinite().all():
                raise ValueError(
                    f"the frozen network gives track {track_id} embeddings beyond half precision: load "
                    "its weights (MODEL.INIT_FROM)"
                )
            write_array(folder / f"{track_id}.npy", array.numpy())
        if progress:
            progress(done, len(todo))
    return folder


def _missing(root: Path, folder: Path, tracks: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for track_id, crop_path, num_frames in zip(
        tracks["track_id"], tracks["crop_path"], tracks["num_frames"], strict=True
    ):
        file, path = folder / f"{track_id}.npy", root / crop_path
        if not (file.is_file() and path.exists() and file.stat().st_mtime_ns >= path.stat().st_mtime_ns):
            yield {"track_id": track_id, "path": path, "num_frames": int(num_frames)}


def _as_it_is(item: Any) -> Any:
    return item
