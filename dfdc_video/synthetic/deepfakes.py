"""A labelled data set that needs no download: synthetic people, three methods of faking, DFDC's layout.

    dfdc_train_part_N/<name>.mp4
    dfdc_train_part_N/metadata.json   {"aaa.mp4": {"label", "split", "original", "method", "identity", ...}}
    synthetic.json                    the settings; the same settings continue, others are refused

Methods: `spatial` shows in every frame and is as smooth in time as a real, `temporal` shows in the order of
the frames only, `both` combines them. What classifiers of single frames, of sets of frames and of their order
find was measured on held-out people: datasets/synthetic/README.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.files import whole_file, write_atomic
from dfdc_video.registry import nearest
from dfdc_video.synthetic import film, folder, signal, traits

VERSION = 2  # of the videos: raised when the same settings give different ones
METHODS = ("spatial", "temporal", "both")
PORTRAIT_SHARE, PAIR_SHARE = 0.08, 0.04  # of the originals: portrait format, two people in view


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
    progress: folder.Progress | None = None,
) -> dict[str, Any]:
    """Write the data set below `root` and return a summary.

    Existing files are kept, so that a killed run continues. Every original gets one fake per method.
    Identities come in pairs that exchange inner faces and lie in one of `parts` folders dfdc_train_part_N, so
    that grouping by identity gives groups of two. `strength` scales the series of the inner face in reals and
    fakes alike, `spatial_strength` the traces of the spatial methods, `clip_seconds` is the length of the
    windows within which a temporal fake is permuted. Every frame is a key frame (`gop` 1): a codec that
    predicts from the previous frame spends its bits differently on a face that jumps, and single frames would
    show it. With `extras` there are portrait videos, videos of two people, 24/25/30 fps, one corrupt file and
    one exact duplicate. `progress` is called with (videos done, videos in all); without it a progress bar is
    shown. ValueError for settings that cannot be met, and for a folder that holds something else.
    """
    root = Path(root)
    settings = folder.settings_from(locals(), version=VERSION)
    _check(settings)
    folder.check_film(settings, workers)
    folder.claim(root, settings)
    videos = plan(settings)
    rendered = folder.render_missing(render, root, videos, settings, workers=workers, progress=progress)
    extra = _extras(root, videos) if extras else []
    _write_metadata(root, [*videos, *extra])
    labels = [v["method"] for v in [*videos, *extra]]
    return {
        "root": str(root),
        "videos": len(labels),
        "rendered": rendered,
        "methods": {m: labels.count(m) for m in ("real", *methods)},
        "corrupt": [v["path"] for v in extra if v["kind"] == "corrupt"],
        "duplicate": [v["path"] for v in extra if v["kind"] == "duplicate"],
    }


def _check(settings: dict[str, Any]) -> None:
    unknown = [m for m in settings["methods"] if m not in METHODS]
    if unknown:
        raise ValueError(
            f"unknown method '{unknown[0]}' of the synthetic data set; {nearest(unknown[0], METHODS)}"
        )
    if len(set(settings["methods"])) != len(settings["methods"]):
        raise ValueError(f"methods={settings['methods']}: each may be named once")
    folder.need(settings, "num_identities", 2)
    if settings["num_identities"] % 2:
        raise ValueError(
            f"num_identities={settings['num_identities']}: people exchange faces in pairs, give an even "
            "number"
        )
    folder.need(settings, "originals_per_identity", 1)
    folder.need(settings, "parts", 1)
    if settings["parts"] > settings["num_identities"] // 2:
        raise ValueError(
            f"parts={settings['parts']} for {settings['num_identities'] // 2} pairs of identities: every "
            "folder holds at least one pair"
        )
    folder.need(settings, "clip_seconds", 0.2, " (windows need several frames)")
    folder.need(settings, "strength", 0.0)
    folder.need(settings, "spatial_strength", 0.0)


def _name(seed: int, *key: object) -> str:
    """Ten lower-case letters, as in DFDC."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return "".join(chr(ord("a") + b % 26) for b in digest[:10])


