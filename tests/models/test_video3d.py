"""Networks of pytorchvideo: published sizes, weights of its zoo, and our changes."""

from __future__ import annotations

import pytest
import torch
import yaml
from pytorchvideo.models import hub
from torch import nn

from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.summary import source_of, summarise
from dfdc_video.models.weights.load import load_weights
from dfdc_video.registry import top_level

# pytorchvideo's model zoo (docs/source/model_zoo.md): parameters in millions, multiply-adds in 10^9 at 256
# pixels; of X3D and MViT the multiply-adds of the papers' tables. Where the tolerance is 3 %, the zoo's
# figure includes the normalisation layers (2.5 times fvcore's count of them makes up the difference), which
# `summarise` leaves out.
PUBLISHED = [
    ("slowfast", 32, 256, {"depth": 50, "alpha": 4, "fusion_kernel": 7}, 34.57, 65.71, 0.001),
    # Feichtenhofer et al. 2019, table 2
    ("slowfast", 32, 256, {"depth": 50, "alpha": 8, "fusion_kernel": 5}, 34.48, 36.1, 0.002),
    ("slowfast", 32, 256, {"depth": 101, "alpha": 4, "fusion_kernel": 5}, 62.83, 127.20, 0.03),
    ("slow", 8, 256, {}, 32.45, 54.52, 0.001),
    ("slow", 4, 256, {}, 32.45, 27.55, 0.03),
    ("c2d", 8, 256, {}, 24.33, 25.89, 0.03),
    ("i3d", 8, 256, {}, 28.04, 37.53, 0.03),
    ("csn", 32, 256, {}, 22.21, 75.62, 0.03),
    ("r2plus1d", 16, 256, {}, 28.11, 76.45, 0.03),
    ("x3d", 4, 160, {}, 3.79, 0.60, 0.02),
    ("x3d", 13, 160, {}, 3.79, 1.96, 0.005),
    ("x3d", 16, 224, {}, 3.79, 4.73, 0.005),
    ("x3d", 16, 312, {"depth_factor": 5.0}, 6.15, 18.37, 0.005),
    ("mvit", 16, 224, {}, 36.61, 70.5, 0.005),
    ("mvit", 32, 224, {}, 36.61, 170.0, 0.005),
]


@pytest.mark.parametrize(
    ("name", "num_frames", "pixels", "settings", "millions", "giga", "tolerance"), PUBLISHED
)
def test_published_parameters_and_multiply_adds(
    name, num_frames, pixels, settings, millions, giga, tolerance
):
    with torch.device("meta"):
        model = build_classifier(name, 400, num_frames, (pixels, pixels), **settings)
    cost = summarise(model)
    assert cost["parameters"] / 1e6 == pytest.approx(millions, abs=0.006)
    assert cost["flops"] / 1e9 == pytest.approx(giga, rel=tolerance)
    assert cost["input"] == (3, num_frames, pixels, pixels)


def test_every_network_names_its_paper():
    assert source_of("slowfast") == "Feichtenhofer et al. 2019"
    assert source_of("i3d") == "Carreira and Zisserman 2017, Wang et al. 2018"
    assert all(source_of(name) for name in {name for name, *_ in PUBLISHED})


def test_a_summary_leaves_the_model_as_it_is():
    model = build_classifier("slow", 2, 8, (64, 64), width=8).train()
    model.network.body.blocks[0].requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cost = summarise(model)
    assert cost["trainable"] < cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


# The library's own builder, narrow, with what makes it the network of the zoo; ours; number of frames and
# pixels that its head pools.
TWINS = {
    "slow": (hub.slow_r50, {"stem_dim_out": 8}, {"width": 8}, 8, 224),
    "c2d": (hub.c2d_r50, {"stem_dim_out": 8}, {"width": 8}, 8, 224),
    "i3d": (hub.i3d_r50, {"stem_dim_out": 8}, {"width": 8}, 8, 224),
    "csn": (hub.csn_r101, {"stem_dim_out": 8}, {"width": 8}, 32, 224),
    "r2plus1d": (hub.r2plus1d_r50, {"stem_dim_out": 8}, {"width": 8}, 16, 224),
    "x3d": (
        hub.x3d_s,
        {"width_factor": 0.7, "depth_factor": 0.5, "head_dim_out": 32},
        {"width_factor": 0.7, "depth_factor": 0.5, "head_width": 32},
        13,
        160,
    ),
    "mvit": (
        hub.mvit_base_16x4,
        {"spatial_size": 64, "temporal_size": 8, "patch_embed_dim": 16},
        {"width": 16},
        8,
        64,
    ),
}


