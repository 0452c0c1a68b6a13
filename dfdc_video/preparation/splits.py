"""Split rules: which videos are for training, validation and test.

Videos of one group stay in one split, unless a rule says otherwise. A rule is `rule(videos, ratios, seed, *,
its settings)`: videos with a group_id in, the same videos with their split out, in the same order. The result
depends on the videos alone, not on their order. `folders`, `kfold`, `file` and `official` ignore the ratios.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from dfdc_video.preparation.audit import audit
from dfdc_video.records import SPLIT_NAMES, Video
from dfdc_video.registry import SPLITS, nearest

log = logging.getLogger(__name__)
GROUPINGS = ("auto", "identity", "folder", "original")


def assign_groups(
    videos: Sequence[Video], *, by: str = "auto", links: Sequence[tuple[str, str]] = ()
) -> list[Video]:
    """Fill `group_id` with connected components over originals, fakes, `links`, identities or folders.

    `by` says whether identities or folders connect videos. `links` are pairs of video_ids that belong
    together for another reason (near-duplicates). An original that is missing still groups its fakes.

    `auto` takes identities where every video names them, else folders where there are at least three, else
    originals with a warning. The group's name is its smallest member, so that it does not depend on the order
    of the videos.
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
            log.warning(
                "fewer than 3 folders and no identities: grouped by original only; the same person may "
                "appear in two splits"
            )
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

    for a, b in links:
        join(f"video:{a}", f"video:{b}")
    for v in videos:
        join(f"video:{v.video_id}", f"video:{v.source_id or v.video_id}")
        keys = v.identities if by == "identity" else (v.folder,) if by == "folder" else ()
        for key in keys:
            join(f"video:{v.video_id}", f"{by}:{key}")
    return [replace(v, group_id=root(f"video:{v.video_id}").split(":", 1)[1]) for v in videos]


