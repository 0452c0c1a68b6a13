"""One person in front of the camera: body, outer head and inner face, warped onto a frame."""

from __future__ import annotations

import cv2
import numpy as np

from dfdc_video.synthetic.features import INNER_BOX, InnerTexture
from dfdc_video.synthetic.head import body_texture, head_texture
from dfdc_video.synthetic.texture import Texture, blend_over, warp, window_of
from dfdc_video.synthetic.traits import InnerFace, OuterFace, Trace

OVERSAMPLING = 1.4  # texture pixels per frame pixel


class Person:
    """A synthetic person.

    A real carries its own inner face, a fake that of its donor: the code path is the same.
    """

    def __init__(
        self,
        outer: OuterFace,
        inner: InnerFace,
        *,
        unit_px: float,
        light: tuple[float, float],
        trace: Trace | None = None,
    ) -> None:
        scale = unit_px * OVERSAMPLING
        self.unit_px, self.trace = unit_px, trace
        self.head, self.body = head_texture(outer, scale, light), body_texture(outer, scale)
        self.inner = InnerTexture(inner, scale, hard=trace is not None)

    def draw_body(self, frame: np.ndarray, x_px: float, y_px: float) -> None:
        """Draw neck and clothes onto a frame (H, W, 3) float32, in place."""
        matrix = np.asarray([(self.unit_px, 0, x_px), (0, self.unit_px, y_px)])
        _draw(frame, self.body, matrix)

    def draw_head(
        self, frame: np.ndarray, x_px: float, y_px: float, pose: dict[str, float], inner: dict[str, float]
    ) -> None:
        """Draw outer head and inner face onto a frame (H, W, 3) float32, in place.

        `pose`: size, tilt (degrees), yaw, blink; `inner`: dx, dy, scale, brightness, mouth (see `signal`).
        """
        size, angle = self.unit_px * (1 + pose["size"]), np.deg2rad(pose["tilt"])
        turn = size * np.asarray([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        _draw(frame, self.head, np.column_stack([turn, (x_px, y_px)]))
        zoom = 1 + inner["scale"]
        shift = turn @ np.asarray((pose["yaw"] + inner["dx"], inner["dy"]))
        matrix = np.column_stack(
            [turn * (zoom * (1 - abs(pose["yaw"])), zoom), (x_px + shift[0], y_px + shift[1])]
        )
        window = window_of(INNER_BOX, matrix, frame.shape)
        view = frame[window[1] : window[3], window[0] : window[2]]
        blend_over(
            view, warp(self.inner.canvas, self.inner.set(pose["blink"], inner["mouth"]), matrix, window)
        )
        region = warp(self.inner.canvas, self.inner.region, matrix, window)
        if self.trace is not None:
            self._leave_trace(view, region[..., None])
        gain = 1 + np.float32(inner["brightness"]) * region
        cv2.multiply(view, cv2.merge((gain, gain, gain)), view)

    def _leave_trace(self, view: np.ndarray, region: np.ndarray) -> None:
        """What a `spatial` fake shows in every frame."""
        trace = self.trace
        assert trace is not None
        view *= 1 + region * (np.asarray(trace.gain, np.float32) - 1)
        if trace.kind in ("blur", "sharpen"):
            smoothed = cv2.GaussianBlur(view, (0, 0), 0.05 * self.unit_px)
            factor = -min(1.0, trace.amount) if trace.kind == "blur" else 1.6 * trace.amount
            view += region * (view - smoothed) * np.float32(factor)
        elif trace.kind == "border":
            view *= 1 - np.float32(min(0.9, 0.45 * trace.amount)) * 4 * region * (1 - region)


def _draw(frame: np.ndarray, texture: Texture, matrix: np.ndarray) -> None:
    x0, y0, x1, y1 = window = window_of(texture.box, matrix, frame.shape)
    blend_over(frame[y0:y1, x0:x1], warp(texture, texture.pixels, matrix, window))
