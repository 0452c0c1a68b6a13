"""Drawn people: a head, an inner face on it, a body, a background, a camera.

Axes: textures are (H, W, 4) float32, colour times opacity in 0..255 and opacity in 0..1; frames are (H, W, 3)
float32 RGB. Unit of length: half the width of the head; the origin lies between nose and eyes, x to the
right, y downwards.

Textures are drawn once per video with antialiased polygons; a frame then costs four affine warps, so that
motion is sub-pixel. What belongs to the outer head (skin, hair, shape, light) is drawn independently of what
belongs to the inner face (eyes, brows, nose, mouth): a donor's inner face is as plausible on a head as its
own. Features are painted onto the skin that is there, so that a swap leaves no border; only the `spatial`
traces below make one.
"""

from __future__ import annotations

import cv2
import numpy as np

from dfdc_video.synthetic import people

OVERSAMPLING = 1.4  # texture pixels per frame pixel
INNER_CENTRE, INNER_AXES = (0.0, 0.13), (0.72, 0.84)
HEAD_BOX, INNER_BOX, BODY_BOX = (-1.8, -2.05, 1.8, 1.9), (-1.0, -0.9, 1.0, 1.25), (-3.0, 0.3, 3.0, 4.6)
EYE_BOX, MOUTH_BOX = (-0.8, -0.42, 0.8, 0.2), (-0.5, 0.32, 0.5, 1.02)
LEVELS = 12  # drawn states of eyes and mouth, cross-faded


