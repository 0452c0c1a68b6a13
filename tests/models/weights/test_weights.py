"""Checkpoints of every kind into models of every family: each tensor is accounted for."""

from __future__ import annotations

import pytest
import timm
import torch
from weights_files import SLOWFAST, accounted, frame, make, saved

from dfdc_video.models.efficientnet3d import TemporalConv
from dfdc_video.models.weights.load import load_weights


@pytest.mark.parametrize("wrap", ["plain", "lightning", "ddp"])
def test_our_checkpoints(tmp_path, wrap):
    source, target = frame(), frame()
    state = source.state_dict()
    content = {
        "plain": state,
        "lightning": {
            "state_dict": {**{f"model.{k}": v for k, v in state.items()}, "loss.weight": torch.ones(2)},
            "epoch": 3,
        },
        "ddp": {f"module.{k}": v for k, v in state.items()},
    }[wrap]
    report = load_weights(target, saved(tmp_path, content), keep_head=True)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), target.state_dict().values(), strict=True))
    assert report.left_out == (
        {"loss.weight": "part of the training, not of the model"} if wrap == "lightning" else {}
    )
    assert not report.missing and len(report.matched) == len(state)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "lightning"]
)
def test_names_of_wrapped_models(tmp_path, prefix):
    """DistributedDataParallel and torch.compile, one around the other in any order, also around Lightning's
    module.
    """
    source, target = frame(), frame()
    state = {f"{prefix}{name}": t for name, t in source.state_dict().items()}
    if prefix == "lightning":
        state = {f"_orig_mod.model._orig_mod.{name}": t for name, t in source.state_dict().items()}
        state = {"state_dict": state | {"_orig_mod.loss.w": torch.ones(1)}}
    report = load_weights(target, saved(tmp_path, state), keep_head=True)
    assert len(report.matched) == len(source.state_dict()) and list(report.left_out) == (
        ["loss.w"] if prefix == "lightning" else []
    )
    assert all(torch.equal(t, target.state_dict()[name]) for name, t in source.state_dict().items())


def test_head_is_left_as_it_was_and_named(tmp_path):
    source, target = frame(5), frame(2)
    before = target.network.backbone.classifier.weight.clone()
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.network.backbone.classifier.weight, before)
    assert torch.equal(target.network.backbone.conv_stem.weight, source.network.backbone.conv_stem.weight)
    assert (
        set(report.left_out)
        == set(report.missing)
        == {"network.backbone.classifier.weight", "network.backbone.classifier.bias"}
    )
    assert "classifier head" in str(report) and "left out: 2" in str(report)
    accounted(report, target, source.state_dict())
    with pytest.raises(ValueError, match=r"classifier.weight has the shape \(5, 256\), expected \(2, 256\)"):
        load_weights(target, saved(tmp_path, source.state_dict()), keep_head=True)


