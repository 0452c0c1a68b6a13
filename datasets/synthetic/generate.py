"""A labelled video data set that needs no download: drawn people, three methods of faking, the layout of DFDC.

    dfdc_train_part_N/<name>.mp4
    dfdc_train_part_N/metadata.json   {"aaa.mp4": {"label", "split", "original", "method", "identity", "donor"}}
    synthetic.json                    the settings; the same settings continue, others are refused

Methods: `spatial` shows in every frame and is as smooth in time as a real, `temporal` shows in the order of the frames only,
`both` does both. Measured on held-out people (README.md beside this file says how): `temporal` against real from single frames AUC 0.50,
from the mean and spread of a clip's frames 0.52, from differences of neighbouring frames 1.00; `spatial` from single frames 0.97; faces
found by BlazeFace in 1682 of 1683 frames; 4.6 ms of processor time per frame of 320x240.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.manifest import write_atomic
from dfdc_video.registry import call_in_file, load_file, nearest
from dfdc_video.writer import VideoWriter

signal = load_file(Path(__file__).with_name("signal.py"))
VERSION = 2  # of the pictures: raised when the same settings draw something else
METHODS = ("spatial", "temporal", "both")
RATES = (24, 25, 30)
PORTRAIT_SHARE, PAIR_SHARE = 0.08, 0.04
SETTINGS_FILE = "synthetic.json"
Progress = Callable[[int, int], None]


def generate(
    root: Path,
    *,
    num_identities: int = 24,
    originals_per_identity: int = 1,
    seconds: float = 3.0,
    height: int = 240,
    width: int = 320,
    methods: tuple[str, ...] = METHODS,
    strength: float = 1.0,
    spatial_strength: float = 1.0,
    clip_seconds: float = 1.07,
    crf: int = 18,
    gop: int = 1,
    parts: int = 4,
    seed: int = 0,
    workers: int = 2,
    extras: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the data set below `root` and return a summary; files that are there are kept, so that a killed run continues.

    Every original gets one fake per method. Identities come in pairs that exchange inner faces and lie in one part, so that grouping
    by identity gives groups of two. `strength` scales the series of the inner face in reals and fakes alike, `spatial_strength` the
    traces of the spatial methods, `clip_seconds` is the length of the windows within which a temporal fake is out of order. Every frame
    is coded by itself (`gop` 1): a codec that predicts from the frame before spends its bits otherwise on a face that jumps, and a single
    frame would show it. With `extras` there are portrait videos, videos of two people, 24/25/30 fps, one corrupt file and one exact duplicate.
    `progress` is called with (videos done, videos in all); without it a bar is shown. ValueError for settings that cannot be met,
    and for a folder that holds something else.
    """
    root = Path(root)
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in locals().items() if k not in ("root", "workers", "progress")}
    settings["version"] = VERSION
    _check(settings, workers)
    _claim(root, settings)
    videos = plan(settings)
    todo = [v for v in videos if not (root / v["path"]).is_file()]
    with _shown(progress) as tell:
        _render_all(root, todo, settings, workers, lambda done: tell(len(videos) - len(todo) + done, len(videos)))
    extra = _extras(root, videos) if extras else []
    _write_metadata(root, [*videos, *extra])
    labels = [v["method"] for v in [*videos, *extra]]
    return {
        "root": str(root),
        "videos": len(labels),
        "rendered": len(todo),
        "methods": {m: labels.count(m) for m in ("real", *methods)},
        "corrupt": [v["path"] for v in extra if v["kind"] == "corrupt"],
        "duplicate": [v["path"] for v in extra if v["kind"] == "duplicate"],
    }