class Texture:
    """A canvas in head units: `box` (x0, y0, x1, y1) at `scale` pixels a unit."""

    def __init__(self, box: tuple[float, float, float, float], scale: float) -> None:
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
        mask = np.zeros(self.pixels.shape[:2], np.uint8)
        corner = np.asarray(self.box[:2])
        cv2.fillPoly(
            mask,
            [np.round(((points - corner) * self.scale - 0.5) * 16).astype(np.int32)],
            255,
            cv2.LINE_AA,
            4,
        )
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), max(0.3, soft * self.scale))
        return mask.astype(np.float32) / 255

    def paint(self, mask: np.ndarray, colour: tuple[float, ...], opacity: float = 1.0) -> None:
        """Put a colour over what is there."""
        cover = (mask * np.float32(opacity))[..., None]
        self.pixels *= 1 - cover
        self.pixels += cover * np.asarray((*colour, 1.0), np.float32)

    def fill(
        self, points: np.ndarray, colour: tuple[float, ...], *, opacity: float = 1.0, soft: float = 0.0
    ) -> None:
        self.paint(self.mask(points, soft), colour, opacity)

    def part(self, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
        """Rows and columns of a box within this canvas."""
        x0, y0, x1, y1 = (round((v - self.box[i % 2]) * self.scale) for i, v in enumerate(box))
        return slice(y0, y1), slice(x0, x1)


def ellipse(x: float, y: float, a: float, b: float, *, angle: float = 0.0, count: int = 48) -> np.ndarray:
    """(count, 2) points."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    px, py = a * np.cos(t), b * np.sin(t)
    return np.stack(
        [x + px * np.cos(angle) - py * np.sin(angle), y + px * np.sin(angle) + py * np.cos(angle)], 1
    )


def head_outline(face: people.OuterFace, grow: float = 0.0) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    low = np.maximum(0, np.sin(t))
    return np.stack([(1 + grow) * np.cos(t) * (1 - face.jaw * low**1.5), (face.aspect + grow) * np.sin(t)], 1)


def head_texture(face: people.OuterFace, scale: float, light: tuple[float, float]) -> Texture:
    """Hair, ears and shaded skin, without features."""
    t = Texture(HEAD_BOX, scale)
    x, y = t.grid()
    rng = np.random.default_rng(face.texture_seed)
    strands = cv2.GaussianBlur(
        rng.standard_normal(t.pixels.shape[:2]).astype(np.float32), (0, 0), 0.8, sigmaY=0.16 * scale
    )
    strands = 1 + 0.12 * strands / max(float(strands.std()), 1e-6)
    if face.style == "long":
        beside_neck = np.clip((np.abs(x) - 0.62 + np.clip(0.9 - y, 0, 1)) * 8, 0, 1).astype(np.float32)
        t.paint(t.mask(ellipse(0, 0.12, 1.3, 1.62), 0.02) * beside_neck, face.hair)
    elif face.style == "round":
        t.fill(ellipse(0, -0.42, 1.42, 1.3), face.hair, soft=0.04)
    elif face.style == "short":
        t.fill(ellipse(0, -0.36, 1.07, face.aspect - 0.26), face.hair, soft=0.02)
    t.pixels[..., :3] *= strands[..., None]
    for side in (-1, 1):
        t.fill(ellipse(side * 1.0, 0.0, 0.13, face.ear), tuple(0.9 * c for c in face.skin))
        t.fill(ellipse(side * 1.01, 0.01, 0.06, face.ear * 0.6), tuple(0.7 * c for c in face.skin), soft=0.02)
    skin = Texture(HEAD_BOX, scale)
    outline = t.mask(head_outline(face))
    skin.paint(outline, face.skin)
    radius = x**2 + (y / face.aspect) ** 2
    shade = 1.06 + 0.16 * (light[0] * x + light[1] * y / face.aspect) - 0.2 * radius**2
    mottle = cv2.GaussianBlur(
        rng.standard_normal(t.pixels.shape[:2]).astype(np.float32), (0, 0), 0.05 * scale
    )
    shade = shade + 0.012 * mottle / max(float(mottle.std()), 1e-6)
    skin.pixels[..., :3] *= shade[..., None]
    if face.beard:
        low = np.clip((y - 0.35 - 0.25 * (1 - np.minimum(x**2, 1))) * 2.5, 0, 1)
        skin.paint((outline * low).astype(np.float32), face.hair, face.beard)
    t.pixels *= 1 - skin.pixels[..., 3:]
    t.pixels += skin.pixels
    if face.style != "bald":
        cap = t.mask(head_outline(face, 0.05), 0.015)
        line = face.hairline + 0.55 * (x - 0.15 * face.parting) ** 2 * (1 + 0.3 * np.sign(x * face.parting))
        front = (cap * np.clip((line - y) * 9 + 0.5, 0, 1)).astype(np.float32)
        sheen = strands * (1.05 + 0.14 * (light[0] * x + light[1] * y / face.aspect))
        cover = front[..., None]
        t.pixels *= 1 - cover
        t.pixels[..., :3] += cover * np.asarray(face.hair, np.float32) * sheen[..., None].astype(np.float32)
        t.pixels[..., 3:] += cover
    np.clip(t.pixels[..., :3], 0, 255, out=t.pixels[..., :3])
    return t


def _eyes(t: Texture, face: people.InnerFace, closed: float) -> None:
    """Eyes and lids; the lid's edge comes down as `closed` goes from 0 to 1."""
    half = face.eye_height * (1 - 0.92 * closed)
    for side in (-1, 1):
        cx, cy, angle = (
            side * face.eye_x,
            face.eye_y + 0.5 * face.eye_height * closed,
            side * face.eye_tilt * 3,
        )
        t.fill(
            ellipse(cx, cy - 0.01, face.eye_width * 1.25, face.eye_height * 1.9),
            (40, 20, 15),
            opacity=face.socket,
            soft=0.05,
        )
        lid = ellipse(cx, cy, face.eye_width, half, angle=angle)
        white = t.mask(lid)
        t.paint(white, (232, 228, 224))
        iris = t.mask(ellipse(cx, cy, face.eye_height * 0.86, face.eye_height * 0.86))
        t.paint(np.minimum(iris, white), face.iris)
        t.paint(
            np.minimum(t.mask(ellipse(cx, cy, face.eye_height * 0.42, face.eye_height * 0.42)), white),
            (12, 10, 10),
        )
        t.paint(np.minimum(t.mask(ellipse(cx - 0.03, cy - 0.03, 0.02, 0.02)), white), (250, 250, 250), 0.9)
        upper = ellipse(cx, cy - 0.012, face.eye_width * 1.06, half + 0.022, angle=angle)
        t.paint(np.clip(t.mask(upper) - t.mask(lid + (0, 0.018)), 0, 1), (36, 22, 18), 0.8)


def _mouth(t: Texture, face: people.InnerFace, opening: float) -> None:
    """Lips around an opening; 0 is closed, 1 wide open."""
    gap, width = 0.13 * opening, face.mouth_width * (1 - 0.12 * opening)
    y = face.mouth_y + 0.35 * gap
    t.fill(ellipse(0, y + gap + 2.2 * face.lip, width * 0.6, 0.05), (40, 20, 15), opacity=0.22, soft=0.04)
    t.fill(ellipse(0, y, width, gap + face.lip), face.lip_colour, opacity=0.75, soft=0.012)
    inside = t.mask(ellipse(0, y, width * 0.84, gap + 0.012), 0.006)
    t.paint(inside, (52, 18, 20))
    teeth = t.mask(ellipse(0, y - 0.75 * gap, width * 0.66, 0.45 * gap + 0.002), 0.006)
    t.paint(np.minimum(teeth, inside), (224, 216, 206), min(1.0, 3 * opening))


def _fixed_features(t: Texture, face: people.InnerFace) -> None:
    """Brows, nose and cheeks, painted as shadow, light and pigment so that they suit any skin."""
    for side in (-1, 1):
        u = np.linspace(-1, 1, 17)
        mid = face.brow_y - face.brow_arch * (1 - u**2) + 0.02 * u
        x = side * (face.eye_x + 0.02 + u * face.eye_width * 1.35)
        thick = face.brow_thickness * np.sqrt(np.clip(1.08 - (0.5 * u + 0.5) ** 2, 0.05, 1))
        t.fill(
            np.concatenate([np.stack([x, mid - thick], 1), np.stack([x, mid + thick], 1)[::-1]]),
            face.brow,
            opacity=0.85,
            soft=0.012,
        )
        t.fill(ellipse(side * 0.5, 0.36, 0.17, 0.12), (205, 70, 70), opacity=face.blush, soft=0.09)
        t.fill(
            ellipse(side * 0.36, 0.5, 0.03, 0.16, angle=side * -0.45), (40, 20, 15), opacity=0.16, soft=0.04
        )
    tip = face.eye_y + face.nose_length
    side_of_nose = np.asarray(
        [(0.03, face.eye_y), (0.0, tip - 0.05), (face.nose_width, tip + 0.02), (0.09, tip - 0.16)]
    )
    t.fill(side_of_nose, (40, 20, 15), opacity=face.nose_shade, soft=0.03)
    t.fill(
        ellipse(-0.02, face.eye_y + 0.5 * face.nose_length, 0.03, 0.42 * face.nose_length),
        (255, 246, 236),
        opacity=0.25,
        soft=0.03,
    )
    t.fill(ellipse(0, tip + 0.03, face.nose_width, 0.05), (40, 20, 15), opacity=face.nose_shade, soft=0.03)
    for side in (-1, 1):
        t.fill(
            ellipse(side * face.nose_width * 0.55, tip + 0.035, 0.04, 0.026),
            (30, 12, 10),
            opacity=0.7,
            soft=0.012,
        )


class InnerTexture:
    """Features as a texture whose eyes and mouth can be set, with the mask of the region that they fill."""

    def __init__(self, face: people.InnerFace, scale: float, *, hard: bool) -> None:
        self.canvas = Texture(INNER_BOX, scale)
        _fixed_features(self.canvas, face)
        region = self.canvas.mask(ellipse(*INNER_CENTRE, *INNER_AXES), 0.02 if hard else 0.13)
        self.region = region
        levels = np.linspace(0, 1, LEVELS)
        self.banks = []
        for box, draw in ((EYE_BOX, _eyes), (MOUTH_BOX, _mouth)):
            rows, columns = self.canvas.part(box)
            corner = (columns.start / scale + INNER_BOX[0], rows.start / scale + INNER_BOX[1])
            states = []
            for level in levels:
                part = Texture((*corner, *box[2:]), scale)
                part.pixels = self.canvas.pixels[rows, columns].copy()
                draw(part, face, float(level))
                states.append(part.pixels)
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


def body_texture(face: people.OuterFace, scale: float) -> Texture:
    """Neck, shoulders and clothes."""
    t = Texture(BODY_BOX, scale)
    x, y = t.grid()
    t.fill(ellipse(0, 1.2, 0.56, 1.0), tuple(0.8 * c for c in face.skin), soft=0.01)
    outline = np.asarray(
        [(-2.4, 4.6), (-2.3, 2.7), (-1.7, 2.15), (-0.6, 1.8), (0.6, 1.8), (1.7, 2.15), (2.3, 2.7), (2.4, 4.6)]
    )
    shirt = t.mask(outline, 0.06)
    t.paint(shirt, face.cloth)
    if face.collar == "stripes":
        t.paint((shirt * np.clip(np.sin(y * 11) * 4, 0, 1)).astype(np.float32), face.trim, 0.8)
    t.fill(
        ellipse(0, 1.72, 0.62, 0.42 if face.collar == "round" else 0.34),
        tuple(0.78 * c for c in face.skin),
        soft=0.01,
    )
    if face.collar == "v":
        t.fill(
            np.asarray([(-0.55, 1.75), (0.55, 1.75), (0.0, 2.75)]),
            tuple(0.8 * c for c in face.skin),
            soft=0.01,
        )
    elif face.collar == "shirt":
        for side in (-1, 1):
            t.fill(
                np.asarray([(side * 0.62, 1.62), (side * 0.05, 2.2), (side * 0.75, 2.45)]),
                face.trim,
                soft=0.01,
            )
    t.pixels[..., :3] *= (1.05 - 0.05 * np.abs(x) - 0.04 * (y - 2))[..., None]
    return t


def background(rng: np.random.Generator, height_px: int, width_px: int) -> np.ndarray:
    """(H, W, 3) float32: a wall with a gradient and, behind it, shelves, a window, blurred lights or nothing."""
    wall, other = (
        rng.uniform(70, 200) + rng.uniform(-30, 30, 3),
        rng.uniform(40, 225) + rng.uniform(-25, 25, 3),
    )
    across, down = np.linspace(-1, 1, width_px)[None, :, None], np.linspace(-1, 1, height_px)[:, None, None]
    image = (wall * (1 + rng.uniform(-0.2, 0.2) * across + rng.uniform(-0.15, 0.15) * down)).astype(
        np.float32
    )
    kind = str(rng.choice(("plain", "shelves", "window", "lights", "panels")))
    if kind == "shelves":
        for y in np.arange(rng.uniform(0, 0.2), 1, 0.22):
            x = 0.0
            while x < 1:
                width = rng.uniform(0.015, 0.05)
                top, bottom = int((y + rng.uniform(0.02, 0.07)) * height_px), int((y + 0.19) * height_px)
                cv2.rectangle(
                    image,
                    (int(x * width_px), top),
                    (int((x + width) * width_px), bottom),
                    rng.uniform(30, 200, 3).tolist(),
                    -1,
                )
                x += width
    elif kind == "window":
        x, y = rng.uniform(0, 0.6), rng.uniform(0, 0.2)
        cv2.rectangle(
            image,
            (int(x * width_px), int(y * height_px)),
            (int((x + 0.4) * width_px), int((y + 0.55) * height_px)),
            (235, 238, 240),
            -1,
        )
        cv2.line(
            image,
            (int((x + 0.2) * width_px), int(y * height_px)),
            (int((x + 0.2) * width_px), int((y + 0.55) * height_px)),
            other.tolist(),
            4,
        )
    elif kind == "lights":
        for _ in range(14):
            centre = (int(rng.uniform(0, width_px)), int(rng.uniform(0, height_px)))
            cv2.circle(
                image,
                centre,
                int(rng.uniform(0.02, 0.07) * height_px),
                rng.uniform(90, 250, 3).tolist(),
                -1,
                cv2.LINE_AA,
            )
    elif kind == "panels":
        for x in np.arange(rng.uniform(0, 0.15), 1, rng.uniform(0.12, 0.25)):
            cv2.line(image, (int(x * width_px), 0), (int(x * width_px), height_px), other.tolist(), 3)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1.0, 3.0))


