"""Miniatures of the public layouts: `BUILD[name](root, write)` makes one, `write(path)` writes its videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

REAL = {"label": "REAL", "split": "train", "original": None}


def fake_of(original: str) -> dict[str, str]:
    return {"label": "FAKE", "split": "train", "original": original}


def save(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def dfdc(root, write):
    """Two training folders, the second with two fakes of a missing original, and a test set with its videos
    in a folder below.
    """
    folders = {
        "dfdc_train_part_0": {"aaaaaaaaaa.mp4": REAL, "bbbbbbbbbb.mp4": fake_of("aaaaaaaaaa.mp4")},
        "dfdc_train_part_7": {
            "cccccccccc.mp4": fake_of("gonegonego.mp4"),
            "dddddddddd.mp4": fake_of("gonegonego.mp4"),
            "eeeeeeeeee.mp4": REAL,
        },
    }
    for folder, table in folders.items():
        save(root / folder / "metadata.json", table)
        for name in table:
            write(f"{folder}/{name}")
    save(root / "test/labels.csv", "filename,label\nffffffffff.mp4,1\ngggggggggg.mp4,0\n")
    write("test/videos/ffffffffff.mp4")
    write("test/videos/gggggggggg.mp4")


def dfdcp(root, write):
    """Two reals, fakes of both methods, one of them with its original missing."""
    first = {"label": "fake", "set": "test", "target_id": 1003254, "swapped_id": 1255229}
    second = {"label": "fake", "set": "train", "target_id": 1260311, "swapped_id": 1255300}
    table = {
        "original_videos/1260311/1260311_C_001.mp4": {"label": "real", "set": "train", "augmentations": []},
        "original_videos/1003254/1003254_A_001.mp4": {"label": "real", "set": "test", "augmentations": []},
        "method_A/1003254/1003254_A/1255229_1003254_A_001.mp4": first,
        "method_B/1260311/1260311_C/1255300_1260311_C_001.mp4": second,
        "method_B/1260311/1260311_C/1255300_1260311_C_002.mp4": second,
    }
    save(root / "dataset.json", table)
    for path in table:
        write(path)


def ffpp(root, write):
    """Two pairs; the fake 071_054 by two methods, one of them with a mask and in a second compression."""
    for split, pair in {"train": ["071", "054"], "val": ["900", "901"], "test": ["953", "974"]}.items():
        save(root / f"splits/{split}.json", [pair])
    for name in ("071", "054", "953", "974"):
        write(f"original_sequences/youtube/c23/videos/{name}.mp4")
    for method, name in (("Deepfakes", "071_054"), ("NeuralTextures", "071_054"), ("FaceShifter", "974_953")):
        write(f"manipulated_sequences/{method}/c23/videos/{name}.mp4")
    write("manipulated_sequences/Deepfakes/c40/videos/071_054.mp4")
    write("manipulated_sequences/Deepfakes/masks/videos/071_054.mp4")


def dfd(root, write):
    """Three actors; actor 03's original of the scene is missing."""
    for name in ("01__exit_phone_room", "02__exit_phone_room", "04__podium_speech_happy"):
        write(f"original_sequences/actors/c23/videos/{name}.mp4")
    for name in ("01_02__exit_phone_room__YVGY8LOK", "03_01__walking_outside__AB12CD34"):
        write(f"manipulated_sequences/DeepFakeDetection/c23/videos/{name}.mp4")
    write("manipulated_sequences/DeepFakeDetection/masks/videos/01_02__exit_phone_room__YVGY8LOK.mp4")


def celebdf(root, write):
    """The list has no header, and 1 is real on it. The original id2_0007 is missing."""
    listed = ["1 YouTube-real/00170.mp4", "0 Celeb-synthesis/id1_id0_0001.mp4", "1 Celeb-real/id1_0001.mp4"]
    save(root / "List_of_testing_videos.txt", "\n".join(listed) + "\n")
    for path in [line[2:] for line in listed]:
        write(path)
    write("YouTube-real/00000.mp4")
    write("Celeb-synthesis/id2_id3_0007.mp4")


SEGMENTS = """label,youtube_id,time_start,time_end,split,is_cc
riding a bike,---0dWlqevI,19,29,train,0
"singing, loudly",-0AAAAAAAAA,0,10,train,0
riding a bike,-0aaaaaaaaa,5,15,validate,1
"singing, loudly",zzzzzzzzzz_,1,11,test,0
riding a bike,zzzzzzzzzz_,30,40,test,0
"""


def kinetics(root, write):
    """Files in class folders, in the folder of a split, and flat."""
    save(root / "annotations/kinetics_3.csv", SEGMENTS)
    write("train/riding_a_bike/---0dWlqevI_000019_000029.mp4")
    write("train/singing, loudly/-0AAAAAAAAA_000000_000010.mp4")
    write("val/-0aaaaaaaaa_000005_000015.mp4")
    write("zzzzzzzzzz__000001_000011.mp4")
    write("zzzzzzzzzz__000030_000040.mp4")


def kinetics_lists(root, write):
    """PySlowFast's lists; one path contains a blank."""
    save(root / "train.csv", "clips/a.mp4 0\nclips/b c.mp4 2\n")
    save(root / "test.csv", "clips/---0dWlqevI_000019_000029.mp4 1\nclips/---0dWlqevI_000029_000039.mp4 1\n")
    for name in ("a", "b c", "---0dWlqevI_000019_000029", "---0dWlqevI_000029_000039"):
        write(f"clips/{name}.mp4")


def folder(root, write):
    """Class folders with people below, in two splits."""
    for path in ("train/real/anna/a", "train/fake/bob/a", "test/real/carl/b", "test/fake/dora/c"):
        write(f"{path}.mp4")


BUILD = {f.__name__: f for f in (dfdc, dfdcp, ffpp, dfd, celebdf, kinetics, kinetics_lists, folder)}


@pytest.fixture(scope="session")
def layouts():
    """Name -> function that builds a miniature; "kinetics_lists" is the second layout of the reader
    "kinetics".
    """
    return BUILD


@pytest.fixture
def miniature(tmp_path):
    """miniature(name) -> root of a miniature whose files contain their names: enough for a reader, which
    opens no video.
    """

    def make(name: str, root: Path | None = None) -> Path:
        root = root or tmp_path / "raw"

        def write(path: str) -> None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(path.encode())

        BUILD[name](root, write)
        return root

    return make