@pytest.mark.parametrize("padding", ["zero", "replicate"])
def test_frame_checkpoint_inflates_into_efficientnet3d(tmp_path, padding):
    source, target = frame(), make("efficientnet3d", backbone="test_efficientnet", kernel=5, padding=padding)
    report = load_weights(target, saved(tmp_path, source.state_dict()), keep_head=True)
    convs = [n for n, m in target.named_modules() if isinstance(m, TemporalConv)]
    assert report.inflated == [f"{n}.weight" for n in convs] and len(convs) == 4
    image = torch.randn(2, 3, 1, 64, 64).expand(-1, -1, 17, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(
            target.frame_logits(image)[:, 8], source.network(image), rtol=1e-4, atol=1e-5
        )
    accounted(report, target, source.state_dict())


def test_frame_checkpoint_becomes_backbone_of_cnn_lstm(tmp_path):
    source = frame(backbone="test_resnet")
    target = make("cnn_lstm", backbone="test_resnet", hidden=8)
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = source.network.backbone.forward_head(
            source.network.backbone.forward_features(image), pre_logits=True
        )
        torch.testing.assert_close(target.network.backbone(image), features)
    assert set(report.left_out) == {"network.backbone.fc.weight", "network.backbone.fc.bias"}
    assert {n.split(".")[1] for n in report.missing} == {"projection", "rnn", "head"}
    accounted(report, target, source.state_dict())
    with pytest.raises(ValueError, match="no head of this model"):
        load_weights(target, saved(tmp_path, source.state_dict()), keep_head=True)


def test_stages_that_a_grid_does_not_use_are_left_out_with_the_reason(tmp_path):
    source = frame(backbone="test_resnet")
    target = make("cnn_lstm", backbone="test_resnet", pool="grid", stage=2, hidden=8)
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    beyond = {n for n, reason in report.left_out.items() if "beyond stage 2" in reason}
    assert {n.split(".")[2] for n in beyond} == {"layer3", "layer4"}
    accounted(report, target, source.state_dict())


def test_cnn_lstm_reads_its_own_checkpoint(tmp_path):
    source, target = (make("cnn_lstm", backbone="test_resnet", hidden=8) for _ in range(2))
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(source.network.rnn.weight_hh_l0, target.network.rnn.weight_hh_l0)
    assert set(report.missing) == {"network.head.weight", "network.head.bias"}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("frame", "pth"), ("frame", "safetensors"), ("efficientnet3d", "pth"), ("cnn_lstm", "pth")],
)
def test_timm_state_dict(tmp_path, name, suffix):
    torch.manual_seed(0)
    source = timm.create_model("test_efficientnet", num_classes=1000)
    path = tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save(source.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(source.state_dict(), path)
    target = make(name, backbone="test_efficientnet")
    report = load_weights(target, path)
    assert report.source.startswith("timm")
    assert torch.equal(target.network.backbone.conv_stem.weight, source.conv_stem.weight)
    accounted(report, target, source.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_the_model_s(tmp_path, dtype):
    source, target = frame(), frame()
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in source.state_dict().items()}
    load_weights(target, saved(tmp_path, state), keep_head=True)
    for name, tensor in target.state_dict().items():
        assert tensor.dtype == source.state_dict()[name].dtype
        assert torch.equal(tensor, state[name].to(tensor.dtype))


def test_half_precision_weights_arrive_in_the_model_s_precision(tmp_path):
    source, target = frame(), make("efficientnet3d", backbone="test_efficientnet")
    load_weights(
        target,
        saved(
            tmp_path, {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
        ),
    )
    conv = target.network.backbone.blocks[3][0].conv_pw.weight
    assert conv.dtype == torch.float32
    torch.testing.assert_close(
        conv.sum(2), source.network.backbone.blocks[3][0].conv_pw.weight, rtol=1e-3, atol=1e-4
    )


def test_pytorchvideo_zoo_checkpoint(tmp_path):
    source, target = make("slowfast", 400, **SLOWFAST), make("slowfast", 2, **SLOWFAST)
    zoo = {"model_state": source.network.body.state_dict()}
    assert all(k.startswith("blocks.") for k in zoo["model_state"])
    report = load_weights(target, saved(tmp_path, zoo, "SLOWFAST.pyth"))
    assert set(report.left_out) == {"network.body.blocks.6.proj.weight", "network.body.blocks.6.proj.bias"}
    with torch.no_grad():
        x = torch.randn(1, 3, 8, 64, 64)
        target.network.body.blocks[6].proj = source.network.body.blocks[6].proj
        assert torch.equal(target.network(x), source.network(x))
    accounted(report, target, zoo["model_state"])


@pytest.mark.parametrize(
    ("target", "settings", "source"),
    [
        ("slowfast", SLOWFAST, frame),
        ("frame", {"backbone": "test_efficientnet"}, lambda: make("slowfast", **SLOWFAST)),
        ("frame", {"backbone": "test_resnet"}, frame),
        ("slowfast", SLOWFAST, lambda: make("slowfast", **{**SLOWFAST, "width": 32})),
        ("frame", {"backbone": "test_resnet"}, lambda: make("cnn_lstm", backbone="test_resnet")),
        (
            "efficientnet3d",
            {"backbone": "test_efficientnet"},
            lambda: make("efficientnet3d", backbone="test_efficientnet", kernel=5),
        ),
    ],
)
def test_another_architecture_is_refused_and_the_model_unchanged(tmp_path, target, settings, source):
    model = make(target, **settings)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"another architecture|does not fit the model") as error:
        load_weights(model, saved(tmp_path, source().state_dict()))
    assert "\n" not in str(error.value) and "network." in str(error.value)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_one_missing_or_foreign_tensor_is_an_error(tmp_path):
    state = frame().state_dict()
    del state["network.backbone.bn1.weight"]
    with pytest.raises(ValueError, match=r"network.backbone.bn1.weight is not in the file"):
        load_weights(frame(), saved(tmp_path, state))
    state = {**frame().state_dict(), "network.extra": torch.ones(1)}
    with pytest.raises(ValueError, match=r"network.extra is not in the model"):
        load_weights(frame(), saved(tmp_path, state))
