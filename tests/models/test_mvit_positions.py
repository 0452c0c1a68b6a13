"""MViT's position embeddings from weights of another clip length or crop size."""

from __future__ import annotations

import pytest
import torch
from weights_files import saved

from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.weights.load import load_weights

PREFIX = "network.body.cls_positional_encoding.pos_embed_"


def mvit(num_frames, size):
    model = build_classifier("mvit", 2, num_frames, size, depth=3, width=16, stages=(1,)).eval()
    for name, tensor in model.state_dict().items():
        if "pos_embed" in name:
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.fixture(scope="module")
def source():
    return mvit(8, (32, 32))  # 4 times, 8 x 8 places


def test_only_the_two_tables_depend_on_the_size(source):
    other = mvit(4, (64, 48)).state_dict()
    differ = {
        n: (tuple(t.shape), tuple(other[n].shape))
        for n, t in source.state_dict().items()
        if t.shape != other[n].shape
    }
    assert differ == {
        f"{PREFIX}spatial": ((1, 64, 16), (1, 192, 16)),
        f"{PREFIX}temporal": ((1, 4, 16), (1, 2, 16)),
    }
    assert list(other) == list(source.state_dict())


@pytest.mark.parametrize("zoo", [False, True])
def test_the_same_size_is_loaded_bit_by_bit(tmp_path, source, zoo):
    target = mvit(8, (32, 32))
    state = {"model_state": source.network.body.state_dict()} if zoo else source.state_dict()
    report = load_weights(target, saved(tmp_path, state), keep_head=True)
    assert not report.notes and not report.missing and not report.left_out
    assert all(torch.equal(t, target.state_dict()[name]) for name, t in source.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("num_frames", "size"), [(4, (32, 32)), (8, (64, 48)), (16, (16, 96)), (2, (4, 4))])
def test_another_size_is_interpolated(tmp_path, source, num_frames, size, dtype):
    target = mvit(num_frames, size)
    state = {name: t.to(dtype) for name, t in source.network.body.state_dict().items()}
    report = load_weights(target, saved(tmp_path, {"model_state": state}), keep_head=True)
    assert len(report.matched) == len(target.state_dict()) and not report.missing and not report.left_out
    loaded, places = target.state_dict(), (size[0] // 4, size[1] // 4)
    grid = state["cls_positional_encoding.pos_embed_spatial"].float().reshape(8, 8, 16).permute(2, 0, 1)[None]
    wanted = (
        torch.nn.functional.interpolate(grid, size=places, mode="bicubic")[0]
        .permute(1, 2, 0)
        .reshape(1, -1, 16)
    )
    torch.testing.assert_close(loaded[f"{PREFIX}spatial"], wanted)
    line = state["cls_positional_encoding.pos_embed_temporal"].float().permute(0, 2, 1)
    wanted = torch.nn.functional.interpolate(line, size=num_frames // 2, mode="linear").permute(0, 2, 1)
    torch.testing.assert_close(loaded[f"{PREFIX}temporal"], wanted)
    assert torch.equal(loaded[f"{PREFIX}class"], state["cls_positional_encoding.pos_embed_class"].float())
    for word, changed in (
        ("in space interpolated from 8 x 8 to", places != (8, 8)),
        ("in time interpolated from 4 to", num_frames != 8),
    ):
        assert (word in str(report)) == changed
    with torch.no_grad():
        assert target(torch.zeros(1, 3, num_frames, *size, dtype=torch.uint8)).isfinite().all()


def test_a_table_that_is_no_square_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"pos_embed_spatial has the shape \(1, 32, 16\), expected \(1, 64, 16\)"
    ):
        load_weights(mvit(8, (32, 32)), saved(tmp_path, mvit(8, (16, 32)).state_dict()))
    same = mvit(8, (16, 32))
    # the same size needs no shape
    assert not load_weights(same, saved(tmp_path, mvit(8, (16, 32)).state_dict())).notes


def test_as_many_places_in_another_shape_are_noted(tmp_path, source):
    target = mvit(8, (16, 64))
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert report.notes == [
        "position embeddings in space taken for 4 x 16 tokens, not for 8 x 8, which are as many"
    ]
    assert torch.equal(target.state_dict()[f"{PREFIX}spatial"], source.state_dict()[f"{PREFIX}spatial"])
