"""duplicates.py: equal files, contradictory labels, fakes that show nothing fake, and near-duplicates against
a plain comparison.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from dfdc_video.preparation import duplicates
from dfdc_video.preparation.duplicates import EQUAL_BELOW, equal_fakes, exact_duplicates, near_duplicates
from dfdc_video.records import Video


def video(video_id: str, label: int = 0, source: str = "") -> Video:
    return Video(video_id, "t", f"{video_id}.mp4", label, source_id=source)


def test_the_first_of_equal_files_stays_and_adopts_the_fakes_of_the_others():
    videos = [
        video("a"),
        video("b"),
        video("c"),
        video("x", 1, "b"),
        video("y", 1, "gone"),
        video("z", 1, "x2"),
        video("x2", 1, "b"),
    ]
    hashes = {"a": "1", "b": "1", "c": "2", "x": "3", "y": "4", "z": "5", "x2": "3"}
    kept, rejections = exact_duplicates(videos, hashes)
    assert [(v.video_id, v.source_id) for v in kept] == [
        ("a", ""),
        ("c", ""),
        ("x", "a"),
        ("y", "gone"),
        ("z", "x"),
    ]
    assert [(r.video_id, r.stage, r.reason) for r in rejections] == [
        ("b", "clean", "exact duplicate: of a.mp4"),
        ("x2", "clean", "exact duplicate: of x.mp4"),
    ]
    for seed in range(4):
        again, same = exact_duplicates(random.Random(seed).sample(videos, len(videos)), hashes)
        assert (
            sorted(again, key=lambda v: v.video_id) == sorted(kept, key=lambda v: v.video_id)
            and same == rejections
        )


def test_equal_files_with_different_labels_all_go():
    videos = [video("a"), video("b"), video("c", 1, "a"), video("d", 1, "a"), video("e", 1, "b")]
    kept, rejections = exact_duplicates(videos, {"a": "1", "b": "1", "c": "1", "d": "2", "e": "3"})
    assert [(v.video_id, v.source_id) for v in kept] == [("d", "a"), ("e", "b")], (
        "fakes of a removed original stay of one family"
    )
    assert [r.reason for r in rejections] == [
        "contradictory labels: same content as c.mp4, which has label 1",
        "contradictory labels: same content as c.mp4, which has label 1",
        "contradictory labels: same content as a.mp4, which has label 0",
    ]


def test_empty_and_unhashed_files_are_no_duplicates():
    empty = hashlib.sha256(b"").hexdigest()
    videos = [video("a"), video("b", 1), video("c"), video("d")]
    assert exact_duplicates(videos, {"a": empty, "b": empty}) == (videos, [])


def test_a_copy_of_an_original_that_is_listed_as_its_fake_has_no_original_left():
    kept, _ = exact_duplicates([replace(video("b"), source_id="c"), video("c")], {"b": "1", "c": "1"})
    assert [(v.video_id, v.source_id) for v in kept] == [("b", "")]


def test_fakes_that_look_like_their_original():
    videos = [
        video("r"),
        *(video(name, 1, "r") for name in ("same", "noise", "fake", "own", "undone")),
        video("lone", 1),
    ]
    differences = {
        "same": 0.0,
        "noise": EQUAL_BELOW * 0.9,
        "fake": EQUAL_BELOW,
        "own": None,
        "lone": 0.0,
        "r": 0.0,
    }
    assert equal_fakes(videos[::-1], {k: {"difference": d} for k, d in differences.items()}) == [
        "noise",
        "same",
    ]


def random_bits(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 8, 64) with 32 bits set in every hash, as a median gives."""
    return np.argsort(rng.random((count, 8, 64)), axis=2) < 32


