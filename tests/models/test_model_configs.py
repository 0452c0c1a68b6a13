"""Every config in configs/model: it builds, its parameters are in stages, and it costs what the documents
say.
"""

from __future__ import annotations

import re

import pytest
import torch
from model_configs import model_configs, model_settings

from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.summary import summarise
from dfdc_video.registry import MODELS, settings_of, top_level

CONFIGS = model_configs()
SMALL_CLIP = {"NUM_FRAMES": 16, "STRIDE_SECONDS": 1 / 15, "HEIGHT": 64, "WIDTH": 64}  # of data/small
ROOT = top_level("configs").parent
DOCUMENTS = [
    p.read_text(encoding="utf-8") for p in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if p.is_file()
]
# `slow_r50_8x8` (32.45, 41.92): millions of parameters, 10^9 multiply-adds
COSTS = [
    (name, (millions, giga))
    for text in DOCUMENTS
    for name, millions, giga in re.findall(r"`([a-z0-9_]+)` \((\d+\.\d+), (\d+\.\d+)\)", text)
]


@pytest.mark.parametrize("stem", CONFIGS)
def test_a_model_config_builds_as_documented(stem):
    """On the meta device: every layer, no memory."""
    config = CONFIGS[stem]
    name, settings = model_settings(config)
    assert set(settings) <= set(settings_of(MODELS.get(name)))
    assert ("CLIP" in config) != stem.endswith("_small"), "small configs take the clips of data/small"
    clip = config.get("CLIP", SMALL_CLIP)
    assert set(clip) <= {"NUM_FRAMES", "STRIDE_FRAMES", "STRIDE_SECONDS", "HEIGHT", "WIDTH"}
    assert clip.get("STRIDE_FRAMES", 0) > 0 or clip["STRIDE_SECONDS"] == pytest.approx(1 / 15, abs=1e-4)
    with torch.device("meta"):
        model = build_classifier(name, 2, clip["NUM_FRAMES"], (clip["HEIGHT"], clip["WIDTH"]), **settings)
    cost = summarise(model)  # runs it
    found = (f"{cost['parameters'] / 1e6:.2f}", f"{cost['flops'] / 1e9:.2f}")
    assert {written for documented, written in COSTS if documented == stem} <= {found}
    check_stages(model)


def check_stages(model):
    """Every parameter is in one stage only; the head is the last, the stem of a backbone the first."""
    stages, names = model.parameters_by_stage(), [name for name, _ in model.named_parameters()]
    assert sorted(name for group in stages.values() for name in group) == sorted(names)
    assert all(stages.values()), "no empty stage"
    assert list(stages)[-1] == "head" and all(n.startswith(model.head_names) for n in stages["head"])
    if any(n.startswith(("network.backbone.", "network.body.")) for n in names):
        assert next(iter(stages)) == "stem" and len(stages) >= 4


def test_the_documents_name_costs_of_configs_only():
    assert len(COSTS) >= 20 and {name for name, _ in COSTS} <= set(CONFIGS)
