"""`dfdc-video list`: what there is, and one thing in full."""

import re

import pytest

from dfdc_video.cli import main


def run(capsys, *words) -> tuple[int, str]:
    return main(["list", *words]), capsys.readouterr().out


def test_list_shows_configs_experiments_and_components(capsys):
    code, out = run(capsys)
    assert code == 0
    for name in (
        "slowfast_r50_8x8_transfer",
        "frame_vs_sequence",
        "blazeface_full",
        "efficientnet3d",
        "model/frame_b7",
        "dfdc",
    ):
        assert re.search(rf"^  {re.escape(name)} +\S", out, re.M), name
    _, only = run(capsys, "models")
    assert "efficientnet3d" in only and "blazeface" not in only


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("models", "slowfast_small"),
            ["blocks.3", "network.body.blocks.6.proj", "4  network.body.blocks.4.multipathway_blocks.0"],
        ),
        (("models", "frame"), ["Bag of frames", "backbone 'resnet18'"]),
        (("configs", "frame_small"), ["NAME: frame", "BATCH_SIZE: 8"]),
        (("config-bases", "train/sgd_linear"), ["SCHEDULE: linear"]),
        (
            ("experiments", "frame_vs_sequence"),
            ["base: frame_small", "cnn_lstm: {'_BASE_': 'model/cnn_lstm_small'}"],
        ),
        (("split-rules", "kfold"), ["folds"]),
    ],
)
def test_list_shows_one_thing_in_full(capsys, words, expected):
    code, out = run(capsys, *words)
    assert code == 0 and all(text in out for text in expected), out
