"""Networks of other programs, filled through `load_weights` from files with the original names, give the
original outputs.

`reference/*.json` was recorded with the original code: names and shapes of its state dict, and its logits for
weights and an input that are functions of names and shapes only (`fill` and `clip`). efficientnet_pytorch is
compared directly.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from pyslowfast_shapes import fill, pyslowfast_resnet, pyslowfast_x3d
from torch import nn

import dfdc_video
from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.padding import StaticSameConv2d, pad_statically
from dfdc_video.models.weights.names import caffe2_names

REFERENCE = Path(__file__).parent / "reference"


def clip(shape):
    return torch.from_numpy(np.random.RandomState(7).standard_normal(shape).astype("float32"))


def reference(name):
    facts = json.loads((REFERENCE / f"{name}.json").read_text())
    return (
        facts,
        fill({row[0]: row[1] for row in facts["state"]}),
        {row[0]: row[2] for row in facts["state"] if len(row) == 3},
    )


def close(found, wanted, tolerance=1e-3):
    """Relative to the largest logit, since single logits may be close to 0."""
    wanted = torch.as_tensor(wanted)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.fixture(scope="module")
def slowfast_reference():
    return reference("pyslowfast_slowfast_8x8_r50")


def test_slowfast_8x8_from_pyslowfast_names(tmp_path, slowfast_reference):
    facts, state, _ = slowfast_reference
    torch.save(
        {"epoch": 195, "model_state": state, "optimizer_state": {"lr": 0.1}, "cfg": "MODEL: {}"},
        tmp_path / "SLOWFAST_8x8_R50.pyth",
    )
    model = dfdc_video.build_model("slowfast_r50_8x8", num_classes=400).eval()
    report = dfdc_video.load_weights(model, tmp_path / "SLOWFAST_8x8_R50.pyth", keep_head=True)
    assert (
        len(report.matched) == 662
        and not report.left_out
        and not report.missing
        and report.source.startswith("PySlowFast")
    )
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    with torch.no_grad():
        logits = model.network(clip(facts["frames_shape"])[None])[0]
    close(logits[:16], facts["logits"])
    assert logits.argmax() == facts["argmax"]
    assert abs(logits.mean() - facts["logits_mean"]) < 1e-3 * facts["logits_std"]
    assert abs(logits.std() - facts["logits_std"]) < 1e-3 * facts["logits_std"]


def test_the_names_of_caffe2_are_the_recorded_ones(slowfast_reference):
    """test_weights_names tests where the tensors of such a file go."""
    _, state, blobs = slowfast_reference
    assert caffe2_names(state) == blobs and len(blobs) == 552


def test_ntech_b0_sequence(tmp_path):
    facts, state, _ = reference("ntech_efficientnet_b0_seq7")
    torch.save(state, tmp_path / "b0.pth")
    model = dfdc_video.build_model("ntech_b0_seq", num_classes=1).eval()
    report = dfdc_video.load_weights(model, tmp_path / "b0.pth", keep_head=True)
    assert (
        len(report.matched) == 360
        and not report.left_out
        and not report.missing
        and not report.inflated
        and not report.notes
    )
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    frames = clip(facts["input_shape"])  # (T, C, H, W)
    with torch.no_grad():
        logits = model.frame_logits(frames.transpose(0, 1)[None])
        close(model.network(frames.transpose(0, 1)[None]), torch.tensor([[np.mean(facts["logits"])]]).float())
    close(logits[0, :, 0], facts["logits"])

    two = dfdc_video.build_model("ntech_b0_seq", num_classes=2).eval()
    report = dfdc_video.load_weights(two, tmp_path / "b0.pth", keep_head=True)
    assert "class 1" in str(report)
    with torch.no_grad():
        close(
            two.frame_logits(frames.transpose(0, 1)[None])[0].softmax(1)[:, 1],
            torch.tensor(facts["logits"]).sigmoid(),
        )


class Expansion(nn.Module):
    """NTech's temporal expansion, reimplemented: (T, C, H, W) of one clip."""

    def __init__(self, conv):
        super().__init__()
        self.conv = nn.Conv3d(conv.in_channels, conv.out_channels, (3, 1, 1), padding=(1, 0, 0), bias=False)

    def forward(self, frames):
        return self.conv(frames.transpose(0, 1)[None])[0].transpose(0, 1)


