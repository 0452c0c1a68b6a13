from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import threading

import numpy as np
import pytest
import timm
import torch

from dfdc_video.models.classifier import build
from dfdc_video.models.efficientnet3d import TemporalConv
from dfdc_video.models.names import caffe2_names, efficientnet_names, pyslowfast_names
from dfdc_video.models.weights import find_weights, load_weights, resolve_weights, save_pyslowfast

SLOWFAST = {"depth": 18, "width": 16, "alpha": 4, "beta_inv": 4}


def make(name, num_classes=2, **settings):
    return build(name, num_classes, 8, (64, 64), **settings).eval()


def frame(num_classes=2, backbone="test_efficientnet"):
    return make("frame", num_classes, backbone=backbone)


def saved(tmp_path, content, name="weights.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def accounted(report, model, state):
    """Every tensor of the model and of the file stands in the report exactly once."""
    assert sorted(report.matched + list(report.missing)) == sorted(model.state_dict())
    assert len(report.matched) + len(report.left_out) == len(state)


@pytest.mark.parametrize("wrap", ["plain", "lightning", "ddp"])
def test_our_checkpoints(tmp_path, wrap):
    source, target = frame(), frame()
    state = source.state_dict()
    content = {
        "plain": state,
        "lightning": {"state_dict": {**{f"model.{k}": v for k, v in state.items()}, "loss.weight": torch.ones(2)}, "epoch": 3},
        "ddp": {f"module.{k}": v for k, v in state.items()},
    }[wrap]
    report = load_weights(target, saved(tmp_path, content), keep_head=True)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), target.state_dict().values(), strict=True))
    assert report.left_out == ({"loss.weight": "part of the training, not of the model"} if wrap == "lightning" else {})
    assert not report.missing and len(report.matched) == len(state)


def test_head_is_left_as_it_was_and_named(tmp_path):
    source, target = frame(5), frame(2)
    before = target.network.backbone.classifier.weight.clone()
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.network.backbone.classifier.weight, before)
    assert torch.equal(target.network.backbone.conv_stem.weight, source.network.backbone.conv_stem.weight)
    assert set(report.left_out) == set(report.missing) == {"network.backbone.classifier.weight", "network.backbone.classifier.bias"}
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
        torch.testing.assert_close(target.frame_logits(image)[:, 8], source.network(image), rtol=1e-4, atol=1e-5)
    accounted(report, target, source.state_dict())


def test_frame_checkpoint_becomes_backbone_of_cnn_lstm(tmp_path):
    source = frame(backbone="test_resnet")
    target = make("cnn_lstm", backbone="test_resnet", hidden=8)
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = source.network.backbone.forward_head(source.network.backbone.forward_features(image), pre_logits=True)
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


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["frame", "efficientnet3d", "cnn_lstm"])
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


def test_half_precision_weights_arrive_in_the_model_s_precision(tmp_path):
    source, target = frame(), make("efficientnet3d", backbone="test_efficientnet")
    load_weights(target, saved(tmp_path, {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}))
    conv = target.network.backbone.blocks[3][0].conv_pw.weight
    assert conv.dtype == torch.float32
    torch.testing.assert_close(conv.sum(2), source.network.backbone.blocks[3][0].conv_pw.weight, rtol=1e-3, atol=1e-4)


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
        ("efficientnet3d", {"backbone": "test_efficientnet"}, lambda: make("efficientnet3d", backbone="test_efficientnet", kernel=5)),
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


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", ["torch", "torch legacy", "pickle", "pickle protocol 0"])
def test_hostile_pickle_runs_nothing(tmp_path, writer):
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    content = {"state_dict": Hostile(trap)}
    if writer.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    else:
        path.write_bytes(pickle.dumps(content, protocol=0 if writer.endswith("0") else 4))
    with pytest.raises(ValueError, match=r"evil\.pth") as error:
        load_weights(frame(), path)
    assert not trap.exists() and "\n" not in str(error.value)
    pickle.loads(pickle.dumps(Hostile(trap)))
    assert trap.exists()  # the trap works where a pickle is trusted


