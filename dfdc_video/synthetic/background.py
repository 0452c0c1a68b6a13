"""The wall behind the people of a synthetic video."""

from __future__ import annotations

import cv2
import numpy as np


def background(rng: np.random.Generator, height_px: int, width_px: int) -> np.ndarray:
    """(H, W, 3) float32: a plain wall with a gradient, or one with shelves, a window, lights or panels."""
    wall = rng.uniform(70, 200) + rng.uniform(-30, 30, 3)
    other = rng.uniform(40, 225) + rng.uniform(-25, 25, 3)
    across, down = np.linspace(-1, 1, width_px)[None, :, None], np.linspace(-1, 1, height_px)[:, None, None]
    shading = 1 + rng.uniform(-0.2, 0.2) * across + rng.uniform(-0.15, 0.15) * down
    image = (wall * shading).astype(np.float32)
    kind = str(rng.choice(("plain", "shelves", "window", "lights", "panels")))
    if kind == "shelves":
        _shelves(image, rng)
    elif kind == "window":
        _window(image, rng, other)
    elif kind == "lights":
        _lights(image, rng)
    elif kind == "panels":
        for x in np.arange(rng.uniform(0, 0.15), 1, rng.uniform(0.12, 0.25)):
            cv2.line(image, (int(x * width_px), 0), (int(x * width_px), height_px), other.tolist(), 3)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1.0, 3.0))


def _shelves(image: np.ndarray, rng: np.random.Generator) -> None:
    height_px, width_px = image.shape[:2]
    for y in np.arange(rng.uniform(0, 0.2), 1, 0.22):
        x = 0.0
        while x < 1:
            width = rng.uniform(0.015, 0.05)
            top, bottom = int((y + rng.uniform(0.02, 0.07)) * height_px), int((y + 0.19) * height_px)
            colour = rng.uniform(30, 200, 3).tolist()
            cv2.rectangle(image, (int(x * width_px), top), (int((x + width) * width_px), bottom), colour, -1)
            x += width


def _window(image: np.ndarray, rng: np.random.Generator, frame_colour: np.ndarray) -> None:
    height_px, width_px = image.shape[:2]
    x, y = rng.uniform(0, 0.6), rng.uniform(0, 0.2)
    left, middle, right = (int(v * width_px) for v in (x, x + 0.2, x + 0.4))
    top, bottom = int(y * height_px), int((y + 0.55) * height_px)
    cv2.rectangle(image, (left, top), (right, bottom), (235, 238, 240), -1)
    cv2.line(image, (middle, top), (middle, bottom), frame_colour.tolist(), 4)


def _lights(image: np.ndarray, rng: np.random.Generator) -> None:
    height_px, width_px = image.shape[:2]
    for _ in range(14):
        centre = (int(rng.uniform(0, width_px)), int(rng.uniform(0, height_px)))
        radius = int(rng.uniform(0.02, 0.07) * height_px)
        cv2.circle(image, centre, radius, rng.uniform(90, 250, 3).tolist(), -1, cv2.LINE_AA)
