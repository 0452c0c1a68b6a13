"""The training step, and a validation that matches the test: deterministic views, video-level metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch import nn

from dfdc_video.evaluation.metrics import video_metrics
from dfdc_video.evaluation.pooling import pool_predictions, probabilities
from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.mask import logits_and_masks, mask_target
from dfdc_video.training.losses import MaskOverlap, mask_loss
from dfdc_video.training.schedules import LRSchedule, set_rate

log = logging.getLogger(__name__)
Batch = dict[str, Any]


class NonFiniteLoss(ValueError):
    """The loss became NaN or infinite; the message names the step and the videos of its batch."""


class TooManyBadClips(ValueError):
    """More clips than allowed could not be read."""


class ClassifierModule(L.LightningModule):
    """A classifier with its loss, optimiser and learning-rate schedule, as a LightningModule.

    `videos` maps the name of each scored split (val, test) to its table (video_id, label, method, group_id,
    status). With a `mask_weight` above 0 the model also learns which pixels were altered: `mask_weight` times
    the mask loss is added to the classification loss.
    """

    def __init__(
        self,
        model: VideoClassifier,
        *,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr_schedule: LRSchedule | None,
        videos: dict[str, pd.DataFrame],
        pooling: str,
        max_bad_fraction: float,
        mask_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.mask_weight, self.overlap = mask_weight, MaskOverlap()
        self.model, self.loss, self.make_optimizer, self.lr_schedule = model, loss, optimizer, lr_schedule
        self.videos, self.pooling, self.max_bad_fraction = videos, pooling, max_bad_fraction
        self.rows: list[dict[str, Any]] = []
        self.bad: dict[str, str] = {}  # track_id -> why it could not be read
        self.num_seen = 0
        self.predictions = pd.DataFrame()
        self.mask_iou = float("nan")

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.model(frames)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.lr_schedule is not None
        return self.make_optimizer(self.model, self.lr_schedule.lr)

    def _note_errors(self, batch: Batch) -> None:
        self.num_seen += len(batch["video_id"]) + len(batch["errors"])
        for track_id, error in batch["errors"]:
            if track_id not in self.bad:
                log.warning("track %s cannot be read and is left out: %s", track_id, error)
            self.bad[track_id] = error
        allowed = max(1, int(self.max_bad_fraction * max(self.num_seen, 100)))
        if len(self.bad) > allowed:
            first = next(iter(self.bad.items()))
            raise TooManyBadClips(
                f"{len(self.bad)} tracks cannot be read (first: {first[0]}: {first[1]}); "
                f"DATA.MAX_BAD_FRACTION {self.max_bad_fraction} "
                "allows fewer; run `dfdc-video prepare` again"
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self.lr_schedule is not None:
            set_rate(self.optimizers(use_pl_optimizer=False), self.lr_schedule(self.global_step))  # type: ignore[arg-type]

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor | None:
        self._note_errors(batch)
        if not len(batch["label"]):
            return None
        logits, masks = self._forward(batch)
        loss = self.loss(logits, batch["label"])
        if masks is not None:
            of_masks = mask_loss(masks, mask_target(batch["mask"], masks.shape), batch["mask_known"])
            self.log(
                "train/mask_loss", of_masks, on_step=False, on_epoch=True, batch_size=len(batch["label"])
            )
            loss = loss + self.mask_weight * of_masks
        if not torch.isfinite(loss):
            raise NonFiniteLoss(
                f"the loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch}); its "
                "batch holds the videos "
                f"{', '.join(batch['video_id'])}; lower OPTIM.LR, set TRAIN.GRAD_CLIP 1, or use "
                "TRAIN.PRECISION 32-true"
            )
        self.log(
            "train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch["label"])
        )
        return loss

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits (B, K), and mask logits (B, T', h, w) if the model learns masks."""
        if "embeddings" in batch:
            return self.model.from_embeddings(batch["embeddings"]).float(), None
        if not self.mask_weight:
            return self.model(batch["frames"]).float(), None
        logits, masks = logits_and_masks(self.model, batch["frames"])
        return logits.float(), masks.float()

    def _score(self, batch: Batch) -> None:
        self._note_errors(batch)
        if not len(batch["label"]):
            return
        logits, masks = self._forward(batch)
        if masks is not None:
            self.overlap.add(
                masks, mask_target(batch["mask"], masks.shape), batch["mask_known"] & (batch["label"] > 0)
            )
        for i, row in enumerate(logits.cpu().numpy()):
            entry = {k: batch[k][i] for k in ("video_id", "track_id", "start_frame")}
            self.rows.append(
                {
                    **entry,
                    "label": int(batch["label"][i]),
                    **{f"logit_{k}": float(v) for k, v in enumerate(row)},
                }
            )

    def _collect(self, split: str) -> dict[str, float]:
        """Return the metrics of the pooled videos; keep the predictions in `self.predictions` and the mask
        overlap in `self.mask_iou`.
        """
        rows, self.rows = self.rows, []
        self.mask_iou, self.overlap = self.overlap.value(), MaskOverlap()
        if not rows:
            raise TooManyBadClips(
                f"no clip of the {split} split could be read; run `dfdc-video prepare` again"
            )
        self.predictions = pd.DataFrame(rows).sort_values(["track_id", "start_frame"]).reset_index(drop=True)
        bad_logits = ~np.isfinite(self.predictions.filter(like="logit_").to_numpy()).all(axis=1)
        if bad_logits.any():
            video = self.predictions.loc[bad_logits, "video_id"].iloc[0]
            raise NonFiniteLoss(
                f"the model returns NaN or infinity for {int(bad_logits.sum())} clips of {split} "
                f"(first: video {video}); lower OPTIM.LR"
            )
        scores = pool_predictions(self.predictions, self.videos[split], pooling=self.pooling)
        return video_metrics(scores["label"].to_numpy(), probabilities(scores))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        metrics = self._collect("val")
        self.log_dict({f"video/{k}": float(v) for k, v in metrics.items() if np.isfinite(v)}, prog_bar=True)
        if np.isfinite(self.mask_iou):
            self.log("mask/iou", self.mask_iou)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_test_epoch_end(self) -> None:
        self._collect("test")
