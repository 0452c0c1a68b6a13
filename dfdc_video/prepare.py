"""Raw folder -> prepared data set: read, hash, extract every video in a process of its own, write the tables.

    OUT/settings.json         what OUT was made with; other settings need another OUT
    OUT/hashes.json           content hash of every raw file, by path, size and time
    OUT/work/<video_id>.json  what came out of one video (`faces.batch`)
    OUT/tracks/...            face videos; then the tables of `manifest`
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dfdc_video.faces.batch import STREAM_FIELDS, extract_all, load_json, result_path
from dfdc_video.manifest import TRACK_COLUMNS, VIDEO_COLUMNS, Manifest, split_hash, write_atomic, write_quarantine
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import DATASETS, DETECTORS, SPLITS
from dfdc_video.splits import assign_groups

log = logging.getLogger(__name__)
STAGES = ("probe", "decode", "detect", "crop")
FREE_SETTINGS = ("workers", "timeout_seconds", "limit")  # may change from one run to the next: they do not change what a video gives


def prepare(
    dataset: str,
    root: str | Path,
    out: str | Path,
    *,
    detector: str = "blazeface_full",
    every: int = 5,
    margin: float = 1.5,
    size: int = 256,
    min_confidence: float = 0.5,
    iou: float = 0.3,
    min_track_frames: int = 8,
    crf: int = 12,
    gop: int = 12,
    split: str = "group",
    group_by: str = "auto",
    ratios: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    workers: int = 2,
    timeout_seconds: float = 300.0,
    limit: int = 0,
) -> Manifest:
    """Prepare a data set and return its manifest, which is on disk in `out`.

    Every frame is decoded; exact duplicates are left out; faces are detected on every `every`-th frame, tracked up to hard cuts and cut
    out as square videos of `size` pixels. What is refused is in quarantine.csv with the reason. Running it again with the same settings
    continues and leaves what is done as it is. `limit` > 0 takes only the first videos, originals beside their fakes.
    Raises FileNotFoundError without a root, ValueError for wrong settings, for an `out` made with others, and where no face is found.
    """
    settings = {k: v for k, v in locals().items() if k not in ("dataset", "root", "out")}
    root, out = Path(root).expanduser(), Path(out).expanduser()
    _check(settings)
    reader = DATASETS.get(dataset)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder at {root}; --root is the folder with the raw videos of '{dataset}'")
    videos, rejections = reader(root)
    if not videos:
        reasons = "; ".join(f"{count} × {kind}" for kind, count in _kinds(rejections).items())
        raise ValueError(f"'{dataset}' found no usable video in {root}{': ' + reasons if reasons else ''}")
    videos = _first(sorted(videos, key=lambda v: v.path), limit)
    settings = json.loads(json.dumps({"dataset": dataset, "root": str(root.resolve()), **settings}))
    _keep_settings(out, settings)
    hashes, unread = _hash_files(root, out, videos, workers)
    videos, duplicates = _drop_duplicates([v for v in videos if v.video_id in hashes], hashes)
    rejections = [*rejections, *unread, *duplicates]
    videos, rule = _split(videos, split=split, group_by=group_by, ratios=ratios, seed=seed)
    extract_settings = {k: settings[k] for k in "detector every margin size min_confidence iou min_track_frames crf gop".split()}
    failures = extract_all(root, out, videos, hashes, extract_settings, workers=workers, timeout_seconds=timeout_seconds)
    return _write(out, videos, hashes, rejections, failures, settings, rule)


def _check(settings: dict[str, Any]) -> None:
    """One line for a setting that cannot work, before anything is touched."""
    DETECTORS.get(settings["detector"])
    SPLITS.get(settings["split"])
    at_least = {"every": 1, "margin": 1, "size": 16, "min_track_frames": 1, "gop": 1, "workers": 1, "crf": 0, "limit": 0}
    for name, low in at_least.items():
        if settings[name] < low:
            raise ValueError(f"{name} {settings[name]}: expected {low} or more")
    for name in ("min_confidence", "iou"):
        if not 0 < settings[name] < 1:
            raise ValueError(f"{name} {settings[name]}: expected a number between 0 and 1")
    if settings["size"] % 2:
        raise ValueError(f"size {settings['size']}: expected an even number, since H.264 stores colour at half the size")
    if settings["timeout_seconds"] <= 0:
        raise ValueError(f"timeout_seconds {settings['timeout_seconds']}: expected more than 0")


def _keep_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write settings.json into a new folder; refuse a folder that was made with other settings."""
    path = out / "settings.json"
    kept = {k: v for k, v in settings.items() if k not in FREE_SETTINGS}
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged; delete {out} or use another --out") from error
        differing = [f"{k} {before.get(k)!r}, now {kept.get(k)!r}" for k in sorted(before.keys() | kept.keys()) if before.get(k) != kept.get(k)]
        if differing:
            raise ValueError(f"{out} was prepared with other settings ({'; '.join(differing)}); use the same ones or another --out")
        return
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and was not made by `dfdc-video prepare`; give a new folder as --out")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out is a folder")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(kept, indent=2) + "\n")


