"""A bag of frames: any timm network applied to each frame, the frame logits averaged.

The baseline for every sequence model. It receives the same clip as its sequence twin, but is invariant to the
order of the frames.
"""

from __future__ import annotations

import torch
from torch import nn

from dfdc_video.models.classifier import (
    VideoClassifier,
    classifier_names,
    fold,
    stage_modules,
    timm_backbone,
    timm_stages,
)
from dfdc_video.models.padding import pad_statically
from dfdc_video.registry import MODELS


def unordered_mean(values: torch.Tensor) -> torch.Tensor:
    """(B, T, …) -> (B, …): the mean over frames, invariant to their order to the last bit.

    A floating-point sum depends on the order of its terms, so the values are sorted first.
    """
    return values.sort(1).values.mean(1)


class FrameNetwork(nn.Module):
    """(B, C, T, H, W) -> (B, K): `backbone` maps (N, C, H, W) to (N, K)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def frame_logits(self, clip: torch.Tensor) -> torch.Tensor:
        return self.backbone(fold(clip)).unflatten(0, (clip.shape[0], clip.shape[2]))  # (B, T, K)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return unordered_mean(self.frame_logits(clip))


@MODELS.register(name="frame")
def frame(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    backbone: str = "resnet18",
    pretrained: bool = False,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    static_padding_px: int = 0,
) -> VideoClassifier:
    """Bag of frames: any timm network, frame logits averaged over the clip.

    The usual detector of the DFDC solutions (ResNet-18, Xception or EfficientNet-B7 per frame, averaged per
    video). `static_padding_px` above 0 pads a tf_efficientnet as efficientnet_pytorch does for images of that
    size (see `padding`).
    """
    network, config = timm_backbone(
        backbone,
        num_classes=num_classes,
        size=size,
        pretrained=pretrained,
        dropout=dropout,
        drop_path=drop_path,
    )
    if static_padding_px:
        pad_statically(network, static_padding_px)
    return VideoClassifier(
        FrameNetwork(network),
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=config["mean"],
        std=config["std"],
        head_names=classifier_names(config, "network.backbone."),
        cam_layer="network.backbone." + timm_stages(network)[-1]["module"],
        uses_time=False,
        map_layers=stage_modules(network, "network.backbone."),
    )
