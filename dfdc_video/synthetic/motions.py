"""A labelled data set that needs no download: synthetic people, eight classes of motion, Kinetics' layout.

    annotations/motions.csv                       label,youtube_id,time_start,time_end,split
    <split>/<class>/<person>_<start>_<end>.mp4    a person is eleven characters, like a YouTube id
    synthetic.json                                the settings; the same settings continue, others are refused

Made for pretraining before fine-tuning on few deepfakes: another task, other people, motion of the same parts
of a face. Only the order of frames distinguishes the classes. In every video of every class the five
quantities of the inner face (x and y position, size, brightness, mouth) sweep through their ranges and visit
every value equally often; the class determines which of them does so *quickly*, *rising* (and dropping back
at once) or *falling*. So single frames, and the unordered frames of a whole sweep, are distributed alike in
all classes. Each person performs every class in front of the same wall, with the same head motion and the
same ranges, so that identity and scene carry no information either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.files import write_atomic
from dfdc_video.records import SPLIT_NAMES
from dfdc_video.synthetic import film, folder, signal

VERSION = 1  # of the videos: raised when the same settings give different ones
# Class -> the leading quantity and how it sweeps. No class is the mirror image of another, since training
# flips clips from left to right; and brightness never drops at once, which preparation would take for a cut.
MOTIONS = {
    "rise": ("dy", "falling"),  # dy counts downwards
    "sink": ("dy", "rising"),
    "grow": ("scale", "rising"),
    "shrink": ("scale", "falling"),
    "flicker": ("brightness", "quick"),
    "nod": ("dy", "quick"),
    "shake": ("dx", "quick"),
    "talk": ("mouth", "quick"),
}
# Half of the range swept at strength 1; dx and dy in half-widths of the head. More than in the deepfakes
# (signal.INNER_RMS), since motions are learned first.
REACH = {"dx": 0.13, "dy": 0.13, "brightness": 0.22, "scale": 0.14, "mouth": 0.4}
# Sweeps per clip_seconds. A directed sweep covers half the distance of a full cycle, so that at twice the
# cycles its steps are as large as those of a calm one.
CYCLES = {"calm": (0.8, 1.2), "rising": (1.6, 2.4), "falling": (1.6, 2.4), "quick": (3.0, 4.0)}
# per video: standard deviations of the middle, in units of REACH, and of the logarithm of the range
OFFSET, AMPLITUDE_SPREAD = 0.3, 0.2


def generate_motions(
    root: Path,
    *,
    num_identities: int = 45,
    takes: int = 1,
    ratios: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seconds: float = 2.4,
    height: int = 192,
    width: int = 256,
    strength: float = 1.0,
    clip_seconds: float = 1.07,
    crf: int = 18,
    gop: int = 1,
    seed: int = 0,
    workers: int = 2,
    progress: folder.Progress | None = None,
) -> dict[str, Any]:
    """Write the data set below `root` and return a summary.

    Existing files are kept, so that a killed run continues. Every person performs every class `takes` times;
    `ratios` are the shares of people in train, val and test, at least one in each. `strength` scales the
    motion; `clip_seconds` is the time in which a calm quantity sweeps once, and should be the length of the
    training clips. Every frame is a key frame (`gop` 1), so that no frame shows how fast its neighbours
    change. `progress` is called with (videos done, videos in all); without it a progress bar is shown.
    ValueError for settings that cannot be met, and for a folder that holds something else.
    """
    root = Path(root)
    settings = folder.settings_from(locals(), task="motions", version=VERSION)
    _check(settings)
    folder.check_film(settings, workers)
    folder.claim(root, settings)
    videos = plan(settings)
    rendered = folder.render_missing(render, root, videos, settings, workers=workers, progress=progress)
    rows = [f"{v['motion']},{v['identity']},{v['start']},{v['end']},{v['split']}" for v in videos]
    (root / "annotations").mkdir(exist_ok=True)
    write_atomic(
        root / "annotations" / "motions.csv",
        "\n".join(["label,youtube_id,time_start,time_end,split", *rows]) + "\n",
    )
    counts = Counter(v["split"] for v in videos)
    return {
        "root": str(root),
        "videos": len(videos),
        "rendered": rendered,
        "classes": list(MOTIONS),
        "splits": {s: counts[s] for s in SPLIT_NAMES},
    }


def _check(settings: dict[str, Any]) -> None:
    folder.need(settings, "num_identities", 3, " (train, val and test show different people)")
    folder.need(settings, "takes", 1)
    folder.need(settings, "strength", 0.0)
    folder.need(settings, "clip_seconds", 0.2, " (a sweep needs several frames)")
    ratios = settings["ratios"]
    if len(ratios) != 3 or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(
            f"ratios={ratios}, expected three shares above 0 for train, val, test that sum to 1, for example "
            "0.7 0.15 0.15"
        )
    if settings["num_identities"] > 10**5 or len(MOTIONS) * settings["takes"] * _span(settings) >= 10**6:
        raise ValueError(
            "too many people or takes: file names have five digits for people and six for the total seconds "
            "of one person"
        )


def _span(settings: dict[str, Any]) -> int:
    """Seconds of a video, rounded up, as file names count them."""
    return max(1, math.ceil(settings["seconds"]))


def split_of_people(count: int, ratios: Sequence[float], seed: int) -> list[str]:
    """The split of every person, at random; none of the three is empty."""
    num_val, num_test = (max(1, round(ratio * count)) for ratio in ratios[1:])
    num_val, num_test = (min(num, (count - 1) // 2) for num in (num_val, num_test))
    names = ["val"] * num_val + ["test"] * num_test + ["train"] * (count - num_val - num_test)
    return [names[i] for i in signal.generator(seed, "motions", "split").permutation(count)]


def plan(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Every video as plain values: what to render, its path, its line of the list."""
    seed, span, videos = settings["seed"], _span(settings), []
    for number, split in enumerate(split_of_people(settings["num_identities"], settings["ratios"], seed)):
        # not a number, so that these people are not those of the deepfakes of the same seed
        identity = f"motion{number:05d}"
        for take in range(settings["takes"]):
            rate = int(signal.generator(seed, "scene", identity, take).choice(film.RATES))
            for place, motion in enumerate(MOTIONS):
                start = (take * len(MOTIONS) + place) * span
                video = {
                    "identity": identity,
                    "take": take,
                    "motion": motion,
                    "split": split,
                    "start": start,
                    "end": start + span,
                    "second": None,
                }
                path = f"{split}/{motion}/{identity}_{start:06d}_{start + span:06d}.mp4"
                videos.append(
                    {**video, "path": path, "fps": rate, "size": (settings["height"], settings["width"])}
                )
    return videos


