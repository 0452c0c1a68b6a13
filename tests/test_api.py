"""The functions for Python and notebooks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import dfdc_video
from dfdc_video.config import config_names
from dfdc_video.models.efficientnet3d import TemporalConv
from dfdc_video.models.padding import StaticSameConv2d


def test_import_brings_no_torch():
    code = (
        "import sys, dfdc_video; dir(dfdc_video); print(sorted({'torch', 'timm', 'fvcore'} & "
        "set(sys.modules)), dfdc_video.__version__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == f"[] {dfdc_video.__version__}\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dfdc_video.nothing  # noqa: B018


def test_a_model_by_its_config_s_name():
    model = dfdc_video.build_model(
        "frame_small", num_classes=3, num_frames=4, height=64, width=48, dropout=0.5
    )
    assert model.clip_shape == (3, 4, 64, 48) and model.num_classes == 3 and model.training
    assert model.network.backbone.drop_rate == 0.5
    frames = torch.randint(0, 256, (2, 3, 4, 64, 48), dtype=torch.uint8)
    with torch.no_grad():
        model.eval()
        assert model(frames).shape == (2, 3)
        torch.testing.assert_close(model.frame_logits(model.normalise(frames)).mean(1), model(frames))


def test_one_logit():
    model = dfdc_video.build_model("efficientnet3d_small", num_classes=1, height=64, width=64).eval()
    with torch.no_grad():
        assert model.network(torch.randn(2, 3, 4, 64, 64)).shape == (2, 1)


@pytest.mark.parametrize(
    ("name", "clip_shape"),
    [
        ("slowfast_r50_8x8", (3, 32, 224, 224)),
        ("slowfast_r50_4x16", (3, 32, 224, 224)),
        ("slow_r50_8x8", (3, 8, 224, 224)),
        ("x3d_s", (3, 13, 160, 160)),
        ("ntech_b0_seq", (3, 7, 224, 192)),
        ("ntech_b7_seq", (3, 7, 224, 192)),
        ("ntech_b7_frame", (3, 7, 224, 192)),
    ],
)
def test_the_published_networks(name, clip_shape):
    with torch.device("meta"):
        model = dfdc_video.build_model(name, num_classes=400)
    assert model.clip_shape == clip_shape
    if name.startswith("ntech"):
        convs = [m for m in model.modules() if isinstance(m, TemporalConv)]
        assert len(convs) == {"ntech_b0_seq": 15, "ntech_b7_seq": 51, "ntech_b7_frame": 0}[name]
        assert sum(isinstance(m, StaticSameConv2d) for m in model.modules()) == 5
        assert all(m.eps == 1e-3 for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_weights_come_back(tmp_path):
    source, target = (
        dfdc_video.build_model("slowfast_small", num_classes=4, height=64, width=64) for _ in range(2)
    )
    report = dfdc_video.load_weights(
        target, dfdc_video.save_pyslowfast(source, tmp_path / "a.pyth"), keep_head=True
    )
    assert isinstance(report, dfdc_video.LoadReport) and len(report.matched) == len(source.state_dict())


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("slowfast_r50_8x9", {}, "unknown model 'slowfast_r50_8x9'; did you mean slowfast_r50_8x8"),
        ("frame_small", {"dropuot": 0.1}, "model frame_small has no setting 'dropuot'; did you mean dropout"),
        ("frame_small", {"init_from": "a.pth"}, "no setting 'init_from'"),
        ("frame_small", {"dropout": "much"}, "MODEL.DROPOUT = 'much'"),
        ("frame_small", {"height": 0}, "CLIP.HEIGHT = 0: expected 1 or more"),
        ("frame_small", {"num_classes": 0}, "num_classes = 0: expected a whole number"),
        ("frame_small", {"num_classes": 2.5}, "num_classes = 2.5: expected a whole number"),
    ],
)
def test_what_does_not_exist_is_named(name, settings, problem):
    with pytest.raises(ValueError, match=problem):
        dfdc_video.build_model(name, **settings)


def test_every_model_config_has_a_name_here():
    assert all(name.startswith("model/") for name in config_names("model"))
