"""The costs in the README are those of the networks."""

import re

import pytest
import torch

from dfdc_video.api import build_model
from dfdc_video.config import config_names, find_config, read_tree
from dfdc_video.models.summary import summarise
from dfdc_video.registry import MODELS, settings_of, top_level

README = (top_level("configs").parent / "README.md").read_text(encoding="utf-8")
COSTS = re.findall(r"`([a-z0-9_]+)` \((\d+\.\d+), (\d+\.\d+)\)", README)


@pytest.mark.parametrize(("name", "parameters", "flops"), COSTS, ids=[c[0] for c in COSTS])
def test_costs_in_the_readme(name, parameters, flops):
    settings = settings_of(MODELS.get(read_tree(find_config(f"model/{name}"))["MODEL"]["NAME"]))
    with torch.device("meta"):
        cost = summarise(build_model(name, **({"pretrained": False} if "pretrained" in settings else {})))
    assert (f"{cost['parameters'] / 1e6:.2f}", f"{cost['flops'] / 1e9:.2f}") == (parameters, flops)


def test_every_family_and_every_published_form_is_in_the_readme():
    section = README[README.index("## Models") : README.index("Complete runs")]
    assert len(COSTS) >= 20 and all(f"`{name}`" in section for name in MODELS.names())
    for name in config_names("model"):
        short = name.removeprefix("model/")
        in_words = (short, short.removeprefix("frame_"), short.removeprefix("ntech_"))
        between = short in {f"frame_b{i}" for i in range(1, 7)} or short.endswith("_small")
        assert between or any(re.search(rf"[`\s]{re.escape(word)}[`\s]", section) for word in in_words), name
