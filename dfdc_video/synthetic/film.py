"""A scene and the people in it, as frames: wall, light, camera, sensor noise.

The caller decides what people do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dfdc_video.synthetic import signal, traits
from dfdc_video.synthetic.background import background
from dfdc_video.synthetic.person import Person

RATES = (24, 25, 30)
Series = dict[str, np.ndarray]
# a person, the motion of the head (signal.head_motion), the series of the inner face (signal.INNER_RMS)
Actor = tuple[Person, Series, Series]
NOISE_MARGIN_PX = 64  # every frame sees a different part of one field of noise


def num_frames_of(video: dict[str, Any], settings: dict[str, Any]) -> int:
    """Frames of a planned video, at least 2."""
    return max(2, round(settings["seconds"] * video["fps"]))


def scene_of(video: dict[str, Any], seed: int) -> dict[str, Any]:
    """Wall, light, camera and where people stand.

    A function of identity and take, hence the same in all videos of one take. `unit_px` is half the width of
    a head, `centres_px` one (x, y) per person, around which heads drift.
    """
    rng = signal.generator(seed, "set", video["identity"], video["take"])
    height_px, width_px = video["size"]
    crowded = video["second"] is not None
    wall = background(rng, height_px, width_px)
    light = (rng.uniform(-1, 1), rng.uniform(-1, 0.3))
    gain = (rng.uniform(0.92, 1.08) * rng.uniform(0.96, 1.04, 3)).astype(np.float32)
    grain = np.float32(rng.uniform(1.0, 2.0))
    # from chin to crown, as a share of the frame's height
    share = rng.uniform(0.40, 0.46) if crowded else rng.uniform(0.45, 0.56)
    y_px = height_px * rng.uniform(0.43, 0.5)
    places = (0.27, 0.73) if crowded else (rng.uniform(0.42, 0.58),)
    return {
        "wall": wall,
        "light": light,
        "gain": gain,
        "grain": grain,
        "unit_px": min(share * height_px / 2.64, 0.2 * width_px),
        "centres_px": [(place * width_px, y_px) for place in places],
    }


def person_of(
    identity: object,
    seed: int,
    scene: dict[str, Any],
    *,
    face_of: object = None,
    trace: traits.Trace | None = None,
) -> Person:
    """The synthetic person of an identity; with `face_of`, the inner face is that of another identity."""
    outer = traits.sample_outer(signal.generator(seed, "outer", identity))
    inner = traits.sample_inner(signal.generator(seed, "inner", identity if face_of is None else face_of))
    return Person(outer, inner, unit_px=scene["unit_px"], light=scene["light"], trace=trace)


def frames(scene: dict[str, Any], actors: list[Actor], sensor: np.random.Generator) -> Iterator[np.ndarray]:
    """Every frame of a video, (H, W, 3) uint8 RGB, before encoding; `sensor` gives the noise."""
    import cv2

    height_px, width_px = scene["wall"].shape[:2]
    field_px = (height_px + NOISE_MARGIN_PX, width_px + NOISE_MARGIN_PX, 3)
    noise = scene["grain"] * sensor.standard_normal(field_px, dtype=np.float32)
    for i in range(len(actors[0][1]["x"])):
        frame = scene["wall"].copy()
        drift = [np.asarray((motion["x"][i], motion["y"][i])) * scene["unit_px"] for _, motion, _ in actors]
        for (person, _, _), centre, moved in zip(actors, scene["centres_px"], drift, strict=True):
            person.draw_body(frame, *(centre + 0.5 * moved))
        for (person, motion, series), centre, moved in zip(actors, scene["centres_px"], drift, strict=True):
            x_px, y_px = centre + moved
            pose, inner = ({name: values[i] for name, values in s.items()} for s in (motion, series))
            person.draw_head(frame, x_px, y_px, pose, inner)
        frame *= scene["gain"]
        row, column = sensor.integers(NOISE_MARGIN_PX, size=2)
        yield cv2.add(frame, noise[row : row + height_px, column : column + width_px], dtype=cv2.CV_8U)