def sweep(phase: np.ndarray, way: str) -> np.ndarray:
    """Values in -1..1 along `phase` (in cycles), uniformly distributed: up and down in turn.

    With `way` "rising" they go up only, with "falling" down only.
    """
    within = phase % 1.0
    return {"rising": 2 * within - 1, "falling": 1 - 2 * within}.get(way, 4 * np.abs(within - 0.5) - 1)


def motion_series(
    rng: np.random.Generator,
    num_frames: int,
    motion: str,
    *,
    fps: float,
    clip_seconds: float,
    strength: float,
) -> dict[str, np.ndarray]:
    """name -> (T,) as signal.inner_series returns them.

    Every class uses the same random numbers: only the leading quantity differs.
    """
    cycles = np.arange(num_frames) / (fps * clip_seconds)
    leader, way = MOTIONS[motion]
    series = {}
    for name, reach in REACH.items():
        offset, amplitude = OFFSET * rng.standard_normal(), np.exp(AMPLITUDE_SPREAD * rng.standard_normal())
        pace, start, how = rng.uniform(), rng.uniform(), way if name == leader else "calm"
        low, high = CYCLES[how]
        unit = sweep(start + cycles * (low + pace * (high - low)), how)
        series[name] = reach * strength * (offset + amplitude * unit)
    series["mouth"] = np.clip(signal.MOUTH_MEAN + series["mouth"], 0, 1)
    return series


def frames_of(video: dict[str, Any], settings: dict[str, Any]) -> Iterator[np.ndarray]:
    """The frames of one planned video, (H, W, 3) uint8 RGB, before encoding."""
    seed, take, fps = settings["seed"], (video["identity"], video["take"]), video["fps"]
    scene, num_frames = film.scene_of(video, seed), film.num_frames_of(video, settings)
    motion = signal.head_motion(signal.generator(seed, "motion", *take), num_frames, fps=fps)
    given = {"fps": fps, "clip_seconds": settings["clip_seconds"], "strength": settings["strength"]}
    series = motion_series(signal.generator(seed, "series", *take), num_frames, video["motion"], **given)
    sensor = signal.generator(seed, "noise", *take, video["motion"])
    yield from film.frames(scene, [(film.person_of(video["identity"], seed, scene), motion, series)], sensor)


def render(root: str, video: dict[str, Any], settings: dict[str, Any]) -> str:
    """Render and encode one planned video, in a worker."""
    return str(folder.encode(root, video, frames_of(video, settings), settings))
