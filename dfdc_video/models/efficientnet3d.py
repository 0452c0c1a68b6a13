"""EfficientNet with temporal convolutions in its expansions: NTech's sequence model (third place of DFDC).

The 1x1 expansion of every MBConv block becomes a (k, 1, 1) convolution, the 3x3 expansion of a fused MBConv
(EfficientNetV2) a (k, 3, 3) one; everything else stays 2D with the frames folded into the batch. With its 2D
weights divided by k in each tap, the network gives the frame model's logits on a constant clip.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same
from timm.models._efficientnet_blocks import EdgeResidual, InvertedResidual
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
from dfdc_video.registry import MODELS, nearest

PADDINGS = ("zero", "replicate")
STARTS = ("inflate", "difference")
# by type, because other blocks call their projection conv_pw
EXPANSIONS = {InvertedResidual: "conv_pw", EdgeResidual: "conv_exp"}


class TemporalConv(nn.Conv3d):
    """A 3D convolution on frames folded into the batch: (B·T, C, H, W) -> (B·T, D, H', W')."""

    num_frames = 1  # T; set by the network before each pass, because a folded tensor does not carry it
    same = False  # TensorFlow's "same" padding in space, computed from the size of the input
    replicate = False  # pad in time with the first and the last frame instead of zeros

    @classmethod
    def inflate(cls, conv: nn.Conv2d, *, kernel: int, padding: str, start: str) -> TemporalConv:
        """From a Conv2d, with taps as `start` says: `inflate` (see `inflated`) or `difference`."""
        same = isinstance(conv, Conv2dSame)
        spatial = (0, 0) if same else conv.padding
        new = cls(
            conv.in_channels,
            conv.out_channels,
            (kernel, conv.kernel_size[0], conv.kernel_size[1]),
            stride=(1, conv.stride[0], conv.stride[1]),
            padding=(kernel // 2 if padding == "zero" else 0, *spatial),
            bias=False,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        new.same, new.replicate = same, padding == "replicate"
        with torch.no_grad():
            new.weight.copy_((inflated if start == "inflate" else differences)(conv.weight, kernel))
        return new

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if self.same:
            frames = pad_same(frames, list(self.kernel_size[1:]), list(self.stride[1:]))
        clip = frames.unflatten(0, (-1, self.num_frames)).transpose(1, 2)  # (B, C, T, H, W)
        if self.replicate:
            reach = self.kernel_size[0] // 2
            clip = torch.cat((*[clip[:, :, :1]] * reach, clip, *[clip[:, :, -1:]] * reach), dim=2)
        return fold(super().forward(clip))


def inflated(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    """(D, C, h, w) -> (D, C, kernel, h, w), divided by `kernel`: the same response to a constant clip."""
    return weight.unsqueeze(2).repeat(1, 1, kernel, 1, 1) / kernel


def differences(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    """As `inflated`, but every second output channel is the change of the 2D response from frame to frame.

    Equal taps are a low-pass filter over time: trained from scratch, a network that starts with them learns
    appearance first and may never use time.
    """
    new = inflated(weight, kernel)
    new[1::2] = 0
    new[1::2, :, kernel // 2] = weight[1::2]
    new[1::2, :, kernel // 2 - 1] = -weight[1::2]
    return new


class EfficientNet3dNetwork(nn.Module):
    """(B, C, T, H, W) -> logits per frame (B, T, K) -> their mean (B, K)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def frame_logits(self, clip: torch.Tensor) -> torch.Tensor:
        for module in self.backbone.modules():
            if isinstance(module, TemporalConv):
                module.num_frames = clip.shape[2]
        return self.backbone(fold(clip)).unflatten(0, (clip.shape[0], clip.shape[2]))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.frame_logits(clip).mean(1)


def parse_blocks(blocks: str, count: int) -> list[int]:
    """Stage numbers from "all", "0-3" or "1,4,5"; `count` is the number of stages."""
    if blocks == "all":
        return list(range(count))
    numbers: list[int] = []
    for part in str(blocks).split(","):
        low, _, high = part.strip().partition("-")
        if not low.isdigit() or not (high or low).isdigit() or not int(low) <= int(high or low) < count:
            raise ValueError(
                f"efficientnet3d: blocks '{blocks}': expected 'all', a range '0-{count - 1}' or a list "
                f"'1,2' of stages below {count}"
            )
        numbers.extend(range(int(low), int(high or low) + 1))
    return sorted(set(numbers))


