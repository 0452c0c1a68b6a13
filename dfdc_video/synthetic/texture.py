"""Textures and how they get onto a frame: a canvas in head units, antialiased shapes on it, affine warps.

Axes: textures are (H, W, 4) float32, colour times opacity in 0..255 and opacity in 0..1; frames are (H, W, 3)
float32 RGB. Unit of length: half the width of the head; the origin lies between nose and eyes, x to the
right, y downwards.

A texture is painted once per video; a frame then costs four affine warps, so that motion is sub-pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


class Texture:
    """A canvas in head units: `box` (x0, y0, x1, y1) at `scale` pixels a unit."""

    def __init__(self, box: Box, scale: float) -> None:
        self.box, self.scale = box, scale
        width, height = (int(np.ceil((box[i + 2] - box[i]) * scale)) for i in (0, 1))
        self.pixels = np.zeros((height, width, 4), np.float32)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x (1, W) and y (H, 1) of the pixel centres in head units."""
        height, width = self.pixels.shape[:2]
        x = (np.arange(width, dtype=np.float32) + 0.5) / self.scale + self.box[0]
        y = (np.arange(height, dtype=np.float32) + 0.5) / self.scale + self.box[1]
        return x[None], y[:, None]

    def mask(self, points: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """(H, W) in 0..1: an antialiased polygon, its edge blurred over `soft` units."""
        mask: np.ndarray = np.zeros(self.pixels.shape[:2], np.uint8)
        places = (points - np.asarray(self.box[:2])) * self.scale - 0.5
        cv2.fillPoly(mask, [np.round(places * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), max(0.3, soft * self.scale))
        return mask.astype(np.float32) / 255

    def paint(self, mask: np.ndarray, colour: tuple[float, ...], opacity: float = 1.0) -> None:
        """Blend a colour over the canvas where `mask` (H, W) says so."""
        cover = (mask * np.float32(opacity))[..., None]
        self.pixels *= 1 - cover
        self.pixels += cover * np.asarray((*colour, 1.0), np.float32)

    def fill(
        self, points: np.ndarray, colour: tuple[float, ...], *, opacity: float = 1.0, soft: float = 0.0
    ) -> None:
        """Paint a polygon."""
        self.paint(self.mask(points, soft), colour, opacity)

    def slices_of(self, box: Box) -> tuple[slice, slice]:
        """Rows and columns of a box within this canvas."""
        x0, y0, x1, y1 = (round((v - self.box[i % 2]) * self.scale) for i, v in enumerate(box))
        return slice(y0, y1), slice(x0, x1)


def ellipse(x: float, y: float, a: float, b: float, *, angle: float = 0.0, count: int = 48) -> np.ndarray:
    """(count, 2) points of an ellipse around (x, y) with half-axes a and b, turned by `angle` radians."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    px, py = a * np.cos(t), b * np.sin(t)
    return np.stack(
        [x + px * np.cos(angle) - py * np.sin(angle), y + px * np.sin(angle) + py * np.cos(angle)], 1
    )


def warp(
    texture: Texture, pixels: np.ndarray, matrix: np.ndarray, window: tuple[int, int, int, int]
) -> np.ndarray:
    """(H, W, 4): `pixels` of a texture as they appear in the frame's window (x0, y0, x1, y1).

    `matrix` (2, 3) maps head units to the frame.
    """
    linear = matrix[:, :2] / texture.scale
    corner = np.asarray(texture.box[:2]) + 0.5 / texture.scale
    offset = matrix[:, :2] @ corner + matrix[:, 2] - np.asarray(window[:2]) - 0.5
    size = (window[2] - window[0], window[3] - window[1])
    return cv2.warpAffine(pixels, np.column_stack([linear, offset]), size, flags=cv2.INTER_LINEAR)


def window_of(box: Box, matrix: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The window (x0, y0, x1, y1) of a frame of `shape` that a box in head units covers after `matrix`."""
    corners = np.asarray([(box[i], box[j]) for i in (0, 2) for j in (1, 3)])
    places = corners @ matrix[:, :2].T + matrix[:, 2]
    low, high = np.floor(places.min(0)).astype(int) - 1, np.ceil(places.max(0)).astype(int) + 1
    x0, y0, x1, y1 = max(0, low[0]), max(0, low[1]), min(shape[1], high[0]), min(shape[0], high[1])
    return x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)


def blend_over(view: np.ndarray, layer: np.ndarray) -> None:
    """Blend a layer (H, W, 4) over a view of the frame, in place.

    OpenCV is four times as fast here as broadcasting.
    """
    transparency = 1 - cv2.extractChannel(layer, 3)
    cv2.multiply(view, cv2.merge((transparency, transparency, transparency)), view)
    cv2.add(view, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), view)