def _warp(
    texture: Texture, pixels: np.ndarray, matrix: np.ndarray, window: tuple[int, int, int, int]
) -> np.ndarray:
    """Pixels of a texture where `matrix` (2, 3: head units -> frame) puts them, for the frame's window (x0,
    y0, x1, y1).
    """
    linear = matrix[:, :2] / texture.scale
    corner = np.asarray(texture.box[:2]) + 0.5 / texture.scale
    offset = matrix[:, :2] @ corner + matrix[:, 2] - np.asarray(window[:2]) - 0.5
    size = (window[2] - window[0], window[3] - window[1])
    return cv2.warpAffine(pixels, np.column_stack([linear, offset]), size, flags=cv2.INTER_LINEAR)


def _window(
    box: tuple[float, float, float, float], matrix: np.ndarray, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    corners = np.asarray([(box[i], box[j]) for i in (0, 2) for j in (1, 3)])
    places = corners @ matrix[:, :2].T + matrix[:, 2]
    low, high = np.floor(places.min(0)).astype(int) - 1, np.ceil(places.max(0)).astype(int) + 1
    x0, y0, x1, y1 = max(0, low[0]), max(0, low[1]), min(shape[1], high[0]), min(shape[0], high[1])
    return x0, y0, max(x0 + 1, x1), max(y0 + 1, y1)


def _over(view: np.ndarray, layer: np.ndarray) -> None:
    """Put a layer (H, W, 4) over a part of the frame, in place; OpenCV is four times as fast here as
    broadcasting.
    """
    through = 1 - cv2.extractChannel(layer, 3)
    cv2.multiply(view, cv2.merge((through, through, through)), view)
    cv2.add(view, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), view)


