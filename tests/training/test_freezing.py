"""Freezing policies: what trains at which step, frozen parts stay bit for bit, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from dfdc_video.models.classifier import build_classifier
from dfdc_video.registry import FREEZING, OPTIMIZERS, settings_of
from dfdc_video.training.freezer import Freezer, parameter_table
from dfdc_video.training.freezing import Layout, kernel_kind

MODELS = {
    "frame": {"backbone": "test_resnet"},
    "cnn_lstm": {"backbone": "test_resnet", "hidden": 8},
    "efficientnet3d": {"backbone": "test_efficientnet"},
    "slowfast": {"depth": 18, "width": 16, "alpha": 4, "beta_inv": 4},
}
SETTINGS = {
    "head_first": {"steps": 2},
    "gradual": {"every": 2},
    "frozen": {"names": "stem"},
    "alternate": {"spatial_steps": 2, "temporal_steps": 1},
}


def small(name="frame"):
    torch.manual_seed(0)
    return build_classifier(name, 2, 4, (32, 32), **MODELS[name])


def policy(name, model, *, total_steps=40, steps_per_epoch=10, **settings):
    return FREEZING.get(name)(
        Layout.of(model, steps_per_epoch=steps_per_epoch, total_steps=total_steps), **settings
    )


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def of(model, *stages):
    return {name for stage in stages for name in model.parameters_by_stage()[stage]}


def everything(model):
    return {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("rule", FREEZING.names())
def test_the_phase_is_a_function_of_the_step_alone(rule):
    # without temporal kernels, which a frame model and a CNN-LSTM do not have, `alternate` refuses: see below
    for name in ("slowfast", "efficientnet3d") if rule == "alternate" else MODELS:
        straight = small(name)
        freezer = Freezer(straight, policy(rule, straight, **SETTINGS.get(rule, {})))
        for step in range(6):
            freezer.apply(step)
            if step not in (1, 3, 5):
                continue
            resumed = small(name)
            Freezer(resumed, policy(rule, resumed, **SETTINGS.get(rule, {}))).apply(step)
            assert trainable(straight) == trainable(resumed)
            modes = [{n: m.training for n, m in model.named_modules()} for model in (straight, resumed)]
            assert modes[0] == modes[1]
            assert of(straight, "head") <= trainable(straight), "the head always trains"


@pytest.mark.parametrize(
    "optimizer", [partial(OPTIMIZERS.get("sgd"), momentum=0.9), OPTIMIZERS.get("adamw")], ids=["sgd", "adamw"]
)
@pytest.mark.parametrize("rule", sorted(set(FREEZING.names()) - {"none"}))
def test_frozen_parameters_stay_bit_for_bit_despite_momentum_and_decay(rule, optimizer):
    """All parameters train for two steps first, so that the optimiser has momentum to carry on with."""
    model = small("efficientnet3d")
    optimizer = optimizer(model, 1e-4, weight_decay=0.1)
    freezer = Freezer(model, policy(rule, model, **SETTINGS.get(rule, {})))
    clip = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    seen = set()
    for step in (-2, -1, *range(8)):
        model.train()
        if step >= 0:
            freezer.apply(step)
            assert all(p.requires_grad or p.grad is None for p in model.parameters())
        before = {n: t.clone() for n, t in model.state_dict().items()}
        assert all(t.isfinite().all() for t in before.values())
        loss = model(clip).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
        assert changed & everything(model) <= trainable(model)
        assert of(model, "head") <= changed
        if step >= 0:
            frozen_norms = {
                n
                for n, m in model.named_modules()
                if isinstance(m, torch.nn.BatchNorm2d) and f"{n}.weight" not in trainable(model)
            }
            assert not {n for n in changed if n.rpartition(".")[0] in frozen_norms}, (
                "no running statistics of frozen parts"
            )
            seen.add(frozenset(trainable(model)))
    assert len(seen) == {"head_first": 2, "gradual": 4, "norm_only": 1, "frozen": 1, "alternate": 2}[rule]


def test_head_first_trains_the_head_and_what_is_new_then_all():
    model = small("cnn_lstm")
    freezer = Freezer(model, policy("head_first", model, steps=3))
    freezer.apply(2)
    assert trainable(model) == of(model, "projection", "rnn", "head")
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    freezer.apply(3)
    assert trainable(model) == everything(model)
    assert all(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_gradual_goes_from_the_head_to_the_stem_by_steps_or_by_epochs():
    model = small()
    freezer = Freezer(model, policy("gradual", model, every=5))
    for step, stages in {
        0: ["head"],
        4: ["head"],
        5: ["head", "layer4"],
        10: ["head", "layer4", "layer3"],
        25: list(model.parameters_by_stage()),
    }.items():
        freezer.apply(step)
        assert trainable(model) == of(model, *stages), step
    freezer = Freezer(model, policy("gradual", model, epochs=(0.5, 2)))
    for step, stages in {
        4: ["head"],
        5: ["head", "layer4"],
        19: ["head", "layer4"],
        20: list(model.parameters_by_stage()),
    }.items():
        freezer.apply(step)
        assert trainable(model) == of(model, *stages), step


def test_norm_only_trains_scales_shifts_and_the_head():
    model = small()
    Freezer(model, policy("norm_only", model)).apply(0)
    norms = {
        f"{n}.{p}"
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.BatchNorm2d)
        for p in ("weight", "bias")
    }
    assert norms and trainable(model) == norms | of(model, "head")


def test_frozen_takes_stages_their_common_name_and_parameter_prefixes():
    stages = small("efficientnet3d").parameters_by_stage()
    for names, still in (
        ("stem, blocks.1", {*stages["stem"], *stages["blocks.1"]}),
        ("blocks", {name for stage in stages if stage.startswith("blocks") for name in stages[stage]}),
        ("network.backbone.conv_stem", {"network.backbone.conv_stem.weight"}),
    ):
        model = small("efficientnet3d")
        Freezer(model, policy("frozen", model, names=names)).apply(0)
        assert trainable(model) == everything(model) - still


def test_kinds_of_kernels():
    assert {kernel_kind(kernel) for kernel in ((1, 3, 3), (3, 3), (1, 1, 3))} == {"spatial"}
    assert kernel_kind((3, 1, 1)) == "temporal"
    assert {kernel_kind(kernel) for kernel in ((3, 3, 3), (1, 1, 1), (1, 1))} == {""}


@pytest.mark.parametrize("name", ["slowfast", "efficientnet3d"])
def test_alternate_freezes_spatial_and_temporal_kernels_in_turn(name):
    model = small(name)
    freezer = Freezer(model, policy("alternate", model, spatial_steps=3, temporal_steps=2))
    shapes = {n: tuple(p.shape[2:]) for n, p in model.named_parameters()}
    temporal = {n for n, s in shapes.items() if len(s) == 3 and s[0] > 1 and s[1:] == (1, 1)}
    spatial = {n for n, s in shapes.items() if len(s) > 1 and s[-1] > 1 and (len(s) == 2 or s[0] == 1)}
    assert temporal and spatial
    for step in range(10):
        freezer.apply(step)
        assert trainable(model) == everything(model) - (temporal if step % 5 < 3 else spatial)


def test_freeze_bn_keeps_statistics_and_trains_scales():
    model = small().train()
    freezer = Freezer(model, policy("none", model), freeze_bn=True)
    freezer.apply(0)
    assert trainable(model) == everything(model)
    before = {n: b.clone() for n, b in model.named_buffers()}
    model(torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    model.train()  # as after a validation
    freezer.apply(1)
    assert (
        not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
        and model.network.backbone.fc.training
    )


def test_parts_frozen_by_the_network_stay_frozen_and_a_norm_without_weights_follows_its_block():
    model = small()
    model.network.backbone.layer1[0].conv1.weight.requires_grad_(False)
    model.network.backbone.layer1[0].bn1 = torch.nn.BatchNorm2d(
        model.network.backbone.layer1[0].conv1.out_channels, affine=False
    )
    freezer = Freezer(model, policy("head_first", model, steps=1))
    freezer.apply(0)
    assert not model.network.backbone.layer1[0].bn1.training
    freezer.apply(1)
    assert everything(model) - trainable(model) == {"network.backbone.layer1.0.conv1.weight"}
    assert model.network.backbone.layer1[0].bn1.training


BAD = [
    ("head_first", "frame", {"steps": 40}, r"FREEZE.STEPS = 40 in a run of 40 steps: .*less than the run"),
    ("head_first", "frame", {"steps": 0}, "1 or more"),
    ("gradual", "frame", {}, "set one of them"),
    ("gradual", "frame", {"every": 2, "epochs": (1.0,)}, "set one of them"),
    ("gradual", "frame", {"every": 8}, "at the steps 8, 16, 24, 32, 40 of a run of 40 steps"),
    ("gradual", "frame", {"every": -1}, "rising steps"),
    ("gradual", "frame", {"epochs": (2.0, 1.0)}, "rising steps"),
    ("gradual", "frame", {"epochs": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)}, "has 6 epochs, the model has 5 stages"),
    ("frozen", "frame", {}, "stages of this model: stem, layer1"),
    ("frozen", "frame", {"names": "stem,layer9"}, r"no stage 'layer9'; did you mean layer\d"),
    ("alternate", "slowfast", {"spatial_steps": 0}, "1 step or more"),
    ("alternate", "frame", {}, r"no temporal kernel \(k, 1, 1\)"),
    ("alternate", "cnn_lstm", {}, r"no temporal kernel \(k, 1, 1\)"),
]


@pytest.mark.parametrize(("rule", "name", "settings", "message"), BAD)
def test_refusals_say_what_is_wrong(rule, name, settings, message):
    with pytest.raises(ValueError, match=message):
        policy(rule, small(name), **settings)


def test_a_phase_in_which_nothing_trains_is_refused():
    model = small()
    with pytest.raises(ValueError, match="nothing would train"):
        Freezer(model, policy("frozen", model, names=",".join(model.parameters_by_stage())))


def test_a_model_without_norms_is_refused_by_norm_only():
    model = small()
    layout = Layout.of(model, steps_per_epoch=1, total_steps=9)
    without = Layout(layout.stages, layout.new, frozenset(), layout.spatial, layout.temporal, 1, 9)
    with pytest.raises(ValueError, match="no normalisation"):
        FREEZING.get("norm_only")(without)


def test_every_rule_has_settings_with_defaults():
    for rule in FREEZING.names():
        assert all(p.default is not p.empty for p in settings_of(FREEZING.get(rule)).values())


def test_the_parameter_table():
    model = small()
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    text = parameter_table(
        model.parameters_by_stage(),
        sizes,
        policy("gradual", model, epochs=(1, 2)),
        {"stem": 0.1, "head": 10.0},
    )
    rows = {line.split()[0]: line.split() for line in text.splitlines() if not line.startswith("phase")}
    assert list(rows) == ["stage", *model.parameters_by_stage(), "sum"]
    assert rows["stem"][2:] == ["0", "x", "0.1", "3"] and rows["layer4"][2:] == ["0", "x", "1", "2,", "3"]
    head = sum(sizes[n] for n in model.parameters_by_stage()["head"])
    assert rows["head"][1:] == [f"{head:,}", f"{head:,}", "x", "10", "all"]
    assert rows["sum"][1:] == [f"{sum(sizes.values()):,}", f"{head:,}"]
    assert [line for line in text.splitlines() if line.startswith("phase 2")] == [
        "phase 2: from step 10: layer4 too"
    ]
    text = parameter_table(model.parameters_by_stage(), sizes, policy("frozen", model, names="stem"), {})
    assert text.splitlines()[1].split()[-1] == "never"
    text = parameter_table(model.parameters_by_stage(), sizes, policy("norm_only", model), {})
    assert text.splitlines()[2].endswith("1 (part)")
