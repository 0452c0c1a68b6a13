"""A scene and the people in it, as frames: wall, light, camera, sensor noise. What people do is the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dfdc_video.synthetic import draw, people, signal

RATES = (24, 25, 30)
Series = dict[str, np.ndarray]
Actor = tuple[Any, Series, Series]
"""A drawn person (draw.Person), the motion of its head (signal.head_motion), the series of its inner face
(signal.INNER_RMS names them).
"""


def num_frames_of(video: dict[str, Any], settings: dict[str, Any]) -> int:
    return max(2, round(settings["seconds"] * video["fps"]))


def scene_of(video: dict[str, Any], seed: int) -> dict[str, Any]:
    """Wall, light, camera and where people stand: drawn by identity and take, hence the same in all videos of
    one take.

    `unit_px` is half the width of a head, `centres_px` one (x, y) per person, around which heads drift.
    """
    rng = signal.generator(seed, "set", video["identity"], video["take"])
    height_px, width_px = video["size"]
    crowded = video["second"] is not None
    wall = draw.background(rng, height_px, width_px)
    light = (rng.uniform(-1, 1), rng.uniform(-1, 0.3))
    gain = (rng.uniform(0.92, 1.08) * rng.uniform(0.96, 1.04, 3)).astype(np.float32)
    grain = np.float32(rng.uniform(1.0, 2.0))
    # of the frame's height, chin to crown
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
    who: object, seed: int, scene: dict[str, Any], *, face_of: object = None, trace: Any = None
) -> Any:
    """The drawn person of an identity, by `face_of` with the inner face of another."""
    outer = people.sample_outer(signal.generator(seed, "outer", who))
    inner = people.sample_inner(signal.generator(seed, "inner", who if face_of is None else face_of))
    return draw.Person(outer, inner, unit_px=scene["unit_px"], light=scene["light"], trace=trace)


def frames(scene: dict[str, Any], actors: list[Actor], sensor: np.random.Generator) -> Iterator[np.ndarray]:
    """Every frame of a video, (H, W, 3) uint8 RGB, before encoding; `sensor` draws the noise."""
    import cv2

    height_px, width_px = scene["wall"].shape[:2]
    margin = 64  # every frame sees another part of one field of noise
    noise = scene["grain"] * sensor.standard_normal(
        (height_px + margin, width_px + margin, 3), dtype=np.float32
    )
    for i in range(len(actors[0][1]["x"])):
        frame = scene["wall"].copy()
        drift = [np.asarray((motion["x"][i], motion["y"][i])) * scene["unit_px"] for _, motion, _ in actors]
        for (person, _, _), centre, moved in zip(actors, scene["centres_px"], drift, strict=True):
            person.draw_body(frame, *(centre + 0.5 * moved))
        for (person, motion, series), centre, moved in zip(actors, scene["centres_px"], drift, strict=True):
            person.draw_head(
                frame,
                *(centre + moved),
                {k: v[i] for k, v in motion.items()},
                {k: v[i] for k, v in series.items()},
            )
        frame *= scene["gain"]
        row, column = sensor.integers(margin, size=2)
        yield cv2.add(frame, noise[row : row + height_px, column : column + width_px], dtype=cv2.CV_8U)
