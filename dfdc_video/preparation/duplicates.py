"""Duplicates: equal files, fakes with their original's frames, and near-duplicates by perceptual hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dfdc_video.preparation.audit import EMPTY
from dfdc_video.records import Rejection, Video

# A threshold for `difference`: grey levels of the block of a face video that differs most. Measured at the
# default quality: the same frames 0; re-encoded at CRF 18 2.4 to 5.2, CRF 23 2.7 to 7.9, CRF 28 3.1 to 10.2
# (synthetic people and real footage), CRF 35 5.5 to 22; the faintest of 660 synthetic fakes 11.7, 14.1, 14.5.
# Losing a visible fake is worse than keeping a re-encoded original that is labelled fake.
EQUAL_BELOW = 8.0
NUM_FRAMES, BITS = 8, 64  # hashes of a signature, bits of a hash
MIN_FRAMES = 6  # frames with features of a signature that is compared: any two such signatures share four
BLOCK = 2048


def exact_duplicates(
    videos: Sequence[Video], hashes: Mapping[str, str]
) -> tuple[list[Video], list[Rejection]]:
    """Keep the first of equal files, by path, and refuse the others.

    Fakes of a refused video get the one that is kept as their original. Equal files with different labels are
    all refused, since it is unknown which label is right. `hashes` are content hashes by video_id; a video
    without one has no duplicate.
    """
    same: dict[str, list[Video]] = defaultdict(list)
    for v in sorted(videos, key=lambda v: (v.path, v.video_id)):
        same[hashes.get(v.video_id, EMPTY)].append(v)
    same.pop(EMPTY, None)  # empty files are kept here, and fail when they are decoded
    stays: dict[str, str] = {}  # refused video -> the one that is kept, or nothing
    rejections = []
    for copies in same.values():
        contradictory = len({v.label for v in copies}) > 1
        for v in copies if contradictory else copies[1:]:
            other = next(c for c in copies if c.label != v.label) if contradictory else copies[0]
            reason = f"exact duplicate: of {other.path}"
            if contradictory:
                reason = f"contradictory labels: same content as {other.path}, which has label {other.label}"
            rejections.append(Rejection(v.video_id, v.path, "clean", reason))
            stays[v.video_id] = "" if contradictory else other.video_id
    kept = []
    for v in videos:
        if v.video_id not in stays:
            source = stays.get(v.source_id) or v.source_id
            kept.append(replace(v, source_id="" if source == v.video_id else source))
    return kept, sorted(rejections, key=lambda r: (r.path, r.video_id))


def equal_fakes(videos: Sequence[Video], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Fakes whose face videos differ from their original's by less than EQUAL_BELOW.

    Only their sound is fake, and the label is noise for a model of frames. `results` are the extraction
    results by video_id; a fake without a `difference` (no original, or boxes of its own) is not judged.
    """
    found = {
        v.video_id: results.get(v.video_id, {}).get("difference")
        for v in videos
        if v.label > 0 and v.source_id
    }
    return sorted(
        video_id
        for video_id, difference in found.items()
        if difference is not None and difference < EQUAL_BELOW
    )


def near_duplicates(
    signatures: Mapping[str, Sequence[str]], families: Mapping[str, str], *, max_distance: float = 4.0
) -> list[tuple[str, str, float]]:
    """Pairs of videos of different families whose frames look alike: (video_id, video_id, distance), ordered.

    A signature is the 64-bit perceptual hashes (16 hex digits) of 8 evenly spaced frames; the distance of two
    videos is the mean number of bits by which their frames differ, 0 to 64. Frames without features (black,
    one colour) hash to almost nothing and would make all dark videos equal: they are left out, and so are
    videos with fewer than 6 other frames. Measured on synthetic talking heads: copies re-encoded (CRF 40),
    halved, brightened, at half the frame rate or trimmed by 5 of 90 frames 0 to 4.3; the same scene with
    other movements from 3.3 up (median 9); other people from 6.5 up (11,175 pairs, median 31). Cropped,
    mirrored and further shifted copies are not found. Every pair is compared, by matrix products of ±1 bits
    in blocks: beside the signatures, memory does not grow with their number.
    """
    if not 0 <= max_distance < BITS / 2:
        raise ValueError(
            f"max_distance {max_distance}: expected 0 to 31 of {BITS} bits; unrelated frames differ by "
            "about 32"
        )
    names = sorted(signatures)
    bits = np.zeros((len(names), NUM_FRAMES, BITS // 8), dtype=np.uint8)
    for row, name in zip(bits, names, strict=True):
        if len(signatures[name]) != NUM_FRAMES or any(len(h) != BITS // 4 for h in signatures[name]):
            raise ValueError(
                f"signature of {name}: {list(signatures[name])}, expected {NUM_FRAMES} hashes of "
                f"{BITS // 4} hex digits"
            )
        digits = "".join(signatures[name])
        row[:] = np.frombuffer(bytes.fromhex(digits), dtype=np.uint8).reshape(NUM_FRAMES, -1)
    # the hash splits 64 numbers at their median: exactly 32 bits are set, and fewer only where most of the
    # numbers are equal
    featured = np.unpackbits(bits, axis=2).sum(axis=2) >= BITS // 4  # (N, 8)
    usable = np.flatnonzero(featured.sum(axis=1) >= MIN_FRAMES)
    numbers = {family: number for number, family in enumerate(sorted(set(families.values())))}
    family = np.array([numbers[families[names[i]]] for i in usable], dtype=np.int64)
    pairs = []
    for i, j in _alike(bits[usable], featured[usable], max_distance):
        other = family[i] != family[j]
        i, j = i[other], j[other]
        shared = featured[usable[i]] & featured[usable[j]]
        differing = np.unpackbits(bits[usable[i]] ^ bits[usable[j]], axis=2).sum(axis=2)  # (pairs, 8)
        distance = (differing * shared).sum(axis=1) / shared.sum(axis=1)
        pairs += [
            (names[usable[a]], names[usable[b]], round(float(d), 3))
            for a, b, d in zip(i, j, distance, strict=True)
            if d <= max_distance
        ]
    return sorted(pairs)


def _alike(
    bits: np.ndarray, featured: np.ndarray, max_distance: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices (i < j) of the pairs within `max_distance`, up to a rounding error, block by block.

    The product of two rows of ±1 is (equal − differing bits) over the frames that both have; 8 columns more
    subtract the least product that their number of shared frames asks for.
    """

    def rows(start: int, factor: float) -> np.ndarray:
        here = featured[start : start + BLOCK].astype(np.float32)  # (n, 8)
        signs = np.unpackbits(bits[start : start + BLOCK], axis=2).astype(np.float32) * 2 - 1
        signs *= here[..., None]
        # (n, 8 * 64 + 8)
        return np.concatenate([signs.reshape(len(here), -1), here * np.float32(factor)], axis=1)

    for first in range(0, len(bits), BLOCK):
        left = rows(first, 1.0)
        for second in range(first, len(bits), BLOCK):
            product = left @ rows(second, 2 * max_distance - BITS).T
            i, j = np.divmod(np.flatnonzero(product > -0.5), product.shape[1])
            i, j = i + first, j + second
            yield i[i < j], j[i < j]
