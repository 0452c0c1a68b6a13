"""Detection rate, false positives and speed of every face detector on scenes with known boxes.

    dfdc-video bench detect [num_scenes 20] [seed 0] [footage VIDEO]

Scenes are cluttered rooms of 1280x720 with the people of the synthetic data set: near (a face takes 20 to 45
% of the frame's height), far (4 to 9 %) or nobody. The true box of a face is that of the head's outline below
the hair line. Detectors take turns on every frame in one spawned worker, so that other load on the machine
affects all of them, and get frames reduced to the size that they ask for.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfdc_video.faces.track import iou
from dfdc_video.media.reader import iter_frames
from dfdc_video.registry import BENCHMARKS, DETECTORS
from dfdc_video.synthetic.background import background
from dfdc_video.synthetic.head import head_outline
from dfdc_video.synthetic.person import Person
from dfdc_video.synthetic.traits import sample_inner, sample_outer

HEIGHT_PX, WIDTH_PX = 720, 1280
# smallest and largest face in frame heights, people
KINDS = {"near": (0.20, 0.45, 2), "far": (0.04, 0.09, 4), "nobody": (0.0, 0.0, 0)}
HIT_IOU = 0.4
EVERY = 5  # of the footage, every 5th frame, as `prepare` does
# variants that justify the defaults: name, settings, and whether frames are reduced
VARIANTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "blazeface_full, frames not reduced": ("blazeface_full", {}, False),
    "tiled, frames not reduced": ("tiled", {}, False),
    "tiled, model short": ("tiled", {"model": "short"}, True),
    "tiled, grid 2": ("tiled", {"grid": 2}, True),
}


def room(rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32: a synthetic background with patterned cloths, boxes and balls, without faces."""
    image: np.ndarray = background(rng, HEIGHT_PX, WIDTH_PX)
    for _ in range(int(rng.integers(6, 14))):
        width, height = (int(v) for v in rng.integers(20, 220, 2))
        x, y = int(rng.integers(WIDTH_PX - width)), int(rng.integers(HEIGHT_PX - height))
        colour = rng.uniform(20, 235, 3)
        kind = rng.choice(("cloth", "box", "ball"))
        if kind == "cloth":
            coarse = rng.standard_normal((height // 8 + 2, width // 8 + 2)).astype(np.float32)
            weave = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            image[y : y + height, x : x + width] = colour * (1 + 0.25 * weave[..., None])
        elif kind == "box":
            cv2.rectangle(image, (x, y), (x + width, y + height), colour.tolist(), -1, cv2.LINE_AA)
        else:
            centre, axes = (x + width // 2, y + height // 2), (width // 2, height // 2)
            cv2.ellipse(image, centre, axes, 0, 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.float32)


def scene(seed: int, kind: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """One frame (H, W, 3) uint8 RGB and the true boxes (N, 4) of its faces, a function of the arguments."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
    frame, boxes = room(rng), []
    low, high, people = KINDS[kind]
    places = rng.permutation(people)
    for n in range(people):
        outer, inner = sample_outer(rng), sample_inner(rng)
        tall_px = HEIGHT_PX * np.exp(rng.uniform(np.log(low), np.log(high)))
        unit_px = tall_px / (outer.aspect - outer.hairline)
        x = WIDTH_PX * (places[n] + rng.uniform(0.35, 0.65)) / people
        y = rng.uniform(1.6 * outer.aspect * unit_px, HEIGHT_PX - 1.5 * outer.aspect * unit_px)
        pose = {"size": 0.0, "blink": 0.0, "tilt": rng.normal(0, 4), "yaw": rng.normal(0, 0.05)}
        person = Person(outer, inner, unit_px=unit_px, light=(rng.uniform(-1, 1), rng.uniform(-1, 0.3)))
        expression = {"dx": 0.0, "dy": 0.0, "scale": 0.0, "brightness": 0.0, "mouth": rng.uniform(0, 0.7)}
        person.draw_body(frame, x, y)
        person.draw_head(frame, x, y, pose, expression)
        outline, angle = head_outline(outer), np.deg2rad(pose["tilt"])
        face = outline[outline[:, 1] >= outer.hairline] * unit_px
        face = face @ np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))]) + (x, y)
        boxes.append((*face.min(0), *face.max(0)))
    noise = rng.normal(0, 2, (HEIGHT_PX, WIDTH_PX, 1)).astype(np.float32)
    return np.clip(frame + noise, 0, 255).astype(np.uint8), np.array(boxes, dtype=np.float64).reshape(-1, 4)


def packaged_model() -> str:
    """The short-range model file inside mediapipe 0.10.21; "" where that is not installed."""
    spec = importlib.util.find_spec("mediapipe")
    if not spec or not spec.origin:
        return ""
    path = Path(spec.origin).parent / "modules/face_detection/face_detection_short_range.tflite"
    return str(path) if path.is_file() else ""


class Score:
    """Hits, false positives and times of one detector."""

    def __init__(self, detector: Any, *, reduce: bool) -> None:
        self.detector, self.side_px = detector, detector.long_side_px if reduce else 0
        self.seconds: list[float] = []
        self.faces = self.hits = self.false_positives = 0

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) in pixels of the frame; the measured time includes the reduction."""
        started = time.perf_counter()
        scale = max(1.0, max(frame.shape[:2]) / self.side_px) if self.side_px else 1.0
        size = (round(frame.shape[1] / scale), round(frame.shape[0] / scale))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale > 1 else frame
        found = self.detector.detect(small[None], [0])[0]
        self.seconds.append(time.perf_counter() - started)
        return np.array([f.box_px for f in found]).reshape(-1, 4) * scale

    def judge(self, found: np.ndarray, true: np.ndarray) -> None:
        """Count hits and false positives: a true box may be hit once, every other box is a false positive."""
        overlap = iou(true, found)
        while overlap.size and overlap.max() >= HIT_IOU:
            row, column = np.unravel_index(overlap.argmax(), overlap.shape)
            overlap[row], overlap[:, column] = 0, 0
            self.hits, self.false_positives = self.hits + 1, self.false_positives - 1
        self.faces, self.false_positives = self.faces + len(true), self.false_positives + len(found)


def turns(labels: list[str], number: int) -> list[str]:
    """The order of the detectors on frame `number`: each goes first in turn.

    The first one finds the frame outside of the CPU's caches.
    """
    return labels[number % len(labels) :] + labels[: number % len(labels)]


def measure(num_scenes: int, seed: int, footage: str) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """In a worker: label -> measurements of every detector, and label -> reason for those left out."""
    cv2.setNumThreads(1)
    files = {"mediapipe_tasks": {"model_path": packaged_model()}}
    detectors, skipped = {}, {}
    candidates = {name: (name, files.get(name, {}), True) for name in DETECTORS.names()} | VARIANTS
    for label, (name, settings, reduce) in candidates.items():
        try:
            detectors[label] = DETECTORS.get(name)(**settings), reduce
        except (ValueError, FileNotFoundError) as error:
            skipped[label] = str(error).split(";")[0]
    table: dict[str, dict[str, float]] = {label: {} for label in detectors}
    everywhere: dict[str, list[Score]] = {label: [] for label in detectors}
    for kind in KINDS:
        scores = {label: Score(detector, reduce=reduce) for label, (detector, reduce) in detectors.items()}
        for number in range(num_scenes):
            frame, true = scene(seed, kind, number)
            for label in turns(list(scores), number):
                scores[label].judge(scores[label].detect(frame), true)
        for label, score in scores.items():
            everywhere[label].append(score)
            if score.faces:
                table[label][f"{kind} faces found, %"] = 100 * score.hits / score.faces
            table[label][f"false positives per frame, {kind}"] = score.false_positives / num_scenes
    for label, row in table.items():
        row["frames/s"] = 1 / statistics.median(s for score in everywhere[label] for s in score.seconds)
    if footage:
        scores = {label: Score(detector, reduce=reduce) for label, (detector, reduce) in detectors.items()}
        counts: dict[str, list[int]] = {label: [] for label in detectors}
        for number, frame in enumerate(islice(iter_frames(footage), 0, None, EVERY)):
            for label in turns(list(scores), number):
                counts[label].append(len(scores[label].detect(frame)))
        for label, row in table.items():
            row |= {
                "footage: faces per frame": statistics.mean(counts[label]),
                "with a face, %": 100 * statistics.mean(map(bool, counts[label])),
            }
            row["footage: frames/s"] = 1 / statistics.median(scores[label].seconds)
    return table, skipped


@BENCHMARKS.register(name="detect")
def detect(*, num_scenes: int = 20, seed: int = 0, footage: str = "") -> str:
    """Face detectors on synthetic scenes and on your own video: detection rates, false positives, speed."""
    if num_scenes < 1:
        raise ValueError(f"num_scenes {num_scenes}: expected 1 or more")
    if footage and not Path(footage).is_file():
        raise FileNotFoundError(f"footage {footage!r}: no such video")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        table, skipped = pool.submit(measure, num_scenes, seed, footage).result()
    columns = list(next(iter(table.values())))
    lines = ["| detector | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for label, row in table.items():
        cells = [f"{row[c]:.0f}" if "%" in c or "/s" in c else f"{row[c]:.2f}" for c in columns]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    people = {kind: num_scenes * count for kind, (_, _, count) in KINDS.items()}
    notes = [
        f"{num_scenes} scenes of {WIDTH_PX}x{HEIGHT_PX} of each kind, seed {seed}: {people['near']} near and "
        f"{people['far']} far faces; a hit has an IoU of {HIT_IOU} with the true box. frames/s from the "
        f"median time of one frame, with reduction, without decoding; {os.cpu_count()} cores.",
        *([f"Footage: every {EVERY}th frame of {Path(footage).name}."] if footage else []),
        *(f"Left out: {label}: {reason}." for label, reason in skipped.items()),
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"
