"""splits.py: groups never lie on both sides, whatever the order of the videos."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import networkx
import pytest

from dfdc_video.records import Video
from dfdc_video.registry import SPLITS
from dfdc_video.splits import assign_groups


def people(count: int = 20) -> list[Video]:
    """Per person a real, and a fake with the next person's face on even ones; every person in a folder of three."""
    videos = []
    for i in range(count):
        videos.append(Video(f"r{i:02d}", "t", f"r{i}.mp4", 0, folder=f"f{i // 3}", identities=(f"p{i:02d}",)))
        donor = f"p{i + 1:02d}" if i % 2 == 0 else f"p{i:02d}"
        videos.append(Video(f"x{i:02d}", "t", f"x{i}.mp4", 1, source_id=f"r{i:02d}", folder=f"f{i // 3}", identities=(f"p{i:02d}", donor)))
    return videos


def partition(videos: list[Video]) -> set[frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for v in videos:
        groups.setdefault(v.group_id, set()).add(v.video_id)
    return {frozenset(g) for g in groups.values()}


@pytest.mark.parametrize("by", ["identity", "folder", "original"])
def test_groups_are_connected_components(by):
    videos = people()
    graph = networkx.Graph()
    for v in videos:
        keys = {"identity": v.identities, "folder": (v.folder,), "original": ()}[by]
        graph.add_edges_from([(v.video_id, v.source_id or v.video_id), *((v.video_id, f"key:{k}") for k in keys)])
    expected = {frozenset(n for n in c if not n.startswith("key:")) for c in networkx.connected_components(graph)}
    assert partition(assign_groups(videos, by=by)) == expected


def test_auto_takes_the_strongest_that_is_there(caplog):
    videos = people()
    assert partition(assign_groups(videos)) == partition(assign_groups(videos, by="identity"))
    nameless = [replace(v, identities=()) for v in videos]
    assert partition(assign_groups(nameless)) == partition(assign_groups(videos, by="folder"))
    assert not caplog.text
    flat = [replace(v, folder="") for v in nameless]
    assert partition(assign_groups(flat)) == partition(assign_groups(videos, by="original"))
    assert "same person may appear" in caplog.text


@pytest.mark.parametrize("by", ["auto", "identity", "folder", "original"])
def test_the_order_of_the_videos_does_not_matter(by):
    videos = people()
    shuffled = random.Random(1).sample(videos, len(videos))
    split = SPLITS.get("group")
    first = {v.video_id: (v.group_id, v.split) for v in split(assign_groups(videos, by=by), (0.5, 0.25, 0.25), 3)}
    assert first == {v.video_id: (v.group_id, v.split) for v in split(assign_groups(shuffled, by=by), (0.5, 0.25, 0.25), 3)}


@pytest.mark.parametrize("seed", range(5))
def test_group_split_keeps_groups_and_shares(seed):
    videos = SPLITS.get("group")(assign_groups(people(40), by="identity"), (0.7, 0.1, 0.2), seed)
    assert all(len({v.split for v in videos if v.group_id == g}) == 1 for g in {v.group_id for v in videos})
    share = {name: count / len(videos) for name, count in Counter(v.split for v in videos).items()}
    assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.06)


def test_seeds_differ():
    results = {tuple(v.split for v in SPLITS.get("group")(assign_groups(people(), by="identity"), (0.5, 0.25, 0.25), s)) for s in range(4)}
    assert len(results) > 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("groups", [3, 4, 5])
def test_no_wanted_split_stays_empty(seed, groups):
    videos = SPLITS.get("group")(assign_groups(people(2 * groups), by="identity"), (0.7, 0.1, 0.2), seed)
    assert {v.split for v in videos} == {"train", "val", "test"}


def test_a_share_of_zero_gets_nothing():
    videos = SPLITS.get("group")(assign_groups(people(), by="original"), (0.5, 0.0, 0.5), 0)
    assert {v.split for v in videos} == {"train", "test"}


def test_too_few_groups():
    with pytest.raises(ValueError, match="1 groups cannot fill 3 splits"):
        SPLITS.get("group")(assign_groups(people(1)), (0.7, 0.1, 0.2), 0)


@pytest.mark.parametrize("ratios", [(0.7, 0.1), (0.7, 0.1, 0.1), (1.2, -0.1, -0.1)])
def test_bad_ratios(ratios):
    with pytest.raises(ValueError, match="sum to 1"):
        SPLITS.get("group")(assign_groups(people()), ratios, 0)


def test_random_split_warns_of_its_leaks(caplog):
    videos = SPLITS.get("random")(assign_groups(people(), by="identity"), (0.5, 0.2, 0.3), 0)
    assert any(len({v.split for v in videos if v.group_id == g}) > 1 for g in {v.group_id for v in videos})
    assert "more than one split" in caplog.text


def test_official_needs_a_split_for_every_video():
    videos = [replace(v, split="test") for v in people()]
    assert SPLITS.get("official")(videos, (0.7, 0.1, 0.2), 0) == videos
    with pytest.raises(ValueError, match="1 videos have no official split .first: r00"):
        SPLITS.get("official")([replace(videos[0], split=""), *videos[1:]], (0.7, 0.1, 0.2), 0)


def test_unknown_names():
    with pytest.raises(ValueError, match="did you mean identity"):
        assign_groups(people(), by="identiti")
    with pytest.raises(ValueError, match="did you mean group"):
        SPLITS.get("groups")
