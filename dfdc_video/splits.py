"""Who is trained on and who is tested on. Videos of one group never lie on both sides."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from dfdc_video.records import SPLIT_NAMES, Video
from dfdc_video.registry import SPLITS, nearest

log = logging.getLogger(__name__)
GROUPINGS = ("auto", "identity", "folder", "original")


def assign_groups(videos: Sequence[Video], *, by: str = "auto") -> list[Video]:
    """Fill `group_id`: connected components over originals and their fakes and, as `by` says, identities or folders.

    `auto` takes identities where every video names them, else folders where there are at least three, else originals with a warning.
    The group's name is its smallest member, so that it does not depend on the order of the videos.
    """
    if by not in GROUPINGS:
        raise ValueError(f"grouping {by!r}; {nearest(by, GROUPINGS)}")
    if by == "auto":
        if all(v.identities for v in videos):
            by = "identity"
        elif len({v.folder for v in videos}) >= len(SPLIT_NAMES):
            by = "folder"
        else:
            by = "original"
            log.warning("fewer than 3 folders and no identities: grouped by original only; the same person may appear in two splits")
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def join(a: str, b: str) -> None:
        low, high = sorted((root(a), root(b)))
        parent[high] = low

    for v in videos:
        join(f"video:{v.video_id}", f"video:{v.source_id or v.video_id}")
        keys = v.identities if by == "identity" else (v.folder,) if by == "folder" else ()
        for key in keys:
            join(f"video:{v.video_id}", f"{by}:{key}")
    return [replace(v, group_id=root(f"video:{v.video_id}").split(":", 1)[1]) for v in videos]


def _fill(sizes: dict[str, int], ratios: Sequence[float], seed: int) -> dict[str, str]:
    """Group -> split: groups in a seeded hash order, each to the split that lacks most of its share; the last ones to splits still empty."""
    order = sorted(sizes, key=lambda g: hashlib.sha256(f"{seed}:{g}".encode()).digest())
    total, have, result = sum(sizes.values()), [0.0] * len(SPLIT_NAMES), {}
    for position, group in enumerate(order):
        missing = [share * total - got for share, got in zip(ratios, have, strict=True)]
        empty = [i for i, share in enumerate(ratios) if share > 0 and not have[i]]
        choices = empty if len(order) - position <= len(empty) else [i for i, share in enumerate(ratios) if share > 0]
        best = max(choices, key=lambda i: (missing[i], -i))
        have[best] += sizes[group]
        result[group] = SPLIT_NAMES[best]
    return result


def _check_ratios(ratios: Sequence[float]) -> None:
    if len(ratios) != 3 or min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(f"ratios {list(ratios)}: expected three shares for train, val, test that sum to 1, for example 0.7 0.1 0.2")


@SPLITS.register(name="group")
def by_group(videos: Sequence[Video], ratios: Sequence[float], seed: int) -> list[Video]:
    """Whole groups (an original, its fakes, their identity or folder) go to one split; the default."""
    _check_ratios(ratios)
    sizes: dict[str, int] = defaultdict(int)
    for v in videos:
        sizes[v.group_id] += 1
    wanted = sum(r > 0 for r in ratios)
    if len(sizes) < wanted:
        raise ValueError(f"{len(sizes)} groups cannot fill {wanted} splits; prepare more videos, use --group-by original, or change --ratios")
    chosen = _fill(dict(sizes), ratios, seed)
    return [replace(v, split=chosen[v.group_id]) for v in videos]


@SPLITS.register(name="random")
def at_random(videos: Sequence[Video], ratios: Sequence[float], seed: int) -> list[Video]:
    """Every video by itself, as in many published baselines. It leaks people and originals between splits; warns."""
    _check_ratios(ratios)
    chosen = _fill({v.video_id: 1 for v in videos}, ratios, seed)
    result = [replace(v, split=chosen[v.video_id]) for v in videos]
    seen: dict[str, set[str]] = defaultdict(set)
    for v in result:
        seen[v.group_id].add(v.split)
    leaks = sum(len(splits) > 1 for splits in seen.values())
    log.warning("random split: %d of %d groups lie in more than one split; scores on it are too good", leaks, len(seen))
    return result


@SPLITS.register(name="official")
def official(videos: Sequence[Video], ratios: Sequence[float], seed: int) -> list[Video]:
    """The split that the data set itself gives; every video must have one."""
    missing = [v.video_id for v in videos if not v.split]
    if missing:
        raise ValueError(f"{len(missing)} videos have no official split (first: {missing[0]}); use --split group")
    return list(videos)
