"""Parts of a prepared data set: what each run of `prepare` read and hashed, for merging.

A part is everything ("all"), one of several ("2-of-8"), or a folder of the raw data (its name). It holds
whole families (an original and its fakes), so that the result of a video is the same whatever the number of
parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.records import Rejection, Video


@dataclass(frozen=True)
class Part:
    """What one run was given.

    `hashes` are SHA-256 by video_id, `failures` the crashes and timeouts, which the next run tries again.
    """

    name: str
    videos: list[Video] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    failures: list[Rejection] = field(default_factory=list)


def write_part(folder: PreparedFolder, part: Part) -> None:
    folder.write_record(part.name, asdict(part))


def read_parts(folder: PreparedFolder) -> list[Part]:
    """Every part of a folder, by name.

    ValueError for a damaged one, and where "I-of-N" parts are missing or of several N.
    """
    parts = []
    for record in folder.records():
        videos = [Video(**{**v, "identities": tuple(v["identities"])}) for v in record["videos"]]
        rejections, failures = ([Rejection(**r) for r in record[key]] for key in ("rejections", "failures"))
        parts.append(Part(record["name"], videos, rejections, record["hashes"], failures))
    _check_complete([p.name for p in parts], folder.root)
    return parts


def _check_complete(names: Sequence[str], out: Path) -> None:
    numbered = [name.split("-of-") for name in names if "-of-" in name and name.replace("-of-", "").isdigit()]
    totals = {int(total) for _, total in numbered}
    if len(totals) > 1:
        raise ValueError(
            f"{out} holds parts of {' and of '.join(map(str, sorted(totals)))}: use one --num-parts, and "
            "another --out for the other"
        )
    for total in totals:
        missing = sorted(set(range(1, total + 1)) - {int(index) for index, _ in numbered})
        if missing:
            raise ValueError(
                f"part {', '.join(map(str, missing))} of {total} is missing; run `dfdc-video prepare … "
                f"--num-parts {total} --part N`, then `dfdc-video merge` with all of their folders"
            )


def union(parts: Sequence[Part]) -> Part:
    """All parts as one, in the order of paths. A video that two parts have must be the same in both."""
    videos: dict[str, Video] = {}
    hashes: dict[str, str] = {}
    for part in parts:
        for v in part.videos:
            known, own_hash = videos.setdefault(v.video_id, v), part.hashes.get(v.video_id)
            if known != v or hashes.get(v.video_id, own_hash) != own_hash:
                raise ValueError(
                    f"video {v.video_id} differs between the parts ({known.path} and {v.path}): were they "
                    "made from the same data set?"
                )
            if own_hash is not None:
                hashes[v.video_id] = own_hash

    def every(key: str) -> list[Rejection]:
        return sorted({r for p in parts for r in getattr(p, key)}, key=lambda r: (r.path, r.reason))

    return Part(
        "all", sorted(videos.values(), key=lambda v: v.path), every("rejections"), hashes, every("failures")
    )


def in_part(video: Video, part: int, num_parts: int) -> bool:
    """Whether a video's family belongs to `part` (from 1): by a hash of its original's id alone."""
    family = video.source_id or video.video_id
    return int(hashlib.sha256(family.encode()).hexdigest(), 16) % num_parts == part - 1


def resolve_sources(videos: Sequence[Video]) -> tuple[list[Video], list[Rejection]]:
    """Make the last video of its chain of originals the source of every fake; videos in a circle are refused.

    ValueError for two videos of one id.
    """
    by_id = {v.video_id: v for v in videos}
    if len(by_id) < len(videos):
        seen: set[str] = set()
        twice = next(v for v in videos if v.video_id in seen or seen.add(v.video_id))  # type: ignore[func-returns-value]
        raise ValueError(
            f"video_id {twice.video_id!r} stands for {by_id[twice.video_id].path} and for {twice.path}: "
            "the reader must tell them apart"
        )
    result, rejections = [], []
    for v in videos:
        source, chain = v.source_id, {v.video_id}
        while source in by_id and by_id[source].source_id and source not in chain:
            chain.add(source)
            source = by_id[source].source_id
        if source in chain:
            rejections.append(
                Rejection(v.video_id, v.path, "read", f"circular originals: {' -> '.join(sorted(chain))}")
            )
        else:
            result.append(replace(v, source_id=source))
    return result, rejections
