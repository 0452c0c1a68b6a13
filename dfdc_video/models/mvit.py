"""MViT: a vision transformer whose attention pools space as the channels grow (Fan et al. 2021).

The network is pytorchvideo's, with the parameter names of its model zoo under `network.body.`. Its position
embeddings are learned for one clip length and crop size, so a model accepts only clips of the size that it
was built for. Weights for another size are loaded by interpolating these embeddings; no other parameter
depends on the size.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pytorchvideo.models.vision_transformers import create_multiscale_vision_transformers
from torch import nn

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.slowfast import MEAN, STD
from dfdc_video.registry import MODELS

PATCH_STRIDE = (2, 4, 4)  # frames, pixels, pixels per token
POSITIONS = "body.cls_positional_encoding.pos_embed_"


class MViTNetwork(nn.Module):
    """(B, C, T, H, W) -> (B, K), for clips of exactly `clip_size` = (T, H, W)."""

    def __init__(self, body: nn.Module, *, clip_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.body, self.clip_size = body, clip_size

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        if tuple(clip.shape[2:]) != self.clip_size:
            raise ValueError(
                f"mvit was given (frames, height, width) {tuple(clip.shape[2:])}, expected "
                f"{self.clip_size}: its position embeddings are learned "
                "for one size; build the model for the size of the clip"
            )
        return self.body(clip)

    def interpolate_positions(self, state: dict[str, torch.Tensor], prefix: str) -> list[str]:
        """Interpolate the position embeddings of a state dict to this size, in place; returns notes on what
        was done, none if the sizes agree.

        Spatial embeddings are interpolated bicubically, temporal ones linearly, as usual for vision
        transformers on images of another size (Dosovitskiy et al. 2021, section 3.2). A table of spatial
        embeddings has a length but no shape: one of equal length is taken to have the same shape, any other
        to be square, as in every published network; one that cannot be square is left as it is.
        """
        frames, height, width = (n // stride for n, stride in zip(self.clip_size, PATCH_STRIDE, strict=True))
        notes = []
        for kind, count in (("spatial", height * width), ("temporal", frames)):
            name = f"{prefix}{POSITIONS}{kind}"
            table = state.get(name)
            if (
                table is None
                or table.ndim != 3
                or table.shape[0] != 1
                or not table.shape[1]
                or not table.is_floating_point()
            ):
                continue
            side = math.isqrt(table.shape[1])
            if table.shape[1] == count:
                if kind == "spatial" and side * side == count and height != width:
                    notes.append(
                        f"position embeddings in space taken for {height} x {width} tokens, not for "
                        f"{side} x {side}, which are as many"
                    )
            elif kind == "temporal":
                state[name] = nn.functional.interpolate(table.float().mT, size=count, mode="linear").mT
                notes.append(
                    f"position embeddings in time interpolated from {table.shape[1]} to {count} tokens"
                )
            elif side * side == table.shape[1]:
                grid = table.float().mT.unflatten(2, (side, side))  # (1, C, H, W)
                state[name] = (
                    nn.functional.interpolate(grid, size=(height, width), mode="bicubic").flatten(2).mT
                )
                notes.append(
                    f"position embeddings in space interpolated from {side} x {side} to {height} x "
                    f"{width} tokens"
                )
        return notes


def check_settings(
    num_frames: int, size: tuple[int, int], depth: int, width: int, heads: int, stages: tuple[int, ...]
) -> None:
    clip_size = (num_frames, *size)
    if any(n < stride or n % stride for n, stride in zip(clip_size, PATCH_STRIDE, strict=True)):
        raise ValueError(
            f"mvit: (frames, height, width) {clip_size}, expected multiples of {PATCH_STRIDE}, the size "
            "of a token"
        )
    if heads < 1 or width < 1 or width % (8 * heads):
        raise ValueError(f"mvit: width {width} with {heads} heads, expected a multiple of 8 per head")
    if any(a >= b for a, b in pairwise((0, *stages, depth))):
        raise ValueError(
            f"mvit: stages {tuple(stages)} of {depth} blocks, expected rising numbers from 1 to {depth - 1}"
        )


@MODELS.register(name="mvit")
def mvit(
    num_classes: int,
    num_frames: int,
    size: tuple[int, int],
    *,
    depth: int = 16,
    width: int = 96,
    heads: int = 1,
    stages: tuple[int, ...] = (1, 3, 14),
    dropout: float = 0.5,
    drop_path: float = 0.2,
) -> VideoClassifier:
    """MViT: attention over pooled tokens, fewer and wider ones from stage to stage (Fan et al. 2021).

    `depth` blocks; `width` channels and `heads` heads in the first; the blocks listed in `stages` halve
    height and width and double channels and heads. The defaults are MViT-B: 16x4 is 16 frames, every 4th
    source frame, 32x3 is 32 frames, every 3rd (drop path 0.3), both at 224 pixels.
    """
    stages = tuple(stages)
    check_settings(num_frames, size, depth, width, heads, stages)
    doubled = [[block, 2.0] for block in stages]
    # the library reads numbers out of small tensors while it builds, which no other device allows
    with torch.device("cpu"):
        body = create_multiscale_vision_transformers(
            spatial_size=tuple(size),
            temporal_size=num_frames,
            depth=depth,
            patch_embed_dim=width,
            num_heads=heads,
            conv_patch_embed_stride=PATCH_STRIDE,
            embed_dim_mul=doubled,
            atten_head_mul=doubled,
            pool_q_stride_size=[[block, 1, 2, 2] for block in stages],
            pool_kv_stride_adaptive=[1, 2 ** len(stages), 2 ** len(stages)],
            pool_kvq_kernel=[3, 3, 3],
            head_dropout_rate=dropout,
            droppath_rate_block=drop_path,
            head_num_classes=num_classes,
        )
    body = body.to(torch.get_default_device())
    return VideoClassifier(
        MViTNetwork(body, clip_size=(num_frames, *size)),
        clip_shape=(3, num_frames, *size),
        num_classes=num_classes,
        mean=MEAN,
        std=STD,
        head_names=("network.body.head.proj",),
        # Behind the last block only the class token reaches the head, and the other tokens get no gradient.
        cam_layer=f"network.body.blocks.{depth - 1}.norm1",
        uses_time=True,
    )
