"""Learned pooling of an unordered bag of frames, on a frozen frame model.

It learns what averaging the frames discards: which frames to weight (attention) or how their scores are
distributed (order statistics). Like the frame model it is invariant to the order of the frames, to the last
bit. Axes: B clips, T frames, D features per frame, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dfdc_video.models.classifier import VideoClassifier, classifier_names, fold, timm_backbone, timm_stages
from dfdc_video.models.frame import unordered_mean
from dfdc_video.registry import MODELS, nearest

INPUTS = ("features", "predictions")
POOLS = ("mean", "attention", "order")
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_STATISTICS = len(QUANTILES) + 2


class GatedAttention(nn.Module):
    """(B, T, F) -> (B, F): mean of the frames h, weighted by the softmax over T of w·(tanh(V h) ⊙
    sigmoid(U h)) (Ilse et al. 2018).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)  # softmax is invariant to a bias

    def weights(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, T, 1); the weights of a clip sum to 1."""
        return self.score(self.value(frames).tanh() * self.gate(frames).sigmoid()).softmax(1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return (self.weights(frames) * frames).sum(1)


def order_statistics(values: torch.Tensor) -> torch.Tensor:
    """(B, T, D) -> (B, 7, D): minimum, quartiles, maximum, mean and standard deviation over the frames, per
    channel.

    Quantiles are interpolated linearly, so they exist for any number of frames; the standard deviation is the
    uncorrected one (divided by T). All are computed from sorted values and so exactly independent of the
    order of the frames.
    """
    ordered = values.sort(1).values
    rows = []
    for quantile in QUANTILES:
        position = quantile * (values.shape[1] - 1)
        low = int(position)
        high = min(low + 1, values.shape[1] - 1)
        rows.append(torch.lerp(ordered[:, low], ordered[:, high], position - low))
    mean = ordered.mean(1)
    variance = (ordered - mean[:, None]).square().mean(1)
    # the square root has an infinite gradient at 0, which constant clips would reach
    return torch.stack((*rows, mean, variance.clamp_min(1e-12).sqrt()), dim=1)


def in_canonical_order(frames: torch.Tensor) -> torch.Tensor:
    """(B, T, D) -> the same frames in an order that depends on their values only.

    Frames are sorted by an integer hash of their values. The same bag of frames thus becomes the same tensor,
    and everything computed from it is equal to the last bit. Different frames collide about once in 2^64
    pairs.
    """
    mantissa, exponent = frames.detach().float().frexp()
    exact = (mantissa * 2**24).long() * 512 + exponent  # (B, T, D), a different integer for every float32
    # 2^64 divided by the golden ratio, as a signed integer
    salt = torch.arange(1, frames.shape[2] + 1, device=frames.device) * -7046029254386353131
    salt = (salt ^ (salt >> 29)) | 1
    order = (exact * salt).sum(2).argsort(1)  # (B, T)
    return frames.gather(1, order[:, :, None].expand_as(frames))


class AggregatorNetwork(nn.Module):
    """(B, C, T, H, W) -> backbone per frame -> bag (B, T, D) -> mean, attention or order statistics -> (B,
    K).
    """

    def __init__(
        self,
        backbone: Any,
        *,
        dim: int,
        num_classes: int,
        inputs: str,
        pool: str,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.backbone, self.inputs, self.pool = backbone, inputs, pool
        self.attention = GatedAttention(hidden) if pool == "attention" else None
        # Applied per frame before attention, and to the pooled vector otherwise. Features have an arbitrary
        # scale; that of log-probabilities is meaningful and is kept.
        self.projection = nn.Sequential(
            nn.Linear(dim * NUM_STATISTICS if pool == "order" else dim, hidden),
            nn.LayerNorm(hidden) if inputs == "features" else nn.Identity(),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_classes)

    def embedding_name(self) -> str:
        """Which output of the backbone `embed` returns."""
        return "log-probabilities" if self.inputs == "predictions" else "pooled features"

    def embed(self, clip: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> features or log-probabilities per frame (B, T, D)."""
        frames = self.backbone(fold(clip))
        if self.inputs == "predictions":
            frames = frames.log_softmax(1)
        return frames.unflatten(0, (clip.shape[0], clip.shape[2]))

    def from_embeddings(self, bag: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, K)."""
        bag = bag.to(self.head.weight.dtype)  # in mixed precision a quantile would have three digits
        return self.head(self.dropout(self.pooled(bag)))

    def pooled(self, bag: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, hidden)."""
        if self.attention:
            return self.attention(self.projection(in_canonical_order(bag)))
        return self.projection(
            order_statistics(bag).flatten(1) if self.pool == "order" else unordered_mean(bag)
        )

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.from_embeddings(self.embed(clip))


@MODELS.register(name="aggregator")
def aggregator(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    backbone: str = "resnet18",
    pretrained: bool = False,
    inputs: str = "features",
    pool: str = "attention",
    hidden: int = 128,
    dropout: float = 0.0,
) -> VideoClassifier:
    """Learned pooling of a bag of frames on a frozen frame model.

    `inputs`: the pooled `features` of the backbone, or `predictions`, the log-probabilities of a trained
    frame model (MODEL.INIT_FROM, with its classifier). `pool`: gated `attention` over the frames (Ilse et al.
    2018); `order`, the quantiles, mean and standard deviation of each channel over the clip; or `mean`, a
    control with the same additional layer but plain averaging.
    """
    for setting, value, known in (("inputs", inputs, INPUTS), ("pool", pool, POOLS)):
        if value not in known:
            raise ValueError(f"aggregator: {setting} '{value}'; {nearest(value, known)}")
    if hidden < 1:
        raise ValueError(f"aggregator: hidden {hidden}, expected the number of units, 1 or more")
    predictions = inputs == "predictions"
    if predictions and pretrained:
        raise ValueError(
            "aggregator: inputs predictions with pretrained: ImageNet's classifier has other classes; "
            "set MODEL.PRETRAINED False MODEL.INIT_FROM <checkpoint of a frame model>"
        )
    net, config = timm_backbone(
        backbone, num_classes=num_classes if predictions else 0, size=size, pretrained=pretrained
    )
    classifier = classifier_names(config, "network.backbone.")
    dim = num_classes if predictions else net.num_features
    return VideoClassifier(
        AggregatorNetwork(
            net, dim=dim, num_classes=num_classes, inputs=inputs, pool=pool, hidden=hidden, dropout=dropout
        ),
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=config["mean"],
        std=config["std"],
        head_names=("network.head",),
        cam_layer="network.backbone." + timm_stages(net)[-1]["module"],
        uses_time=False,
        new_names=("network.projection", "network.attention")
        if pool == "attention"
        else ("network.projection",),
        unused={}
        if predictions
        else dict.fromkeys(classifier, "classifier of the frame model; the aggregator has its own"),
        frozen_names=("network.backbone",),
    )