def original(size, *, sequence):
    """efficientnet_pytorch with one output, filled from the shapes of its state dict."""
    oracle = pytest.importorskip("efficientnet_pytorch", reason="pip install efficientnet_pytorch")
    network = oracle.EfficientNet.from_name(f"efficientnet-b{size}", num_classes=1)
    if sequence:
        for block in network._blocks:
            if hasattr(block, "_expand_conv"):
                block._expand_conv = Expansion(block._expand_conv)
    network.load_state_dict(fill({name: tuple(t.shape) for name, t in network.state_dict().items()}))
    return network.eval()


@pytest.mark.parametrize(
    ("size", "name", "half"),
    [
        (0, "ntech_b0_seq", False),
        (0, "frame_b0", True),
        pytest.param(7, "ntech_b7_seq", False, marks=pytest.mark.slow),
        pytest.param(7, "ntech_b7_frame", False, marks=pytest.mark.slow),
    ],
)
def test_efficientnet_pytorch_agrees(tmp_path, size, name, half):
    network = original(size, sequence="seq" in name)
    frames = clip((7, 3, 224, 192))
    state = network.state_dict()
    if half:
        state = {k: t.half() if t.is_floating_point() else t for k, t in state.items()}
        network.load_state_dict({k: t.float() for k, t in state.items()})
    torch.save(state, tmp_path / "weights.pth")
    padding = {} if name.startswith("ntech") else {"static_padding_px": 224}
    model = dfdc_video.build_model(name, num_classes=1, **padding).eval()
    report = dfdc_video.load_weights(model, tmp_path / "weights.pth", keep_head=True)
    assert (
        len(report.matched) == len(state) and not report.left_out and not report.missing and not report.notes
    )
    if "frame" in name:
        frames = frames[:2]
    if size == 7:  # with random weights so deep a network amplifies float32 rounding to percents
        network, model, frames = network.double(), model.double(), frames[:3].double()
    with torch.no_grad():
        wanted = network(frames)[:, 0]
        close(model.frame_logits(frames.transpose(0, 1)[None])[0, :, 0], wanted)


def test_b7_has_the_padding_of_the_original():
    """Every strided convolution of B7 pads as in efficientnet_pytorch for 600 pixels; timm's own padding at
    224 x 192 pixels differs.
    """
    oracle = pytest.importorskip("efficientnet_pytorch", reason="pip install efficientnet_pytorch")
    with torch.device("meta"):
        theirs = oracle.EfficientNet.from_name("efficientnet-b7", num_classes=1)
    wanted = [
        m.static_padding.padding for m in theirs.modules() if isinstance(m, nn.Conv2d) and m.stride[0] == 2
    ]
    with torch.device("meta"):
        ours = timm.create_model("tf_efficientnet_b7", num_classes=1)
        pad_statically(ours, 600)
    found = [m.static_pad for m in ours.modules() if isinstance(m, StaticSameConv2d)]
    assert found == wanted and (1, 1, 1, 1) in found  # 75 pixels to 38; timm pads 28 to 14 by (0, 1)


@pytest.mark.parametrize(("static", "same"), [(0, False), (75, True)])
def test_static_padding_matters_at_odd_sizes(tmp_path, static, same):
    """A B0 for 75 pixels (maps of 38, 19, 10, 5, 3 pixels) applied to 64 pixels (all maps even)."""
    oracle = pytest.importorskip("efficientnet_pytorch", reason="pip install efficientnet_pytorch")
    network = oracle.EfficientNet.from_name("efficientnet-b0", num_classes=1, image_size=75)
    network.load_state_dict(fill({name: tuple(t.shape) for name, t in network.state_dict().items()}))
    torch.save(network.state_dict(), tmp_path / "b0.pth")
    model = dfdc_video.build_model(
        "frame_b0", num_classes=1, height=64, width=64, static_padding_px=static
    ).eval()
    report = dfdc_video.load_weights(model, tmp_path / "b0.pth", keep_head=True)
    assert bool(report.notes) != same  # a difference in padding is noted
    frames = clip((2, 3, 64, 64))
    with torch.no_grad():
        wanted, found = network.eval()(frames)[:, 0], model.frame_logits(frames[:, :, None])[:, 0, 0]
    assert ((found - wanted).abs().max() <= 1e-3 * wanted.abs().max()) == same


