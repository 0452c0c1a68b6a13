"""SlowFast: a slow pathway on few frames with many channels, a fast pathway on all frames with few channels
(Feichtenhofer et al. 2019).

The network is pytorchvideo's and keeps the parameter names of its model zoo; the split into pathways and the
pooling of the head are ours.
"""

from __future__ import annotations

import torch
from pytorchvideo.models.slowfast import create_slowfast
from torch import nn

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.registry import MODELS

DEPTHS = (18, 50, 101, 152)
MEAN, STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)  # of PySlowFast and of pytorchvideo's model zoo


def slow_indices(num_frames: int, alpha: int) -> torch.Tensor:
    """Indices of the `num_frames / alpha` frames of the slow pathway, evenly spaced from the first to the
    last frame and rounded down, as in PySlowFast.
    """
    return torch.linspace(0, num_frames - 1, num_frames // alpha, device="cpu").long()


class SlowFastNetwork(nn.Module):
    """(B, C, T, H, W) -> pathways (B, C, T/α, H, W) and (B, C, T, H, W) -> (B, K). T is any multiple of α."""

    def __init__(self, body: nn.Module, *, alpha: int) -> None:
        super().__init__()
        self.body, self.alpha = body, alpha

    def pathways(self, clip: torch.Tensor) -> list[torch.Tensor]:
        """The slow, then the fast pathway; a new list on every call, because the network modifies it."""
        num_frames = clip.shape[2]
        check_alpha_divides(num_frames, self.alpha)
        return [clip.index_select(2, slow_indices(num_frames, self.alpha).to(clip.device)), clip]

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.body(self.pathways(clip))


def check_alpha_divides(num_frames: int, alpha: int) -> None:
    if num_frames < alpha or num_frames % alpha:
        raise ValueError(
            f"slowfast: a clip of {num_frames} frames with alpha {alpha}: the number of frames must be a "
            "multiple of alpha"
        )


@MODELS.register(name="slowfast")
def slowfast(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 50,
    alpha: int = 8,
    beta_inv: int = 8,
    fusion_kernel: int = 7,
    fusion_ratio: int = 2,
    width: int = 64,
    dropout: float = 0.5,
) -> VideoClassifier:
    """SlowFast, two pathways at two frame rates (Feichtenhofer et al. 2019), as built by pytorchvideo.

    `depth` 18, 50, 101 or 152 (18 has one bottleneck block per stage); `alpha` fast frames per slow frame;
    the stem has `width` channels in the slow and `width / beta_inv` in the fast pathway. SlowFast 8x8: 32
    frames, alpha 4, fusion kernel 7; 4x16: 32 frames, alpha 8, fusion kernel 5.
    """
    if depth not in DEPTHS:
        raise ValueError(f"slowfast: depth {depth}, expected one of {', '.join(map(str, DEPTHS))}")
    if width % beta_inv:
        raise ValueError(
            f"slowfast: width {width} with beta_inv {beta_inv}: the fast pathway's width "
            f"{width}/{beta_inv} must be a whole number"
        )
    check_alpha_divides(num_frames, alpha)
    body = create_slowfast(
        slowfast_channel_reduction_ratio=(beta_inv,),
        slowfast_conv_channel_fusion_ratio=fusion_ratio,
        slowfast_fusion_conv_kernel_size=(fusion_kernel, 1, 1),
        slowfast_fusion_conv_stride=(alpha, 1, 1),
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_dim_outs=(width, width // beta_inv),
        # The library pools a window of fixed size; the global mean is equal at that size and defined at all
        # others.
        head_pool=nn.AdaptiveAvgPool3d,
        head_output_size=(1, 1, 1),
    )
    return VideoClassifier(
        SlowFastNetwork(body, alpha=alpha),
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=MEAN,
        std=STD,
        head_names=("network.body.blocks.6.proj",),
        cam_layer="network.body.blocks.4.multipathway_blocks.0",
        uses_time=True,
        # of the slow pathway
        map_layers=tuple(f"network.body.blocks.{number}.multipathway_blocks.0" for number in range(5)),
    )
