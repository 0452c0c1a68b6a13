"""An optional second output of convolutional models: which pixels were altered, supervised by difference
masks in addition to the label.

It is attached to the feature maps of one stage and used in training only; `forward`, and so an export, still
returns the logits alone. Axes: B clips, T frames, H x W pixels of the clip; (C, T', h, w) maps of the stage.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.summary import on_meta


class MaskHead(nn.Module):
    """(B, C, T', h, w) -> (B, T', h, w): per cell of the maps, the logit that its pixels were altered."""

    def __init__(self, channels: int, *, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.projection = nn.Conv3d(channels, 1, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.projection(maps)[:, 0]


def add_mask_head(model: VideoClassifier, *, stage: int = -2) -> VideoClassifier:
    """Attach a mask head to the maps of a stage (0 the first, -1 the last), in place; existing weights are
    not changed.

    The last stages are coarse: in most families 224 pixels become 7 x 7 cells in the last stage and 14 x 14
    in the one before. ValueError for a model without feature maps (a transformer) and for one with a frozen
    backbone, which could not learn from the masks.
    """
    name, count = type(model.network).__name__, len(model.map_layers)
    if model.frozen_names or not count:
        why = "its backbone is frozen" if model.frozen_names else "it has no feature maps"
        raise ValueError(
            f"no mask head on this {name}: {why}; expected a convolutional family that trains (frame, "
            "cnn_lstm, slowfast, …)"
        )
    if not -count <= stage < count:
        raise ValueError(
            f"mask head at stage {stage}: this {name} has {count} stages, expected {-count} to {count - 1}"
        )
    layer = model.map_layers[stage]
    clip = torch.zeros(1, *model.clip_shape, dtype=torch.uint8, device="meta")
    try:
        with torch.no_grad():
            maps = maps_of(on_meta(model), layer, clip)[1]
    except AttributeError:  # a few timm networks list stages that are not modules or return several maps
        raise ValueError(
            f"no mask head on this {name} at stage {stage}: {layer} has no maps of its own; choose "
            "another stage or backbone"
        ) from None
    height, width = model.clip_shape[2:]
    # tokens have no height and width, and with channels last the aspect ratio does not fit
    if maps.ndim != 5 or abs(maps.shape[3] - height * maps.shape[4] / width) > max(1.5, 0.3 * maps.shape[3]):
        raise ValueError(
            f"no mask head on this {name}: {layer} gives {tuple(maps.shape)}, no feature maps; expected a "
            "convolutional backbone"
        )
    model.mask_head = MaskHead(maps.shape[1], layer=layer).to(model.mean.device)
    model.new_names = (*model.new_names, "mask_head")
    del model.unused["mask_head"]
    return model


def maps_of(model: VideoClassifier, layer: str, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 frames (B, C, T, H, W) -> logits (B, K) and the output of `layer` as maps (B, C', T', h, w)."""
    found: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, given, output: found.append(output)
    )
    try:
        logits = model(frames)
    finally:
        handle.remove()
    maps = found[-1]
    if maps.ndim == 4 and len(maps) == len(frames) * frames.shape[2]:  # frames folded into the batch
        maps = maps.unflatten(0, (len(frames), frames.shape[2])).transpose(1, 2)
    return logits, maps


def logits_and_masks(model: VideoClassifier, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 frames (B, C, T, H, W) -> logits (B, K) and mask logits (B, T', h, w), one per cell."""
    if model.mask_head is None:
        raise ValueError("this model has no mask head: set MASK.WEIGHT above 0, or call add_mask_head")
    logits, maps = maps_of(model, model.mask_head.layer, frames)  # type: ignore[arg-type]
    return logits, model.mask_head(maps)


def mask_target(masks: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """uint8 masks (B, T, H, W), 255 where altered -> altered share of each cell (B, T', h, w), in [0, 1].

    `shape` is that of the mask logits.
    """
    return F.adaptive_avg_pool3d(masks[:, None].float() / 255, (shape[1], shape[2], shape[3]))[:, 0]
