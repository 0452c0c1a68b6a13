"""Leak audit: what belongs together and lies in more than one split, so that test scores are too good."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dfdc_video.records import SPLIT_NAMES, Video
from dfdc_video.registry import nearest

UNITS = {  # kind of leak -> what is counted
    "original": "originals with their fakes",
    "group": "groups",
    "identity": "people",
    "near_duplicate": "near-duplicate pairs",
    "content": "equal files",
}
KINDS = tuple(UNITS)
NUM_EXAMPLES = 10
EMPTY = hashlib.sha256().hexdigest()  # empty files have nothing in common


def audit(
    videos: Sequence[Video], near: Sequence[tuple[str, str, float]], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """What lies in more than one split, by kind, as plain values, whatever the order of the videos.

    `near` are pairs of near-duplicates with their distance, `hashes` content hashes by video_id. A kind's
    entry counts the units that have two videos or more (`compared`), those that lie in several splits
    (`leaking`) and their videos, and gives up to 10 `examples`, each a unit and one video_id per split.
    `unknown` of identity counts the videos that name no people, which cannot be compared. Videos in no split
    are left out.
    """
    by_id = {v.video_id: v for v in videos if v.split}
    units: dict[str, dict[str, set[str]]] = {kind: defaultdict(set) for kind in KINDS}
    for v in by_id.values():
        units["original"][v.source_id or v.video_id].add(v.video_id)
        units["group"][v.group_id or v.video_id].add(v.video_id)
        for person in v.identities:
            units["identity"][person].add(v.video_id)
        if hashes.get(v.video_id, EMPTY) != EMPTY:
            units["content"][hashes[v.video_id]].add(v.video_id)
    for a, b, _ in near:
        if a in by_id and b in by_id:
            units["near_duplicate"][" ~ ".join(sorted((a, b)))] |= {a, b}
    result = {kind: _count(units[kind], by_id) for kind in KINDS}
    result["identity"]["unknown"] = sum(not v.identities for v in by_id.values())
    return result


def _count(units: Mapping[str, set[str]], by_id: Mapping[str, Video]) -> dict[str, Any]:
    leaking: dict[str, dict[str, str]] = {}
    involved: set[str] = set()
    for unit in sorted(units):
        first: dict[str, str] = {}
        for video_id in sorted(units[unit]):
            first.setdefault(by_id[video_id].split, video_id)
        if len(first) > 1:
            leaking[unit] = {split: first[split] for split in SPLIT_NAMES if split in first}
            involved |= units[unit]
    examples = [{"unit": unit, "splits": splits} for unit, splits in list(leaking.items())[:NUM_EXAMPLES]]
    compared = sum(len(members) > 1 for members in units.values())
    return {"compared": compared, "leaking": len(leaking), "videos": len(involved), "examples": examples}


def _line(kind: str, found: Mapping[str, Any]) -> str:
    """The leak of one kind as text: how many, and the first."""
    example = found["examples"][0]
    where = ", ".join(f"{video_id} in {split}" for split, video_id in example["splits"].items())
    counts = (
        f"{found['leaking']} of {found['compared']} {UNITS[kind]} in more than one split, "
        f"{found['videos']} videos"
    )
    return f"{kind}: {counts}; first {example['unit'][:80]}: {where}"


def check_audit(audit: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """ValueError where a kind leaks that is not `allowed` ("all": every kind), and for an unknown kind."""
    allowed = tuple(allowed)
    for kind in allowed:
        if kind not in (*KINDS, "all"):
            raise ValueError(f"unknown kind of leak '{kind}'; {nearest(kind, (*KINDS, 'all'))}")
    leaks = [
        kind for kind in KINDS if audit[kind]["leaking"] and kind not in allowed and "all" not in allowed
    ]
    if leaks:
        lines = " | ".join(_line(kind, audit[kind]) for kind in leaks)
        raise ValueError(
            f"the split leaks ({lines}); use another split rule (--split group keeps groups whole), or "
            f"--allow-leaks {' '.join(leaks)}"
        )


def format_audit(audit: Mapping[str, Any]) -> str:
    """The leaks and what is not known, as a few lines for the terminal."""
    lines = [_line(kind, audit[kind]) for kind in KINDS if audit[kind]["leaking"]]
    compared = ", ".join(
        f"{audit[kind]['compared']} {UNITS[kind]}" for kind in KINDS if audit[kind]["compared"]
    )
    text = (
        "leak audit:" + "".join(f"\n  {line}" for line in lines)
        if lines
        else f"leak audit: none ({compared or 'nothing to compare'})"
    )
    if unknown := audit["identity"]["unknown"]:
        text += (
            f"\n  people are unknown in {unknown} videos: whether they appear in more than one split "
            "is not known"
        )
    return text