class Person:
    """One person in front of the camera. A real carries its own inner face, a fake that of its donor: the
    code path is the same.
    """

    def __init__(
        self,
        outer: people.OuterFace,
        inner: people.InnerFace,
        *,
        unit_px: float,
        light: tuple[float, float],
        trace: people.Trace | None = None,
    ) -> None:
        scale = unit_px * OVERSAMPLING
        self.unit_px, self.trace = unit_px, trace
        self.head, self.body = head_texture(outer, scale, light), body_texture(outer, scale)
        self.inner = InnerTexture(inner, scale, hard=trace is not None)

    def draw_body(self, frame: np.ndarray, x_px: float, y_px: float) -> None:
        matrix = np.asarray([(self.unit_px, 0, x_px), (0, self.unit_px, y_px)])
        window = _window(self.body.box, matrix, frame.shape)
        _over(
            frame[window[1] : window[3], window[0] : window[2]],
            _warp(self.body, self.body.pixels, matrix, window),
        )

    def draw_head(
        self, frame: np.ndarray, x_px: float, y_px: float, pose: dict[str, float], inner: dict[str, float]
    ) -> None:
        """`pose`: size, tilt (degrees), yaw, blink; `inner`: dx, dy, scale, brightness, mouth. Draws in
        place.
        """
        size, angle = self.unit_px * (1 + pose["size"]), np.deg2rad(pose["tilt"])
        turn = size * np.asarray([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        matrix = np.column_stack([turn, (x_px, y_px)])
        window = _window(self.head.box, matrix, frame.shape)
        _over(
            frame[window[1] : window[3], window[0] : window[2]],
            _warp(self.head, self.head.pixels, matrix, window),
        )
        zoom = 1 + inner["scale"]
        shift = turn @ np.asarray((pose["yaw"] + inner["dx"], inner["dy"]))
        matrix = np.column_stack(
            [turn * (zoom * (1 - abs(pose["yaw"])), zoom), (x_px + shift[0], y_px + shift[1])]
        )
        window = _window(INNER_BOX, matrix, frame.shape)
        view = frame[window[1] : window[3], window[0] : window[2]]
        _over(view, _warp(self.inner.canvas, self.inner.set(pose["blink"], inner["mouth"]), matrix, window))
        region = _warp(self.inner.canvas, self.inner.region, matrix, window)
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