def plan(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Every video as plain values: what to render, its path, its row of metadata.json.

    A fake differs from its original in method and donor only: scene, motion, rate, size and folder are the
    original's.
    """
    seed, videos = settings["seed"], []
    for identity in range(settings["num_identities"]):
        partner = identity ^ 1
        above = f"dfdc_train_part_{identity // 2 % settings['parts']}"
        for take in range(settings["originals_per_identity"]):
            rng = signal.generator(seed, "scene", identity, take)
            chance, rate = rng.random(), int(rng.choice(film.RATES))
            portrait = settings["extras"] and chance < PORTRAIT_SHARE
            both_in_view = settings["extras"] and not portrait and chance > 1 - PAIR_SHARE
            size = (settings["height"], settings["width"])
            original = f"{_name(seed, identity, take, 'real')}.mp4"
            for method in ("real", *settings["methods"]):
                fake = method != "real"
                video = {
                    "path": f"{above}/{_name(seed, identity, take, method)}.mp4",
                    "folder": above,
                    "method": method,
                    "identity": identity,
                    "donor": partner if fake else None,
                    "second": partner if both_in_view else None,
                    "original": original if fake else None,
                    "take": take,
                    "fps": rate if settings["extras"] else 30,
                    "size": size[::-1] if portrait else size,
                }
                videos.append(video)
    names = [v["path"] for v in videos]
    assert len(set(names)) == len(names), "two videos got one name"
    return videos


def _people(video: dict[str, Any], settings: dict[str, Any], scene: dict[str, Any]) -> list[film.Actor]:
    """Everyone in view; only the first is altered in a fake."""
    seed, method, fps = settings["seed"], video["method"], video["fps"]
    take = (video["identity"], video["take"])
    num_frames, people = film.num_frames_of(video, settings), []
    for identity in (video["identity"], video["second"])[: len(scene["centres_px"])]:
        altered = identity == video["identity"] and method != "real"
        trace, donor = None, video["donor"] if altered else None
        if altered and method in ("spatial", "both"):
            rng = signal.generator(seed, "trace", *take, method)
            trace = traits.sample_trace(rng, settings["spatial_strength"])
        person = film.person_of(identity, seed, scene, face_of=donor, trace=trace)
        motion = signal.head_motion(signal.generator(seed, "motion", *take, identity), num_frames, fps=fps)
        # an original and its fakes share one series: only the order differs, not the sample
        series = signal.inner_series(
            signal.generator(seed, "series", *take, identity),
            num_frames,
            fps=fps,
            clip_seconds=settings["clip_seconds"],
            strength=settings["strength"],
            permuted=altered and method in ("temporal", "both"),
        )
        people.append((person, motion, series))
    return people


def frames_of(video: dict[str, Any], settings: dict[str, Any]) -> Iterator[np.ndarray]:
    """The frames of one planned video, (H, W, 3) uint8 RGB, before encoding."""
    scene = film.scene_of(video, settings["seed"])
    sensor = signal.generator(settings["seed"], "noise", video["identity"], video["take"], video["method"])
    yield from film.frames(scene, _people(video, settings, scene), sensor)


def render(root: str, video: dict[str, Any], settings: dict[str, Any]) -> str:
    """Render and encode one planned video, in a worker."""
    return str(folder.encode(root, video, frames_of(video, settings), settings))


def _extras(root: Path, videos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A truncated file, as from a broken download, and an exact copy of an original under another name.

    Both are listed as REAL.
    """
    originals = [v for v in videos if v["method"] == "real"]
    made = []
    for kind, source in (("corrupt", originals[0]), ("duplicate", originals[-1])):
        path = f"{source['folder']}/{_name(0, kind, source['path'])}.mp4"
        if not (root / path).is_file():
            data = (root / source["path"]).read_bytes()
            with whole_file(root / path) as temporary:
                temporary.write_bytes(data if kind == "duplicate" else data[: len(data) // 2])
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
    for above, table in tables.items():
        write_atomic(root / above / "metadata.json", json.dumps(dict(sorted(table.items())), indent=1) + "\n")