def _check(settings: dict[str, Any], workers: int) -> None:
    def need(name: str, low: float, what: str = "") -> None:
        if settings[name] < low:
            raise ValueError(f"{name}={settings[name]}, expected {low} or more{what}")

    unknown = [m for m in settings["methods"] if m not in METHODS]
    if unknown:
        raise ValueError(f"unknown method '{unknown[0]}' of the synthetic data set; {nearest(unknown[0], METHODS)}")
    if len(set(settings["methods"])) != len(settings["methods"]):
        raise ValueError(f"methods={settings['methods']}: each may be named once")
    need("num_identities", 2)
    if settings["num_identities"] % 2:
        raise ValueError(f"num_identities={settings['num_identities']}: people exchange faces in pairs, give an even number")
    need("originals_per_identity", 1)
    need("parts", 1)
    need("gop", 1)
    if settings["parts"] > settings["num_identities"] // 2:
        raise ValueError(f"parts={settings['parts']} for {settings['num_identities'] // 2} pairs of identities: a part holds at least one pair")
    for name in ("height", "width"):
        need(name, 64)
        if settings[name] % 2:
            raise ValueError(f"{name}={settings[name]}: H.264 with 4:2:0 colour needs an even size")
    need("seconds", 0.2)
    need("clip_seconds", 0.2, " (windows need several frames)")
    need("strength", 0.0)
    need("spatial_strength", 0.0)
    if not 0 <= settings["crf"] <= 51:
        raise ValueError(f"crf={settings['crf']}, expected 0 (lossless) to 51")
    if workers < 0:
        raise ValueError(f"workers={workers}, expected 0 (in this process) or more")


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Make `root` ours, or continue in it when it was made with the same settings."""
    path = root / SETTINGS_FILE
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); remove the folder or give another") from error
        differing = sorted(k for k in {*there, *settings} if there.get(k) != settings.get(k))
        if differing:
            told = ", ".join(f"{k}={there.get(k)} there, {settings.get(k)} asked for" for k in differing)
            raise ValueError(f"{root} holds a synthetic data set with other settings ({told}); give another folder or remove it")
        return
    if root.is_dir() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty and holds no {SETTINGS_FILE}; give a new folder for the synthetic data set")
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(settings, indent=2) + "\n")


def _name(seed: int, *key: object) -> str:
    """Ten lower-case letters, as in DFDC."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return "".join(chr(ord("a") + b % 26) for b in digest[:10])


