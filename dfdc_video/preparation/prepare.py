"""Raw folder -> prepared data set: read, hash, extract every video in a process of its own (`parts` says what
is on disk), then `finish`.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dfdc_video.files import load_json, told_when_full
from dfdc_video.folders.prepared import Manifest
from dfdc_video.preparation.assemble import DEFAULTS, check_finishing, finish, kinds_of
from dfdc_video.preparation.assemble import HELP as FINISH_HELP
from dfdc_video.preparation.extraction import extract_all
from dfdc_video.preparation.shards import (
    Part,
    claim,
    hash_files,
    in_part,
    record_path,
    resolve_sources,
    write_part,
)
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS, DETECTORS, settings_of

log = logging.getLogger(__name__)
HELP = {
    "dataset_settings": "settings of the reader, as `dfdc-video list datasets` shows them",
    "detector": "face detector, from `dfdc-video list face-detectors`",
    "detector_settings": "settings of the detector, as `dfdc-video list face-detectors` shows them",
    "every": "detect on every k-th frame; boxes are interpolated between",
    "min_confidence": "weaker detections are ignored (sigma_l)",
    "min_track_confidence": "a track needs one detection at least this sure (sigma_h)",
    "iou": "overlap from which two boxes are the same face (sigma_IoU)",
    "max_gap": "looks in a row that a face may be missed for",
    "min_track_frames": "shortest track that is kept, in frames",
    "smooth_seconds": "smooth the boxes over time by a Gaussian of this width; 0: not",
    "pad_aspect": "pad frames to this aspect ratio before detection, for example 16:9",
    "margin": "side of the crop over that of the face",
    "crop": "fixed (one box per segment), smoothed (a box per frame) or aligned (eyes at fixed places)",
    "size": "side of the face videos in pixels",
    "format": "h264, lossless (H.264) or png",
    "crf": "x264 quality of the face videos: lower is better",
    "gop": "frames from one key frame to the next",
    "min_seconds": "shorter videos are refused",
    "max_seconds": "longer videos are refused",
    "landmarks": "store 468 face mesh points per frame beside every face video",
    "masks": "store the difference between a fake and its original beside every face video",
    "workers": "processes; they do not change the result",
    "timeout_seconds": "time limit per video",
    "buffer_mb": (
        "decoded frames that a worker may keep; longer videos are decoded twice, with the same result"
    ),
    "ray": "address of a Ray cluster, or local; ROOT and OUT must be on storage that every node sees",
    "limit": "only the first videos, originals beside their fakes; 0: all",
    "part": "which part, from 1",
    "num_parts": "do one part of so many; `dfdc-video merge` puts the folders together",
    "folders": "one folder of ROOT after another, each with --fetch before and --delete after it",
    "fetch": "command that brings a folder: {folder} and {root} are filled in",
    "delete": "command that removes it once its faces are done",
    **FINISH_HELP,
}
# These may change from one run to the next: they do not change what a video gives.
FREE_SETTINGS = (
    "workers",
    "timeout_seconds",
    "buffer_mb",
    "ray",
    "limit",
    "part",
    "num_parts",
    "folders",
    "fetch",
    "delete",
)
EXTRACTION = (
    "detector detector_settings every min_confidence min_track_confidence iou max_gap min_track_frames "
    "smooth_seconds pad_aspect margin crop size "
    "format crf gop min_seconds max_seconds landmarks masks"
).split()
CHOICES = {"crop": ("fixed", "smoothed", "aligned"), "format": ("h264", "lossless", "png")}


def prepare(
    dataset: str,
    root: str | Path,
    out: str | Path,
    *,
    dataset_settings: dict[str, Any] | None = None,
    detector: str = "blazeface_full",
    detector_settings: dict[str, Any] | None = None,
    every: int = 5,
    min_confidence: float = 0.5,
    min_track_confidence: float = 0.5,
    iou: float = 0.3,
    max_gap: int = 3,
    min_track_frames: int = 8,
    smooth_seconds: float = 0.0,
    pad_aspect: str = "",
    margin: float = 1.5,
    crop: str = "fixed",
    size: int = 256,
    format: str = "h264",
    crf: int = 12,
    gop: int = 12,
    min_seconds: float = 0.2,
    max_seconds: float = 3600.0,
    landmarks: bool = False,
    masks: bool = False,
    workers: int = 2,
    timeout_seconds: float = 300.0,
    buffer_mb: int = 1024,
    ray: str = "",
    limit: int = 0,
    part: int = 1,
    num_parts: int = 1,
    folders: tuple[str, ...] = (),
    fetch: str = "",
    delete: str = "",
    **finishing: Any,
) -> Manifest | None:
    """Prepare a data set and return its manifest, which is on disk in `out`; None for one part of several.
    `finishing` goes to `finish`.

    Every frame is decoded; faces are detected on every `every`-th frame, tracked up to hard cuts and cut out
    as square videos of `size` pixels. What is refused is in quarantine.csv with the reason. Running it again
    with the same settings continues and leaves what is done as it is. Raises FileNotFoundError without a
    root, ValueError for wrong settings, for an `out` made with others, and where no face is found.
    """
    settings = {k: v for k, v in locals().items() if k not in ("dataset", "root", "out", "finishing")}
    unknown = finishing.keys() - DEFAULTS.keys()
    if unknown:
        raise TypeError(f"prepare() has no setting {sorted(unknown)[0]!r}")
    finishing = {**DEFAULTS, **finishing}
    settings |= {"dataset_settings": dataset_settings or {}, "detector_settings": detector_settings or {}}
    root, out = Path(root).expanduser(), Path(out).expanduser()
    _check(settings)
    check_finishing(finishing)
    reader = partial(DATASETS.get(dataset), **settings["dataset_settings"])
    if not folders and not root.is_dir():
        raise FileNotFoundError(
            f"no folder at {root}; --root is the folder with the raw videos of '{dataset}'"
        )
    locked = {k: v for k, v in {**settings, **finishing}.items() if k not in FREE_SETTINGS}
    locked = json.loads(json.dumps({"dataset": dataset, "root": str(root.resolve()), **locked}))
    extraction = {k: settings[k] for k in EXTRACTION}
    free: dict[str, Any] = {
        "workers": workers,
        "timeout_seconds": timeout_seconds,
        "buffer_mb": buffer_mb,
        "ray": ray,
    }
    with told_when_full(out):
        if folders:
            claim(out, locked, open_until_done=DEFAULTS)
            for number, folder in enumerate(folders, start=1):
                log.info("folder %d of %d: %s", number, len(folders), folder)
                _one_folder(reader, root, out, folder, fetch, delete, extraction, free)
        else:
            videos, rejections = _read(reader, root, dataset)
            videos = _first(videos, limit)
            claim(out, locked, open_until_done=DEFAULTS)
            name = "all" if num_parts == 1 else f"{part}-of-{num_parts}"
            mine = [v for v in videos if in_part(v, part, num_parts)]
            _extract_part(root, out, name, mine, rejections, extraction, free)
        if num_parts > 1:
            log.info(
                "part %d of %d is done; when all are: dfdc-video merge FOLDER … --out OUT", part, num_parts
            )
            return None
        return finish(out, **finishing)


def _check(settings: dict[str, Any]) -> None:
    """One line for a setting that cannot work, before anything is touched."""
    DETECTORS.get(settings["detector"])
    if "min_confidence" in settings["detector_settings"]:
        raise ValueError("min_confidence is a setting of its own, not of the detector: give --min-confidence")
    at_least = {
        "every": 1,
        "margin": 1,
        "size": 16,
        "min_track_frames": 1,
        "gop": 1,
        "workers": 1,
        "crf": 0,
        "limit": 0,
        "max_gap": 0,
    }
    at_least |= {"smooth_seconds": 0, "min_seconds": 0, "buffer_mb": 0, "num_parts": 1, "part": 1}
    for name, low in at_least.items():
        if settings[name] < low:
            raise ValueError(f"{name} {settings[name]}: expected {low} or more")
    for name in ("min_confidence", "iou"):
        if not 0 < settings[name] < 1:
            raise ValueError(f"{name} {settings[name]}: expected a number between 0 and 1")
    if not settings["min_confidence"] <= settings["min_track_confidence"] < 1:
        raise ValueError(
            f"min_track_confidence {settings['min_track_confidence']}: expected min_confidence "
            f"({settings['min_confidence']}) or more"
        )
    for name, known in CHOICES.items():
        if settings[name] not in known:
            raise ValueError(f"{name} {settings[name]!r}: expected {', '.join(known)}")
    sides = settings["pad_aspect"].split(":")
    if settings["pad_aspect"] and not (len(sides) == 2 and all(s.isdigit() and int(s) for s in sides)):
        raise ValueError(f"pad_aspect {settings['pad_aspect']!r}: expected width:height, for example 16:9")
    if settings["size"] % 2:
        raise ValueError(
            f"size {settings['size']}: expected an even number, since H.264 stores colour at half the size"
        )
    if settings["timeout_seconds"] <= 0:
        raise ValueError(f"timeout_seconds {settings['timeout_seconds']}: expected more than 0")
    if settings["max_seconds"] <= settings["min_seconds"]:
        raise ValueError(
            f"max_seconds {settings['max_seconds']}: expected more than min_seconds "
            f"({settings['min_seconds']})"
        )
    if settings["part"] > settings["num_parts"]:
        raise ValueError(f"part {settings['part']} of {settings['num_parts']}: parts count from 1")
    if (settings["fetch"] or settings["delete"]) and not settings["folders"]:
        raise ValueError("--fetch and --delete go with --folders, the folders that they bring and remove")
    if settings["folders"] and (settings["num_parts"] > 1 or settings["limit"]):
        raise ValueError(
            "--folders takes neither --num-parts nor --limit: give each machine folders of its own"
        )
    for name in settings["folders"]:
        if name.startswith(("/", ".")) or ".." in Path(name).parts:
            raise ValueError(f"folder {name!r}: expected a folder below the root")


def _read(
    reader: Callable[[Path], tuple[list[Video], list[Rejection]]], root: Path, what: str
) -> tuple[list[Video], list[Rejection]]:
    videos, rejections = reader(root)
    videos, circular = resolve_sources(sorted(videos, key=lambda v: v.path))
    rejections = [*rejections, *circular]
    if not videos:
        reasons = "; ".join(f"{count} × {kind}" for kind, count in kinds_of(rejections).items())
        raise ValueError(f"'{what}' found no usable video in {root}{': ' + reasons if reasons else ''}")
    return videos, rejections


def _extract_part(
    root: Path,
    out: Path,
    name: str,
    videos: list[Video],
    rejections: list[Rejection],
    extraction: dict[str, Any],
    free: dict[str, Any],
) -> None:
    hashes, unread = hash_files(root, out, name, videos, free["workers"])
    videos = [v for v in videos if v.video_id in hashes]
    failures = extract_all(root, out, videos, hashes, {**extraction, "buffer_mb": free["buffer_mb"]},
                           workers=free["workers"], timeout_seconds=free["timeout_seconds"], ray=free["ray"])  # fmt: skip
    write_part(out, Part(name, videos, [*rejections, *unread], hashes, failures))


def _one_folder(
    reader: Callable[[Path], Any],
    root: Path,
    out: Path,
    folder: str,
    fetch: str,
    delete: str,
    extraction: dict[str, Any],
    free: dict[str, Any],
) -> None:
    """Bring a folder, extract what is in it, remove it. A folder that was done without failures is not
    brought again.
    """
    if (done := load_json(record_path(out, folder))) and not done["failures"]:
        log.info("%s was done before", folder)
        if (root / folder).is_dir():
            _shell(delete, root, folder)
        return
    _shell(fetch, root, folder)
    if not (root / folder).is_dir():
        raise FileNotFoundError(
            f"no folder at {root / folder}"
            + (f" after the fetch command {fetch!r}" if fetch else "; --fetch can bring it")
        )
    videos, rejections = _read(reader, root, folder)
    inside = f"{folder.rstrip('/')}/"
    mine = [v for v in videos if v.path.startswith(inside)]
    if not mine:
        raise ValueError(f"the reader found no video below {root / folder}")
    _extract_part(
        root, out, folder, mine, [r for r in rejections if r.path.startswith(inside)], extraction, free
    )
    _shell(delete, root, folder)


def _shell(command: str, root: Path, folder: str) -> None:
    """Run a command of the user's, with {folder} and {root} filled in, and FOLDER and ROOT in its
    environment.
    """
    if not command:
        return
    words = command.replace("{folder}", shlex.quote(folder)).replace("{root}", shlex.quote(str(root)))
    code = subprocess.run(
        words, shell=True, env={**os.environ, "FOLDER": folder, "ROOT": str(root)}
    ).returncode
    if code:
        raise ValueError(
            f"the command {words!r} ended with exit code {code}; what is done is kept, the same call "
            "continues"
        )


def _first(videos: list[Video], limit: int) -> list[Video]:
    """The first `limit` videos, counted with every original followed by its fakes."""
    if not limit or limit >= len(videos):
        return videos
    kept = sorted(videos, key=lambda v: (v.source_id or v.video_id, v.label, v.video_id))[:limit]
    return sorted(kept, key=lambda v: v.path)


def all_settings() -> dict[str, Any]:
    """Every setting of `prepare`, those of `finish` included: name -> parameter."""
    return {**settings_of(prepare), **settings_of(finish)}
