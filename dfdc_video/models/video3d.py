"""Convolutional video networks of pytorchvideo: Slow, C2D, I3D, CSN, R(2+1)D and X3D, with the names of its
model zoo.

The networks are the library's, under `network.body.`. The head is ours: it averages over all remaining
positions (the library pools a window of the size that its weights were trained at, which gives the same
result at that size) and returns logits (the library's X3D and R(2+1)D end in a softmax even in training). So
one model accepts any clip length and crop size.

Axes: B clips, C = 3 colours (RGB), T frames, H x W pixels, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.r2plus1d import create_r2plus1d
from pytorchvideo.models.resnet import create_resnet
from pytorchvideo.models.x3d import create_x3d
from torch import nn

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.frame import unordered_mean
from dfdc_video.models.slowfast import MEAN, STD
from dfdc_video.registry import MODELS

DEPTHS = (50, 101, 152)
MEAN_OVER_ALL = {"head_pool": nn.AdaptiveAvgPool3d, "head_output_size": (1, 1, 1)}


class VideoNetwork(nn.Module):
    """(B, C, T, H, W) -> (B, K): a network of pytorchvideo that needs at least `min_frames` frames."""

    def __init__(self, body: nn.Module, *, min_frames: int = 1) -> None:
        super().__init__()
        self.body, self.min_frames = body, min_frames

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        check_min_frames(clip.shape[2], self.min_frames)
        return self.body(clip)


class MeanOfFrames(nn.Module):
    """(B, C, T, h, w) -> (B, C, 1, 1, 1): the global mean, exactly invariant to the order of the frames."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return unordered_mean(maps.mean((3, 4)).transpose(1, 2))[:, :, None, None, None]


def check_min_frames(num_frames: int, min_frames: int) -> None:
    if num_frames < min_frames:
        raise ValueError(
            f"a clip of {num_frames} frames: the network pools neighbouring frames and needs at least "
            f"{min_frames}"
        )


def check_resnet(name: str, depth: int, width: int) -> None:
    if depth not in DEPTHS:
        raise ValueError(f"{name}: depth {depth}, expected one of {', '.join(map(str, DEPTHS))}")
    if width < 1:
        raise ValueError(
            f"{name}: width {width}, expected the number of channels of the stem, 64 in the published "
            "networks"
        )


def classifier_of(
    body: nn.Module,
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    min_frames: int = 1,
    uses_time: bool = True,
) -> VideoClassifier:
    """The model around a network whose `blocks` are stem, stages and head, in this order."""
    check_min_frames(num_frames, min_frames)
    blocks: Any = body.blocks
    last = len(blocks) - 1
    return VideoClassifier(
        VideoNetwork(body, min_frames=min_frames),
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=MEAN,
        std=STD,
        head_names=(f"network.body.blocks.{last}.proj",),
        cam_layer=f"network.body.blocks.{last - 1}",
        uses_time=uses_time,
        map_layers=tuple(
            f"network.body.blocks.{number}"
            for number in range(last)
            if any(True for _ in blocks[number].parameters())
        ),
    )


@MODELS.register(name="slow")
def slow(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 50,
    width: int = 64,
    dropout: float = 0.5,
) -> VideoClassifier:
    """Slow pathway of SlowFast: temporal kernels in the last two stages (Feichtenhofer et al. 2019).

    A ResNet of `depth` 50, 101 or 152 with `width` channels in its stem. Slow 8x8: 8 frames, every 8th source
    frame; 4x16: 4 frames, every 16th.
    """
    check_resnet("slow", depth, width)
    body = create_resnet(
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_dim_out=width,
        stem_conv_kernel_size=(1, 7, 7),
        **MEAN_OVER_ALL,
    )
    return classifier_of(body, num_classes, num_frames, size)


