"""The inner face: eyes, brows, nose, mouth. Lengths are in half-widths of the head (see `texture`).

Features are painted as shadow, light and pigment onto whatever skin is there, so that a swap leaves no edge;
only the traces of `spatial` fakes make one. They are rendered independently of the outer head: a donor's
inner face is as plausible on a head as its own.
"""

from __future__ import annotations

import cv2
import numpy as np

from dfdc_video.synthetic.texture import Texture, ellipse
from dfdc_video.synthetic.traits import InnerFace

INNER_CENTRE, INNER_AXES = (0.0, 0.13), (0.72, 0.84)
INNER_BOX = (-1.0, -0.9, 1.0, 1.25)
EYE_BOX, MOUTH_BOX = (-0.8, -0.42, 0.8, 0.2), (-0.5, 0.32, 0.5, 1.02)
LEVELS = 12  # rendered states of eyes and mouth, cross-faded
SHADOW = (40, 20, 15)


def _eyes(t: Texture, face: InnerFace, closed: float) -> None:
    """Eyes and lids; the lid's edge comes down as `closed` goes from 0 to 1."""
    half = face.eye_height * (1 - 0.92 * closed)
    for side in (-1, 1):
        cx, cy = side * face.eye_x, face.eye_y + 0.5 * face.eye_height * closed
        angle = side * face.eye_tilt * 3
        socket = ellipse(cx, cy - 0.01, face.eye_width * 1.25, face.eye_height * 1.9)
        t.fill(socket, SHADOW, opacity=face.socket, soft=0.05)
        lid = ellipse(cx, cy, face.eye_width, half, angle=angle)
        white = t.mask(lid)
        t.paint(white, (232, 228, 224))
        iris = t.mask(ellipse(cx, cy, face.eye_height * 0.86, face.eye_height * 0.86))
        t.paint(np.minimum(iris, white), face.iris)
        pupil = t.mask(ellipse(cx, cy, face.eye_height * 0.42, face.eye_height * 0.42))
        t.paint(np.minimum(pupil, white), (12, 10, 10))
        highlight = t.mask(ellipse(cx - 0.03, cy - 0.03, 0.02, 0.02))
        t.paint(np.minimum(highlight, white), (250, 250, 250), 0.9)
        upper = ellipse(cx, cy - 0.012, face.eye_width * 1.06, half + 0.022, angle=angle)
        t.paint(np.clip(t.mask(upper) - t.mask(lid + (0, 0.018)), 0, 1), (36, 22, 18), 0.8)


def _mouth(t: Texture, face: InnerFace, opening: float) -> None:
    """Lips around an opening; 0 is closed, 1 wide open."""
    gap, width = 0.13 * opening, face.mouth_width * (1 - 0.12 * opening)
    y = face.mouth_y + 0.35 * gap
    t.fill(ellipse(0, y + gap + 2.2 * face.lip, width * 0.6, 0.05), SHADOW, opacity=0.22, soft=0.04)
    t.fill(ellipse(0, y, width, gap + face.lip), face.lip_colour, opacity=0.75, soft=0.012)
    inside = t.mask(ellipse(0, y, width * 0.84, gap + 0.012), 0.006)
    t.paint(inside, (52, 18, 20))
    teeth = t.mask(ellipse(0, y - 0.75 * gap, width * 0.66, 0.45 * gap + 0.002), 0.006)
    t.paint(np.minimum(teeth, inside), (224, 216, 206), min(1.0, 3 * opening))


def _fixed_features(t: Texture, face: InnerFace) -> None:
    """Brows, nose and cheeks."""
    for side in (-1, 1):
        u = np.linspace(-1, 1, 17)
        mid = face.brow_y - face.brow_arch * (1 - u**2) + 0.02 * u
        x = side * (face.eye_x + 0.02 + u * face.eye_width * 1.35)
        thick = face.brow_thickness * np.sqrt(np.clip(1.08 - (0.5 * u + 0.5) ** 2, 0.05, 1))
        brow = np.concatenate([np.stack([x, mid - thick], 1), np.stack([x, mid + thick], 1)[::-1]])
        t.fill(brow, face.brow, opacity=0.85, soft=0.012)
        t.fill(ellipse(side * 0.5, 0.36, 0.17, 0.12), (205, 70, 70), opacity=face.blush, soft=0.09)
        cheek_line = ellipse(side * 0.36, 0.5, 0.03, 0.16, angle=side * -0.45)
        t.fill(cheek_line, SHADOW, opacity=0.16, soft=0.04)
    tip = face.eye_y + face.nose_length
    side_of_nose = np.asarray(
        [(0.03, face.eye_y), (0.0, tip - 0.05), (face.nose_width, tip + 0.02), (0.09, tip - 0.16)]
    )
    t.fill(side_of_nose, SHADOW, opacity=face.nose_shade, soft=0.03)
    bridge = ellipse(-0.02, face.eye_y + 0.5 * face.nose_length, 0.03, 0.42 * face.nose_length)
    t.fill(bridge, (255, 246, 236), opacity=0.25, soft=0.03)
    t.fill(ellipse(0, tip + 0.03, face.nose_width, 0.05), SHADOW, opacity=face.nose_shade, soft=0.03)
    for side in (-1, 1):
        nostril = ellipse(side * face.nose_width * 0.55, tip + 0.035, 0.04, 0.026)
        t.fill(nostril, (30, 12, 10), opacity=0.7, soft=0.012)


class InnerTexture:
    """Features as a texture with adjustable eyes and mouth.

    `region` (H, W) is the mask that they fill, with an abrupt edge if `hard`.
    """

    def __init__(self, face: InnerFace, scale: float, *, hard: bool) -> None:
        self.canvas = Texture(INNER_BOX, scale)
        _fixed_features(self.canvas, face)
        self.region = self.canvas.mask(ellipse(*INNER_CENTRE, *INNER_AXES), 0.02 if hard else 0.13)
        levels = np.linspace(0, 1, LEVELS)
        self.banks = []
        for box, paint in ((EYE_BOX, _eyes), (MOUTH_BOX, _mouth)):
            rows, columns = self.canvas.slices_of(box)
            corner = (columns.start / scale + INNER_BOX[0], rows.start / scale + INNER_BOX[1])
            states = []
            for level in levels:
                state = Texture((*corner, *box[2:]), scale)
                state.pixels = self.canvas.pixels[rows, columns].copy()
                paint(state, face, float(level))
                states.append(state.pixels)
            self.banks.append((rows, columns, states))

    def set(self, closed: float, opening: float) -> np.ndarray:
        """(H, W, 4) features with the eyes and the mouth in this state."""
        for (rows, columns, states), level in zip(self.banks, (closed, opening), strict=True):
            place = min(max(level, 0.0), 1.0) * (LEVELS - 1)
            low = min(int(place), LEVELS - 2)
            self.canvas.pixels[rows, columns] = cv2.addWeighted(
                states[low], 1 - place + low, states[low + 1], place - low, 0
            )
        return self.canvas.pixels
