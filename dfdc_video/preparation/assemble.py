"""Results of all videos -> one prepared data set: cleaning, splits, leak audit, tables, lists, summary.

Nothing here decodes a source video, so that another split of the same faces costs minutes (`dfdc-video
merge`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdc_video.files import told_when_full, write_atomic
from dfdc_video.folders.prepared import (
    LARGE_COLUMNS,
    TRACK_COLUMNS,
    VIDEO_COLUMNS,
    Manifest,
    quarantine_table,
    split_hash,
)
from dfdc_video.preparation.audit import KINDS, audit, check_audit, format_audit
from dfdc_video.preparation.duplicates import equal_fakes, exact_duplicates, near_duplicates
from dfdc_video.preparation.exports import write_images, write_kitti
from dfdc_video.preparation.extraction import STREAM_FIELDS, result_path
from dfdc_video.preparation.settings import FinishingSettings, images_per_video, names_of
from dfdc_video.preparation.shards import (
    Part,
    claim,
    differences,
    link_into,
    read_parts,
    read_settings,
    union,
)
from dfdc_video.preparation.splits import assign_groups, merge_test
from dfdc_video.records import Rejection, Video
from dfdc_video.registry import SPLITS
from dfdc_video.report.prepared import write_summary

log = logging.getLogger(__name__)
STAGES = ("probe", "decode", "detect", "crop")
MISSING: dict[str, Any] = {
    "status": "unreadable",
    "own_boxes": True,
    "tracks": [],
    "rejections": [],
    "signature": [],
    "difference": None,
}


def assemble(out: str | Path, settings: FinishingSettings) -> Manifest:
    """Gather the parts and results in `out` into tables, and return the manifest. Only files that change are
    written.

    Raises ValueError where a part is missing, no face was found, or a split leaks and `allow_leaks` does not
    name the kind.
    """
    out = Path(out)
    part = union(read_parts(out))
    results, tracks = _load_results(out, part)
    videos, removed, counted = _clean(part, results, settings)
    usable = {
        v.video_id: results[v.video_id]["signature"] for v in videos if results[v.video_id]["signature"]
    }
    families = {v.video_id: v.source_id or v.video_id for v in videos}
    near = []
    if settings.near_distance:
        near = near_duplicates(usable, families, max_distance=settings.near_distance)
    videos, rule = _split(videos, near, settings)
    found = audit(videos, near, part.hashes)
    write_atomic(out / "leak_audit.json", json.dumps(found, indent=2) + "\n")
    log.info(format_audit(found))
    check_audit(found, KINDS if rule == "random" else settings.allow_leaks)
    videos = merge_test(videos) if settings.merge else videos
    rejections = [*part.rejections, *removed, *part.failures]
    for v in videos:
        rejections += [
            Rejection(v.video_id, v.path, r["stage"], r["reason"]) for r in results[v.video_id]["rejections"]
        ]
    quarantine = quarantine_table(rejections)
    write_atomic(out / "quarantine.csv", quarantine.to_csv(index=False))
    video_table = pd.DataFrame(
        [_video_row(v, results[v.video_id], part.hashes[v.video_id]) for v in videos], columns=VIDEO_COLUMNS
    )
    track_table = pd.DataFrame([t for v in videos for t in tracks[v.video_id]], columns=TRACK_COLUMNS)
    if track_table.empty:
        kinds = "; ".join(f"{count} × {kind}" for kind, count in kinds_of(rejections).items())
        raise ValueError(
            f"none of {len(videos)} videos gave a face track ({kinds}); see {out / 'quarantine.csv'}"
        )
    fixed = read_settings(out)
    summary = {
        "dataset": fixed["dataset"],
        "detector": fixed["detector"],
        "settings": fixed,
        "split_rule": rule,
        "split_settings": settings.split_settings or {},
        "split_hash": split_hash(video_table),
        "merged": settings.merge,
        "allowed_leaks": list(
            KINDS if rule == "random" or "all" in settings.allow_leaks else settings.allow_leaks
        ),
        "leak_audit": found,
        "num_videos": len(videos),
        "num_tracks": len(track_table),
        "counts": _counts(video_table, track_table),
        "fakes_with_own_boxes": sum(
            v.label > 0 and results[v.video_id]["own_boxes"] and bool(tracks[v.video_id]) for v in videos
        ),
        **counted,
        "quarantine": kinds_of(rejections),
        "seconds": {
            s: round(sum(results[v.video_id].get("seconds", {}).get(s, 0.0) for v in videos), 3)
            for s in STAGES
        },
    }
    manifest = Manifest(out, video_table, track_table, summary)
    if settings.kitti:
        write_kitti(out, video_table, track_table)
    if number := images_per_video(settings.frames):
        summary["frames"] = write_images(
            out, manifest, per_real=number[0], per_fake=number[1], suffix=settings.frames_format
        )
    manifest.write()
    write_summary(out, manifest, results, quarantine)
    return manifest


def merge_parts(sources: Sequence[str | Path], out: str | Path, **finishing: Any) -> Manifest:
    """Put prepared folders or parts together in `out`, or split one anew, with their finishing settings where
    no other ones are given.

    Face videos are linked, not copied, where the file system can. Raises ValueError where the folders were
    made with other settings.
    """
    folders, out = [Path(s).expanduser() for s in sources], Path(out).expanduser()
    settings = read_settings(folders[0])
    for folder in folders[1:]:
        other = read_settings(folder)
        differing = differences({**settings, "root": ""}, {**other, "root": ""})
        if differing:
            raise ValueError(
                f"{folders[0]} and {folder} were prepared with other settings ({differing}); they cannot "
                "be one data set"
            )
    names = names_of(FinishingSettings)
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k in names}
    given = FinishingSettings(**{**kept, **finishing})
    with told_when_full(out):
        claim(out, {**settings, **given.plain()}, open_until_done=names)
        link_into(out, folders)
        return assemble(out, given)


def _load_results(out: Path, part: Part) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Results and tracks by video_id. Boxes and time stamps become arrays at once: as Python numbers they
    would fill the memory.
    """
    failed = {r.video_id for r in part.failures}
    results: dict[str, dict[str, Any]] = {}
    tracks: dict[str, list[dict[str, Any]]] = {}
    for v in part.videos:
        path = result_path(out, v.video_id)
        if v.video_id in failed or v.video_id not in part.hashes:
            results[v.video_id], tracks[v.video_id] = MISSING, []
            continue
        if not path.is_file():
            raise ValueError(f"{path} is missing; run `dfdc-video prepare` again, it does what is not done")
        result = json.loads(path.read_text(encoding="utf-8"))
        tracks[v.video_id] = result.pop("tracks")
        for track in tracks[v.video_id]:
            for name in LARGE_COLUMNS:
                track[name] = np.asarray(track[name], dtype=np.float32)
            track["timestamps_seconds"] = np.asarray(track["timestamps_seconds"], dtype=np.float64)
        results[v.video_id] = result
    return results, tracks


