"""summary.html of a prepared set: stands alone, says what the tables say, shows the right faces, and trusts
no name.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest
from html_pages import PageReader

from dfdc_video.folders.prepared import PreparedFolder, load_prepared
from dfdc_video.report import prepared, sheets
from dfdc_video.report.prepared import write_summary

QUARANTINE = pd.DataFrame(
    [
        ("c", "p/c.mp4", "decode", "unreadable: c.mp4 is empty"),
        ("a", "p/a.mp4", "decode", "unreadable: a.mp4 is empty"),
        ("b", "p/b.mp4", "clean", "exact duplicate: of p/a.mp4"),
        ("d", "p/d.mp4", "decode", "unreadable: d.mp4 stops"),
        ("e", "p/e.mp4", "decode", "unreadable: e.mp4 stops"),
    ],
    columns=["video_id", "path", "stage", "reason"],
)


class Pictures(HTMLParser):
    """Sections by heading: per figure its tooltip, class, text and decoded JPEG pictures; and every attribute
    of the page.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: dict[str, list[dict]] = {}
        self.attributes: list[tuple[str, str]] = []
        self.heading, self.in_heading = "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        given = dict(attributes)
        if tag == "h2":
            self.heading, self.in_heading = "", True
        elif tag == "figure" and "title" in given:
            self.sections.setdefault(self.heading, []).append(
                {"tip": given["title"], "class": given.get("class", ""), "text": "", "images": []}
            )
        elif tag == "img":
            kind, data = given["src"].split(",")
            assert kind == "data:image/jpeg;base64"
            image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            self.sections[self.heading][-1]["images"].append(image[..., ::-1].astype(int))

    def handle_endtag(self, tag):
        self.in_heading = self.in_heading and tag != "h2"

    def handle_data(self, data):
        if self.in_heading:
            self.heading += data
        elif self.sections.get(self.heading):
            self.sections[self.heading][-1]["text"] += data