def _first(videos: list[Video], limit: int) -> list[Video]:
    """The first `limit` videos, counted with every original followed by its fakes."""
    if not limit or limit >= len(videos):
        return videos
    kept = sorted(videos, key=lambda v: (v.source_id or v.video_id, v.label, v.video_id))[:limit]
    ids = {v.video_id for v in kept}
    return sorted((v if v.source_id in ids else replace(v, source_id="") for v in kept), key=lambda v: v.path)


def _hash_files(root: Path, out: Path, videos: Sequence[Video], workers: int) -> tuple[dict[str, str], list[Rejection]]:
    """SHA-256 by video_id. What was hashed in an earlier run is not read again, as long as size and time agree."""
    path = out / "hashes.json"
    known = load_json(path) or {}
    current: dict[str, list[Any]] = {}
    hashes, rejections = {}, []

    def one(video: Video) -> list[Any]:
        file = root / video.path
        stat = file.stat()
        before = known.get(video.path)
        if before and before[:2] == [stat.st_size, stat.st_mtime_ns]:
            return before
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]

    with ThreadPoolExecutor(workers) as pool:
        futures = [(video, pool.submit(one, video)) for video in videos]
        for video, future in futures:
            try:
                current[video.path] = future.result()
                hashes[video.video_id] = current[video.path][2]
            except OSError as error:
                rejections.append(Rejection(video.video_id, video.path, "read", f"unreadable file: {error.strerror}"))
    if current != known:
        write_atomic(path, json.dumps({**known, **current}) + "\n")
    return hashes, rejections


EMPTY = hashlib.sha256().hexdigest()


def _drop_duplicates(videos: Sequence[Video], hashes: dict[str, str]) -> tuple[list[Video], list[Rejection]]:
    """Keep the first of equal files, by path; fakes of one that goes belong to the one that stays. Empty files are not duplicates."""
    first: dict[str, Video] = {}
    stays: dict[str, str] = {}
    rejections = []
    for v in videos:
        kept = v if hashes[v.video_id] == EMPTY else first.setdefault(hashes[v.video_id], v)
        stays[v.video_id] = kept.video_id
        if kept is not v:
            other = "" if kept.label == v.label else f", which has label {kept.label} where this one has {v.label}"
            rejections.append(Rejection(v.video_id, v.path, "duplicate", f"exact duplicate: of {kept.path}{other}"))
    result = []
    for v in videos:
        if stays[v.video_id] == v.video_id:
            source = stays.get(v.source_id, "")
            result.append(replace(v, source_id="" if source == v.video_id else source))
    return result, rejections


def _split(videos: list[Video], *, split: str, group_by: str, ratios: Sequence[float], seed: int) -> tuple[list[Video], str]:
    """Group and split; a set that is a test set throughout stays one. Returns the rule that was followed."""
    if split == "group" and all(v.split == "test" for v in videos):
        log.info("every video is in split test: no split was made")
        return assign_groups(videos, by="original"), "official"
    if len({v.label for v in videos}) == 1:
        log.warning("every video has label %d: a classifier needs two classes; training on this set will be refused", videos[0].label)
    videos = SPLITS.get(split)(assign_groups(videos, by=group_by), ratios, seed)
    splits_of: dict[str, str] = {}
    for v in videos if split == "official" else ():
        if splits_of.setdefault(v.group_id, v.split) != v.split:
            raise ValueError(f"the official split has group {v.group_id!r} in {splits_of[v.group_id]} and in {v.split}: a leak; "
                             "use --split group, or --group-by original if only originals and fakes have to stay together")  # fmt: skip
    return videos, split


