"""Stages of networks: every parameter of every model in exactly one, from the stem to the head."""

from __future__ import annotations

import pytest
import timm
import torch

from dfdc_video.models.stages import group_by_stage


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet18", "stem layer1 layer2 layer3 layer4 head"),
        (
            "tf_efficientnet_b0",
            "stem blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5 blocks.6 neck head",
        ),
        ("convnext_tiny", "stem stages.0 stages.1 stages.2 stages.3 neck head"),
        ("densenet121", "stem denseblock1 denseblock2 denseblock3 denseblock4 neck head"),
        ("legacy_xception", "stem " + " ".join(f"block{i}" for i in range(1, 13)) + " neck head"),
        ("vit_tiny_patch16_224", "stem " + " ".join(f"blocks.{i}" for i in range(12)) + " neck head"),
        ("swin_tiny_patch4_window7_224", "stem layers.0 layers.1 layers.2 layers.3 neck head"),
        ("regnety_002", "stem s1 s2 s3 s4 head"),
        ("dla34", "stem level0 level1 level2 level3 level4 level5 head"),
    ],
)
def test_stages_of_timm_backbones(backbone, expected):
    with torch.device("meta"):
        network = timm.create_model(backbone)
    names = [f"network.backbone.{name}" for name, _ in network.named_parameters()]
    stages = group_by_stage(names, heads=(f"network.backbone.{network.pretrained_cfg['classifier']}",))
    assert list(stages) == expected.split()
    assert sorted(n for group in stages.values() for n in group) == sorted(names)


def test_parts_beside_the_backbone_and_blocks_without_a_stem():
    names = [
        "network.body.blocks.0.w",
        "network.body.blocks.1.w",
        "network.body.blocks.6.pool.w",
        "network.body.blocks.6.proj.w",
    ]
    assert group_by_stage(names, heads=("network.body.blocks.6.proj",)) == {
        "stem": names[:1],
        "blocks.1": names[1:2],
        "blocks.6": names[2:3],
        "head": names[3:],
    }
    names = ["network.rnn.w", "network.head.0.w", "network.head.2.w", "network.header.w"]
    stages = group_by_stage(names, heads=("network.head.2",))
    assert stages == {"rnn": names[:1], "neck": names[1:2], "header": names[3:], "head": names[2:3]}
