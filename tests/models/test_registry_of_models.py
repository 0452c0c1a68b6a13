"""Gates that every registered model passes, in its CPU-sized config.

A new model needs no line here: its file in dfdc_video/models and its config in configs/model are found.
"""

from __future__ import annotations

import pytest
import torch
from model_configs import small_settings

from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.mask import add_mask_head, logits_and_masks
from dfdc_video.models.summary import fvcore_flops, summarise
from dfdc_video.registry import MODELS, settings_of

SMALL = small_settings()
# Settings that take another path through the code than those of the CPU-sized configs.
VARIANTS = [
    ("frame", {"backbone": "test_vit", "dropout": 0.1}),
    ("cnn_lstm", {"backbone": "test_resnet", "hidden": 16}),
    (
        "cnn_lstm",
        {
            "backbone": "test_efficientnet",
            "pool": "grid",
            "grid": 2,
            "stage": 2,
            "bidirectional": True,
            "readout": "last",
            "layers": 2,
            "dropout": 0.1,
            "hidden": 16,
        },
    ),
    ("embedding_lstm", {"backbone": "test_vit", "bidirectional": True, "readout": "last", "hidden": 16}),
    ("aggregator", {"backbone": "test_efficientnet", "pool": "order", "dropout": 0.1, "hidden": 16}),
    ("aggregator", {"backbone": "test_vit", "inputs": "predictions", "pool": "attention", "hidden": 16}),
    ("aggregator", {"backbone": "test_resnet", "pool": "mean", "hidden": 16}),
    ("efficientnet3d", {"backbone": "test_efficientnet"}),
    (
        "efficientnet3d",
        {
            "backbone": "test_efficientnet",
            "kernel": 5,
            "padding": "replicate",
            "blocks": "3-4",
            "drop_path": 0.1,
        },
    ),
    ("c2d", {"width": 8, "pool_time": False}),
    ("mvit", {"depth": 3, "width": 16, "heads": 2, "stages": (1,), "drop_path": 0.1}),
]
CASES = [*SMALL.items(), *VARIANTS]
IDS = [*SMALL, *(f"{name}-{i}" for i, (name, _) in enumerate(VARIANTS))]
each_model = pytest.mark.parametrize("name", SMALL)
each = pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)


