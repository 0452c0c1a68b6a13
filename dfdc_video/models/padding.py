"""TensorFlow's "same" padding as in efficientnet_pytorch: computed once, for the nominal image size of the
network.

timm computes the padding from the size of each input. The two differ by a pixel wherever a feature map has an
odd size: B7 is made for 600 pixels, with maps of 300, 150, 75, 38 and 19 pixels, and weights trained at
224 x 192 pixels with this padding must be used with it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import nn


class StaticSameConv2d(nn.Conv2d):
    """A strided convolution with a fixed padding `static_pad` (left, right, top, bottom), in pixels."""

    static_pad = (0, 0, 0, 0)

    @classmethod
    def like(cls, conv: nn.Conv2d, size_px: int) -> StaticSameConv2d:
        """A copy of `conv` with shared weights and the padding for square maps of `size_px` pixels."""
        new = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        new.weight, new.bias = conv.weight, conv.bias
        (kernel, _), (stride, _) = conv.kernel_size, conv.stride
        total = max(
            (math.ceil(size_px / stride) - 1) * stride + (kernel - 1) * conv.dilation[0] + 1 - size_px, 0
        )
        new.static_pad = (total // 2, total - total // 2) * 2
        return new

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(frames, self.static_pad))


def pad_statically(backbone: Any, size_px: int) -> int:
    """Replace the strided convolutions of a timm EfficientNet in place; returns their number.

    ValueError for a backbone other than an EfficientNet with TensorFlow's padding (timm's tf_efficientnet_b0
    to b8).
    """
    strided = [(name, module) for name, module in backbone.named_modules() if isinstance(module, Conv2dSame)]
    plain = (
        hasattr(backbone, "conv_stem")
        and hasattr(backbone, "blocks")
        and strided
        and not any("conv_exp" in name for name, _ in strided)
    )
    if size_px < 1 or not plain:
        wanted = "the image size in pixels (224 for B0, 600 for B7), with a backbone tf_efficientnet_b0 to b8"
        raise ValueError(
            f"static_padding_px {size_px} with {type(backbone).__name__}: expected {wanted}, or 0 for "
            "padding by the input's size"
        )
    for name, conv in strided:
        parent, _, leaf = name.rpartition(".")
        setattr(backbone.get_submodule(parent), leaf, StaticSameConv2d.like(conv, size_px))
        size_px = math.ceil(size_px / conv.stride[0])
    return len(strided)
