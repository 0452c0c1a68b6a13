"""Settings and inputs of models: what is refused, and what the message says."""

from __future__ import annotations

import pytest
import torch

from dfdc_video.models.classifier import build_classifier
from dfdc_video.registry import MODELS, settings_of

CLIP = torch.zeros(2, 3, 8, 64, 64, dtype=torch.uint8)


@pytest.mark.parametrize(
    "wrong", [CLIP[0], CLIP.float(), CLIP.transpose(1, 2)], ids=["no batch", "float", "axes"]
)
def test_wrong_input_names_what_was_given_and_expected(wrong):
    """`VideoClassifier.normalise` checks it for every family."""
    with torch.device("meta"):
        model = build_classifier("frame", 2, 8, (64, 64), backbone="test_resnet")
    with pytest.raises(ValueError, match=r"given .* expected uint8 \(B, 3, 8, 64, 64\)"):
        model(wrong)


def test_unknown_setting_is_answered_with_the_nearest():
    for name in MODELS.names():
        known = next(iter(settings_of(MODELS.get(name))))
        with pytest.raises(
            ValueError, match=f"model {name} has no setting '{known}x'; did you mean .*{known}"
        ):
            build_classifier(name, 2, 8, (64, 64), **{known + "x": 1})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("frame", {"backbone": "resnet81"}, "unknown timm backbone 'resnet81'; did you mean"),
        ("cnn_lstm", {"rnn": "lstn"}, "did you mean lstm"),
        ("cnn_lstm", {"pool": "grids"}, "did you mean grid"),
        ("cnn_lstm", {"readout": "first"}, "readout 'first'"),
        ("cnn_lstm", {"stage": 2}, "pool grid"),
        ("cnn_lstm", {"pool": "grid", "stage": 9}, "it has 5 stages"),
        ("embedding_lstm", {"rnn": "gur"}, "embedding_lstm: rnn 'gur'; did you mean gru"),
        ("embedding_lstm", {"pool": "averge"}, "embedding_lstm: pool 'averge'; did you mean avg"),
        ("embedding_lstm", {"pool": "grid", "stage": -6}, "embedding_lstm: stage -6 .* it has 5 stages"),
        ("aggregator", {"inputs": "feature"}, "aggregator: inputs 'feature'; did you mean features"),
        ("aggregator", {"pool": "attentive"}, "aggregator: pool 'attentive'; did you mean attention"),
        ("aggregator", {"hidden": 0}, "aggregator: hidden 0, expected"),
        ("aggregator", {"inputs": "predictions", "pretrained": True}, "other classes; .*INIT_FROM"),
        ("efficientnet3d", {"kernel": 2}, "odd"),
        ("efficientnet3d", {"padding": "reflect"}, "padding 'reflect'"),
        ("efficientnet3d", {"start": "inflated"}, "did you mean inflate"),
        ("efficientnet3d", {"start": "difference", "pretrained": True}, "changes what the pretrained"),
        ("efficientnet3d", {"backbone": "resnet18"}, "no EfficientNet"),
        ("efficientnet3d", {"blocks": "3-9"}, "below 7"),
        ("efficientnet3d", {"blocks": "0"}, "nothing would see time"),
        ("slowfast", {"depth": 34}, "one of 18, 50"),
        ("slowfast", {"alpha": 3}, "multiple of alpha"),
        ("slowfast", {"width": 20}, "whole number"),
        ("slow", {"depth": 18}, "slow: depth 18, expected one of 50, 101, 152"),
        ("csn", {"depth": 34}, "csn: depth 34"),
        ("i3d", {"width": 0}, "i3d: width 0"),
        ("x3d", {"depth_factor": 0.0}, "depth_factor 0.0"),
        ("mvit", {"width": 20}, "multiple of 8 per head"),
        ("mvit", {"stages": (3, 1)}, "rising numbers from 1 to 15"),
        ("mvit", {"depth": 8}, "stages .1, 3, 14. of 8 blocks"),
    ],
)
def test_settings_that_cannot_work(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(name, 2, 8, (64, 64), **settings)


def test_pretrained_without_network_says_what_to_fetch(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(ValueError, match="huggingface.co/timm/test_resnet.*MODEL.INIT_FROM"):
        build_classifier("frame", 2, 8, (64, 64), backbone="test_resnet", pretrained=True)
