"""Callbacks of a run: exact resumption, logged learning rates, freezing, sample clips."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from dfdc_video.media.writer import VideoWriter
from dfdc_video.training.freezer import Freezer
from dfdc_video.training.schedules import base_rate


class RandomState(Callback):
    """Stores the state of every random generator in the checkpoint and restores it right before the first
    batch after resuming.

    Not earlier, since building the loaders and the sanity check consume random numbers, too.
    """

    def __init__(self) -> None:
        self.restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        numpy: Any = np.random.get_state()
        return {
            # text and tensors only: checkpoints are read with weights_only
            "python": repr(random.getstate()),
            "numpy": {
                "keys": torch.from_numpy(np.asarray(numpy[1], dtype=np.int64)),
                "rest": [numpy[0], *numpy[2:]],
            },
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restored = state

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        state, self.restored = self.restored, None
        if state is None:
            return
        import ast

        random.setstate(ast.literal_eval(state["python"]))
        name, *rest = state["numpy"]["rest"]
        np.random.set_state((name, state["numpy"]["keys"].numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


class LearningRates(Callback):
    """Logs the base learning rate of the last step of every epoch as `lr`."""

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module.log(
            "lr",
            base_rate(trainer.optimizers[0]),
            on_step=False,
            on_epoch=True,
            reduce_fx="max",
            batch_size=1,
        )


class Freezing(Callback):
    """Applies the freezing policy before every step. The global step alone decides, so that resuming needs no
    extra state.
    """

    def __init__(self, freezer: Freezer) -> None:
        self.freezer = freezer

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.freezer.apply(trainer.global_step)


class SampleClips(Callback):
    """Writes the first clips of the first training batch, where it has frames, as small videos, once: the
    input of the model, augmentation included.
    """

    def __init__(self, file_of: Callable[[str, int], Path], *, fps: float, most: int = 8) -> None:
        """`file_of` gives the file for a clip of (video_id, label); at most `most` clips are written."""
        self.file_of, self.fps, self.most = file_of, fps, most

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        first = batch_idx == 0 and trainer.current_epoch == 0 and trainer.is_global_zero
        if not first or batch["frames"] is None:
            return
        files = self._write(batch["frames"], batch["label"].tolist(), batch["video_id"])
        for logger in trainer.loggers:
            if hasattr(logger, "log_video"):
                logger.log_video("samples", [str(f) for f in files], format=["mp4"] * len(files))

    def _write(self, frames: torch.Tensor, labels: Sequence[int], video_ids: Sequence[str]) -> list[Path]:
        """Frames (B, C, T, H, W) uint8 -> one video per clip, cropped to an even size as the codec needs."""
        files = []
        for clip, label, video_id in list(zip(frames, labels, video_ids, strict=True))[: self.most]:
            file = self.file_of(video_id, label)
            images = clip.permute(1, 2, 3, 0).cpu().numpy()
            height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
            with VideoWriter(file, fps=self.fps) as writer:
                for image in images:
                    writer.add(image[:height, :width])
            files.append(file)
        return files
