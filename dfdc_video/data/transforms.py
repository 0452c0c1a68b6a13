"""Augmentation of a whole clip: every frame of a clip gets the same parameters.

An augmentation takes uint8 frames (T, C, H, W) and the mask (T, H, W) of their altered pixels, or None, and
returns both: the mask is cropped and mirrored like the frames, its values stay. Random numbers come from
torch's global generator, which the data set seeds with the sample's seed, so that both videos of a real/fake
pair are augmented alike and the result does not depend on workers. A new augmentation is one more file in
this folder that registers itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from dfdc_video.registry import AUGMENTATIONS

Augmentation = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]]


@AUGMENTATIONS.register(name="none")
def none() -> Augmentation | None:
    """No augmentation."""
    return None


@AUGMENTATIONS.register(name="basic")
def basic(
    *,
    flip: float = 0.5,
    crop_scale: float = 0.85,
    brightness: float = 0.1,
    contrast: float = 0.1,
    saturation: float = 0.1,
) -> Augmentation:
    """Horizontal flip, random crop, slight changes of colour.

    The crop has at least `crop_scale` of the area, and an aspect ratio within 5 % of the frame's.
    """
    for name, value in (("flip", flip), ("crop_scale", crop_scale)):
        if not 0 <= value <= 1:
            raise ValueError(f"AUGMENT.{name.upper()} = {value}: expected 0 to 1")
    # without hue, which takes as long as everything else together
    colour = v2.ColorJitter(brightness, contrast, saturation)

    def augment(
        frames: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        size = tuple(frames.shape[-2:])
        steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip(flip), colour]
        if crop_scale < 1:
            aspect = size[1] / size[0]
            ratio = (0.95 * aspect, 1.05 * aspect)
            steps.insert(0, v2.RandomResizedCrop(size, scale=(crop_scale, 1.0), ratio=ratio, antialias=True))
        video: torch.Tensor = tv_tensors.Video(frames)
        altered = None if mask is None else tv_tensors.Mask(mask)
        for step in steps:
            video, altered = step(video, altered)
        plain = None if altered is None else altered.as_subclass(torch.Tensor)
        return video.as_subclass(torch.Tensor), plain

    return augment
