"""Every reader end to end: a miniature of its layout with drawn people in it, prepared, and what the manifest
says of it.
"""

from __future__ import annotations

import csv
from collections import Counter

import pandas as pd
import pytest

from dfdc_video.preparation.prepare import prepare

# layout -> settings; (label, split) of the videos whose split the data set itself gives
CASES = {
    "dfdc": ({"split": "group", "group_by": "original", "ratios": (0.4, 0.2, 0.4)}, None),
    "dfdcp": ({"split": "official", "group_by": "identity"}, Counter({(0, "train"): 1, (0, "test"): 1, (1, "test"): 1, (1, "train"): 2})),
    "ffpp": ({"split": "official", "group_by": "identity"}, Counter({(0, "train"): 2, (1, "train"): 2, (0, "test"): 2, (1, "test"): 1})),
    "dfd": ({"split": "group", "group_by": "original", "ratios": (0.4, 0.2, 0.4), "allow_leaks": ("identity",)}, None),
    "celebdf": ({"split": "official", "group_by": "original"}, Counter({(0, "test"): 2, (1, "test"): 1, (0, "train"): 1, (1, "train"): 1})),
    "kinetics": ({"split": "official", "group_by": "identity"}, Counter([(0, "train"), (1, "train"), (0, "val"), (0, "test"), (1, "test")])),
    "folder": ({"split": "official", "group_by": "folder"}, Counter({(0, "train"): 1, (1, "train"): 1, (0, "test"): 1, (1, "test"): 1})),
}  # fmt: skip


@pytest.mark.parametrize("layout", sorted(CASES))
def test_prepared(layouts, make_video, tmp_path, layout):
    count = iter(range(100))
    layouts[layout](
        tmp_path / "raw", lambda path: make_video(f"raw/{path}", identity=next(count), num_frames=12)
    )
    settings, expected = CASES[layout]
    manifest = prepare(layout, tmp_path / "raw", tmp_path / "out", size=64, workers=1, **settings)
    videos = manifest.videos.set_index("video_id")
    with (tmp_path / "out/quarantine.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [], "a miniature has nothing to refuse"
    assert (
        set(videos["status"]) == {"ok"}
        and set(videos["dataset"]) == {layout}
        and set(manifest.tracks["video_id"]) == set(videos.index)
    )
    if expected:
        assert Counter(zip(videos["label"], videos["split"], strict=True)) == expected
    fakes = videos[videos["source_id"] != ""]
    families = pd.concat(
        [fakes["source_id"], pd.Series(videos.index, videos.index)[lambda s: ~s.index.isin(fakes.index)]]
    ).rename("family")
    joined = videos.join(families)
    assert (joined.groupby("family")["group_id"].nunique() == 1).all(), (
        "an original and its fakes are one group, also where it is missing"
    )
    assert (joined.groupby("group_id")["split"].nunique() == 1).all()
    if layout == "dfdc":
        assert (
            videos.loc["cccccccccc", "group_id"]
            == videos.loc["dddddddddd", "group_id"]
            != videos.loc["eeeeeeeeee", "group_id"]
        )
    if layout == "ffpp":
        assert videos.loc["deepfakes__c23__071_054", "mask_path"] and videos["group_id"].nunique() == 2
    if layout == "kinetics":
        assert videos[videos["identities"] == "zzzzzzzzzz_"]["group_id"].nunique() == 1