def _kinds(rejections: Sequence[Rejection]) -> dict[str, int]:
    """Counts by stage and kind: what stands before the colon of a reason."""
    return dict(sorted(Counter(f"{r.stage}: {r.reason.split(':', 1)[0]}" for r in rejections).items()))


def _write(
    out: Path,
    videos: Sequence[Video],
    hashes: dict[str, str],
    rejections: Sequence[Rejection],
    failures: Sequence[Rejection],
    settings: dict[str, Any],
    rule: str,
) -> Manifest:
    """Gather the results of all videos into the tables. Only what changed is written."""
    failed = {r.video_id for r in failures}
    missing: dict[str, Any] = {"status": "unreadable", "own_boxes": True, "tracks": [], "rejections": []}
    results = {v.video_id: missing if v.video_id in failed else json.loads(result_path(out, v.video_id).read_text()) for v in videos}
    videos = sorted(videos, key=lambda v: v.video_id)
    rejections = [*rejections, *failures]
    for v in videos:
        rejections += [Rejection(v.video_id, v.path, r["stage"], r["reason"]) for r in results[v.video_id]["rejections"]]
    write_quarantine(out / "quarantine.csv", rejections)
    rows = [_video_row(v, results[v.video_id], hashes[v.video_id]) for v in videos]
    video_table = pd.DataFrame(rows, columns=VIDEO_COLUMNS)
    track_table = pd.DataFrame([t for v in videos for t in results[v.video_id]["tracks"]], columns=TRACK_COLUMNS)
    if track_table.empty:
        kinds = "; ".join(f"{count} × {kind}" for kind, count in _kinds(rejections).items())
        raise ValueError(f"none of {len(videos)} videos gave a face track ({kinds}); see {out / 'quarantine.csv'}")
    summary = {
        "dataset": settings["dataset"],
        "detector": settings["detector"],
        "settings": settings,
        "split_rule": rule,
        "split_hash": split_hash(video_table),
        "num_videos": len(videos),
        "num_tracks": len(track_table),
        "counts": _counts(video_table, track_table),
        "fakes_with_own_boxes": sum(v.label > 0 and r["own_boxes"] and bool(r["tracks"]) for v in videos for r in [results[v.video_id]]),
        "quarantine": _kinds(rejections),
        "seconds": {s: round(sum(r.get("seconds", {}).get(s, 0.0) for r in results.values()), 3) for s in STAGES},
    }
    manifest = Manifest(out, video_table, track_table, summary)
    if not _is_written(manifest):
        manifest.write()
    return manifest


def _video_row(video: Video, result: dict[str, Any], content_hash: str) -> dict[str, Any]:
    stream = result.get("stream") or dict(zip(STREAM_FIELDS, (0, 0.0, 0, 0, 0, ""), strict=True))
    row = {**asdict(video), **stream, "status": result["status"], "content_hash": content_hash}
    return {**row, "identities": ",".join(video.identities)}


def _counts(videos: pd.DataFrame, tracks: pd.DataFrame) -> list[dict[str, Any]]:
    """Videos and tracks by split, label, method and status."""
    per_video = tracks.groupby("video_id").size()
    table = videos.assign(tracks=videos["video_id"].map(per_video).fillna(0).astype(int))
    keys = ["split", "label", "method", "status"]
    grouped = table.groupby(keys, sort=True).agg(videos=("video_id", "size"), tracks=("tracks", "sum")).reset_index()
    return json.loads(grouped.to_json(orient="records"))


def _is_written(manifest: Manifest) -> bool:
    """Whether the folder already holds exactly these tables."""
    try:
        before = Manifest.load(manifest.root)
    except (OSError, ValueError):
        return False
    same_summary = {**before.summary, "settings": None} == {**manifest.summary, "settings": None}
    both = ((before.videos, manifest.videos), (before.tracks, manifest.tracks))
    return same_summary and all(a.to_json(orient="records") == b.to_json(orient="records") for a, b in both)
