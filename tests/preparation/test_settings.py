"""settings.py: a setting is one field; flag, help, YAML key, check and listing follow from it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

import pytest

from dfdc_video.cli import build_parser, main
from dfdc_video.commands.prepare import add_flags, check_components, given_flags, read_settings_file
from dfdc_video.preparation import settings as module
from dfdc_video.preparation.settings import (
    FaceSettings,
    FinishingSettings,
    PrepareSettings,
    WorkSettings,
    at_least,
    images_per_video,
    names_of,
    setting,
    setting_lines,
)


def test_one_field_is_a_flag_with_help_a_yaml_key_a_check_and_a_listed_line(monkeypatch, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class More(FaceSettings):
        title = "faces"
        padding: int = setting(4, "pixels around a face: 50 % of nothing", at_least(0))

    monkeypatch.setattr(module, "GROUPS", (WorkSettings, More, FinishingSettings))
    monkeypatch.setattr(module, "PrepareSettings", More)
    parser = argparse.ArgumentParser()
    add_flags(parser, More)
    assert "50 % of nothing (default 4)" in " ".join(parser.format_help().split())
    assert given_flags(parser.parse_args(["--padding", "7"]), More) == {"padding": 7}
    assert given_flags(parser.parse_args([]), More) == {}
    (tmp_path / "s.yaml").write_text("padding: 9")
    assert read_settings_file(tmp_path / "s.yaml") == {"padding": 9}
    with pytest.raises(ValueError, match="padding -1: expected 0 or more"):
        More(padding=-1)
    assert setting_lines()["padding"] == "pixels around a face: 50 % of nothing (default 4)"
    assert More().plain()["padding"] == 4


def test_every_setting_is_a_flag_and_is_listed(capsys):
    parser = build_parser(["prepare"])
    for f in fields(PrepareSettings):
        assert f.metadata["help"] and f.name in setting_lines()
    flags = given_flags(
        parser.parse_args(
            "prepare dfdc --root a --out b --size 64 --no-kitti --ratios 1 0 0 --allow-leaks group content "
            "--split-set folds 3 --pad-aspect 16:9".split()
        ),
        PrepareSettings,
    )
    assert flags == {
        "size": 64,
        "kitti": False,
        "ratios": (1.0, 0.0, 0.0),
        "allow_leaks": ("group", "content"),
        "split_settings": {"folds": 3},
        "pad_aspect": "16:9",
    }
    assert main(["list", "prepare-settings"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in names_of(PrepareSettings))
    assert main(["list", "prepare-settings", "margin"]) == 0
    assert "as a multiple of the side of the face (default 1.5)" in capsys.readouterr().out
    assert (
        main(["list", "prepare-settings", "margn"]) == 2 and "did you mean margin" in capsys.readouterr().err
    )


def test_a_file_of_settings(tmp_path):
    path = tmp_path / "faces.yaml"
    path.write_text(
        "size: 224\nmargin: 2\nratios: [0.5, 0.25, 0.25]\nsplit: kfold\nsplit_settings: {folds: 3}\n"
    )
    given = read_settings_file(path)
    assert given == {
        "size": 224,
        "margin": 2.0,
        "ratios": (0.5, 0.25, 0.25),
        "split": "kfold",
        "split_settings": {"folds": 3},
    }
    assert check_components(given, "dfdc") == given
    for text, message in {
        "sise: 3": r"faces.yaml: unknown setting 'sise'; did you mean .*size",
        "size: large": "faces.yaml: size = 'large'",
        "- size": "holds a list",
        "size: [": "not valid YAML",
        "size: " + "[" * 2000 + "]" * 2000: "faces.yaml: not valid YAML: .*recursion",
        "pad_aspect: 2001-99-99": "faces.yaml: not valid YAML: month",
        "margin: 1" + 400 * "0": "faces.yaml: margin = 1000.*: expected float",
        "5: 6": "faces.yaml: unknown setting '5'",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_settings_file(path)
    with pytest.raises(FileNotFoundError, match="no file of settings at"):
        read_settings_file(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="unknown key kfold.flods of .*|did you mean fold"):
        check_components({"split": "kfold", "split_settings": {"flods": 3}}, "dfdc")
    with pytest.raises(ValueError, match="unknown key kfold.5; known: fold, folds, val"):
        check_components({"split": "kfold", "split_settings": {5: 3}}, "dfdc")


def test_flags_win_over_the_file(tmp_path, monkeypatch):
    """A component that a flag names takes no settings that the file has for another one."""
    from dfdc_video.preparation import prepare as prepare_module

    taken = {}
    monkeypatch.setattr(prepare_module, "prepare", lambda *a, **settings: taken.update(settings))
    path = tmp_path / "s.yaml"
    path.write_text("size: 224\nevery: 3\nsplit: kfold\nsplit_settings: {folds: 3}\n")
    words = ["prepare", "dfdc", "--root", "r", "--out", "o", "--settings", str(path)]
    assert main([*words, "--size", "64"]) == 0
    assert taken == {"size": 64, "every": 3, "split": "kfold", "split_settings": {"folds": 3}}
    taken.clear()
    assert main([*words, "--split", "stratified"]) == 0
    assert taken == {"size": 224, "every": 3, "split": "stratified"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 65}, "size 65: expected an even number"),
        ({"size": 8}, "size 8: expected 16 or more"),
        ({"every": 0}, "every 0: expected 1 or more"),
        ({"margin": 0.5}, "margin 0.5: expected 1 or more"),
        ({"iou": 1.5}, "iou 1.5: expected a number between 0 and 1"),
        ({"iou": 1.0}, "iou 1.0: expected a number between 0 and 1"),
        ({"min_confidence": 0.0}, "min_confidence 0.0: expected a number between 0 and 1"),
        ({"max_seconds": 0.2}, r"max_seconds 0.2: expected more than min_seconds .0.2."),
        ({"min_confidence": 0.6}, r"min_track_confidence 0.5: expected min_confidence .0.6. or more"),
        ({"min_track_confidence": 1.0}, "min_track_confidence 1.0"),
        ({"crop": "round"}, "crop 'round': expected fixed, smoothed or aligned"),
        ({"format": "vp9"}, "format 'vp9': expected h264, lossless or png"),
        ({"pad_aspect": "16/9"}, "pad_aspect '16/9': expected width:height"),
        ({"detector": "blazeface_ful"}, "did you mean blazeface_full"),
        ({"detector_settings": {"min_confidence": 0.1}}, "give --min-confidence"),
        ({"split": "grup"}, "did you mean group"),
        ({"group_by": "identitty"}, "group_by 'identitty': expected auto, identity, folder or original"),
        ({"workers": 0}, "workers 0: expected 1 or more"),
        ({"timeout_seconds": 0}, "timeout_seconds 0: expected more than 0"),
        ({"max_seconds": 0.1}, r"max_seconds 0.1: expected more than min_seconds .0.2."),
        ({"part": 3, "num_parts": 2}, r"part 3: expected num_parts .2. or less"),
        ({"fetch": "x"}, "--fetch and --delete need --folders"),
        ({"folders": ("a",), "limit": 3}, "neither --num-parts nor --limit"),
        ({"folders": ("../a",)}, "expected a folder below the root"),
        ({"frames": "10:2"}, "frames '10:2': expected a number of images per video"),
        ({"frames_format": "gif"}, "frames_format 'gif': expected jpg or png"),
        ({"merge": "train"}, r"merge 'train': expected train\+test, or nothing"),
        ({"near_distance": -1}, "near_distance -1: expected 0"),
        ({"allow_leaks": ("grup",)}, "unknown kind of leak 'grup'; did you mean group"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        PrepareSettings(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), (" ", None), ("10", (10, 10)), ("10/2", (10, 2)), (" 3 / 1 ", (3, 1))]
)
def test_images_per_video(text, expected):
    assert images_per_video(text) == expected


@pytest.mark.parametrize("text", ["ten", "10/", "/2", "0", "3/0", "-1", "1/2/3", "1.5", "10:2"])
def test_other_texts_are_no_images_per_video(text):
    with pytest.raises(ValueError, match="expected a number of images per video") as error:
        images_per_video(text)
    assert repr(text) in str(error.value)
