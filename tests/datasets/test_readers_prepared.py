"""Every reader end to end: a miniature of its layout with synthetic people, prepared, and its manifest."""

from __future__ import annotations

import csv
from collections import Counter

import pytest

from dfdc_video.preparation.prepare import prepare

GROUP = {"split": "group", "group_by": "original", "ratios": (0.4, 0.2, 0.4)}
# layout -> settings; videos by split and label, where the data set has an official split
CASES = {
    "dfdc": (GROUP, None),
    "dfdcp": ({"split": "official", "group_by": "identity"}, "train 0 1 1, test 0 1"),
    "ffpp": ({"split": "official", "group_by": "identity"}, "train 0 0 1 1, test 0 0 1"),
    "dfd": ({**GROUP, "allow_leaks": ("identity",)}, None),
    "celebdf": ({"split": "official", "group_by": "original"}, "train 0 1, test 0 0 1"),
    "kinetics": ({"split": "official", "group_by": "identity"}, "train 0 1, val 0, test 0 1"),
    "folder": ({"split": "official", "group_by": "folder"}, "train 0 1, test 0 1"),
}


def labels_by_split(text: str) -> Counter:
    """(label, split) -> count, of a text such as `train 0 1 1, test 0`."""
    rows = [row.split() for row in text.split(", ")]
    return Counter((int(label), split) for split, *labels in rows for label in labels)


@pytest.mark.parametrize("layout", sorted(CASES))
def test_prepared(layouts, make_video, tmp_path, layout):
    count = iter(range(100))

    def write(path):
        make_video(f"raw/{path}", identity=next(count), num_frames=12)

    layouts[layout](tmp_path / "raw", write)
    settings, expected = CASES[layout]
    manifest = prepare(layout, tmp_path / "raw", tmp_path / "out", size=64, workers=1, **settings)
    videos = manifest.videos.set_index("video_id")
    with (tmp_path / "out/quarantine.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [], "nothing in a miniature is refused"
    assert set(videos["status"]) == {"ok"} and set(videos["dataset"]) == {layout}
    assert set(manifest.tracks["video_id"]) == set(videos.index)
    if expected:
        counts = Counter(zip(videos["label"], videos["split"], strict=True))
        assert counts == labels_by_split(expected)
    family = videos["source_id"].where(videos["source_id"] != "", videos.index)
    groups = videos.groupby(family)["group_id"].nunique()
    assert (groups == 1).all(), "an original and its fakes are one group, even where it is missing"
    assert (videos.groupby("group_id")["split"].nunique() == 1).all()
    if layout == "dfdc":
        c, d, e = (videos.loc[letter * 10, "group_id"] for letter in "cde")
        assert c == d != e
    if layout == "ffpp":
        assert videos.loc["deepfakes__c23__071_054", "mask_path"] and videos["group_id"].nunique() == 2
    if layout == "kinetics":
        assert videos[videos["identities"] == "zzzzzzzzzz_"]["group_id"].nunique() == 1
