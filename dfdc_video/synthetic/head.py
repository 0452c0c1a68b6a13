"""The outer head (skin, hair, shape, light), neck and clothes. Lengths are in half-widths of the head."""

from __future__ import annotations

import cv2
import numpy as np

from dfdc_video.synthetic.texture import Texture, ellipse
from dfdc_video.synthetic.traits import OuterFace

HEAD_BOX, BODY_BOX = (-1.8, -2.05, 1.8, 1.9), (-3.0, 0.3, 3.0, 4.6)


def head_outline(face: OuterFace, grow: float = 0.0) -> np.ndarray:
    """(72, 2) points around the head, `grow` outside of its skin."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    low = np.maximum(0, np.sin(t))
    return np.stack([(1 + grow) * np.cos(t) * (1 - face.jaw * low**1.5), (face.aspect + grow) * np.sin(t)], 1)


def head_texture(face: OuterFace, scale: float, light: tuple[float, float]) -> Texture:
    """Hair, ears and shaded skin, without features."""
    t = Texture(HEAD_BOX, scale)
    x, y = t.grid()
    rng = np.random.default_rng(face.texture_seed)
    noise = rng.standard_normal(t.pixels.shape[:2]).astype(np.float32)
    strands = cv2.GaussianBlur(noise, (0, 0), 0.8, sigmaY=0.16 * scale)
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
    skin = _skin(face, scale, light, rng)
    t.pixels *= 1 - skin[..., 3:]
    t.pixels += skin
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


def _skin(face: OuterFace, scale: float, light: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 4): shaded and mottled skin within the head's outline, with the beard."""
    skin = Texture(HEAD_BOX, scale)
    x, y = skin.grid()
    outline = skin.mask(head_outline(face))
    skin.paint(outline, face.skin)
    radius = x**2 + (y / face.aspect) ** 2
    shade = 1.06 + 0.16 * (light[0] * x + light[1] * y / face.aspect) - 0.2 * radius**2
    noise = rng.standard_normal(skin.pixels.shape[:2]).astype(np.float32)
    mottle = cv2.GaussianBlur(noise, (0, 0), 0.05 * scale)
    shade = shade + 0.012 * mottle / max(float(mottle.std()), 1e-6)
    skin.pixels[..., :3] *= shade[..., None]
    if face.beard:
        low = np.clip((y - 0.35 - 0.25 * (1 - np.minimum(x**2, 1))) * 2.5, 0, 1)
        skin.paint((outline * low).astype(np.float32), face.hair, face.beard)
    return skin.pixels


def body_texture(face: OuterFace, scale: float) -> Texture:
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
    neckline = ellipse(0, 1.72, 0.62, 0.42 if face.collar == "round" else 0.34)
    t.fill(neckline, tuple(0.78 * c for c in face.skin), soft=0.01)
    if face.collar == "v":
        opening = np.asarray([(-0.55, 1.75), (0.55, 1.75), (0.0, 2.75)])
        t.fill(opening, tuple(0.8 * c for c in face.skin), soft=0.01)
    elif face.collar == "shirt":
        for side in (-1, 1):
            flap = np.asarray([(side * 0.62, 1.62), (side * 0.05, 2.2), (side * 0.75, 2.45)])
            t.fill(flap, face.trim, soft=0.01)
    t.pixels[..., :3] *= (1.05 - 0.05 * np.abs(x) - 0.04 * (y - 2))[..., None]
    return t
