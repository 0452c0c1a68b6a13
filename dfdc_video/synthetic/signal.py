"""Series over time: how a head moves, and what separates a `temporal` fake from a real.

Quantities of the inner face (position, brightness, scale, mouth) follow a sum of a few sinusoids in every
video. In a `temporal` fake the same kind of series is permuted within windows about as long as a clip: each
frame, and nearly the set of a clip's frames, stays distributed as in a real, and only the order differs.
"""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

# From 0.6 on, not from 0.3: a slower series drifts within a clip, so that the mean and spread of a clip's
# frames distinguish it from its permuted twin. For the same reason every video has its own offset and
# amplitude of every quantity.
CYCLES_PER_CLIP = (0.6, 1.2)
OFFSET_RMS, AMPLITUDE_SPREAD = 0.7, 0.35  # in units of the series' RMS; standard deviation of the logarithm
# Root mean square of the series at strength 1. dx and dy are in half-widths of the head: 0.05 is 2.5 % of the
# face's width.
INNER_RMS = {"dx": 0.05, "dy": 0.05, "brightness": 0.12, "scale": 0.02, "mouth": 0.22}
MOUTH_MEAN = 0.4


def generator(seed: int, *key: object) -> np.random.Generator:
    """One independent stream of random numbers per key, on every machine, for any number of workers."""
    digest = hashlib.sha256(repr((int(seed), *key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def smooth(
    rng: np.random.Generator,
    seconds: np.ndarray,
    *,
    low_hz: float,
    high_hz: float,
    rms: float,
    terms: int = 4,
) -> np.ndarray:
    """(T,) band-limited series with mean 0 and expected `rms`: sinusoids of random frequency and phase."""
    frequency = rng.uniform(low_hz, high_hz, size=(terms, 1))
    phase = rng.uniform(0, 2 * np.pi, size=(terms, 1))
    return rms * np.sqrt(2 / terms) * np.sin(2 * np.pi * frequency * seconds + phase).sum(0)


def permute_windows(rng: np.random.Generator, num_frames: int, window: int) -> np.ndarray:
    """(T,) indices: a permutation within consecutive windows of `window` frames.

    The first window starts at a random offset.
    """
    if window < 2:
        raise ValueError(
            f"permutation windows of {window} frame(s) have no order to permute: increase clip_seconds"
        )
    order = np.arange(num_frames)
    for start in range(int(rng.integers(window)) - window, num_frames, window):
        rng.shuffle(order[max(0, start) : max(0, start + window)])
    return order


def inner_series(
    rng: np.random.Generator,
    num_frames: int,
    *,
    fps: float,
    clip_seconds: float,
    strength: float,
    permuted: bool,
) -> dict[str, np.ndarray]:
    """name -> (T,): dx, dy, scale (relative, around 0), brightness (around 0), mouth (opening, 0 to 1).

    With `permuted` all of them follow one common random permutation within windows of `clip_seconds`, so that
    their joint distribution in a frame does not change either.
    """
    seconds = np.arange(num_frames) / fps
    low_hz, high_hz = (c / clip_seconds for c in CYCLES_PER_CLIP)
    series = {}
    for name, rms in INNER_RMS.items():
        offset = OFFSET_RMS * rng.standard_normal()
        amplitude = np.exp(AMPLITUDE_SPREAD * rng.standard_normal())
        unit = smooth(rng, seconds, low_hz=low_hz, high_hz=high_hz, rms=1.0)
        series[name] = rms * strength * np.clip(offset + amplitude * unit, -3, 3)
    series["mouth"] = np.clip(MOUTH_MEAN + series["mouth"], 0, 1)
    # for reals too: the stream of random numbers is the same for all
    order = permute_windows(rng, num_frames, round(clip_seconds * fps))
    return {name: values[order] for name, values in series.items()} if permuted else series


def head_motion(rng: np.random.Generator, num_frames: int, *, fps: float) -> dict[str, np.ndarray]:
    """name -> (T,): x, y, size, tilt, yaw and blink of a head.

    x and y are in half-widths of the head, size is relative, tilt in degrees, yaw the shift of the features
    in half-widths, blink from 0 to 1.
    """
    seconds = np.arange(num_frames) / fps
    slow = partial(smooth, rng, seconds, low_hz=0.08, high_hz=0.5)
    return {
        "x": slow(rms=0.16),
        "y": slow(rms=0.07),
        "size": slow(rms=0.012),
        "tilt": slow(rms=2.5),
        "yaw": slow(rms=0.05),
        "blink": blinks(rng, seconds),
    }


def blinks(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """(T,) 0 = open, 1 = closed: about one blink in three seconds, each some 0.25 s long."""
    closed = np.zeros_like(seconds)
    start = rng.uniform(0, 3.0)
    while start < seconds[-1]:
        width = rng.uniform(0.05, 0.08)
        closed = np.maximum(closed, np.exp(-0.5 * ((seconds - start) / width) ** 2))
        start += rng.uniform(1.5, 4.5)
    return closed
