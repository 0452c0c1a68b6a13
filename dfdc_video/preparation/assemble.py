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

from dfdc_video.files import explain_full_disk
from dfdc_video.folders.manifest import (
    LARGE_COLUMNS,
    STREAM_FIELDS,
    TRACK_COLUMNS,
    VIDEO_COLUMNS,
    Manifest,
    quarantine_table,
    split_hash,
)
from dfdc_video.folders.prepared import PreparedFolder, differences
from dfdc_video.preparation.audit import KINDS, audit, check_audit, format_audit
from dfdc_video.preparation.duplicates import equal_fakes, exact_duplicates, near_duplicates
from dfdc_video.preparation.image_trees import write_images
from dfdc_video.preparation.kitti_labels import write_kitti
from dfdc_video.preparation.parts import Part, read_parts, union
from dfdc_video.preparation.settings import FinishingSettings, images_per_video, names_of
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


def assemble(folder: PreparedFolder, settings: FinishingSettings) -> Manifest:
    """Gather the parts and results in a folder into tables, and return the manifest.

    Files that would not change are left alone. Raises ValueError where a part is missing, no face was found,
    or a split leaks and `allow_leaks` does not name the kind.
    """
    part = union(read_parts(folder))
    results, tracks = _load_results(folder, part)
    videos, removed, cleaned = _clean(part, results, settings)
    near = _near_duplicates(videos, results, settings)
    videos, rule = _split(videos, near, settings)
    found = audit(videos, near, part.hashes)
    folder.write_leak_audit(found)
    log.info(format_audit(found))
    check_audit(found, KINDS if rule == "random" else settings.allow_leaks)
    videos = merge_test(videos) if settings.merge else videos
    refused = [*part.rejections, *removed, *part.failures, *_refused_while_extracting(videos, results)]
    quarantine = quarantine_table(refused)
    folder.write_quarantine(quarantine)
    rows = [_video_row(v, results[v.video_id], part.hashes[v.video_id]) for v in videos]
    video_table = pd.DataFrame(rows, columns=VIDEO_COLUMNS)
    track_table = pd.DataFrame([t for v in videos for t in tracks[v.video_id]], columns=TRACK_COLUMNS)
    if track_table.empty:
        kinds = "; ".join(f"{count} × {kind}" for kind, count in kinds_of(refused).items())
        raise ValueError(
            f"none of {len(videos)} videos gave a face track ({kinds}); see {folder.quarantine_path}"
        )
    with_faces = set(track_table["video_id"])
    summary = {
        **_how_it_was_made(folder, settings, rule),
        "split_hash": split_hash(video_table),
        "merged": settings.merge,
        "allowed_leaks": list(_allowed(settings, rule)),
        "leak_audit": found,
        "num_videos": len(videos),
        "num_tracks": len(track_table),
        "counts": _counts(video_table, track_table),
        "fakes_with_own_boxes": sum(
            v.label > 0 and results[v.video_id]["own_boxes"] and v.video_id in with_faces for v in videos
        ),
        **cleaned,
        "quarantine": kinds_of(refused),
        "seconds": _seconds([results[v.video_id] for v in videos]),
    }
    manifest = Manifest(folder.root, video_table, track_table, summary)
    if settings.kitti:
        write_kitti(folder, video_table, track_table)
    if number := images_per_video(settings.frames):
        summary["frames"] = write_images(
            manifest, per_real=number[0], per_fake=number[1], suffix=settings.frames_format
        )
    folder.write(manifest)
    write_summary(folder, manifest, results, quarantine)
    return manifest


def merge_parts(sources: Sequence[str | Path], out: str | Path, **finishing: Any) -> Manifest:
    """Put prepared folders or parts together in `out`, or split one anew.

    Where no finishing settings are given, those of the folders apply. Face videos are linked, not copied,
    where the file system can. Raises ValueError where the folders were made with other settings.
    """
    folders = [PreparedFolder(Path(s).expanduser()) for s in sources]
    folder = PreparedFolder(Path(out).expanduser())
    settings = folders[0].settings()
    for other in folders[1:]:
        differing = differences({**settings, "root": ""}, {**other.settings(), "root": ""})
        if differing:
            raise ValueError(
                f"{folders[0].root} and {other.root} were prepared with other settings ({differing}); they "
                "cannot be one data set"
            )
    names = names_of(FinishingSettings)
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k in names}
    given = FinishingSettings(**{**kept, **finishing})
    with explain_full_disk(folder.root):
        folder.claim({**settings, **given.plain()}, open_until_done=names)
        folder.take_over(folders)
        return assemble(folder, given)


def _load_results(
    folder: PreparedFolder, part: Part
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Results and tracks by video_id.

    Boxes and timestamps become arrays at once: as Python numbers they would fill the memory.
    """
    failed = {r.video_id for r in part.failures}
    results: dict[str, dict[str, Any]] = {}
    tracks: dict[str, list[dict[str, Any]]] = {}
    for v in part.videos:
        if v.video_id in failed or v.video_id not in part.hashes:
            results[v.video_id], tracks[v.video_id] = MISSING, []
            continue
        result = folder.result(v.video_id)
        if result is None:
            raise ValueError(
                f"{folder.result_path(v.video_id)} is missing or damaged; run `dfdc-video prepare` again "
                "to compute it"
            )
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
    """Leave out duplicates and, where asked, fakes without visible changes or without an original. The videos
    that are kept are ordered by video_id.
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


def _near_duplicates(
    videos: Sequence[Video], results: dict[str, dict[str, Any]], settings: FinishingSettings
) -> list[tuple[str, str, float]]:
    if not settings.near_distance:
        return []
    signatures = {v.video_id: results[v.video_id]["signature"] for v in videos}
    families = {v.video_id: v.source_id or v.video_id for v in videos}
    usable = {video_id: signature for video_id, signature in signatures.items() if signature}
    return near_duplicates(usable, families, max_distance=settings.near_distance)


def _split(
    videos: list[Video], near: Sequence[tuple[str, str, float]], settings: FinishingSettings
) -> tuple[list[Video], str]:
    """Group and split, unless all videos are test videos. Returns the rule that was used, too."""
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
    """Counts by stage and kind, the part of a reason before its colon."""
    return dict(sorted(Counter(f"{r.stage}: {r.reason.split(':', 1)[0]}" for r in rejections).items()))


def _refused_while_extracting(videos: Sequence[Video], results: dict[str, dict[str, Any]]) -> list[Rejection]:
    return [
        Rejection(v.video_id, v.path, r["stage"], r["reason"])
        for v in videos
        for r in results[v.video_id]["rejections"]
    ]


def _how_it_was_made(folder: PreparedFolder, settings: FinishingSettings, rule: str) -> dict[str, Any]:
    fixed = folder.settings()
    return {
        "dataset": fixed["dataset"],
        "detector": fixed["detector"],
        "settings": fixed,
        "split_rule": rule,
        "split_settings": settings.split_settings or {},
    }


def _allowed(settings: FinishingSettings, rule: str) -> Sequence[str]:
    return KINDS if rule == "random" or "all" in settings.allow_leaks else settings.allow_leaks


def _seconds(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Worker seconds by stage, over all videos."""
    return {s: round(sum(r.get("seconds", {}).get(s, 0.0) for r in results), 3) for s in STAGES}


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
