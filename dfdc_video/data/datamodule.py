"""Loaders of a prepared data set.

Training can resume in the middle of an epoch; validation and test are deterministic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import lightning as L
import pandas as pd
import torch
from torch.utils.data import DataLoader

from dfdc_video.data.dataset import ClipDataset, collate, whole_track
from dfdc_video.data.embeddings import embed_tracks
from dfdc_video.data.samplers import EpochBatches
from dfdc_video.data.sampling import ClipSpec
from dfdc_video.data.transforms import Augmentation
from dfdc_video.folders.cache import Arrays
from dfdc_video.folders.manifest import Manifest

log = logging.getLogger(__name__)


def one_thread(worker: int) -> None:
    """Workers are the parallelism: more threads in each would only compete for the same cores."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


class ResumableLoader(DataLoader):
    """Counts its batches.

    Lightning saves the count in checkpoints and restores it when a run resumes inside an epoch. A plain
    DataLoader would start the epoch from the beginning there, and the run would silently train on the wrong
    clips.
    """

    def __init__(self, dataset: ClipDataset, batches: EpochBatches, **kwargs: Any) -> None:
        # a generator of its own: the base class would take a seed from the global one at every start, which
        # would change all random numbers after it
        super().__init__(
            dataset, batch_sampler=batches, generator=torch.Generator(), collate_fn=collate, **kwargs
        )
        self.handed_out = 0
        self.resume_at: dict[str, int] = {}

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # a checkpoint after the last batch of an epoch resumes at the first batch of the next one
        state, self.resume_at = self.resume_at, {}
        first = state["handed_out"] if state.get("epoch") == self.batch_sampler.epoch else 0  # type: ignore[union-attr]
        self.batch_sampler.start = first  # type: ignore[union-attr]
        self.handed_out = first
        for batch in super().__iter__():
            self.handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"handed_out": self.handed_out, "epoch": self.batch_sampler.epoch}  # type: ignore[union-attr]

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resume_at = dict(state)


class ClipData(L.LightningDataModule):
    """Train, val and test loaders over a manifest."""

    def __init__(
        self,
        manifest: Manifest,
        spec: ClipSpec,
        *,
        sampler: Callable[..., EpochBatches],
        augment: Augmentation | None,
        batch_size: int,
        test_batch_size: int,
        num_clips: int,
        seed: int,
        num_workers: int,
        decoder: str,
        cache: bool,
        masks: float | None = None,
    ) -> None:
        """`masks` is the threshold of difference masks in grey levels; None for a model that does not learn
        from them.
        """
        super().__init__()
        self.embeddings: Arrays | None = None  # once `embed` has computed them
        self.manifest, self.spec, self.sampler, self.augment = manifest, spec, sampler, augment
        self.batch_size, self.test_batch_size = batch_size, test_batch_size
        self.num_clips, self.seed, self.num_workers = num_clips, seed, num_workers
        self.decoder, self.cache, self.masks = decoder, cache, masks

    def dataset(self, split: str) -> ClipDataset:
        """The clips of a split; ValueError where it has none or, for training, one class only."""
        training = split == "train"
        tracks = self.manifest.tracks_of(split)
        dataset = ClipDataset(
            self.manifest.root,
            tracks,
            self.spec,
            num_views=0 if training else self.num_clips,
            augment=self.augment if training else None,
            decoder=self.decoder,
            cache=self.cache,
            masks=self.masks,
            embeddings=self.embeddings,
        )
        if not len(dataset):
            why = f"all {len(tracks)} tracks are shorter than the clip" if len(tracks) else "no track"
            raise ValueError(
                f"{self.manifest.root}: the {split} split has {why}; prepare more videos or change "
                "--ratios or CLIP"
            )
        classes = dataset.tracks["label"].nunique()
        if training and classes < 2:
            only = dataset.tracks["label"].iloc[0]
            raise ValueError(
                f"{self.manifest.root}: the train split has one class only (label {only}); a classifier "
                "needs two"
            )
        if self.masks is not None and training:
            self._check_masks(dataset)
        if dataset.num_short:
            policy = "left out" if self.spec.short == "drop" else f"filled by {self.spec.short}"
            counts = (dataset.num_short, len(tracks))
            log.warning("%s: %d of %d tracks are shorter than a clip, %s", split, *counts, policy)
        return dataset

    def _check_masks(self, dataset: ClipDataset) -> None:
        """ValueError where no fake has a difference mask; a warning where some lack one."""
        labels = dataset.tracks["label"]
        fakes = [known for known, label in zip(dataset.has_mask, labels, strict=True) if label]
        if not any(fakes):
            raise ValueError(
                f"{self.manifest.root} has no difference mask of any fake: prepare it with --masks, or set "
                "MASK.WEIGHT 0"
            )
        if not all(fakes):
            counts = (fakes.count(False), len(fakes))
            log.warning("%d of %d tracks of fakes have no difference mask: classification loss only", *counts)

    def embed(
        self,
        splits: Sequence[str],
        *,
        key: str,
        embed: Callable[[torch.Tensor], torch.Tensor],
        progress: Any = None,
    ) -> None:
        """Compute a frozen network's per-frame embeddings of these splits, once (see `embed_tracks`).

        From then on clips consist of them.
        """
        tracks = pd.concat([self.manifest.tracks_of(split) for split in splits], ignore_index=True)
        read = partial(whole_track, height=self.spec.height, width=self.spec.width, decoder=self.decoder)
        self.embeddings = embed_tracks(
            self.manifest.root, tracks, key=key, embed=embed, read=read, progress=progress, **self._workers()
        )

    def _workers(self) -> dict[str, Any]:
        if not self.num_workers:
            return {}
        return {
            "num_workers": self.num_workers,
            "worker_init_fn": one_thread,
            "persistent_workers": True,
            "prefetch_factor": 2,
        }

    def train_dataloader(self) -> ResumableLoader:
        dataset = self.dataset("train")
        return ResumableLoader(
            dataset, self.sampler(dataset.tracks, self.batch_size, self.seed), **self._workers()
        )

    def views(self, split: str) -> DataLoader:
        """A loader of every view of a split, in order."""
        dataset = self.dataset(split)
        return DataLoader(
            dataset,
            batch_size=self.test_batch_size,
            collate_fn=collate,
            generator=torch.Generator(),
            **self._workers(),
        )

    def val_dataloader(self) -> DataLoader:
        return self.views("val")

    def test_dataloader(self) -> DataLoader:
        return self.views("test")
