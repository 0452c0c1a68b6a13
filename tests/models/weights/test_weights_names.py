"""Names of PySlowFast, its Caffe2 files and efficientnet_pytorch, by rule; outputs: test_exactness.py."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pyslowfast_shapes import fill, pyslowfast_resnet, pyslowfast_slowfast, pyslowfast_x3d
from weights_files import SLOWFAST, caffe2_blobs, caffe2_file, frame, make, moved, saved

from dfdc_video import build_model
from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.weights.load import load_weights
from dfdc_video.models.weights.names import caffe2_names, efficientnet_names, pyslowfast_names
from dfdc_video.models.weights.write import save_pyslowfast
from dfdc_video.registry import top_level

VIDEO = {
    "slowfast": SLOWFAST,
    "slow": {"width": 8},
    "c2d": {"width": 8},
    "i3d": {"width": 8},
    "x3d": {"width_factor": 0.5, "depth_factor": 1.0, "head_width": 32},
}


@pytest.mark.parametrize("name", sorted(VIDEO))
def test_pyslowfast_round_trip(tmp_path, name):
    source, target = (moved(make(name, 5, **VIDEO[name])), make(name, 5, **VIDEO[name]))
    path = save_pyslowfast(source, tmp_path / "out" / "ours.pyth")
    state = torch.load(path, weights_only=True)["model_state"]
    assert {n.split(".")[0] for n in state} >= {"s1", "s2", "s3", "s4", "s5", "head"} and not any(
        "blocks" in n for n in state
    )
    report = load_weights(target, path, keep_head=True)
    assert not report.missing and len(report.matched) + len(report.left_out) == len(state)
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(target.network(clip), source.network(clip), rtol=1e-5, atol=1e-6)
    if name == "x3d":
        assert all("folded" in reason for reason in report.left_out.values()) and len(report.left_out) == 5
    else:
        assert not report.left_out
        assert all(
            torch.equal(a, b)
            for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize("name", ["frame", "r2plus1d"])
def test_what_pyslowfast_has_no_names_for_is_not_written(tmp_path, name):
    model = frame() if name == "frame" else make(name, width=8)
    with pytest.raises(
        ValueError, match="PySlowFast has no name for network|PySlowFast has no name for blocks"
    ):
        save_pyslowfast(model, tmp_path / "a.pyth")
    assert not (tmp_path / "a.pyth").exists()


def test_names_by_rule():
    """Stages are counted without the pools that stand between them."""
    slow = [
        "blocks.0.conv.weight",
        "blocks.0.norm.bias",
        "blocks.1.res_blocks.2.branch2.conv_b.weight",
        "blocks.3.res_blocks.0.branch1_norm.weight",
    ]
    head = ["blocks.6.proj.weight"]
    assert list(pyslowfast_names(slow + head).values()) == [
        "s1.pathway0_stem.conv.weight",
        "s1.pathway0_stem.bn.bias",
        "s2.pathway0_res2.branch2.b.weight",
        "s3.pathway0_res0.branch1_bn.weight",
        "head.projection.weight",
    ]
    names = [
        "s4.pathway1_res22.branch2.c.weight",
        "s4_fuse.conv_f2s.weight",
        "s4_fuse.bn.running_var",
        "s1.pathway1_stem.bn.num_batches_tracked",
    ]
    assert caffe2_names(names) == {
        names[0]: "t_res4_22_branch2c_w",
        names[1]: "t_res4_22_branch2c_bn_subsample_w",
        names[2]: "t_res4_22_branch2c_bn_subsample_bn_riv",
    }
    timm_names = [
        "blocks.0.0.conv_pw.weight",
        "blocks.1.0.conv_pw.weight",
        "blocks.1.0.conv_pwl.weight",
        "bn1.bias",
    ]
    assert list(efficientnet_names(timm_names).values()) == [
        ["_blocks.0._project_conv.weight"],
        ["_blocks.1._expand_conv.weight", "_blocks.1._expand_conv.conv.weight"],
        ["_blocks.1._project_conv.weight"],
        ["_bn0.bias"],
    ]


def test_head_of_a_pyslowfast_checkpoint_is_left_out_for_another_task(tmp_path):
    path = save_pyslowfast(make("slowfast", 400, **SLOWFAST), tmp_path / "k400.pyth")
    target = make("slowfast", 2, **SLOWFAST)
    report = load_weights(target, path)
    assert (
        set(report.left_out)
        == set(report.missing)
        == {"network.body.blocks.6.proj.weight", "network.body.blocks.6.proj.bias"}
    )
    with pytest.raises(ValueError, match=r"proj.weight has the shape \(400, .*expected \(2, "):
        load_weights(target, path, keep_head=True)


def test_pyslowfast_checkpoint_of_another_architecture(tmp_path):
    path = save_pyslowfast(make("slowfast", **SLOWFAST), tmp_path / "a.pyth")
    for target in (frame(), make("slow", width=16), make("slowfast", **{**SLOWFAST, "width": 32})):
        with pytest.raises(ValueError, match=r"PySlowFast.*(another architecture|does not fit)") as error:
            load_weights(target, path)
        assert "\n" not in str(error.value)
    state = torch.load(path, weights_only=True)["model_state"]
    extra = {**state, "s3.pathway0_nonlocal1.conv_g.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="s3.pathway0_nonlocal1.conv_g.weight is not in the model"):
        load_weights(make("slowfast", **SLOWFAST), saved(tmp_path, {"model_state": extra}))


def test_caffe2_pickle(tmp_path):
    source, target = moved(make("slowfast", 5, **SLOWFAST)), make("slowfast", 5, **SLOWFAST)
    blobs = caffe2_blobs(source)
    blobs["conv1_w"] = blobs["conv1_w"].astype(">f4")  # another machine's byte order
    blobs["res2_0_branch2a_w"] = blobs["res2_0_branch2a_w"][:, :, 0, 0, 0]  # a linear layer
    extra = {
        "conv1_w_momentum": np.zeros(3, "float32"),
        "lr": np.float32(0.1),
        "model_iter": np.array([5], "int64"),
    }
    fresh = {name: t.clone() for name, t in target.state_dict().items()}
    for protocol in (0, 2, 4):
        target.load_state_dict(fresh)
        path = caffe2_file(tmp_path, {"blobs": blobs | extra, "cfg": "text"}, protocol=protocol)
        report = load_weights(target, path, keep_head=True)
        assert report.left_out == dict.fromkeys(extra, "state of the optimiser, no weight")
        assert all(n.endswith("num_batches_tracked") for n in report.missing)
        learned = [n for n in report.matched if not n.endswith("num_batches_tracked")]
        assert len(learned) == len(blobs)
        assert all(torch.equal(source.state_dict()[n], target.state_dict()[n]) for n in learned)


def test_caffe2_blob_that_nothing_explains_is_an_error(tmp_path):
    model = make("slowfast", **SLOWFAST)
    blobs = caffe2_blobs(model)
    with pytest.raises(ValueError, match="nonlocal_conv3_1_theta_w is not in the model"):
        load_weights(
            model, caffe2_file(tmp_path, {"blobs": blobs | {"nonlocal_conv3_1_theta_w": np.ones(1)}})
        )
    del blobs["res3_0_branch2a_w"]
    with pytest.raises(
        ValueError,
        match=r"blocks.2.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight is not in the file",
    ):
        load_weights(model, caffe2_file(tmp_path, {"blobs": blobs}))
    with pytest.raises(ValueError, match="another architecture"):
        load_weights(frame(), caffe2_file(tmp_path, {"blobs": blobs}))


# The networks of configs/model, by names and shapes written down from PySlowFast's builders.

REFERENCE = Path(__file__).parents[1] / "reference/pyslowfast_slowfast_8x8_r50.json"


def test_the_rules_of_slowfast_give_the_names_and_shapes_of_the_original():
    """The networks without a recorded reference follow from them."""
    recorded = {row[0]: tuple(row[1]) for row in json.loads(REFERENCE.read_text())["state"]}
    assert pyslowfast_slowfast((3, 4, 6, 3), 7) == recorded


R50, R101, NARROW = (3, 4, 6, 3), (3, 4, 23, 3), 16
I3D = ((5,), (3,), (3, 1), (3, 1), (1, 3))
OTHERS = {  # config -> names and shapes of its weights at PySlowFast, narrower
    "slow_r50_8x8": lambda: pyslowfast_resnet(width=NARROW),
    "c2d_r50": lambda: pyslowfast_resnet(((1,),) * 5, width=NARROW),
    "i3d_r50": lambda: pyslowfast_resnet(I3D, width=NARROW),
    "slowfast_r50_4x16": lambda: pyslowfast_slowfast(R50, 5, NARROW),
    "slowfast_r50_8x8": lambda: pyslowfast_slowfast(R50, 7, NARROW),
    "slowfast_r101_8x8": lambda: pyslowfast_slowfast(R101, 5, NARROW),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_every_network_is_loaded_by_pyslowfast_s_names_and_by_caffe2_s(tmp_path, name):
    state = fill(OTHERS[name]())
    torch.save({"model_state": state}, tmp_path / "weights.pyth")
    settings = {
        key.lower(): value
        for key, value in yaml.safe_load((top_level("configs") / f"model/{name}.yaml").read_text())[
            "MODEL"
        ].items()
    }
    kind = settings.pop("name")
    first, second = (
        build_classifier(kind, 400, 32, (64, 64), **{**settings, "width": NARROW}) for _ in range(2)
    )
    report = load_weights(first, tmp_path / "weights.pyth", keep_head=True)
    assert (
        len(report.matched) == len(state) == len(first.state_dict())
        and not report.left_out
        and not report.missing
    )
    blobs = {blob: state[theirs].numpy() for theirs, blob in caffe2_names(state).items()}
    assert len(blobs) == sum(not theirs.endswith("num_batches_tracked") for theirs in state)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    report = load_weights(second, tmp_path / "model.pkl", keep_head=True)
    assert len(report.matched) - len(blobs) == 0 and all(
        n.endswith("num_batches_tracked") for n in report.missing
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("name", "depth"), [("x3d_s", 2.2), ("x3d_l", 5.0)])  # XS and M are S on other clips
def test_every_x3d_is_loaded_by_pyslowfast_s_names(tmp_path, name, depth):
    state = {theirs: torch.ones(shape) for theirs, shape in pyslowfast_x3d(depth).items()}
    torch.save({"model_state": state}, tmp_path / "weights.pyth")
    model = build_model(name, num_classes=400)
    report = load_weights(model, tmp_path / "weights.pyth", keep_head=True)
    assert (
        len(report.matched) == len(model.state_dict()) == len(state) - 5
        and not report.missing
        and len(report.left_out) == 5
    )


# EfficientNets of efficientnet_pytorch.


def test_efficientnet_pytorch_2d_weights_inflate_and_need_its_norms(tmp_path):
    model = make("frame", 1, backbone="tf_efficientnet_b0", static_padding_px=224)
    prefix = "network.backbone."
    names = efficientnet_names([n.removeprefix(prefix) for n in model.state_dict()])
    path = saved(tmp_path, {others[0]: model.state_dict()[prefix + n].half() for n, others in names.items()})
    target = make("efficientnet3d", 2, backbone="tf_efficientnet_b0")
    report = load_weights(target, path)
    assert len(report.inflated) == 15 and set(report.left_out) == {
        f"{prefix}classifier.weight",
        f"{prefix}classifier.bias",
    }
    assert report.notes and "static_padding_px" in str(report)
    with pytest.raises(ValueError, match="eps 0.001, this backbone has 1e-05: use tf_efficientnet"):
        load_weights(make("frame", backbone="efficientnet_b0"), path)
    with pytest.raises(ValueError, match="efficientnet_pytorch.*another architecture"):
        load_weights(make("frame", backbone="test_resnet"), path)


@pytest.mark.parametrize("name", ["frame", "efficientnet3d"])
@pytest.mark.parametrize(("backbone", "size_px"), [("test_efficientnet", 224), ("tf_efficientnet_b0", -1)])
def test_static_padding_where_it_means_nothing(name, backbone, size_px):
    with pytest.raises(ValueError, match="static_padding_px .*expected the image size in pixels"):
        make(name, backbone=backbone, static_padding_px=size_px)