def _by_hash(names: Sequence[str], seed: int) -> list[str]:
    """A shuffled order that depends on nothing but the names and the seed."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _fill(
    order: Sequence[str], counts: dict[str, Counter[Hashable]], shares: Sequence[float], *, even: bool
) -> dict[str, int]:
    """Group -> place, greedily: each group goes where it reduces the squared deficit of its classes most.

    The last groups go to places that are still empty. `counts` are a group's videos by class. A class weighs
    by its rarity, so that a method with few videos is spread like one with many. `even` fills all places at
    one pace (chi-square); otherwise large ones are filled first, until all have the same deficit.
    """
    totals: Counter[Hashable] = sum(counts.values(), Counter())
    have: list[Counter[Hashable]] = [Counter() for _ in shares]
    wanted, result = [i for i, share in enumerate(shares) if share > 0], {}
    for position, group in enumerate(order):
        empty = [i for i in wanted if not have[i]]
        excess = {  # fsum, since a sum of floats depends on the order of its terms
            i: math.fsum(
                n * (n + 2 * (have[i][c] - shares[i] * totals[c])) / totals[c] ** 2
                for c, n in counts[group].items()
            )
            / (shares[i] if even else 1)
            for i in wanted
        }
        best = min(empty if len(order) - position <= len(empty) else wanted, key=lambda i: (excess[i], i))
        have[best] += counts[group]
        result[group] = best
    return result


def _whole_groups(
    videos: Sequence[Video],
    shares: Sequence[float],
    seed: int,
    *,
    classes: Callable[[Video], Sequence[Hashable]] = lambda v: ("video",),
    even: bool = True,
) -> dict[str, int]:
    """Group -> index of its share.

    With `even`, large groups come first (by powers of two, shuffled within): small ones then even things out.
    """
    counts: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for v in videos:
        counts[v.group_id].update(classes(v))
    places = sum(share > 0 for share in shares)
    if len(counts) < places:
        raise ValueError(
            f"{len(counts)} groups cannot fill {places} splits; prepare more videos, use --group-by "
            "original, or change --ratios"
        )
    sizes = Counter(v.group_id for v in videos)
    largest = min(sizes, key=lambda g: (-sizes[g], g))
    if sizes[largest] > max(0.5, *shares) * len(videos):
        log.warning(
            "group %r alone holds %d of %d videos: the shares of the splits cannot be met",
            largest,
            sizes[largest],
            len(videos),
        )
    order = _by_hash(list(counts), seed)
    if even:
        totals: Counter[Hashable] = sum(counts.values(), Counter())
        weight = {g: math.fsum(n / totals[c] for c, n in counts[g].items()) for g in counts}
        order.sort(key=lambda g: -math.frexp(weight[g])[1])
    return _fill(order, dict(counts), shares, even=even)


def _check_ratios(ratios: Sequence[float]) -> None:
    if len(ratios) != 3 or min(ratios) < 0 or not abs(sum(ratios) - 1) <= 1e-6:
        raise ValueError(
            f"ratios {list(ratios)}: expected three shares for train, val, test that sum to 1, for "
            "example 0.7 0.1 0.2"
        )


@SPLITS.register(name="group")
def by_group(videos: Sequence[Video], ratios: Sequence[float], seed: int) -> list[Video]:
    """Whole groups (an original, its fakes, their identity or folder) go to one split; the default."""
    _check_ratios(ratios)
    chosen = _whole_groups(videos, ratios, seed, even=False)
    return [replace(v, split=SPLIT_NAMES[chosen[v.group_id]]) for v in videos]


@SPLITS.register(name="stratified")
def stratified(videos: Sequence[Video], ratios: Sequence[float], seed: int) -> list[Video]:
    """Whole groups, with shares of labels and methods as equal in all splits as groups allow."""
    _check_ratios(ratios)
    chosen = _whole_groups(
        videos, ratios, seed, classes=lambda v: ("video", ("label", v.label), ("method", v.label, v.method))
    )
    return [replace(v, split=SPLIT_NAMES[chosen[v.group_id]]) for v in videos]


@SPLITS.register(name="kfold")
def kfold(
    videos: Sequence[Video],
    ratios: Sequence[float],
    seed: int,
    *,
    folds: int = 5,
    fold: int = 0,
    val: bool = True,
) -> list[Video]:
    """Whole groups in `folds` folds of like size: one is test, one val, the rest train.

    Number `fold` (from 0) is test; with `val` the next one is val. The folds follow from groups and seed, so
    that the test splits of all numbers together are every video once. Grouped by folder with 16 folds it is
    the scheme of the challenge's winner (public code: 16 folds of about 3 of the 50 folders).
    """
    if folds < 2 + val or not 0 <= fold < folds:
        raise ValueError(
            f"folds {folds}, fold {fold}: expected {2 + val} or more folds{' with val' * val}, and a fold "
            "from 0 to folds - 1"
        )
    chosen = _whole_groups(videos, [1 / folds] * folds, seed)
    names = {fold: "test", (fold + 1) % folds: "val" if val else "train"}
    return [replace(v, split=names.get(chosen[v.group_id], "train")) for v in videos]


@SPLITS.register(name="folders")
def by_folder(
    videos: Sequence[Video], ratios: Sequence[float], seed: int, *, ranges: str = "0-39/40-44/45-49"
) -> list[Video]:
    """By the number that a folder's name ends with: `ranges` for train/val/test, or for train/val.

    Public schemes: "0-34/35-39/40-49", "1-40/41-45/46-50" where folders count from 1, and "0-39/40-49". Every
    folder needs a range; ranges without a folder give a warning, since many have only some folders of DFDC.
    """
    bounds = _parse_ranges(ranges)
    place: dict[str, str] = {}
    numbers = set()
    for folder in sorted({v.folder for v in videos}):
        digits = re.search(r"\d+$", folder)
        if not digits:
            raise ValueError(
                f"folder {folder!r} has no number at its end, as dfdc_train_part_7 has; use --split group "
                "--group-by folder"
            )
        number = int(digits[0])
        numbers.add(number)
        splits = [split for split, low, high in bounds if low <= number <= high]
        if not splits:
            zero = (
                "; the folders of this set count from 0, the ranges from 1"
                if number == 0 and bounds[0][1] == 1
                else ""
            )
            raise ValueError(
                f"folder {folder!r} is in none of the ranges {ranges!r}{zero}; every folder needs a range"
            )
        place[folder] = splits[0]
    absent = sum(high - low + 1 for _, low, high in bounds) - len(numbers)
    if absent:
        empty = sorted({split for split, _, _ in bounds} - set(place.values()))
        log.warning(
            "%d of the folder numbers in %r have no folder here%s",
            absent,
            ranges,
            "; no video in " + " and ".join(empty) if empty else "",
        )
    return [replace(v, split=place[v.folder]) for v in videos]


def _parse_ranges(ranges: str) -> list[tuple[str, int, int]]:
    """(split, first, last) of every range of "0-39/40-44/45-49".

    ValueError with the text where it is malformed or ranges overlap.
    """
    parts = ranges.replace(" ", "").split("/")
    found = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in parts]
    bounds = [
        (split, int(m[1]), int(m[2] or m[1])) for split, m in zip(SPLIT_NAMES, found, strict=False) if m
    ]
    if len(parts) not in (2, 3) or len(bounds) < len(parts) or any(low > high for _, low, high in bounds):
        raise ValueError(
            f"ranges {ranges!r}: expected first-last of the folders of train/val/test or train/val, for "
            "example 0-39/40-44/45-49"
        )
    ordered = sorted(bounds, key=lambda b: b[1])
    for (_, a, b), (_, c, d) in zip(ordered, ordered[1:], strict=False):
        if c <= b:
            raise ValueError(f"ranges {ranges!r}: {a}-{b} and {c}-{d} overlap; a folder lies in one split")
    return bounds


@SPLITS.register(name="random")
def at_random(videos: Sequence[Video], ratios: Sequence[float], seed: int) -> list[Video]:
    """Every video by itself, as in many published baselines: leaks people and originals, and warns."""
    _check_ratios(ratios)
    alone = [replace(v, group_id=v.video_id) for v in videos]
    chosen = _whole_groups(alone, ratios, seed, even=False)
    result = [replace(v, split=SPLIT_NAMES[chosen[v.video_id]]) for v in videos]
    leaks = {kind: found for kind, found in audit(result, [], {}).items() if found["leaking"]}
    counts = ", ".join(
        f"{found['leaking']} of {found['compared']} by {kind}" for kind, found in leaks.items()
    )
    log.warning(
        "random split: what should stay together lies in more than one split (%s); scores on it are too good",
        counts or "nothing, by chance",
    )
    return result


@SPLITS.register(name="official")
def official(
    videos: Sequence[Video], ratios: Sequence[float], seed: int, *, val_share: float = 0.0
) -> list[Video]:
    """The split that the data set itself gives; every video must have one.

    Sets without val can take `val_share` of train, in whole groups.
    """
    missing = [v.video_id for v in videos if not v.split]
    if missing:
        raise ValueError(
            f"{len(missing)} videos have no official split (first: {min(missing)}); use --split group"
        )
    if not 0 <= val_share < 1:
        raise ValueError(f"val_share {val_share}: expected a share of train, 0 or more and below 1")
    if not val_share:
        return list(videos)
    if count := sum(v.split == "val" for v in videos):
        raise ValueError(
            f"val_share {val_share}: the official split has a val of {count} videos; leave val_share at 0"
        )
    chosen = _whole_groups([v for v in videos if v.split == "train"], (1 - val_share, val_share), seed)
    return [replace(v, split=SPLIT_NAMES[chosen[v.group_id]]) if v.split == "train" else v for v in videos]


@SPLITS.register(name="file")
def from_file(
    videos: Sequence[Video], ratios: Sequence[float], seed: int, *, path: str = "", partial: bool = False
) -> list[Video]:
    """From a CSV with the columns video_id or path, and split, or from JSON {"video_id or path": "train", …}.

    With `partial`, names that are not in the data set and videos that are not listed are no error: such
    videos are in no split, and a warning counts both.
    """
    names = {name: v.video_id for v in videos for name in (v.path, v.video_id)}
    chosen: dict[str, str] = {}
    unknown = []
    for line, name, split in _read_file(path):
        if split not in SPLIT_NAMES:
            raise ValueError(f"{path}:{line}: split {split!r} of {name}; {nearest(split, SPLIT_NAMES)}")
        if name not in names:
            unknown.append(f"{path}:{line}: {name!r} is no video_id and no path of this data set")
        elif chosen.setdefault(names[name], split) != split:
            raise ValueError(f"{path}:{line}: {name} is in {split}, and in {chosen[names[name]]} further up")
    unlisted = sorted(v.video_id for v in videos if v.video_id not in chosen)
    if unknown and not partial:
        raise ValueError(
            f"{unknown[0]} ({len(unknown)} such names); correct them, or set partial to leave out what is "
            "not on both sides"
        )
    if unlisted and not partial:
        raise ValueError(
            f"{path} does not list {len(unlisted)} of {len(videos)} videos (first: {unlisted[0]}); add "
            "them, or set partial"
        )
    if unknown or unlisted:
        counts = (path, len(unknown), len(unlisted), len(videos))
        log.warning(
            "%s: %d of its names are not here; %d of %d videos are not listed and in no split", *counts
        )
    return [replace(v, split=chosen.get(v.video_id, "")) for v in videos]


def _read_file(path: str) -> list[tuple[int, str, str]]:
    """(line, name, split) of every entry."""
    file = Path(path).expanduser()
    if not path or not file.is_file():
        raise FileNotFoundError(
            f"split rule file: no file at {path!r}; set path to a CSV with the columns video_id and split"
        )
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() != ".json":
        reader = csv.DictReader(io.StringIO(text))
        key = next((c for c in ("video_id", "path") if c in (reader.fieldnames or [])), "")
        if not key or "split" not in (reader.fieldnames or []):
            raise ValueError(f"{path}:1: columns {reader.fieldnames}, expected video_id (or path) and split")
        return [(reader.line_num, row[key] or "", row["split"] or "") for row in reader]
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    if not isinstance(table, dict) or not all(isinstance(split, str) for split in table.values()):
        raise ValueError(f'{path}:1: expected {{"video_id or path": "train", "val" or "test", ...}}')
    return [
        (text[: max(0, text.find(json.dumps(name, ensure_ascii=False)))].count("\n") + 1, name, split)
        for name, split in table.items()
    ]


def merge_test(videos: Sequence[Video]) -> list[Video]:
    """Test becomes train, for a final fit on everything.

    The caller must mark the data set: it has no test scores any more.
    """
    return [replace(v, split="train") if v.split == "test" else v for v in videos]