def plan(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Every video as plain values: what to draw, where it goes, what metadata.json says of it.

    A fake differs from its original in method and donor only: scene, motion, rate, size and part are the original's.
    """
    seed, videos = settings["seed"], []
    for identity in range(settings["num_identities"]):
        partner = identity ^ 1
        folder = f"dfdc_train_part_{identity // 2 % settings['parts']}"
        for take in range(settings["originals_per_identity"]):
            rng = signal.generator(seed, "scene", identity, take)
            shape, rate = rng.random(), int(rng.choice(RATES))
            portrait = settings["extras"] and shape < PORTRAIT_SHARE
            both_in_view = settings["extras"] and not portrait and shape > 1 - PAIR_SHARE
            for method in ("real", *settings["methods"]):
                name = _name(seed, identity, take, method)
                videos.append(
                    {
                        "path": f"{folder}/{name}.mp4",
                        "folder": folder,
                        "method": method,
                        "identity": identity,
                        "donor": None if method == "real" else partner,
                        "second": partner if both_in_view else None,
                        "original": None if method == "real" else f"{_name(seed, identity, take, 'real')}.mp4",
                        "take": take,
                        "fps": rate if settings["extras"] else 30,
                        "size": (settings["width"], settings["height"]) if portrait else (settings["height"], settings["width"]),
                    }
                )
    names = [v["path"] for v in videos]
    assert len(set(names)) == len(names), "two videos got one name"
    return videos


def scene_of(video: dict[str, Any], seed: int) -> dict[str, Any]:
    """Wall, light, camera and where people stand: drawn by identity and take, hence the same in an original and its fakes.

    `unit_px` is half the width of a head, `centres_px` one (x, y) per person, around which heads drift.
    """
    draw = load_file(Path(__file__).with_name("draw.py"))
    rng = signal.generator(seed, "set", video["identity"], video["take"])
    height_px, width_px = video["size"]
    crowded = video["second"] is not None
    wall = draw.background(rng, height_px, width_px)
    light = (rng.uniform(-1, 1), rng.uniform(-1, 0.3))
    gain = (rng.uniform(0.92, 1.08) * rng.uniform(0.96, 1.04, 3)).astype(np.float32)
    grain = np.float32(rng.uniform(1.0, 2.0))
    share = rng.uniform(0.40, 0.46) if crowded else rng.uniform(0.45, 0.56)  # of the frame's height, chin to crown
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


def _people(video: dict[str, Any], settings: dict[str, Any], scene: dict[str, Any]) -> list[tuple[Any, dict, dict]]:
    """(drawn person, motion of the head, series of the inner face) for everyone in view; only the first is altered in a fake."""
    draw, traits = (load_file(Path(__file__).with_name(name)) for name in ("draw.py", "people.py"))
    seed, method, fps, take = settings["seed"], video["method"], video["fps"], (video["identity"], video["take"])
    num_frames, people = max(2, round(settings["seconds"] * fps)), []
    for who in (video["identity"], video["second"])[: len(scene["centres_px"])]:
        altered = who == video["identity"] and method != "real"
        trace = None
        if altered and method in ("spatial", "both"):
            trace = traits.sample_trace(signal.generator(seed, "trace", *take, method), settings["spatial_strength"])
        person = draw.Person(
            traits.sample_outer(signal.generator(seed, "outer", who)),
            traits.sample_inner(signal.generator(seed, "inner", video["donor"] if altered else who)),
            unit_px=scene["unit_px"],
            light=scene["light"],
            trace=trace,
        )
        # an original and its fakes share one series, so that between them the order is all that differs, and no chance of the draw
        series = signal.inner_series(
            signal.generator(seed, "series", *take, who),
            num_frames,
            fps=fps,
            clip_seconds=settings["clip_seconds"],
            strength=settings["strength"],
            permuted=altered and method in ("temporal", "both"),
        )
        people.append((person, signal.head_motion(signal.generator(seed, "motion", *take, who), num_frames, fps=fps), series))
    return people


def frames_of(video: dict[str, Any], settings: dict[str, Any]) -> Iterator[np.ndarray]:
    """The frames of one planned video, (H, W, 3) uint8 RGB, before encoding."""
    import cv2

    scene = scene_of(video, settings["seed"])
    people = _people(video, settings, scene)
    height_px, width_px = video["size"]
    sensor = signal.generator(settings["seed"], "noise", video["identity"], video["take"], video["method"])
    margin = 64  # every frame sees another part of one field of noise
    noise = scene["grain"] * sensor.standard_normal((height_px + margin, width_px + margin, 3), dtype=np.float32)
    for i in range(len(people[0][1]["x"])):
        frame = scene["wall"].copy()
        drift = [np.asarray((motion["x"][i], motion["y"][i])) * scene["unit_px"] for _, motion, _ in people]
        for (person, _, _), centre, moved in zip(people, scene["centres_px"], drift, strict=True):
            person.draw_body(frame, *(centre + 0.5 * moved))
        for (person, motion, series), centre, moved in zip(people, scene["centres_px"], drift, strict=True):
            person.draw_head(frame, *(centre + moved), {k: v[i] for k, v in motion.items()}, {k: v[i] for k, v in series.items()})
        frame *= scene["gain"]
        row, column = sensor.integers(margin, size=2)
        yield cv2.add(frame, noise[row : row + height_px, column : column + width_px], dtype=cv2.CV_8U)


def render(root: str, video: dict[str, Any], settings: dict[str, Any]) -> str:
    """Draw and encode one planned video; what a worker runs."""
    import cv2

    cv2.setNumThreads(1)
    path = Path(root) / video["path"]
    with VideoWriter(path, fps=video["fps"], crf=settings["crf"], gop=settings["gop"]) as writer:
        for frame in frames_of(video, settings):
            writer.add(frame)
    return video["path"]


def _render_all(root: Path, todo: list[dict[str, Any]], settings: dict[str, Any], workers: int, tell: Callable[[int], None]) -> None:
    tell(0)
    if workers == 0:
        for done, video in enumerate(todo, start=1):
            render(str(root), video, settings)
            tell(done)
        return
    if not todo:
        return
    context = multiprocessing.get_context("spawn")  # a detector may have run in this process: a fork would lock up
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
        jobs = [pool.submit(call_in_file, __file__, "render", str(root), video, settings) for video in todo]
        try:
            for done, job in enumerate(concurrent.futures.as_completed(jobs), start=1):
                job.result()
                tell(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _shown(progress: Progress | None) -> Iterator[Progress]:
    """The caller's hook, or a bar with the time left."""
    if progress is not None:
        yield progress
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("drawing videos", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _extras(root: Path, videos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A file cut short, as a broken download, and a byte-for-byte copy of an original under another name. Both are listed as REAL."""
    originals = [v for v in videos if v["method"] == "real"]
    made = []
    for kind, source in (("corrupt", originals[0]), ("duplicate", originals[-1])):
        path = f"{source['folder']}/{_name(0, kind, source['path'])}.mp4"
        target, temporary = root / path, root / source["folder"] / f".{kind}.part"
        if not target.is_file():
            if kind == "duplicate":
                shutil.copyfile(root / source["path"], temporary)
            else:
                data = (root / source["path"]).read_bytes()
                temporary.write_bytes(data[: len(data) // 2])
            temporary.replace(target)
        made.append({**source, "path": path, "kind": kind})
    return made


def _write_metadata(root: Path, videos: list[dict[str, Any]]) -> None:
    tables: dict[str, dict[str, Any]] = {}
    for v in videos:
        row = {
            "label": "REAL" if v["method"] == "real" else "FAKE",
            "split": "train",
            "original": v["original"],
            "method": v["method"],
            "identity": f"id{v['identity']:04d}",
        }
        if v["donor"] is not None:
            row["donor"] = f"id{v['donor']:04d}"
        if v["second"] is not None:
            row["second"] = f"id{v['second']:04d}"  # in view, unaltered
        tables.setdefault(v["folder"], {})[Path(v["path"]).name] = row
    for folder, table in tables.items():
        write_atomic(root / folder / "metadata.json", json.dumps(dict(sorted(table.items())), indent=1) + "\n")
