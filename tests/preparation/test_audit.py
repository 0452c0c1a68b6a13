"""audit.py: every kind of leak is found, counted and named, whatever the order; a leak is an error unless it
is allowed.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace

import pytest

from dfdc_video.preparation.audit import KINDS, audit, check_audit, format_audit
from dfdc_video.records import Video


def clean() -> list[Video]:
    """Three people with an original and two fakes each, one person per split."""
    videos = []
    for person, split in enumerate(("train", "val", "test")):
        common = {"split": split, "group_id": f"g{person}", "identities": (f"p{person}",)}
        videos.append(Video(f"r{person}", "t", f"r{person}.mp4", 0, **common))
        videos += [
            Video(f"x{person}{n}", "t", f"x{person}{n}.mp4", 1, source_id=f"r{person}", **common)
            for n in range(2)
        ]
    return videos


def change(video_id: str, **fields) -> list[Video]:
    return [replace(v, **fields) if v.video_id == video_id else v for v in clean()]


def leaking(found: dict) -> dict[str, int]:
    return {kind: found[kind]["leaking"] for kind in KINDS if found[kind]["leaking"]}


def test_a_clean_split_leaks_nothing():
    hashes = {v.video_id: v.video_id for v in clean()}
    found = audit(clean(), [("r0", "x00", 1.0)], hashes)
    assert leaking(found) == {} and [found[k]["compared"] for k in KINDS] == [3, 3, 3, 1, 0]
    check_audit(found, ())
    text = format_audit(found)
    assert (
        text == "leak audit: none (3 originals with their fakes, 3 groups, 3 people, 1 near-duplicate pairs)"
    )


def test_every_kind_of_leak_is_found_and_counted():
    cases = {
        "original": (change("x00", split="test", group_id="g9", identities=()), [], {}),
        "group": (change("x00", split="test", source_id="", identities=()), [], {}),
        "identity": (change("r2", identities=("p2", "p0")), [], {}),
        "near_duplicate": (clean(), [("r0", "r2", 2.5), ("r0", "x00", 0.0)], {}),
        "content": (clean(), [], {"r0": "aa", "r1": "aa", "r2": "bb"}),
    }
    assert tuple(cases) == KINDS
    expected = {  # unit, one video of each of its splits, number of videos
        "original": ("r0", {"train": "r0", "test": "x00"}, 3),
        "group": ("g0", {"train": "r0", "test": "x00"}, 3),
        "identity": ("p0", {"train": "r0", "test": "r2"}, 4),
        "near_duplicate": ("r0 ~ r2", {"train": "r0", "test": "r2"}, 2),
        "content": ("aa", {"train": "r0", "val": "r1"}, 2),
    }
    for kind, arguments in cases.items():
        found = audit(*arguments)
        unit, splits, count = expected[kind]
        assert leaking(found) == {kind: 1}
        assert (
            found[kind]["examples"] == [{"unit": unit, "splits": splits}] and found[kind]["videos"] == count
        )
        told = ", ".join(f"{v} in {s}" for s, v in splits.items())
        assert f"{kind}: 1 of {found[kind]['compared']}" in format_audit(found) and told in format_audit(
            found
        )
        with pytest.raises(
            ValueError, match=rf"{kind}: 1 of .*{told}.*another split rule.*--allow-leaks {kind}$"
        ):
            check_audit(found, [k for k in KINDS if k != kind])
        check_audit(found, [kind])
        check_audit(found, ["all"])


def test_two_fakes_of_an_original_that_is_missing():
    videos = [v for v in change("x00", split="val", group_id="", identities=()) if v.video_id != "r0"]
    assert leaking(audit(videos, [], {})) == {"original": 1}


def test_videos_in_no_split_and_empty_files_leak_nothing():
    assert (
        leaking(
            audit(
                change("x00", split=""),
                [("x00", "r2", 0.0), ("r0", "elsewhere", 0.0)],
                {"x00": "a", "r2": "a"},
            )
        )
        == {}
    )
    empty = hashlib.sha256(b"").hexdigest()
    assert leaking(audit(clean(), [], {"r0": empty, "r1": empty})) == {}


def test_unknown_people_are_no_clean_bill():
    nameless = [replace(v, identities=()) for v in clean()]
    found = audit(nameless, [], {})
    assert found["identity"]["unknown"] == 9 and "people are unknown in 9 videos" in format_audit(found)
    assert "unknown" not in format_audit(audit(clean(), [], {}))


def test_the_order_does_not_matter_and_examples_are_few():
    videos = [
        Video(
            f"v{i:03d}",
            "t",
            f"v{i}",
            i % 2,
            split=("train", "test")[i % 2],
            group_id=f"g{i // 2}",
            identities=(f"p{i % 7}",),
        )
        for i in range(60)
    ]
    near = [(f"v{i:03d}", f"v{i + 1:03d}", 1.0) for i in range(20)]
    hashes = {v.video_id: f"h{i % 20}" for i, v in enumerate(videos)}
    first = json.dumps(audit(videos, near, hashes))
    found = json.loads(first)
    assert (
        found["group"]["leaking"] == 30
        and len(found["group"]["examples"]) == 10
        and found["group"]["videos"] == 60
    )
    for seed in range(5):
        chance = random.Random(seed)
        turned = [(b, a, d) for a, b, d in chance.sample(near, len(near))]
        shuffled = dict(chance.sample(sorted(hashes.items()), len(hashes)))
        assert json.dumps(audit(chance.sample(videos, len(videos)), turned, shuffled)) == first


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind of leak 'identities'; did you mean identity"):
        check_audit(audit(clean(), [], {}), ["identities"])