def _clean(
    part: Part, results: dict[str, dict[str, Any]], settings: FinishingSettings
) -> tuple[list[Video], list[Rejection], dict[str, int]]:
    """Leave out duplicates and, where asked, fakes that show nothing fake or have no original. What stays is
    ordered by video_id.
    """
    videos, removed = exact_duplicates([v for v in part.videos if v.video_id in part.hashes], part.hashes)
    present = {v.video_id for v in part.videos}
    equal = set(equal_fakes(videos, results))
    orphans = {v.video_id for v in videos if v.source_id and v.source_id not in present}
    reasons = (
        dict.fromkeys(orphans, "missing original: it is not in the data set") if settings.drop_orphans else {}
    )
    reasons |= (
        dict.fromkeys(equal, "equal frames: a fake that looks like its original in every frame")
        if settings.drop_equal_fakes
        else {}
    )
    removed += [
        Rejection(v.video_id, v.path, "clean", reasons[v.video_id]) for v in videos if v.video_id in reasons
    ]
    videos = sorted((v for v in videos if v.video_id not in reasons), key=lambda v: v.video_id)
    return videos, removed, {"missing_originals": len(orphans), "equal_fakes": len(equal)}


def _split(
    videos: list[Video], near: Sequence[tuple[str, str, float]], settings: FinishingSettings
) -> tuple[list[Video], str]:
    """Group and split; a set that is a test set throughout stays one. Returns the rule that was followed."""
    if settings.split == "group" and all(v.split == "test" for v in videos):
        log.info("every video is in split test: no split was made")
        return assign_groups(videos, by="original"), "official"
    if len({v.label for v in videos}) == 1:
        log.warning(
            "every video has label %d: a classifier needs two classes; training on this set will be refused",
            videos[0].label,
        )
    videos = assign_groups(videos, by=settings.group_by, links=[(a, b) for a, b, _ in near])
    rule = SPLITS.get(settings.split)
    own = settings.split_settings or {}
    return rule(videos, settings.ratios, settings.seed, **own), settings.split


def kinds_of(rejections: Sequence[Rejection]) -> dict[str, int]:
    """Counts by stage and kind: what stands before the colon of a reason."""
    return dict(sorted(Counter(f"{r.stage}: {r.reason.split(':', 1)[0]}" for r in rejections).items()))


def _video_row(video: Video, result: dict[str, Any], content_hash: str) -> dict[str, Any]:
    stream = result.get("stream") or dict(zip(STREAM_FIELDS, (0, 0.0, 0, 0, 0, ""), strict=True))
    row = {**asdict(video), **stream, "status": result["status"], "content_hash": content_hash}
    return {**row, "identities": ",".join(video.identities)}


def _counts(videos: pd.DataFrame, tracks: pd.DataFrame) -> list[dict[str, Any]]:
    """Videos and tracks by split, label, method and status."""
    per_video = tracks.groupby("video_id").size()
    table = videos.assign(tracks=videos["video_id"].map(per_video).fillna(0).astype(int))
    keys = ["split", "label", "method", "status"]
    grouped = (
        table.groupby(keys, sort=True)
        .agg(videos=("video_id", "size"), tracks=("tracks", "sum"))
        .reset_index()
    )
    return json.loads(grouped.to_json(orient="records"))
