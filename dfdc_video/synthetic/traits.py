"""Random traits of synthetic people: outer head, inner face, and the trace of a `spatial` fake.

Lengths are in half-widths of the head, colours in 0..255 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRACES = ("colour", "blur", "sharpen", "border")
SKINS = ((244, 208, 184), (232, 188, 156), (214, 164, 128), (184, 132, 98), (146, 100, 72), (108, 72, 52))
HAIRS = (
    (28, 22, 20),
    (58, 38, 26),
    (96, 62, 38),
    (150, 108, 62),
    (206, 172, 112),
    (148, 144, 142),
    (122, 52, 30),
)
IRISES = ((70, 46, 30), (96, 70, 42), (74, 100, 122), (82, 112, 84), (52, 36, 28))


@dataclass(frozen=True)
class OuterFace:
    """What stays with the head when the inner face is swapped."""

    aspect: float  # half-height of the head
    jaw: float  # how much narrower the chin is
    skin: tuple[float, ...]
    hair: tuple[float, ...]
    style: str
    hairline: float
    parting: float
    beard: float
    ear: float
    cloth: tuple[float, ...]
    trim: tuple[float, ...]
    collar: str
    texture_seed: int


@dataclass(frozen=True)
class InnerFace:
    """What a fake takes from its donor."""

    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris: tuple[float, ...]
    brow_y: float
    brow_thickness: float
    brow_arch: float
    brow: tuple[float, ...]
    nose_length: float
    nose_width: float
    nose_shade: float
    mouth_y: float
    mouth_width: float
    lip: float
    lip_colour: tuple[float, ...]
    blush: float
    socket: float


@dataclass(frozen=True)
class Trace:
    """What a `spatial` fake shows in every frame: an inner face with a visible edge and one mismatch."""

    kind: str
    gain: tuple[float, ...]  # per colour channel
    amount: float


def _tone(rng: np.random.Generator, palette: tuple, spread: float) -> tuple[float, ...]:
    """A colour between two neighbours of a palette, with a little spread."""
    place = rng.uniform(0, len(palette) - 1)
    low = int(place)
    darker, lighter = np.asarray(palette[low]), np.asarray(palette[min(low + 1, len(palette) - 1)])
    colour = darker * (1 - place + low) + lighter * (place - low)
    return tuple(np.clip(colour * rng.uniform(1 - spread, 1 + spread, 3), 8, 250).tolist())


def sample_outer(rng: np.random.Generator) -> OuterFace:
    """A random head."""
    return OuterFace(
        aspect=rng.uniform(1.24, 1.4),
        jaw=rng.uniform(0.06, 0.26),
        skin=_tone(rng, SKINS, 0.03),
        hair=_tone(rng, HAIRS, 0.08),
        style=str(rng.choice(("short", "short", "long", "round", "bald"))),
        hairline=rng.uniform(-0.86, -0.66),
        parting=rng.uniform(-0.5, 0.5),
        beard=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.25 else 0.0,
        ear=rng.uniform(0.16, 0.24),
        cloth=tuple(rng.uniform(30, 215, 3).tolist()),
        trim=tuple(rng.uniform(30, 235, 3).tolist()),
        collar=str(rng.choice(("round", "v", "shirt", "stripes"))),
        texture_seed=int(rng.integers(2**31)),
    )


def sample_inner(rng: np.random.Generator) -> InnerFace:
    """A random inner face."""
    return InnerFace(
        eye_x=rng.uniform(0.36, 0.44),
        eye_y=rng.uniform(-0.16, -0.08),
        eye_width=rng.uniform(0.17, 0.22),
        eye_height=rng.uniform(0.085, 0.115),
        eye_tilt=rng.uniform(-0.03, 0.03),
        iris=_tone(rng, IRISES, 0.1),
        brow_y=rng.uniform(-0.44, -0.35),
        brow_thickness=rng.uniform(0.035, 0.075),
        brow_arch=rng.uniform(0.03, 0.1),
        brow=_tone(rng, HAIRS[:4], 0.1),
        nose_length=rng.uniform(0.34, 0.44),
        nose_width=rng.uniform(0.13, 0.2),
        nose_shade=rng.uniform(0.22, 0.38),
        mouth_y=rng.uniform(0.64, 0.72),
        mouth_width=rng.uniform(0.26, 0.36),
        lip=rng.uniform(0.05, 0.085),
        lip_colour=(rng.uniform(140, 185), rng.uniform(62, 95), rng.uniform(66, 95)),
        blush=rng.uniform(0.0, 0.2),
        socket=rng.uniform(0.1, 0.22),
    )


def sample_trace(rng: np.random.Generator, strength: float) -> Trace:
    """A random trace of a `spatial` fake."""
    kind = str(rng.choice(TRACES))
    spread = {"colour": 0.26, "blur": 0.1, "sharpen": 0.1, "border": 0.14}[kind] * strength
    # the three channels never go the same way: that would only be brightness
    signs = rng.choice((-1.0, 1.0)) * rng.permutation((-1.0, 1.0, 1.0))
    gain = 1 + signs * rng.uniform(0.6, 1.0, 3) * spread
    return Trace(kind, tuple(gain.tolist()), float(rng.uniform(0.8, 1.2)) * strength)