def frames(batch=2, num_frames=8, size=(64, 64), seed=0):
    return torch.randint(
        0,
        256,
        (batch, 3, num_frames, *size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )


def small(name, settings, num_frames=8, size=(64, 64), num_classes=2):
    torch.manual_seed(0)
    return build_classifier(name, num_classes, num_frames, size, **settings)


def test_every_registered_model_has_a_config():
    assert sorted(SMALL) == MODELS.names()


@each
def test_forward_at_two_sizes_and_lengths(name, settings):
    for num_frames, size in ((8, (64, 64)), (4, (96, 64))):
        model = small(name, settings, num_frames, size, num_classes=3).eval()
        clip = frames(2, num_frames, size)
        with torch.no_grad():
            logits = model(clip)
            assert logits.shape == (2, 3) and logits.isfinite().all()
            torch.testing.assert_close(model.network(model.normalise(clip)), logits)
            if hasattr(model.network, "frame_logits"):
                per_frame = model.frame_logits(model.normalise(clip))
                assert per_frame.shape == (2, num_frames, 3)
                torch.testing.assert_close(per_frame.mean(1), logits)
            else:
                with pytest.raises(ValueError, match="no logits per frame"):
                    model.frame_logits(model.normalise(clip))


@each_model
def test_a_clip_of_another_length_and_size_is_taken_or_refused_with_both(name):
    model = small(name, SMALL[name]).eval()
    try:
        with torch.no_grad():
            assert model(frames(1, 12, (96, 80))).shape == (1, 2)
    except ValueError as error:
        assert "(12, 96, 80), expected (8, 64, 64)" in str(error)


def test_only_mvit_is_tied_to_one_size():
    """Its position embeddings are learned; of the families here no other has any."""
    with pytest.raises(ValueError, match="position embeddings are learned for one size"):
        small("mvit", SMALL["mvit"])(frames(1, 12, (96, 80)))
    with torch.no_grad():
        for name in ("frame", "cnn_lstm", "efficientnet3d", "slowfast", "slow", "x3d"):
            assert small(name, SMALL[name]).eval()(frames(1, 12, (96, 80))).shape == (1, 2)


@each
def test_gradients_reach_every_trainable_parameter(name, settings):
    model = small(name, {**settings, "drop_path": 0.0} if "drop_path" in settings else settings).train()
    for parameter in model.parameters():
        # residual branches end in a norm with scale 0, which blocks the gradients of the first step
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model(frames(4)).square().sum().backward()
    without = [
        n
        for n, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert not without, without


@each
def test_batch_of_one_in_training(name, settings):
    model = small(name, settings).train()
    assert model(frames(1)).isfinite().all()


@each_model
def test_state_dict_round_trip(name):
    first, clip = small(name, SMALL[name]).eval(), frames()
    torch.manual_seed(1)
    second = build_classifier(name, 2, 8, (64, 64), **SMALL[name]).eval()
    with torch.no_grad():
        assert not torch.equal(first(clip), second(clip))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(clip), second(clip))


@each
def test_shuffled_frames(name, settings):
    """The output of an order-invariant model stays the same to the last bit; that of others changes."""
    model, clip = small(name, settings).eval(), frames()
    torch.nn.init.normal_(dict(model.named_parameters())[model.head_names[0] + ".weight"])
    for parameter_name, parameter in model.named_parameters():
        # residual branches with scale 0 would hide temporal kernels
        if parameter_name.endswith("weight") and not parameter.any():
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    shuffled = clip[:, :, torch.tensor([3, 0, 7, 5, 1, 6, 2, 4])]
    with torch.no_grad():
        before, after = model(clip), model(shuffled)
    if model.uses_time:
        assert (before - after).abs().max() > 1e-4 * before.abs().max()
    else:
        assert torch.equal(before, after)


def steps_of(model, batches, lr=3e-3):
    """Training losses, one step a batch."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr)
    for clip, label in batches:
        loss = torch.nn.functional.cross_entropy(model(clip), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def without_dropout(name):
    return {
        **SMALL[name],
        **{key: 0.0 for key in ("dropout", "drop_path") if key in settings_of(MODELS.get(name))},
    }


@each_model
def test_fits_one_batch(name):
    model, clip, label = small(name, without_dropout(name)), frames(4), torch.tensor([0, 1, 1, 0])
    if model.frozen_names:  # untrained features hardly separate noise, but they separate brightness
        clip = clip // (1 + label).view(4, 1, 1, 1, 1).to(torch.uint8)
    losses = steps_of(model, [(clip, label)] * 60)
    assert any(loss < 0.05 for loss in losses)


def flicker(pairs, seed):
    """Pairs of clips with the same four dark and four light frames: alternating for label 0, two by two for
    label 1.
    """
    generator = torch.Generator().manual_seed(seed)
    dark = (
        torch.rand(pairs, 3, 1, 32, 32, generator=generator) * 40
        + 80
        + torch.rand(pairs, 3, 1, 1, 1, generator=generator) * 40
    )
    light = torch.tensor([[0, 1] * 4, [0, 0, 1, 1] * 2]) * 60
    clip = dark[:, None] + light[None, :, None, :, None, None]  # (pairs, 2, C, T, H, W)
    return clip.flatten(0, 1).to(torch.uint8), torch.tensor([0, 1]).repeat(pairs)


@pytest.mark.slow
@each_model
def test_a_planted_temporal_signal_is_learned_by_models_that_use_time(name):
    model = small(name, without_dropout(name), 8, (32, 32))
    last: list[float] = []
    for loss in steps_of(model, (flicker(8, seed) for seed in range(120 if model.uses_time else 10))):
        last = [*last[-9:], loss]
        if len(last) == 10 and sum(last) / 10 < 0.05:
            break
    clip, label = flicker(32, seed=1000)
    with torch.no_grad():
        right = (model.eval()(clip).argmax(1) == label).float().mean().item()
    if model.uses_time:
        assert right > 0.95
    else:
        assert right == 0.5


@each
def test_head_and_cam_layer_are_modules_of_the_model(name, settings):
    model = small(name, settings)
    modules = dict(model.named_modules())
    assert model.head_names and all(modules[h].weight.shape[0] == 2 for h in model.head_names)
    assert all(any(n.startswith(p + ".") for n in modules) or p in modules for p in model.new_names)
    seen = []
    modules[model.cam_layer].register_forward_hook(lambda module, given, output: seen.append(output))
    model.eval()(frames())
    assert len(seen) == 1 and seen[0].ndim >= 3


@each
def test_feature_maps_take_a_mask_head_and_other_models_refuse(name, settings):
    """At every stage: logits are unchanged to the last bit; the mask loss trains all below the maps."""
    model, clip = small(name, settings), frames()
    if not model.map_layers or settings.get("backbone") == "test_vit":
        with pytest.raises(
            ValueError, match="no mask head on this .* expected a convolutional [a-z]+"
        ) as error:
            add_mask_head(model)
        assert "\n" not in str(error.value) and model.mask_head is None
        return
    for stage, layer in enumerate(model.map_layers):
        model = small(name, {**settings, "drop_path": 0.0} if "drop_path" in settings else settings).eval()
        before, known = model(clip), set(model.state_dict())
        logits, masks = logits_and_masks(add_mask_head(model, stage=stage), clip)
        assert torch.equal(logits, before) and torch.equal(model(clip), before)
        assert masks.ndim == 4 and len(masks) == 2 and 1 <= masks.shape[1] <= 8 and max(masks.shape[2:]) <= 64
        assert {n.rsplit(".", 2)[0] for n in set(model.state_dict()) - known} == {"mask_head"}
        masks.square().sum().backward()
        learns = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        first = next(n for n, p in model.named_parameters() if p.requires_grad)
        assert {"mask_head.projection.weight", "mask_head.projection.bias", first} <= learns, layer
        assert not any(n.startswith(model.head_names) for n in learns)


@each_model
def test_channels_last_changes_nothing_but_speed(name):
    model, clip = small(name, SMALL[name]).eval(), frames()
    with torch.no_grad():
        before = model(clip)
        torch.testing.assert_close(model.channels_last()(clip), before, rtol=1e-4, atol=1e-4)


@each
def test_two_counts_of_the_multiply_adds_agree(name, settings):
    model = small(name, settings)
    counted, left_out = fvcore_flops(model)
    assert summarise(model)["flops"] == counted > 0
    assert not any(
        word in operation
        for operation in left_out
        for word in ("conv", "linear", "mm", "matmul", "attention", "lstm", "gru", "einsum")
    )


@each
@pytest.mark.filterwarnings("ignore")
def test_export_for_any_batch(name, settings):
    """The exported program is the model, for another batch size too."""
    model = small(name, settings).eval()
    batch = ({0: torch.export.Dim("batch", min=1, max=64)},)
    exported = torch.export.export(model, (frames(),), dynamic_shapes=batch).module()
    clip = frames(3, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(exported(clip), model(clip), rtol=1e-4, atol=1e-5)