@MODELS.register(name="c2d")
def c2d(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 50,
    width: int = 64,
    dropout: float = 0.5,
    pool_time: bool = True,
) -> VideoClassifier:
    """C2D: a 2D ResNet per frame, features averaged over the clip (Wang et al. 2018).

    The control without temporal kernels. `pool_time`: max pooling over pairs of neighbouring frames after the
    first stage, as in the published weights, the only operation that depends on the order of the frames;
    without it the network is a bag of frames.
    """
    check_resnet("c2d", depth, width)
    body = create_resnet(
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_dim_out=width,
        stem_conv_kernel_size=(1, 7, 7),
        stage1_pool=nn.MaxPool3d if pool_time else None,
        stage_conv_a_kernel_size=((1, 1, 1),) * 4,
        **MEAN_OVER_ALL,
    )
    if not pool_time:
        body.blocks[-1].pool = MeanOfFrames()
    return classifier_of(
        body, num_classes, num_frames, size, min_frames=2 if pool_time else 1, uses_time=pool_time
    )


@MODELS.register(name="i3d")
def i3d(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 50,
    width: int = 64,
    dropout: float = 0.5,
) -> VideoClassifier:
    """I3D: a ResNet inflated over time (Carreira and Zisserman 2017, Wang et al. 2018).

    Every second block has a temporal kernel.
    """
    check_resnet("i3d", depth, width)
    long, short = (3, 1, 1), (1, 1, 1)
    body = create_resnet(
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_dim_out=width,
        stem_conv_kernel_size=(5, 7, 7),
        stage1_pool=nn.MaxPool3d,
        stage_conv_a_kernel_size=(long, [long, short], [long, short], [short, long]),
        **MEAN_OVER_ALL,
    )
    return classifier_of(body, num_classes, num_frames, size, min_frames=2)


@MODELS.register(name="csn")
def csn(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 101,
    width: int = 64,
    dropout: float = 0.5,
) -> VideoClassifier:
    """Channel-separated network: depthwise 3D convolutions, 1x1x1 ones mix channels (Tran et al. 2019).

    In the model zoo: depth 101, 32 frames, every 2nd source frame.
    """
    check_resnet("csn", depth, width)
    body = create_csn(
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_dim_out=width,
        stem_pool=nn.MaxPool3d,
        **MEAN_OVER_ALL,
    )
    return classifier_of(body, num_classes, num_frames, size)


@MODELS.register(name="r2plus1d")
def r2plus1d(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 50,
    width: int = 64,
    dropout: float = 0.5,
) -> VideoClassifier:
    """R(2+1)D: 3D convolutions factorised into a spatial and a temporal one (Tran et al. 2018).

    There is a nonlinearity between the two. In the model zoo: depth 50, 16 frames, every 4th source frame.
    """
    check_resnet("r2plus1d", depth, width)
    body = create_r2plus1d(
        model_depth=depth,
        model_num_class=num_classes,
        dropout_rate=dropout,
        stem_dim_out=width,
        head_activation=None,
        **MEAN_OVER_ALL,
    )
    return classifier_of(body, num_classes, num_frames, size)


@MODELS.register(name="x3d")
def x3d(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    width_factor: float = 2.0,
    depth_factor: float = 2.2,
    bottleneck: float = 2.25,
    head_width: int = 2048,
    dropout: float = 0.5,
) -> VideoClassifier:
    """X3D: a small 2D network expanded in time, depth, width and resolution (Feichtenhofer 2020).

    XS, S and M are the same network (width 2.0, depth 2.2) for 4 frames, every 12th, at 160 pixels; 13
    frames, every 6th, at 160; and 16 frames, every 5th, at 224. L (depth 5.0) is for 16 frames, every 5th, at
    312. `bottleneck`: channels of the depthwise convolution relative to those of the block.
    """
    for setting, value in (
        ("width_factor", width_factor),
        ("depth_factor", depth_factor),
        ("bottleneck", bottleneck),
        ("head_width", head_width),
    ):
        if value <= 0:
            raise ValueError(f"x3d: {setting} {value}, expected a number above 0")
    body = create_x3d(
        model_num_class=num_classes,
        dropout_rate=dropout,
        width_factor=width_factor,
        depth_factor=depth_factor,
        bottleneck_factor=bottleneck,
        head_dim_out=head_width,
        inner_act=nn.SiLU,  # the library's own Swish is the same function, as an autograd function in Python
        head_activation=None,
    )
    body.blocks[-1].pool.pool = nn.AdaptiveAvgPool3d(1)
    return classifier_of(body, num_classes, num_frames, size)
