"""splits.py: groups never lie on both sides, whatever the order of the videos."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from dataclasses import replace

import networkx
import pytest

from dfdc_video.preparation.splits import assign_groups, merge_test
from dfdc_video.records import Video
from dfdc_video.registry import SPLITS

RATIOS = (0.6, 0.2, 0.2)


def people(count: int = 20) -> list[Video]:
    """Per person a real, and a fake with the next person's face on even ones; every person in a folder of
    three.
    """
    videos = []
    for i in range(count):
        videos.append(Video(f"r{i:02d}", "t", f"r{i}.mp4", 0, folder=f"f{i // 3}", identities=(f"p{i:02d}",)))
        donor = f"p{i + 1:02d}" if i % 2 == 0 else f"p{i:02d}"
        videos.append(
            Video(
                f"x{i:02d}",
                "t",
                f"x{i}.mp4",
                1,
                source_id=f"r{i:02d}",
                folder=f"f{i // 3}",
                identities=(f"p{i:02d}", donor),
            )
        )
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
        graph.add_edges_from(
            [(v.video_id, v.source_id or v.video_id), *((v.video_id, f"key:{k}") for k in keys)]
        )
    expected = {
        frozenset(n for n in c if not n.startswith("key:")) for c in networkx.connected_components(graph)
    }
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
    first = {
        v.video_id: (v.group_id, v.split) for v in split(assign_groups(videos, by=by), (0.5, 0.25, 0.25), 3)
    }
    assert first == {
        v.video_id: (v.group_id, v.split) for v in split(assign_groups(shuffled, by=by), (0.5, 0.25, 0.25), 3)
    }


@pytest.mark.parametrize("seed", range(5))
def test_group_split_keeps_groups_and_shares(seed):
    videos = SPLITS.get("group")(assign_groups(people(40), by="identity"), (0.7, 0.1, 0.2), seed)
    assert all(len({v.split for v in videos if v.group_id == g}) == 1 for g in {v.group_id for v in videos})
    share = {name: count / len(videos) for name, count in Counter(v.split for v in videos).items()}
    assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.06)


def test_seeds_differ():
    results = {
        tuple(
            v.split for v in SPLITS.get("group")(assign_groups(people(), by="identity"), (0.5, 0.25, 0.25), s)
        )
        for s in range(4)
    }
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


@pytest.mark.parametrize("ratios", [(0.7, 0.1), (0.7, 0.1, 0.1), (1.2, -0.1, -0.1), (math.nan, 0.5, 0.5)])
def test_bad_ratios(ratios):
    with pytest.raises(ValueError, match="sum to 1"):
        SPLITS.get("group")(assign_groups(people()), ratios, 0)


def test_random_split_warns_of_its_leaks(caplog):
    videos = SPLITS.get("random")(assign_groups(people(), by="identity"), (0.5, 0.2, 0.3), 0)
    spread = [
        name
        for name in {p for v in videos for p in v.identities}
        if len({v.split for v in videos if name in v.identities}) > 1
    ]
    families = {v.source_id for v in videos if v.source_id}
    torn = [f for f in families if len({v.split for v in videos if f in (v.video_id, v.source_id)}) > 1]
    assert spread and f"{len(spread)} of 20 by identity" in caplog.text
    assert (
        torn
        and f"{len(torn)} of {len(families)} by original" in caplog.text
        and "more than one split" in caplog.text
    )


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


@pytest.mark.parametrize("rule", [r for r in SPLITS.names() if r != "file"])
def test_no_rule_looks_at_the_order(rule):
    videos = [
        replace(v, split=("train", "test")[i % 2])
        for i, v in enumerate(assign_groups(people(30), by="original"))
    ]
    settings = {"folders": {"ranges": "0-5/6-7/8-9"}, "official": {"val_share": 0.2}}.get(rule, {})
    expected = {v.video_id: v.split for v in SPLITS.get(rule)(videos, RATIOS, 5, **settings)}
    assert len(set(expected.values())) == 3
    for seed in range(4):
        shuffled = random.Random(seed).sample(videos, len(videos))
        result = SPLITS.get(rule)(shuffled, RATIOS, 5, **settings)
        assert [v.video_id for v in result] == [v.video_id for v in shuffled], "the order of the videos stays"
        assert {v.video_id: v.split for v in result} == expected


def test_links_and_missing_originals_make_groups():
    videos = [Video(f"x{i}", "t", f"x{i}.mp4", 1, source_id=f"gone{i // 2}") for i in range(6)]
    assert partition(assign_groups(videos, by="original")) == {
        frozenset({"x0", "x1"}),
        frozenset({"x2", "x3"}),
        frozenset({"x4", "x5"}),
    }
    linked = assign_groups(videos, by="original", links=[("x4", "x1")])
    assert partition(linked) == {frozenset({"x0", "x1", "x4", "x5"}), frozenset({"x2", "x3"})}
    assert linked == assign_groups(videos, by="original", links=[("x1", "x4"), ("x0", "x5")])


def in_folders(*names: str) -> list[Video]:
    return [
        Video(f"v{i}", "t", f"{name}/v{i}.mp4", 0, group_id=f"v{i}", folder=name)
        for i, name in enumerate(names)
    ]


def test_folders_go_where_their_number_lies(caplog):
    videos = in_folders(*(f"dfdc_train_part_{n}" for n in range(50)))
    cases = {
        "0-39/40-44/45-49": (40, 5, 5),
        "0-34/35-39/40-49": (35, 5, 10),
        "0-39/40-49": (40, 10, 0),
        "0-47/48/49": (48, 1, 1),
    }
    for ranges, counts in cases.items():
        result = SPLITS.get("folders")(videos, RATIOS, 0, ranges=ranges)
        assert tuple(sum(v.split == s for v in result) for s in ("train", "val", "test")) == counts
    assert result[48].split == "val" and not caplog.text
    from_one = in_folders(*(f"part_{n:02d}" for n in range(1, 51)))
    assert [v.split for v in SPLITS.get("folders")(from_one, RATIOS, 0, ranges="1-40/41-45/46-50")] == [
        "train"
    ] * 40 + ["val"] * 5 + ["test"] * 5


def test_a_folder_outside_of_all_ranges_is_named_and_absent_ones_are_counted(caplog):
    rule = SPLITS.get("folders")
    with pytest.raises(
        ValueError,
        match=(
            r"folder 'part_0' is in none of the ranges '1-40/41-45/46-50'; the folders of this set "
            r"count from 0"
        ),
    ):
        rule(in_folders("part_0", "part_1"), RATIOS, 0, ranges="1-40/41-45/46-50")
    with pytest.raises(ValueError, match="folder 'part_50' is in none") as error:
        rule(in_folders("part_50"), RATIOS, 0)
    assert "count from 0" not in str(error.value)
    with pytest.raises(ValueError, match="'original_videos' has no number"):
        rule(in_folders("original_videos"), RATIOS, 0)
    rule(in_folders("part_3", "part_3", "part_46"), RATIOS, 0)
    assert (
        "48 of the folder numbers in '0-39/40-44/45-49' have no folder here; no video in val" in caplog.text
    )


@pytest.mark.parametrize(
    "ranges",
    ["", "0-9", "0-9/8-10/11-12", "5-3/6-7", "0-9/10-", "a-b/1-2", "0-1/2-3/4-5/6-7", "0-9/20-29/25"],
)
def test_malformed_or_overlapping_ranges(ranges):
    with pytest.raises(ValueError, match=f"ranges {re.escape(repr(ranges))}"):
        SPLITS.get("folders")(in_folders("p_1"), RATIOS, 0, ranges=ranges)


@pytest.mark.parametrize("folds", [2, 5, 16])
def test_folds_are_disjoint_whole_and_balanced(folds):
    videos = assign_groups(people(60), by="folder")
    tests, val = [], folds > 2
    for fold in range(folds):
        result = SPLITS.get("kfold")(videos, RATIOS, 1, folds=folds, fold=fold, val=val)
        assert all(
            len({v.split for v in result if v.group_id == g}) == 1 for g in {v.group_id for v in result}
        )
        assert {v.split for v in result} == ({"train", "val", "test"} if val else {"train", "test"})
        tests.append({v.video_id for v in result if v.split == "test"})
        following = {
            v.video_id
            for v in SPLITS.get("kfold")(videos, RATIOS, 1, folds=folds, fold=(fold + 1) % folds, val=val)
            if v.split == "test"
        }
        assert not val or following == {v.video_id for v in result if v.split == "val"}
    assert sum(map(len, tests)) == len(set().union(*tests)) == len(videos)
    assert max(map(len, tests)) - min(map(len, tests)) <= 6, "not more than the largest group"


def test_folds_are_shuffled_by_the_seed_and_checked():
    videos = assign_groups(people(), by="original")
    assert len({tuple(v.split for v in SPLITS.get("kfold")(videos, RATIOS, seed)) for seed in range(4)}) == 4
    for settings in ({"folds": 1}, {"folds": 2}, {"fold": 5}, {"fold": -1}):
        with pytest.raises(ValueError, match="a fold from 0 to folds - 1"):
            SPLITS.get("kfold")(videos, RATIOS, 0, **settings)
    with pytest.raises(ValueError, match="20 groups cannot fill 21 splits"):
        SPLITS.get("kfold")(videos, RATIOS, 0, folds=21)


def skewed() -> list[Video]:
    """Groups of very unlike sizes; one method in a fourth of the groups only, reals rare."""
    chance, videos = random.Random(7), []
    for g in range(60):
        method = "rare" if g % 4 == 0 else "common"
        for n in range(1 + int(chance.expovariate(0.12))):
            videos.append(
                Video(
                    f"g{g}n{n}",
                    "t",
                    f"g{g}n{n}.mp4",
                    int(n > 0),
                    group_id=f"g{g}",
                    method=method if n else "real",
                )
            )
    return videos


def worst_share(videos: list[Video], ratios) -> float:
    """The largest distance of any method's share in any split from the split's ratio."""
    totals, cells = Counter(v.method for v in videos), Counter((v.split, v.method) for v in videos)
    return max(
        abs(cells[s, m] / n - r)
        for m, n in totals.items()
        for s, r in zip(("train", "val", "test"), ratios, strict=True)
    )


def test_stratified_is_closer_to_the_whole_than_group():
    videos = skewed()
    results = {
        rule: [SPLITS.get(rule)(videos, RATIOS, seed) for seed in range(10)]
        for rule in ("group", "stratified")
    }
    for result in results["stratified"]:
        assert all(
            len({v.split for v in result if v.group_id == g}) == 1 for g in {v.group_id for v in result}
        )
    worst = {rule: [worst_share(r, RATIOS) for r in found] for rule, found in results.items()}
    assert max(worst["stratified"]) < 0.05 and min(worst["group"]) > 0.1, worst


def test_a_group_that_is_nearly_everything_is_told_of(caplog):
    videos = [Video(f"v{i}", "t", f"v{i}.mp4", 0, group_id="all" if i < 18 else f"v{i}") for i in range(20)]
    SPLITS.get("group")(videos, RATIOS, 0)
    assert "group 'all' alone holds 18 of 20 videos" in caplog.text


def test_official_takes_whole_groups_of_train_for_val():
    videos = [
        replace(v, split="test" if v.folder == "f0" else "train")
        for v in assign_groups(people(40), by="folder")
    ]
    result = SPLITS.get("official")(videos, RATIOS, 0, val_share=0.25)
    before = {v.video_id: v.split for v in videos}
    assert all(
        v.split == before[v.video_id] or (before[v.video_id], v.split) == ("train", "val") for v in result
    )
    assert all(len({v.split for v in result if v.group_id == g}) == 1 for g in {v.group_id for v in result})
    counts = Counter(v.split for v in result)
    assert counts["val"] / (counts["val"] + counts["train"]) == pytest.approx(0.25, abs=0.08)
    with pytest.raises(ValueError, match="the official split has a val of"):
        SPLITS.get("official")(result, RATIOS, 0, val_share=0.1)
    with pytest.raises(ValueError, match="val_share 1.0"):
        SPLITS.get("official")(videos, RATIOS, 0, val_share=1.0)


@pytest.fixture
def listed(tmp_path):
    """listed(text, suffix) -> path of a split file."""

    def write(text: str, suffix: str = ".csv") -> str:
        path = tmp_path / f"splits{suffix}"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_split_from_a_file_in_every_form(listed):
    videos = in_folders("a", "a", "b")
    expected = ["test", "train", "val"]
    by_id = {f"v{i}": s for i, s in enumerate(expected)}
    by_path = {v.path: s for v, s in zip(videos, expected, strict=True)}
    for table in (by_id, by_path):
        assert [
            v.split for v in SPLITS.get("file")(videos, RATIOS, 0, path=listed(json.dumps(table), ".json"))
        ] == expected
    for key, table in (("video_id", by_id), ("path", by_path)):
        text = f"{key},note,split\n" + "".join(f'{name},"x, y",{split}\n' for name, split in table.items())
        assert [
            v.split for v in SPLITS.get("file")(videos, RATIOS, 0, path=listed("\ufeff" + text))
        ] == expected


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        (
            "video_id,split\nv0,train\nv1,tset\n",
            ".csv",
            r"splits.csv:3: split 'tset' of v1; did you mean test",
        ),
        (
            "video_id,split\nv0,train\nw1,val\nv1,val\nv2,test\n",
            ".csv",
            r"splits.csv:3: 'w1' is no video_id and no path .*\(1 such",
        ),
        (
            "video_id,split\nv0,train\nv1,val\nv0,test\n",
            ".csv",
            r"splits.csv:4: v0 is in test, and in train further up",
        ),
        ("video_id,split\nv0,train\n", ".csv", r"does not list 2 of 3 videos \(first: v1\)"),
        ("name,split\nv0,train\n", ".csv", r"splits.csv:1: columns \['name', 'split'\], expected video_id"),
        ("video_id,split\nv0\n", ".csv", r"splits.csv:2: split '' of v0"),
        ('{"v0": "train",\n "w1": "val"}', ".json", r"splits.json:2: 'w1' is no video_id"),
        ('{"v0": "train",\n "v1"}', ".json", r"splits.json:2: not JSON"),
        ('["v0"]', ".json", r"splits.json:1: expected"),
    ],
)
def test_what_is_wrong_with_a_split_file(listed, text, suffix, message):
    with pytest.raises(ValueError, match=message):
        SPLITS.get("file")(in_folders("a", "a", "b"), RATIOS, 0, path=listed(text, suffix))


def test_a_partial_file_leaves_videos_in_no_split(listed, caplog):
    path = listed("video_id,split\nv0,train\nelsewhere,test\n")
    result = SPLITS.get("file")(in_folders("a", "a", "b"), RATIOS, 0, path=path, partial=True)
    assert [v.split for v in result] == ["train", "", ""]
    assert "1 of its names are not here; 2 of 3 videos are not listed" in caplog.text
    with pytest.raises(FileNotFoundError, match="no file at 'nowhere.csv'"):
        SPLITS.get("file")(result, RATIOS, 0, path="nowhere.csv")


def test_merging_moves_test_and_nothing_else():
    videos = SPLITS.get("group")(assign_groups(people(), by="identity"), RATIOS, 0)
    assert [v.split for v in merge_test(videos)] == [{"test": "train"}.get(v.split, v.split) for v in videos]


def test_no_rule_depends_on_the_hash_seed(tmp_path):
    """Sets and dictionaries of strings are walked in another order in every process."""
    import os
    import subprocess
    import sys

    script = (
        "from dfdc_video.records import Video; from dfdc_video.registry import SPLITS; from "
        "dfdc_video.preparation.splits import assign_groups\n"
        "videos = [Video(f'v{i}', 't', f'v{i}', i % 3 > 0, identities=(f'p{i // 4}', f'q{i % 5}'), "
        "method=f'm{i % 3}', folder=f'f{i // 7}') "
        "for i in range(80)]\n"
        "for by in ('folder', 'original'):\n"
        "    for rule in ('group', 'stratified', 'kfold', 'random'):\n"
        "        result = SPLITS.get(rule)(assign_groups(videos, by=by, links=[('v3', 'v30')]), (0.6, "
        "0.2, 0.2), 1)\n"
        "        print([(v.group_id, v.split) for v in result])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and outputs.pop().count("\n") == 8
