"""The order of tracks in training. A batch sampler yields lists of (track index, sample seed).

The order is a function of (seed, epoch) alone and can start at any batch, so that a run that resumes in the
middle of an epoch continues as if it had not stopped. The sample seed decides clip start and augmentation, so
that they do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from dfdc_video.registry import SAMPLERS

Sample = tuple[int, int]  # track index, sample seed


class EpochBatches:
    """Base of the samplers.

    Subclasses define `units(rng)`: the units of an epoch, each a list of track indices that stay in one
    batch.
    """

    unit_size = 1

    def __init__(
        self, tracks: pd.DataFrame, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """`tracks` has video_id, source_id, label, track_id; a batch has about `batch_size` clips."""
        self.tracks = tracks
        self.units_per_batch = max(1, batch_size // self.unit_size)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.start = 0  # first batch of the next iteration; the loader sets it when a run resumes
        self.sampler = self  # Lightning calls set_epoch of this attribute

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def units(self, rng: np.random.Generator) -> list[list[int]]:
        raise AssertionError("subclasses define units")

    def num_units(self) -> int:
        return len(self.tracks)

    def __len__(self) -> int:
        per_rank = -(-self.num_units() // self.world_size)
        return -(-per_rank // self.units_per_batch)

    def __iter__(self) -> Iterator[list[Sample]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        units = self.units(rng)
        assert len(units) == self.num_units(), (len(units), self.num_units())
        seeds = rng.integers(0, 2**31 - 1, size=len(units)).tolist()
        order = list(range(len(units)))
        # every process must take the same number of steps, or DDP hangs
        order += order[: -len(order) % self.world_size]
        mine = order[self.rank :: self.world_size]
        first, self.start = self.start, 0
        for batch in range(first, len(self)):
            chosen = mine[batch * self.units_per_batch : (batch + 1) * self.units_per_batch]
            yield [(index, seeds[u]) for u in chosen for index in units[u]]


@SAMPLERS.register(name="shuffle")
class Shuffle(EpochBatches):
    """Every track once an epoch, in random order."""

    def units(self, rng: np.random.Generator) -> list[list[int]]:
        return [[int(i)] for i in rng.permutation(len(self.tracks))]


@SAMPLERS.register(name="balanced")
class Balanced(EpochBatches):
    """Equally many tracks of every class; an epoch has as many tracks as the data set.

    Tracks of a class repeat only after all of them were used.
    """

    def units(self, rng: np.random.Generator) -> list[list[int]]:
        labels = self.tracks["label"].to_numpy()
        classes = np.unique(labels)
        share = -(-len(labels) // len(classes))
        sampled = []
        for value in classes:
            members = np.flatnonzero(labels == value)
            rounds = [rng.permutation(members) for _ in range(-(-share // len(members)))]
            sampled.append(np.concatenate(rounds)[:share])
        # classes alternate, so that every batch is balanced, not only the epoch
        mixed = np.stack(sampled, axis=1).ravel()[: len(labels)]
        return [[int(i)] for i in mixed]


@SAMPLERS.register(name="pairs")
class Pairs(EpochBatches):
    """Every original with one random fake of it: same frames, same augmentation.

    As in the recipes of Selim (2020) and NTech (2020).
    """

    unit_size = 2

    def __init__(
        self, tracks: pd.DataFrame, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(tracks, batch_size, seed, rank, world_size)
        ids = list(zip(tracks["source_id"], tracks["video_id"], tracks["track_id"], strict=True))
        by_place = {(video, track.removeprefix(video)): i for i, (_, video, track) in enumerate(ids)}
        fakes: dict[int, list[int]] = {}
        for i, (source, video, track) in enumerate(ids):
            original = by_place.get((source, track.removeprefix(video))) if source else None
            if original is not None:
                fakes.setdefault(original, []).append(i)
        if not fakes:
            raise ValueError(
                "SAMPLER.NAME pairs: this split has no fake together with its original's track; use "
                "balanced or shuffle"
            )
        self.fakes = dict(sorted(fakes.items()))

    def num_units(self) -> int:
        return len(self.fakes)

    def units(self, rng: np.random.Generator) -> list[list[int]]:
        originals = list(self.fakes)
        return [
            [originals[i], int(rng.choice(self.fakes[originals[i]]))] for i in rng.permutation(len(originals))
        ]