@pytest.mark.parametrize("name", sorted(TWINS))
def test_weights_of_the_zoo_give_the_outputs_of_the_zoo(name, tmp_path):
    """A checkpoint in the zoo's format loads with its head and gives the library's outputs."""
    builder, theirs, ours, num_frames, pixels = TWINS[name]
    torch.manual_seed(0)
    classes = {"head_num_classes": 5} if name == "mvit" else {"model_num_class": 5}
    reference = builder(**theirs, **classes).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm3d):  # as after training: residual branches are closed at the start
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 1.0, 2.0)
    torch.save({"model_state": reference.state_dict()}, tmp_path / "zoo.pyth")
    model = build_classifier(name, 5, num_frames, (pixels, pixels), **ours).eval()
    report = load_weights(model, tmp_path / "zoo.pyth", keep_head=True)
    assert len(report.matched) == len(reference.state_dict()) and not report.left_out and not report.missing
    frames = torch.randint(0, 256, (1, 3, num_frames, pixels, pixels), dtype=torch.uint8)
    with torch.no_grad():
        expected, logits = reference(model.normalise(frames)), model(frames)
    if name in ("x3d", "r2plus1d"):
        # the library's end in probabilities, ours in logits
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        logits = logits.softmax(1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-6)


def test_weights_of_the_zoos_slowfast_r101(tmp_path):
    """Its fusion kernel is 5, where that of the R50 is 7: the config has it."""
    torch.manual_seed(0)
    reference = hub.slowfast_r101(stem_dim_outs=(16, 2), model_num_class=5).eval()
    torch.save({"model_state": reference.state_dict()}, tmp_path / "zoo.pyth")
    path = top_level("configs") / "model" / "slowfast_r101_8x8.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings = {k.lower(): v for k, v in config["MODEL"].items() if k != "NAME"}
    model = build_classifier("slowfast", 5, 32, (224, 224), **settings, width=16).eval()
    report = load_weights(model, tmp_path / "zoo.pyth", keep_head=True)
    assert len(report.matched) == len(reference.state_dict())
    frames = torch.randint(0, 256, (1, 3, 32, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference(model.network.pathways(model.normalise(frames)))
        torch.testing.assert_close(model(frames), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_weights_of_the_zoo_for_two_classes(name, tmp_path):
    ours = {**TWINS[name][2], **({"depth": 50} if name == "csn" else {})}
    torch.manual_seed(0)
    source, target = (build_classifier(name, classes, 8, (64, 64), **ours) for classes in (400, 2))
    torch.save({"model_state": source.network.body.state_dict()}, tmp_path / "zoo.pyth")
    report = load_weights(target, tmp_path / "zoo.pyth")
    head = target.head_names[0]
    assert set(report.missing) == {head + ".weight", head + ".bias"} == set(report.left_out)
    for key, value in target.state_dict().items():
        assert key in report.missing or torch.equal(value, source.state_dict()[key])


@pytest.mark.parametrize("name", ["c2d", "i3d"])
def test_pairs_of_frames_are_pooled(name):
    with pytest.raises(ValueError, match="a clip of 1 frames.* at least 2"):
        build_classifier(name, 2, 1, (64, 64), width=8)
    with pytest.raises(ValueError, match="a clip of 1 frames.* at least 2"):
        build_classifier(name, 2, 8, (64, 64), width=8)(torch.zeros(1, 3, 1, 64, 64, dtype=torch.uint8))


def test_c2d_without_pooling_is_its_frames_averaged():
    model = build_classifier("c2d", 2, 4, (64, 64), width=8, pool_time=False).eval()
    clip = torch.randint(0, 256, (1, 3, 4, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            model(clip), torch.stack([model(clip[:, :, t : t + 1]) for t in range(4)]).mean(0)
        )


@pytest.mark.parametrize(("num_frames", "size"), [(7, (64, 64)), (8, (66, 64)), (8, (64, 2))])
def test_mvit_takes_whole_tokens(num_frames, size):
    with pytest.raises(ValueError, match=r"expected multiples of \(2, 4, 4\)"):
        build_classifier("mvit", 2, num_frames, size)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_the_cam_layer_has_a_gradient_at_every_position(name):
    """A heat map needs both; after MViT's last block only the class token would get a gradient."""
    ours = {**TWINS[name][2], **({"depth": 50} if name == "csn" else {})}
    model = build_classifier(name, 2, 8, (64, 64), **ours).eval()
    kept = []
    model.get_submodule(model.cam_layer).register_forward_hook(
        lambda module, given, output: kept.append(output)
    )
    logits = model(torch.randint(0, 256, (1, 3, 8, 64, 64), dtype=torch.uint8))
    (gradient,) = torch.autograd.grad(logits[0, 1], kept[0])
    places = gradient[:, 1:].abs().sum(-1) if name == "mvit" else gradient.abs().sum(1)
    assert (places > 0).all()
