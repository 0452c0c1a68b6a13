"""Losses: (logits (B, K), label (B,) int64) -> scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dfdc_video.registry import LOSSES


@LOSSES.register(name="cross_entropy")
class CrossEntropy(nn.Module):
    """Softmax cross-entropy, optionally with label smoothing."""

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"LOSS.LABEL_SMOOTHING = {label_smoothing}: expected 0 or more and below 1")
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, label, label_smoothing=self.label_smoothing)


@LOSSES.register(name="focal")
class Focal(nn.Module):
    """Focal loss (Lin et al. 2017): cross-entropy times (1 - p)^gamma, which down-weights easy clips.

    Gamma 0 is cross-entropy.
    """

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"LOSS.GAMMA = {gamma}: expected 0 or more")
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        log_p = F.log_softmax(logits, dim=1).gather(1, label[:, None])[:, 0]
        return (-((1 - log_p.exp()) ** self.gamma) * log_p).mean()


def mask_loss(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of mask logits (B, T, h, w) against the altered share of each cell, averaged over
    the clips whose mask is `known` (B,); 0, without a gradient, if there is none.
    """
    per_clip = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)
    return (per_clip * known).sum() / known.sum().clamp(min=1)


class MaskOverlap:
    """Intersection over union of predicted and true altered cells, pooled over all fakes with a known mask.

    A cell counts as altered if at least half of it is.
    """

    def __init__(self) -> None:
        self.intersection, self.union = 0, 0

    def add(self, logits: torch.Tensor, target: torch.Tensor, counts: torch.Tensor) -> None:
        """Logits and target (B, T, h, w); `counts` (B,) bool selects the clips that are counted."""
        ours, true = logits[counts] > 0, target[counts] >= 0.5
        self.intersection += int((ours & true).sum())
        self.union += int((ours | true).sum())

    def value(self) -> float:
        """NaN if there is neither a true nor a predicted altered cell."""
        return self.intersection / self.union if self.union else float("nan")
