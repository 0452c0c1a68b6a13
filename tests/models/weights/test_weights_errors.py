"""Damaged, hostile and foreign files: a one-line error, nothing executed, the model unchanged."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights_files import Hostile, caffe2_file, frame, saved

from dfdc_video.models.weights.load import load_weights


def refused(path, model=None, *, match, error=ValueError, **settings):
    model = model or frame()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(error, match=match) as caught:
        load_weights(model, path, **settings)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_hostile_pickle_runs_nothing(tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "evil.pth"
    content = {"state_dict": Hostile(trap)}
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        refused(path, match=r"evil\.pth")
    for protocol in (0, 4):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        refused(path, match=r"evil\.pth")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Hostile(trap)))
    assert trap.exists()  # the trap works where pickles are trusted


@pytest.mark.parametrize(
    "content",
    [[torch.ones(2)], {"epoch": 3}, {}, {"state_dict": {}}],
    ids=["list", "no tensor", "empty", "empty state"],
)
def test_torch_files_without_weights(tmp_path, content):
    with pytest.raises(ValueError, match="state dict"):
        load_weights(frame(), saved(tmp_path, content))


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at .*name another file .*INIT_FROM"):
        load_weights(frame(), tmp_path / "nowhere.ckpt")
    with pytest.raises(FileNotFoundError):
        load_weights(frame(), tmp_path)


@pytest.mark.parametrize("where", ["top", "nested", "in an array", "as a name"])
def test_hostile_caffe2_pickle_runs_nothing(tmp_path, where):
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
    for protocol in (0, 2, 4):
        path = caffe2_file(tmp_path, content, "evil.pkl", protocol)
        refused(path, match=r"evil\.pkl is a pickle that asks for .*refused, no code was executed")
        assert not trap.exists()
    if where in ("top", "nested"):
        pickle.loads(path.read_bytes())
        assert trap.exists()  # the trap works where pickles are trusted


@pytest.mark.parametrize(
    "text",
    [b"cnumpy\ncore.multiarray.np.load\n.", b"cbuiltins\neval\n(S'1'\ntR.", b"c__builtin__\ngetattr\n."],
)
def test_caffe2_pickle_gets_no_other_function(tmp_path, text):
    (tmp_path / "a.pkl").write_bytes(text)
    with pytest.raises(ValueError, match="asks for .*refused"):
        load_weights(frame(), tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "content",
    [{"weights": {}}, {"blobs": {}}, {"blobs": {"a": "text"}}, [1], {"blobs": {"a": np.array(["x"])}}],
    ids=str,
)
def test_pickles_without_blobs(tmp_path, content):
    with pytest.raises(ValueError, match="blobs|asks for an array"):
        load_weights(frame(), caffe2_file(tmp_path, content))


def test_a_folder_is_no_file_and_its_checkpoint_is_named(tmp_path):
    refused(tmp_path, match="is a folder, expected a file of weights$", error=FileNotFoundError)
    (tmp_path / "checkpoints").mkdir()
    saved(tmp_path / "checkpoints", frame().state_dict(), "best.ckpt")
    refused(
        tmp_path, match=r"is a folder, .*: .*/checkpoints/best.ckpt, for example", error=FileNotFoundError
    )


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors", "pkl", "zip.pkl", "legacy.pkl"])
def test_damaged_files_of_every_format(tmp_path, suffix):
    state, path = frame().state_dict(), tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    elif suffix == "pkl":
        caffe2_file(tmp_path, {"blobs": {name: t.numpy() for name, t in state.items()}}, path.name)
    else:
        torch.save(state, path, _use_new_zipfile_serialization="legacy" not in suffix)
    whole, pointer = path.read_bytes(), b"version https://example.org\noid 1\n"
    half = len(whole) // 2
    for damaged in (
        b"",
        b"\x08\x00\x00\x00",
        pointer,
        whole[:-1000],
        whole[1000:],
        whole[:half],
        whole[half:],
    ):
        path.write_bytes(damaged)
        refused(path, match="is damaged|is a pickle that asks for|holds a|holds no")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", ["pkl", "pth", "ckpt"])
def test_hostile_objects_deep_inside_run_nothing_whatever_the_file_is_called(tmp_path, suffix):
    trap, path = tmp_path / "trap", tmp_path / f"evil.{suffix}"
    content = {
        "state_dict": {"model.a": torch.ones(2), "b": [{"c": (1, {"d": Hostile(trap)})}]},
        "blobs": {"conv1_w": np.ones(2)},
    }
    plain = {**content, "state_dict": content["state_dict"]["b"]}
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        refused(path, match=r"evil\..*(refused|is no torch checkpoint)")
    for protocol in (0, 2, 4, 5):
        path.write_bytes(pickle.dumps(plain, protocol=protocol))
        refused(path, match=r"evil\..*(refused|is no torch checkpoint)")
    assert not trap.exists()


def test_a_torch_file_that_is_called_pkl_is_read_as_one(tmp_path):
    for zipped in (True, False):
        source, target = frame(), frame()
        torch.save(source.state_dict(), tmp_path / "a.pkl", _use_new_zipfile_serialization=zipped)
        report = load_weights(target, tmp_path / "a.pkl", keep_head=True)
        assert len(report.matched) == len(source.state_dict())
        assert torch.equal(source.network.backbone.conv_stem.weight, target.network.backbone.conv_stem.weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_where_they_would_be_loaded(tmp_path, value):
    state = frame().state_dict()
    state["network.backbone.bn1.running_var"][3] = value
    refused(
        saved(tmp_path, state),
        match=r"NaN or infinity in 1 of its tensors \(network.backbone.bn1.running_var\)",
    )
    state = frame(5).state_dict()
    state["network.backbone.classifier.weight"][0] = value
    # in what is left out anyway
    assert "classifier head" in str(load_weights(frame(2), saved(tmp_path, state)))
    refused(
        saved(tmp_path, state), frame(5), match=r"NaN or infinity in 1 .*classifier.weight", keep_head=True
    )


def test_a_double_beyond_single_precision_is_infinity(tmp_path):
    state = {name: t.double() if t.is_floating_point() else t for name, t in frame().state_dict().items()}
    state["network.backbone.bn1.bias"][0] = 1e300
    refused(saved(tmp_path, state), match="NaN or infinity in 1 ")


def test_other_numbers_than_weights_are_refused(tmp_path):
    state, name = frame().state_dict(), "network.backbone.conv_stem.weight"
    for dtype in (torch.int8, torch.int64, torch.bool, torch.complex64):
        path = saved(tmp_path, state | {name: state[name].to(dtype)})
        found = str(dtype).removeprefix("torch.")
        refused(path, match=f"conv_stem.weight is of {found}, expected float32: quantised")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_tensors_without_values_are_refused(tmp_path):
    state = frame().state_dict()
    state["network.backbone.bn1.bias"] = state["network.backbone.bn1.bias"].to_sparse()
    refused(saved(tmp_path, state), match="bn1.bias has the layout torch.sparse_coo, expected a dense tensor")
    refused(
        saved(tmp_path, {name: t.to("meta") for name, t in state.items() if not t.is_sparse}),
        match="conv_stem.weight holds no values",
    )


def test_a_head_of_other_classes_names_the_setting(tmp_path):
    path = saved(tmp_path, frame(5).state_dict())
    refused(
        path,
        frame(2),
        match=r"\(5, 256\), expected \(2, 256\).*; set MODEL.KEEP_HEAD False to start with a new head$",
        keep_head=True,
    )
    assert len(load_weights(frame(2), path).left_out) == 2
    body = {name: t for name, t in frame(2).state_dict().items() if "classifier" not in name}
    refused(
        saved(tmp_path, body),
        frame(2),
        match="the file has no head of this model .*KEEP_HEAD False",
        keep_head=True,
    )


def test_names_with_and_without_a_wrapper(tmp_path):
    state = frame().state_dict()
    refused(
        saved(tmp_path, state | {f"module.{name}": t for name, t in state.items()}),
        match="of one name with and without the prefix module. or _orig_mod.",
    )