def damaged(tmp_path, kind):
    path = tmp_path / "damaged.pth"
    torch.save(frame().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello, I am a video\n" * 20, "half": whole[: len(whole) // 2], "tail": whole[len(whole) // 2 :]}[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "half", "tail"])
def test_damaged_files(tmp_path, kind):
    with pytest.raises(ValueError, match=r"damaged\.pth is no torch checkpoint or is damaged") as error:
        load_weights(frame(), damaged(tmp_path, kind))
    assert "\n" not in str(error.value)


def test_damaged_safetensors(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(ValueError, match="damaged"):
        load_weights(frame(), tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, {}, {"state_dict": {}}], ids=["list", "no tensor", "empty", "empty state"])
def test_torch_files_without_weights(tmp_path, content):
    with pytest.raises(ValueError, match="state dict"):
        load_weights(frame(), saved(tmp_path, content))


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*MODEL.INIT_FROM takes"):
        load_weights(frame(), tmp_path / "nowhere.ckpt")
    with pytest.raises(FileNotFoundError):
        load_weights(frame(), tmp_path)


# PySlowFast: names by rule, both ways. Whether the outputs are the original's is asked in test_exactness.py.

VIDEO = {
    "slowfast": SLOWFAST,
    "slow": {"width": 8},
    "c2d": {"width": 8},
    "i3d": {"width": 8},
    "x3d": {"width_factor": 0.5, "depth_factor": 1.0, "head_width": 32},
}


def moved(model):
    """Running statistics and norms of a network that has been trained: those of a new one would hide a mistake."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5 * name.endswith("running_var"))
    return model


@pytest.mark.parametrize("name", sorted(VIDEO))
def test_pyslowfast_round_trip(tmp_path, name):
    source, target = (moved(make(name, 5, **VIDEO[name])), make(name, 5, **VIDEO[name]))
    path = save_pyslowfast(source, tmp_path / "out" / "ours.pyth")
    state = torch.load(path, weights_only=True)["model_state"]
    assert {n.split(".")[0] for n in state} >= {"s1", "s2", "s3", "s4", "s5", "head"} and not any("blocks" in n for n in state)
    report = load_weights(target, path, keep_head=True)
    assert not report.missing and len(report.matched) + len(report.left_out) == len(state)
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(target.network(clip), source.network(clip), rtol=1e-5, atol=1e-6)
    if name == "x3d":
        assert all("folded" in reason for reason in report.left_out.values()) and len(report.left_out) == 5
    else:
        assert not report.left_out
        assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["frame", "r2plus1d"])
def test_what_pyslowfast_has_no_names_for_is_not_written(tmp_path, name):
    model = frame() if name == "frame" else make(name, width=8)
    with pytest.raises(ValueError, match="PySlowFast has no name for network|PySlowFast has no name for blocks"):
        save_pyslowfast(model, tmp_path / "a.pyth")
    assert not (tmp_path / "a.pyth").exists()


def test_names_by_rule():
    """Stages are counted without the pools that stand between them."""
    slow = ["blocks.0.conv.weight", "blocks.0.norm.bias", "blocks.1.res_blocks.2.branch2.conv_b.weight", "blocks.3.res_blocks.0.branch1_norm.weight"]
    head = ["blocks.6.proj.weight"]
    assert list(pyslowfast_names(slow + head).values()) == [
        "s1.pathway0_stem.conv.weight",
        "s1.pathway0_stem.bn.bias",
        "s2.pathway0_res2.branch2.b.weight",
        "s3.pathway0_res0.branch1_bn.weight",
        "head.projection.weight",
    ]
    names = ["s4.pathway1_res22.branch2.c.weight", "s4_fuse.conv_f2s.weight", "s4_fuse.bn.running_var", "s1.pathway1_stem.bn.num_batches_tracked"]
    assert caffe2_names(names) == {
        names[0]: "t_res4_22_branch2c_w",
        names[1]: "t_res4_22_branch2c_bn_subsample_w",
        names[2]: "t_res4_22_branch2c_bn_subsample_bn_riv",
    }
    timm_names = ["blocks.0.0.conv_pw.weight", "blocks.1.0.conv_pw.weight", "blocks.1.0.conv_pwl.weight", "bn1.bias"]
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
    assert set(report.left_out) == set(report.missing) == {"network.body.blocks.6.proj.weight", "network.body.blocks.6.proj.bias"}
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


def caffe2_file(tmp_path, content, name="model.pkl", protocol=2):
    (tmp_path / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return tmp_path / name


def caffe2_blobs(model):
    zoo = {n.removeprefix("network.body."): t for n, t in model.state_dict().items()}
    names = pyslowfast_names(zoo)
    blobs = caffe2_names(names.values())
    return {blobs[names[n]]: t.numpy() for n, t in zoo.items() if names[n] in blobs}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_caffe2_pickle(tmp_path, protocol):
    source, target = moved(make("slowfast", 5, **SLOWFAST)), make("slowfast", 5, **SLOWFAST)
    blobs = caffe2_blobs(source)
    blobs["conv1_w"] = blobs["conv1_w"].astype(">f4")  # another machine's byte order
    blobs["res2_0_branch2a_w"] = blobs["res2_0_branch2a_w"][:, :, 0, 0, 0]  # a linear layer
    extra = {"conv1_w_momentum": np.zeros(3, "float32"), "lr": np.float32(0.1), "model_iter": np.array([5], "int64")}
    report = load_weights(target, caffe2_file(tmp_path, {"blobs": blobs | extra, "cfg": "text"}, protocol=protocol), keep_head=True)
    assert report.left_out == dict.fromkeys(extra, "state of the optimiser, no weight")
    assert all(n.endswith("num_batches_tracked") for n in report.missing)
    learned = [n for n in report.matched if not n.endswith("num_batches_tracked")]
    assert len(learned) == len(blobs)
    assert all(torch.equal(source.state_dict()[n], target.state_dict()[n]) for n in learned)


def test_caffe2_blob_that_nothing_explains_is_an_error(tmp_path):
    model = make("slowfast", **SLOWFAST)
    blobs = caffe2_blobs(model)
    with pytest.raises(ValueError, match="nonlocal_conv3_1_theta_w is not in the model"):
        load_weights(model, caffe2_file(tmp_path, {"blobs": blobs | {"nonlocal_conv3_1_theta_w": np.ones(1)}}))
    del blobs["res3_0_branch2a_w"]
    with pytest.raises(ValueError, match=r"blocks.2.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight is not in the file"):
        load_weights(model, caffe2_file(tmp_path, {"blobs": blobs}))
    with pytest.raises(ValueError, match="another architecture"):
        load_weights(frame(), caffe2_file(tmp_path, {"blobs": blobs}))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["top", "nested", "in an array", "as a name"])
def test_hostile_caffe2_pickle_runs_nothing(tmp_path, where, protocol):
    trap = tmp_path / "trap"
    evil = Hostile(trap)
    array = np.empty(1, dtype=object)
    array[0] = evil
    content = {
        "top": evil,
        "nested": {"blobs": {"conv1_w": np.ones(2), "pred_w": [{"a": (evil,)}]}},
        "in an array": {"blobs": {"conv1_w": array}},
        "as a name": {"blobs": {"conv1_w": np.ones(1)}, "x": os.system},
    }[where]
    path = caffe2_file(tmp_path, content, "evil.pkl", protocol)
    with pytest.raises(ValueError, match=r"evil\.pkl is a pickle that asks for .*refused, nothing of it was run") as error:
        load_weights(make("slowfast", **SLOWFAST), path)
    assert not trap.exists() and "\n" not in str(error.value)
    if where in ("top", "nested"):
        pickle.loads(path.read_bytes())
        assert trap.exists()  # the trap works where a pickle is trusted


@pytest.mark.parametrize("text", [b"cnumpy\ncore.multiarray.np.load\n.", b"cbuiltins\neval\n(S'1'\ntR.", b"c__builtin__\ngetattr\n."])
def test_caffe2_pickle_gets_no_other_function(tmp_path, text):
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(ValueError, match="asks for .*refused"):
        load_weights(frame(), tmp_path / "a.pkl")


@pytest.mark.parametrize("kind", ["empty", "text", "half", "tail"])
def test_damaged_caffe2_files(tmp_path, kind):
    path = caffe2_file(tmp_path, {"blobs": {f"conv{i}_w": np.ones((9, 9), "float32") for i in range(9)}}, "damaged.pkl")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello, I am a video\n" * 20, "half": whole[: len(whole) // 2], "tail": whole[len(whole) // 2 :]}[kind])
    with pytest.raises(ValueError, match=r"damaged\.pkl (is no pickle or is damaged|is a pickle that asks for)") as error:
        load_weights(frame(), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{"weights": {}}, {"blobs": {}}, {"blobs": {"a": "text"}}, [1], {"blobs": {"a": np.array(["x"])}}], ids=str)
def test_pickles_without_blobs(tmp_path, content):
    with pytest.raises(ValueError, match="blobs|asks for an array"):
        load_weights(frame(), caffe2_file(tmp_path, content))


# EfficientNets of efficientnet_pytorch; exact outputs in test_exactness.py.


def test_efficientnet_pytorch_2d_weights_inflate_and_need_its_norms(tmp_path):
    model = make("frame", 1, backbone="tf_efficientnet_b0", static_padding_px=224)
    prefix = "network.backbone."
    names = efficientnet_names([n.removeprefix(prefix) for n in model.state_dict()])
    path = saved(tmp_path, {others[0]: model.state_dict()[prefix + n].half() for n, others in names.items()})
    target = make("efficientnet3d", 2, backbone="tf_efficientnet_b0")
    report = load_weights(target, path)
    assert len(report.inflated) == 15 and set(report.left_out) == {f"{prefix}classifier.weight", f"{prefix}classifier.bias"}
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


# Weights from a URL.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DFDC_VIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """A server of the files of `tmp_path`: its address and the paths that it was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def test_weights_are_fetched_once_and_loaded(tmp_path, cache, server):
    source, target = frame(), frame()
    path = saved(tmp_path, source.state_dict(), "x.pyth")
    address, asked = server
    url = f"{address}/x.pyth#sha256={sha256(path).upper()}"
    report = load_weights(target, url, keep_head=True)
    assert torch.equal(target.network.backbone.conv_stem.weight, source.network.backbone.conv_stem.weight)
    assert report.path == url
    found = find_weights(url)
    assert found.read_bytes() == path.read_bytes() and found.suffix == ".pyth" and files_in(cache) == [found]
    assert len(asked) == 1
    assert resolve_weights(path.as_uri(), sha256=sha256(path)) == found  # the same file from elsewhere
    found.write_bytes(b"changed")
    with pytest.raises(ValueError, match="now has the SHA-256"):
        find_weights(url)


def test_wrong_hash_is_refused_and_not_kept(tmp_path, cache, server):
    path = saved(tmp_path, {"a": torch.ones(1)}, "x.pth")
    for url in (f"{server[0]}/x.pth", path.as_uri()):
        with pytest.raises(ValueError, match=f"has the SHA-256 {sha256(path)}, expected {'0' * 64}: not kept"):
            resolve_weights(url, sha256="0" * 64)
    assert not files_in(cache)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.pyth", "http://no.such.host.invalid/x.pyth", "file:///no/such/x.pyth"])
def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(cache, url):
    with pytest.raises(FileNotFoundError, match="could not fetch .*x.pyth.*put it at .*x.pyth") as error:
        find_weights(f"{url}#sha256={'a' * 64}")
    assert "\n" not in str(error.value) and not files_in(cache)
    target = cache / "weights" / ("a" * 16) / "x.pyth"
    assert str(target) in str(error.value) and url in str(error.value)


def test_missing_page_is_an_error(cache, server):
    with pytest.raises(FileNotFoundError, match=r"could not fetch .*404|could not fetch .*Not Found"):
        resolve_weights(f"{server[0]}/none.pth", sha256="a" * 64)
    assert not files_in(cache)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("https://host/x.pyth", "expected 64 hex digits"),
        ("https://host/x.pyth#sha256=abc", "SHA-256 'abc', expected 64 hex digits"),
        ("ftp://host/x.pyth#sha256=" + "a" * 64, "cannot fetch by 'ftp'"),
    ],
)
def test_bad_urls(cache, text, problem):
    with pytest.raises(ValueError, match=problem):
        find_weights(text)
    with pytest.raises(ValueError, match=problem):
        load_weights(frame(), text)


def test_find_weights_of_a_path(tmp_path):
    path = saved(tmp_path, {"a": torch.ones(1)})
    assert find_weights(str(path)) == find_weights(path) == path
    with pytest.raises(FileNotFoundError, match="INIT_FROM: no file at nowhere.pth"):
        find_weights("nowhere.pth")
