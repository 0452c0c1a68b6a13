"""The readers of FaceForensics++ and DeepFakeDetection: compressions, methods, masks, splits, refusals."""

from __future__ import annotations

import json

import pytest
from reader_checks import facts, kinds, put, read

from dfdc_video.registry import DATASETS


def test_ffpp(miniature):
    videos, rejections = read("ffpp", miniature("ffpp"))
    assert not rejections
    assert facts(videos, "label", "split", "method", "source_id", "identities") == {
        "youtube__c23__071": (0, "train", "real", "", ("071",)),
        "youtube__c23__054": (0, "train", "real", "", ("054",)),
        "youtube__c23__953": (0, "test", "real", "", ("953",)),
        "youtube__c23__974": (0, "test", "real", "", ("974",)),
        "deepfakes__c23__071_054": (1, "train", "Deepfakes", "youtube__c23__071", ("071", "054")),
        "neuraltextures__c23__071_054": (1, "train", "NeuralTextures", "youtube__c23__071", ("071", "054")),
        "faceshifter__c23__974_953": (1, "test", "FaceShifter", "youtube__c23__974", ("974", "953")),
    }
    masks = {i: v.mask_path for i, v in videos.items() if v.mask_path}
    assert masks == {"deepfakes__c23__071_054": "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4"}


def test_ffpp_compressions_and_methods(miniature):
    root = miniature("ffpp")
    both, _ = read("ffpp", root, compression=("c23", "c40"), methods="Deepfakes")
    assert sum(v.label for v in both.values()) == 2
    assert both["deepfakes__c40__071_054"].source_id == "youtube__c40__071"
    assert both["deepfakes__c40__071_054"].mask_path, "masks are the same for every compression"
    assert list(read("ffpp", root, compression="c40")[0]) == ["deepfakes__c40__071_054"]
    with pytest.raises(ValueError, match="unknown compression 'c32'; did you mean c23"):
        read("ffpp", root, compression="c32")
    with pytest.raises(ValueError, match="unknown method 'Deepfake'; did you mean Deepfakes"):
        read("ffpp", root, methods=("Deepfake",))
    with pytest.raises(ValueError, match="no video of compression raw .*found .*c23/videos"):
        read("ffpp", root, compression="raw")


def test_ffpp_splits(miniature):
    root = miniature("ffpp")
    (root / "splits/val.json").write_text(json.dumps([["071", "900"], "054", ["../../x", "054"], ["1"]]))
    videos, _ = DATASETS.get("ffpp")(root)
    rejections = {r.reason.split(",")[0] for r in DATASETS.get("ffpp")(root)[1]}
    assert "contradictory splits: train and val" in rejections
    assert sum(r.startswith("bad name") for r in rejections) == 3
    assert "youtube__c23__071" not in {v.video_id for v in videos}
    assert {v.split for v in videos} == {"train", "test"}
    for split in ("train", "val", "test"):
        (root / f"splits/{split}.json").unlink()
    assert {v.split for v in DATASETS.get("ffpp")(root)[0]} == {""}
    (root / "train.json").write_text('[["071", "054"]]')  # where other tools expect it
    assert {v.split for v in read("ffpp", root)[0].values()} == {"train", ""}


def test_ffpp_refusals(miniature):
    root = miniature("ffpp")
    put(root, "original_sequences/youtube/c23/videos/71.mp4", "secret.mp4")
    put(root, "manipulated_sequences/Deepfakes/c23/videos/071.mp4")
    (root / "manipulated_sequences/NeuralTextures/masks/videos").mkdir(parents=True)
    (root / "manipulated_sequences/NeuralTextures/masks/videos/071_054.mp4").symlink_to(root / "secret.mp4")
    videos, reasons = read("ffpp", root)
    assert sorted(kinds(reasons).values()) == ["a link", "unknown name", "unknown name"]
    assert videos["neuraltextures__c23__071_054"].mask_path == ""


def test_dfd(miniature):
    root = miniature("dfd")
    videos, rejections = read("dfd", root)
    assert not rejections and {v.split for v in videos.values()} == {""}
    original, missing = "actors__c23__01__exit_phone_room", "actors__c23__03__walking_outside"
    assert facts(videos, "label", "source_id", "identities", "folder") == {
        original: (0, "", ("01",), "01"),
        "actors__c23__02__exit_phone_room": (0, "", ("02",), "02"),
        "actors__c23__04__podium_speech_happy": (0, "", ("04",), "04"),
        "dfd__c23__01_02__exit_phone_room__yvgy8lok": (1, original, ("01", "02"), "01"),
        "dfd__c23__03_01__walking_outside__ab12cd34": (1, missing, ("03", "01"), "03"),
    }
    assert [bool(v.mask_path) for v in videos.values()].count(True) == 1
    put(root, "original_sequences/actors/c23/videos/1__x.mp4")
    put(root, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__x.mp4")
    assert list(kinds(read("dfd", root)[1]).values()) == ["unknown name"] * 2
    with pytest.raises(ValueError, match="no video of compression c40"):
        read("dfd", root, compression="c40")