def is_red(image) -> bool:
    """The fakes of the made videos have a red corner."""
    corner = image[: len(image) // 3, : len(image) // 3].mean((0, 1))
    return bool(corner[0] - corner[1] > 100)


@pytest.fixture(scope="module")
def root(write_prepared, tmp_path_factory):
    return write_prepared(
        tmp_path_factory.mktemp("shown"), per_split={"train": 3, "val": 1, "test": 1}, num_frames=24
    )


@pytest.fixture
def manifest(root):
    """Ten videos in pairs; face sizes 20, 40, 60, … px, confidences 0.9, 0.8, …, in the order of track_id."""
    made = load_prepared(root)
    tracks = made.tracks.sort_values("track_id").reset_index(drop=True)
    boxes = [np.tile(np.float32([0, 0, 10, 20 * (n + 1)]), 24).tolist() for n in range(len(tracks))]
    rates, confidences = (
        [1 - 0.05 * n for n in range(len(tracks))],
        [0.9 - 0.08 * n for n in range(len(tracks))],
    )
    tracks = tracks.assign(boxes_px=boxes, confidence=confidences, detection_rate=rates)
    seconds = {"probe": 1.0, "decode": 3.0, "detect": 4.0, "crop": 2.0}
    return replace(
        made,
        tracks=tracks,
        summary={"dataset": "made", "split_rule": "group", "settings": {"every": 5}, "seconds": seconds},
    )


@pytest.fixture
def results(manifest):
    """Fakes took their original's boxes."""
    labels = dict(zip(manifest.videos["video_id"], manifest.videos["label"], strict=True))
    return {
        video_id: {"own_boxes": label == 0, "seconds": {"probe": 0.1}} for video_id, label in labels.items()
    }


@pytest.fixture
def show(manifest, results, tmp_path):
    """show(summary entries, manifest=…, results=…, quarantine=…) -> the page."""

    def write(entries=None, *, manifest=manifest, results=results, quarantine=QUARANTINE):
        manifest = replace(manifest, summary=manifest.summary | (entries or {}))
        path = write_summary(PreparedFolder(tmp_path), manifest, results, quarantine)
        assert path == tmp_path / "summary.html"
        return path.read_text(encoding="utf-8")

    return write


def test_page_stands_alone_and_is_the_same_for_the_same_tables(show, manifest, results):
    page = show()
    reader = PageReader(page)
    assert (
        reader.scripts == 0
        and "@import" not in page
        and "http://" not in page
        and "https://" not in page
        and "<link" not in page
    )
    assert all(reference.startswith(("#", "data:image/jpeg;base64,")) for reference in reader.references)
    assert len(reader.ids) == len(set(reader.ids)) and len(page) < 500_000
    expected = [
        "Videos",
        "Detection by face size",
        "Face sizes and track lengths",
        "Leak audit",
        "Quarantine",
        "Originals and fakes",
    ]
    assert reader.headings == [
        *expected,
        "Smallest faces",
        "Lowest confidence faces",
        "Random faces",
        "Time",
        "How it was made",
    ]
    shuffled = replace(
        manifest, videos=manifest.videos.iloc[::-1], tracks=manifest.tracks.sample(frac=1, random_state=1)
    )
    assert (
        show(manifest=shuffled, results=dict(reversed(results.items())), quarantine=QUARANTINE.iloc[::-1])
        == page
    )


def test_counts_have_totals_and_shares(show, manifest):
    videos = manifest.videos.copy()
    videos.loc[videos["video_id"] == "train00marked", ["status", "method"]] = ["no_face", "other"]
    page = show({"missing_originals": 4}, manifest=replace(manifest, videos=videos))
    classes, methods, statuses = (PageReader(page).tables[n] for n in range(3))
    assert classes[0] == ["class", "train", "val", "test", "all"]
    assert classes[1] == ["real", "350.0%", "150.0%", "150.0%", "550.0%"], (
        "a count and the share of its column"
    )
    assert classes[-1] == ["all", "660.0%", "220.0%", "220.0%", "10100.0%"]
    assert [row[0] for row in methods] == ["method", "real", "marked", "other", "all"] and methods[3][
        1
    ] == "116.7%"
    assert [row[0] for row in statuses] == ["status", "ok", "no_face", "all"] and statuses[2] == [
        "no_face",
        "116.7%",
        "00.0%",
        "00.0%",
        "110.0%",
    ]
    assert "Without a face: 10.0% of all videos (0.0% of the reals, 20.0% of the fakes)." in page
    assert "Fakes whose original is not in the data set: 4." in page


def test_detection_by_face_size_is_of_detected_tracks(show, manifest):
    table = next(t for t in PageReader(show()).tables if t[0][0] == "face size in px")
    own = manifest.tracks[manifest.tracks["video_id"].str.endswith("real")]
    sizes = np.array([np.reshape(b, (-1, 4))[0, 3] for b in own["boxes_px"]])
    expected = []
    for low, high in ((32, 48), (48, 64), (64, 96), (96, 128), (128, 192), (192, 256)):
        rows = own[(sizes >= low) & (sizes < high)]
        rate, confidence = (
            (f"{rows['detection_rate'].mean():.1%}", f"{rows['confidence'].mean():.3f}")
            if len(rows)
            else ("–", "–")
        )
        expected.append([f"{low}–{high}", str(len(rows)), rate, confidence])
    assert table[1:] == expected and sum(int(row[1]) for row in table[1:]) == 5
    everything = next(t for t in PageReader(show(results={})).tables if t[0][0] == "face size in px")
    assert sum(int(row[1]) for row in everything[1:]) == 10, "without results every track counts as detected"


def test_sheets_show_the_right_faces_in_the_right_order(show, manifest):
    sections = Pictures(show()).sections
    reals = manifest.tracks[manifest.tracks["video_id"].str.endswith("real")]
    smallest, uncertain, some = (
        sections[f"{kind} faces"] for kind in ("Smallest", "Lowest confidence", "Random")
    )
    assert [cell["tip"].split(" · ")[0] for cell in smallest] == reals["track_id"].tolist(), (
        "sizes grow with the track_id"
    )
    assert [cell["tip"].split(" · ")[0] for cell in uncertain] == reals["track_id"].tolist()[::-1], (
        "confidences fall with it"
    )
    assert len(some) == 10 and {cell["class"] for cell in some} == {"face real", "face fake"}
    for cell in smallest + uncertain + some:
        (image,) = cell["images"]
        assert image.shape == (sheets.THUMB_PX, sheets.THUMB_PX, 3) and is_red(image) == (
            cell["class"] == "face fake"
        )
    assert (
        "test00real" in uncertain[-1]["text"]
        and "40 px" in smallest[0]["text"]
        and "confidence 0.82" in smallest[0]["tip"]
    )


def test_one_face_of_a_video_and_never_more_than_the_sheet_holds(show, manifest, monkeypatch):
    tracks = pd.concat(
        [manifest.tracks.assign(track_id=manifest.tracks["track_id"].str[:-2] + f"{n:02d}") for n in range(6)]
    )
    sections = Pictures(show(manifest=replace(manifest, tracks=tracks))).sections
    assert len(sections["Smallest faces"]) == 5 and len(sections["Random faces"]) == sheets.SHEET < len(
        tracks
    )
    monkeypatch.setattr(sheets, "SHEET", 3)
    sections = Pictures(show(manifest=replace(manifest, tracks=tracks))).sections
    kinds = ("Smallest", "Lowest confidence", "Random")
    assert [len(sections[f"{kind} faces"]) for kind in kinds] == [3, 3, 3]


def test_a_fake_stands_beside_its_original(show, manifest):
    pairs = Pictures(show()).sections["Originals and fakes"]
    assert len(pairs) == 5
    for pair in pairs:
        real, fake, difference = pair["images"]
        assert not is_red(real) and is_red(fake) and difference[:24, :24].mean() > 200, (
            "the corner is what differs"
        )
        assert difference[50:, 50:].max() < 60, "and the rest is black"
        name = pair["tip"].split(" · ")[0]
        assert pair["tip"].endswith(f"made from {name.replace('marked', 'real')}")
    moved = manifest.tracks.assign(
        start_frame=np.where(manifest.tracks["video_id"].str.endswith("real"), 0, 3)
    )
    assert "Originals and fakes" not in show(manifest=replace(manifest, tracks=moved)), (
        "other frames are no pair"
    )


def test_quarantine_by_stage_and_kind(show):
    page = show()
    table = next(t for t in PageReader(page).tables if t[0][0] == "stage" and "kind" in t[0])
    assert table[1][:3] == ["decode", "unreadable", "4"] and table[2][:3] == ["clean", "exact duplicate", "1"]
    assert table[1][3] == "p/a.mp4: a.mp4 is emptyp/c.mp4: c.mp4 is emptyp/d.mp4: d.mp4 stops", (
        "the first three by path"
    )
    assert "5 entries." in page
    assert "Nothing was refused." in show(quarantine=QUARANTINE[:0])


AUDIT = {
    "original": {"compared": 5, "leaking": 0, "videos": 0, "examples": []},
    "near_duplicate": {
        "compared": 7,
        "leaking": 1234,
        "videos": 3,
        "examples": [{"unit": "u <1>", "splits": {"train": "x", "test": "y"}}],
    },
}


def test_leaks_and_merged_sets_are_shown_loudly(show):
    page = show({"leak_audit": AUDIT})
    table = next(t for t in PageReader(page).tables if "verdict" in t[0])
    assert table[0] == ["shared between splits", "verdict", "compared", "leaking", "videos", "first examples"]
    assert table[1][:5] == ["original", "none", "5", "0", "0"]
    assert table[2] == ["near duplicate", "leak", "7", "1,234", "3", "unit u <1>, splits train x, test y"]
    assert (
        page.count('class="warning"') == 1
        and "The splits leak: near duplicate (1,234)" in page
        and '<tr class="leak">' in page
    )
    page = show({"leak_audit": AUDIT, "allowed_leaks": ["near_duplicate"], "merged": "train+test"})
    assert (
        page.count('class="warning"') == 3
        and "Leaks were allowed: near duplicate." in page
        and "Merged: train+test." in page
    )
    assert "allowed" in next(t for t in PageReader(page).tables if "verdict" in t[0])[2]
    other = {"kind": {"units": 2, "videos": 5, "examples": ["a b"]}}
    assert next(t for t in PageReader(show({"leak_audit": other})).tables if "verdict" in t[0])[1] == [
        "kind",
        "leak",
        "2",
        "5",
        "a b",
    ]
    page = show({"leak_audit": {"original": AUDIT["original"]}, "merged": "", "allowed_leaks": []})
    assert 'class="warning"' not in page and '<tr class="leak">' not in page


def test_time_per_stage_as_share_per_video_and_per_frame(show, results):
    results["val00marked"].pop("seconds")
    table = next(t for t in PageReader(show()).tables if "worker time" in t[0])
    assert table[1] == ["probe", "1.00 s", "10.0%", "111 ms", f"{1000 / (9 * 24):.2f} ms"], (
        "of the nine videos that have times"
    )
    assert [row[2] for row in table[1:]] == ["10.0%", "30.0%", "40.0%", "20.0%", "100.0%"] and table[-1][
        1
    ] == "10.00 s"


def test_no_name_injects_html(show, manifest):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    videos = manifest.videos.assign(path=evil, method=evil + manifest.videos["method"])
    videos["source_id"] = videos["source_id"].replace("train00real", evil)
    videos.loc[videos["video_id"] == "train00real", "video_id"] = evil
    tracks = manifest.tracks.copy()
    of_evil = tracks["video_id"] == "train00real"
    tracks.loc[of_evil, ["video_id", "track_id"]] = [evil, evil]
    quarantine = pd.DataFrame([{"video_id": evil, "path": evil, "stage": evil, "reason": f"{evil}: {evil}"}])
    entries = {
        "dataset": evil,
        "settings": {evil: {evil: [evil]}},
        "merged": evil,
        "allowed_leaks": [evil],
        "split_rule": evil,
    }
    entries |= {
        "leak_audit": {evil: {evil: 3, "leaking": 1, "videos": 1, "examples": [evil]}},
        "seconds": {evil: 1.0},
    }
    page = show(entries, manifest=replace(manifest, videos=videos, tracks=tracks), quarantine=quarantine)
    reader, pictures = PageReader(page), Pictures(page)
    assert reader.scripts == 0 and "<script" not in page and "<img src=x" not in page
    assert not [name for name, _ in pictures.attributes if name.startswith("on")]
    assert any(evil in cell["tip"] for cell in pictures.sections["Originals and fakes"]), (
        "it is there, as text"
    )


def test_a_broken_face_video_is_told_and_does_not_stop_the_page(show, manifest):
    tracks = manifest.tracks.assign(
        crop_path=manifest.tracks["crop_path"].replace(
            "tracks/train00real/train00real_00.mp4", "tracks/none.mp4"
        )
    )
    page = show(manifest=replace(manifest, tracks=tracks))
    assert "1 of the face videos shown here cannot be read, the first is tracks/none.mp4" in page
    cell = next(c for c in Pictures(page).sections["Smallest faces"] if c["tip"].startswith("train00real"))
    assert cell["images"] == [] and "unreadable" in cell["text"]


def test_many_classes_and_tables_without_anything_else(show, manifest):
    videos = manifest.videos.assign(label=range(10), method="", source_id="")
    page = show(manifest=replace(manifest, videos=videos, summary={}), results={}, quarantine=QUARANTINE[:0])
    assert [row[0] for row in PageReader(page).tables[0]] == [
        "class",
        *(f"class {n}" for n in range(10)),
        "all",
    ]
    assert (
        "No audit was made." in page
        and "Time" not in PageReader(page).headings
        and "Prepared: data set" in page
    )
    nothing = replace(manifest, tracks=manifest.tracks[:0], videos=manifest.videos.assign(status="no_face"))
    assert PageReader(show(manifest=nothing)).tables[2][1][0] == "no_face"


def test_the_page_does_not_grow_with_the_data_set(show, manifest, results):
    """2,000 videos with as many methods and kinds of refusal: the page stays small, and says what it leaves
    out.
    """
    copies, videos, tracks = 200, [], []
    for n in range(copies):
        videos.append(
            manifest.videos.assign(
                **{c: manifest.videos[c] + f"x{n}" for c in ("video_id", "group_id", "method")}, source_id=""
            )
        )
        tracks.append(
            manifest.tracks.assign(**{c: manifest.tracks[c] + f"x{n}" for c in ("video_id", "track_id")})
        )
    many = replace(
        manifest, videos=pd.concat(videos, ignore_index=True), tracks=pd.concat(tracks, ignore_index=True)
    )
    refused = [
        {
            "video_id": f"v{n}",
            "path": f"{n:04d}" * 200,
            "stage": "decode",
            "reason": f"kind {n}: {'x' * 5000}",
        }
        for n in range(2000)
    ]
    page = show(manifest=many, results={}, quarantine=pd.DataFrame(refused))
    assert len(page) < 1_000_000
    methods = PageReader(page).tables[1]
    assert (
        len(methods) == prepared.MAX_LINES + 3 and methods[-2][0] == f"{2 * copies - prepared.MAX_LINES} more"
    )
    assert (
        methods[-2][-1].startswith(f"{2000 - 5 * prepared.MAX_LINES:,}") and methods[-1][-1] == "2,000100.0%"
    )
    assert f"{2000 - prepared.MAX_LINES} rarer kinds are not shown" in page