def hexed(bits: np.ndarray) -> list[str]:
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def test_near_duplicates_are_those_of_a_plain_comparison(monkeypatch):
    # pairs within a block, across blocks, and a last block that is not full
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    rng = np.random.default_rng(0)
    bits = random_bits(rng, 90)
    for i in range(0, 80, 2):  # copies with 0 to 39 of 512 bits turned
        flat = bits[i].copy().reshape(-1)
        flat[rng.choice(512, i // 2, replace=False)] ^= True
        bits[i + 1] = flat.reshape(8, 64)
    names = [f"v{n:02d}" for n in rng.permutation(90)]
    families = {name: f"f{int(name[1:]) // 3}" for name in names}
    signatures = {name: hexed(b) for name, b in zip(names, bits, strict=True)}
    for limit in (0.0, 1.3, 4.0):
        expected = sorted(
            (*sorted((a, b)), round(float((x != y).sum() / 8), 3))
            for (a, x), (b, y) in itertools.combinations(zip(names, bits, strict=True), 2)
            if families[a] != families[b] and (x != y).sum() / 8 <= limit
        )
        assert expected and near_duplicates(signatures, families, max_distance=limit) == expected
    shuffled = dict(random.Random(1).sample(sorted(signatures.items()), 90))
    assert near_duplicates(shuffled, families) == expected


def test_frames_without_features_make_nobody_alike():
    rng = np.random.default_rng(1)
    black, grey = ["0" * 16] * 8, ["8" + "0" * 15] * 8
    mostly = [["0" * 16] * 3 + hexed(b)[3:] for b in random_bits(rng, 2)]
    films = random_bits(rng, 2)
    # two films that begin in black, and a copy of one that does not
    faded = [["0" * 16] * 2 + hexed(b)[2:] for b in films]
    every = {"b0": black, "b1": black, "g0": grey, "g1": grey, "m0": mostly[0], "m1": mostly[0]}
    every |= {"f0": faded[0], "f1": faded[1], "copy": hexed(films[0])}
    assert near_duplicates(every, {k: k for k in every}) == [("copy", "f0", 0.0)]


def test_wrong_signatures_and_distances_are_refused():
    with pytest.raises(ValueError, match="signature of a: .*expected 8 hashes of 16 hex digits"):
        near_duplicates({"a": ["00"] * 8}, {"a": "a"})
    with pytest.raises(ValueError, match="max_distance 40"):
        near_duplicates({}, {}, max_distance=40)
    assert near_duplicates({}, {}) == []


def test_copies_of_real_videos_are_found_and_other_people_are_not(make_video):
    """Re-encoded, halved, brightened and trimmed copies against each other and against other people."""
    import cv2
    import imagehash
    from PIL import Image

    from dfdc_video.media.reader import iter_frames

    def signature(frames: list[np.ndarray]) -> list[str]:
        return [
            str(imagehash.phash(Image.fromarray(frames[i])))
            for i in np.linspace(0, len(frames) - 1, 8).round().astype(int)
        ]

    signatures, families = {}, {}
    for person in range(3):
        frames = list(iter_frames(make_video(f"{person}.mp4", num_frames=45, identity=2 * person)))
        half = np.stack([cv2.resize(f, (160, 120), interpolation=cv2.INTER_AREA) for f in frames])
        copies = {
            "as_it_is": frames,
            "recoded": list(iter_frames(make_video("recoded.mp4", np.stack(frames), crf=33))),
            "half": list(iter_frames(make_video("half.mp4", half, crf=23))),
            "bright": [cv2.convertScaleAbs(f, alpha=1.1, beta=5) for f in frames],
            "trimmed": frames[3:],
        }
        signatures |= {f"p{person}_{kind}": signature(copy) for kind, copy in copies.items()}
    families = {name: name for name in signatures}
    found = {(a, b) for a, b, _ in near_duplicates(signatures, families)}
    assert all(a[:2] == b[:2] for a, b in found)
    assert {
        (a, b)
        for a in signatures
        for b in signatures
        if a < b and a[:2] == b[:2] and "as_it_is" in (a[3:], b[3:])
    } <= found
    same = {name: name[:2] for name in signatures}
    assert near_duplicates(signatures, same) == [], "copies of one family are no news"
