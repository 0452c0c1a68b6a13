"""The owner of the cache in a prepared folder: arrays that training computes from face videos once.

Below cache/:
    <height>x<width>/<track_id>.npy                  (N, height, width, 3) uint8, frames at clip size
    <height>x<width>/<track_id>_mask<threshold>.npy  (N, height, width) uint8, its difference mask
    embeddings/<key>/<track_id>.npy                  (N, D) float16, per-frame embeddings of a frozen network
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfdc_video.files import whole_file

CACHE, EMBEDDINGS = "cache", "embeddings"
NAMES = (CACHE, EMBEDDINGS)


@dataclass(frozen=True)
class Arrays:
    """Arrays by name, a file each; processes may write the same one at the same time."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def has(self, name: str, *, source: Path) -> bool:
        """Whether an array is there, and not older than the file that it was computed from."""
        path = self.path(name)
        return path.is_file() and source.exists() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns

    def write(self, name: str, array: np.ndarray) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, shared=True) as temporary, temporary.open("wb") as handle:
            np.save(handle, array)
        path.touch()  # equal bytes leave the file alone, and it is to be younger than its source

    def read(self, name: str) -> np.ndarray:
        """An array as a memory map. FileNotFoundError where there is none."""
        return np.load(self.path(name), mmap_mode="r")


@dataclass(frozen=True)
class Cache:
    """What training has computed from the face videos of the prepared folder `root`."""

    root: Path

    def frames(self, height: int, width: int) -> Arrays:
        return Arrays(self.root / CACHE / f"{height}x{width}")

    def embeddings(self, key: str) -> Arrays:
        """`key` names the network, its weights and the size of its input."""
        return Arrays(self.root / CACHE / EMBEDDINGS / key)