def add_time(backbone: Any, *, kernel: int, blocks: str, padding: str, start: str) -> int:
    """Inflate the expansions of the chosen stages in place and return their number (blocks with expand ratio
    1 have none).
    """
    stages_2d = list(backbone.blocks)
    count = 0
    for number in parse_blocks(blocks, len(stages_2d)):
        for block in stages_2d[number]:
            name = EXPANSIONS.get(type(block), "")
            conv = getattr(block, name, None)
            if conv is None or conv.in_channels == conv.out_channels:
                continue
            if (
                type(conv) not in (nn.Conv2d, Conv2dSame)
                or conv.groups != 1
                or conv.bias is not None
                or conv.dilation != (1, 1)
            ):
                raise ValueError(
                    f"efficientnet3d: an expansion of this backbone is {conv}, expected a plain Conv2d "
                    "without bias"
                )
            setattr(block, name, TemporalConv.inflate(conv, kernel=kernel, padding=padding, start=start))
            count += 1
    return count


def check_settings(kernel: int, padding: str, start: str, pretrained: bool) -> None:
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"efficientnet3d: kernel {kernel}, expected an odd number of frames, 3 or more")
    if padding not in PADDINGS:
        raise ValueError(f"efficientnet3d: padding '{padding}'; {nearest(padding, PADDINGS)}")
    if start not in STARTS:
        raise ValueError(f"efficientnet3d: start '{start}'; {nearest(start, STARTS)}")
    if start == "difference" and pretrained:
        raise ValueError(
            "efficientnet3d: start difference changes what the pretrained network computes; set START "
            "inflate or PRETRAINED False"
        )


@MODELS.register(name="efficientnet3d")
def efficientnet3d(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    backbone: str = "tf_efficientnet_b0",
    pretrained: bool = False,
    kernel: int = 3,
    blocks: str = "all",
    padding: str = "zero",
    start: str = "inflate",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    static_padding_px: int = 0,
) -> VideoClassifier:
    """EfficientNet with (k, 1, 1) Conv3d expansions, frame logits averaged (NTech, third place of DFDC 2020).

    NTech: B7 Noisy Student, 7 frames 1/15 s apart, 224 x 192 pixels, kernel 3, zero padding, in every block
    with an expand ratio other than 1. `blocks` selects stages: "all", "0-3" or "1,4,5". `padding` in time:
    zero (as published) or replicate. `start` initialises the temporal kernels: `inflate` divides the 2D
    weights by k in each tap (as published; for pretrained weights); `difference` makes every second channel a
    frame-to-frame difference (for training from scratch, best with replicate padding). `static_padding_px`
    above 0 pads in space as efficientnet_pytorch does for images of that size, which NTech's weights need:
    224 for B0, 600 for B7 (see `padding`).
    """
    check_settings(kernel, padding, start, pretrained)
    network, config = timm_backbone(
        backbone,
        num_classes=num_classes,
        size=size,
        pretrained=pretrained,
        dropout=dropout,
        drop_path=drop_path,
    )
    if not hasattr(network, "blocks") or not hasattr(network, "conv_stem"):
        raise ValueError(
            f"efficientnet3d: backbone {backbone} is no EfficientNet; expected one with MBConv blocks, "
            "for example tf_efficientnet_b0"
        )
    if static_padding_px:
        pad_statically(network, static_padding_px)
    if not add_time(network, kernel=kernel, blocks=blocks, padding=padding, start=start):
        raise ValueError(
            f"efficientnet3d: no MBConv expansion in blocks '{blocks}' of {backbone}: nothing would see "
            "time; set blocks all"
        )
    return VideoClassifier(
        EfficientNet3dNetwork(network),
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=config["mean"],
        std=config["std"],
        head_names=classifier_names(config, "network.backbone."),
        cam_layer="network.backbone." + timm_stages(network)[-1]["module"],
        uses_time=True,
        map_layers=stage_modules(network, "network.backbone."),
    )