def test_x3d_s_with_a_norm_that_pytorchvideo_lacks(tmp_path):
    """In its first shortcut; that the outputs are unchanged is tested below."""
    state = fill(pyslowfast_x3d())
    torch.save({"model_state": state}, tmp_path / "x3d_s.pyth")
    model = dfdc_video.build_model("x3d_s", num_classes=400).eval()
    report = dfdc_video.load_weights(model, tmp_path / "x3d_s.pyth", keep_head=True)
    assert len(report.matched) == len(model.state_dict()) == len(state) - 5 and not report.missing
    assert len(report.left_out) == 5 and all(
        n.startswith("s2.pathway0_res0.branch1_bn.") for n in report.left_out
    )
    stem = model.network.body.blocks[0].conv
    assert stem.conv_t.weight.shape[2:] == (1, 3, 3)  # the library's name for the convolution over space
    assert torch.equal(stem.conv_t.weight, state["s1.pathway0_stem.conv_xy.weight"])


def by_hand(state, clip):
    """Reimplementation of PySlowFast's Slow or X3D (by the names in `state`) in evaluation mode: float clip
    (B, C, T, H, W) -> logits (B, K).
    """
    x3d = "s1.pathway0_stem.conv_xy.weight" in state

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        padding, groups = [k // 2 for k in weight.shape[2:]], x.shape[1] // weight.shape[1]
        return nn.functional.conv3d(
            x, weight, state.get(f"{name}.bias"), (1, stride, stride), padding, groups=groups
        )

    def normed(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return nn.functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    def block(x, name, stride):
        shortcut = (
            normed(conv(x, f"{name}.branch1", stride), f"{name}.branch1_bn")
            if f"{name}.branch1.weight" in state
            else x
        )
        x = normed(conv(x, f"{name}.branch2.a"), f"{name}.branch2.a_bn").relu()
        x = normed(conv(x, f"{name}.branch2.b", stride), f"{name}.branch2.b_bn")
        if f"{name}.branch2.se.fc1.weight" in state:
            squeezed = conv(x.mean((2, 3, 4), keepdim=True), f"{name}.branch2.se.fc1").relu()
            x = x * conv(squeezed, f"{name}.branch2.se.fc2").sigmoid()
        x = x * x.sigmoid() if x3d else x.relu()
        return (normed(conv(x, f"{name}.branch2.c"), f"{name}.branch2.c_bn") + shortcut).relu()

    if x3d:
        x = normed(
            conv(conv(clip, "s1.pathway0_stem.conv_xy", 2), "s1.pathway0_stem.conv"), "s1.pathway0_stem.bn"
        ).relu()
    else:
        x = normed(conv(clip, "s1.pathway0_stem.conv", 2), "s1.pathway0_stem.bn").relu()
        x = nn.functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage in range(2, 6):
        number = 0
        while f"s{stage}.pathway0_res{number}.branch2.a.weight" in state:
            stride = 2 if number == 0 and (x3d or stage > 2) else 1
            x, number = block(x, f"s{stage}.pathway0_res{number}", stride), number + 1
    if x3d:
        x = normed(conv(x, "head.conv_5"), "head.conv_5_bn").relu().mean((2, 3, 4), keepdim=True)
        x = conv(x, "head.lin_5").relu()
    return nn.functional.linear(
        x.mean((2, 3, 4)), state["head.projection.weight"], state["head.projection.bias"]
    )


@pytest.mark.parametrize("name", ["slow", "x3d"])
def test_slow_and_x3d_have_the_outputs_of_pyslowfast(tmp_path, name):
    state = fill(pyslowfast_resnet(width=16) if name == "slow" else pyslowfast_x3d())
    torch.save({"model_state": state}, tmp_path / "weights.pyth")
    model = build_classifier(name, 400, 8, (96, 96), **({"width": 16} if name == "slow" else {})).eval()
    dfdc_video.load_weights(model, tmp_path / "weights.pyth", keep_head=True)
    frames = clip((1, *model.clip_shape))
    with torch.no_grad():
        close(model.network(frames), by_hand(state, frames), 1e-4)
