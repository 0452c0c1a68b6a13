"""Losses against torch, learning rates by step, and contradictory warm-ups of transfer runs."""

import pytest
import torch

from dfdc_video.registry import LOSSES, OPTIMIZERS, SCHEDULES
from dfdc_video.training.optimisers import stage_factors
from dfdc_video.training.schedules import LRSchedule, base_rate, set_rate


def schedule(**kwargs):
    base = dict(
        schedule="cosine",
        lr=0.1,
        lr_scale=1.0,
        end_lr=0.0,
        warmup_start_lr=0.01,
        warmup_epochs=2.0,
        epochs=10,
        steps_per_epoch=5,
    )
    return LRSchedule.from_epochs(**base | kwargs)


def test_warm_up_then_shape():
    r = schedule()
    assert r(0) == pytest.approx(0.01) and r(5) == pytest.approx(0.055) and r(10) == pytest.approx(0.1)
    assert r(30) == pytest.approx(0.05), "half way down the cosine"
    assert 0 < r(49) < 0.001 and r(50) == pytest.approx(0)
    assert schedule(schedule="constant")(40) == pytest.approx(0.1)
    assert schedule(schedule="linear", end_lr=0.02)(30) == pytest.approx(0.06)


def test_lr_scale_moves_base_warm_up_and_end_together():
    one, tenth = schedule(end_lr=0.001), schedule(end_lr=0.001, lr_scale=0.1)
    assert all(tenth(s) == pytest.approx(one(s) / 10) for s in range(51))


def test_contradictions_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"starts at 0.01, above the base rate 0.001.*LR_SCALE"):
        schedule(lr=0.001)
    with pytest.raises(ValueError, match="warm-up of 10 epochs in a run of 10"):
        schedule(warmup_epochs=10.0)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_every_schedule_starts_at_one_and_never_rises(name):
    values = [SCHEDULES.get(name)(p / 100) for p in range(101)]
    assert (
        values[0] == 1
        and all(a >= b - 1e-12 for a, b in zip(values, values[1:], strict=False))
        and values[-1] >= 0
    )


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_optimisers_step_decay_weights_only_and_leave_frozen_ones_alone(name):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    optimizer = OPTIMIZERS.get(name)(model, 0.1, weight_decay=0.5)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay[id(model[2].weight)] == 0.5 and decay[id(model[2].bias)] == decay[id(model[1].weight)] == 0
    assert id(model[0].weight) not in decay
    before = model[2].weight.detach().clone()
    set_rate(optimizer, 0.05)
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model[2].weight)


def test_losses_against_torch():
    torch.manual_seed(0)
    logits, label = torch.randn(16, 3), torch.randint(0, 3, (16,))
    plain = torch.nn.functional.cross_entropy(logits, label)
    assert torch.allclose(LOSSES.get("cross_entropy")()(logits, label), plain)
    assert torch.allclose(LOSSES.get("focal")(gamma=0.0)(logits, label), plain)
    p = logits.softmax(1)[torch.arange(16), label]
    assert torch.allclose(LOSSES.get("focal")(gamma=2.0)(logits, label), ((1 - p) ** 2 * -p.log()).mean())
    for name, setting in (("focal", {"gamma": -1.0}), ("cross_entropy", {"label_smoothing": 1.0})):
        with pytest.raises(ValueError, match="expected 0 or more"):
            LOSSES.get(name)(**setting)


STAGES = {
    "stem": ["a.weight", "a.bias"],
    "blocks.0": ["b.weight"],
    "blocks.1": ["c.weight"],
    "head": ["d.weight", "d.bias"],
}


def test_stage_factors_fall_from_the_head_and_named_ones_win():
    assert stage_factors(STAGES) == dict.fromkeys(STAGES, 1.0)
    assert stage_factors(STAGES, layer_decay=0.5) == {
        "stem": 0.125,
        "blocks.0": 0.25,
        "blocks.1": 0.5,
        "head": 1.0,
    }
    assert stage_factors(STAGES, layer_decay=0.5, lr_factors="head:10, stem:1e-2") == {
        "stem": 0.01,
        "blocks.0": 0.25,
        "blocks.1": 0.5,
        "head": 10,
    }
    assert stage_factors(STAGES, lr_factors="blocks:0.3") == {
        "stem": 1.0,
        "blocks.0": 0.3,
        "blocks.1": 0.3,
        "head": 1.0,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 0.0}, "LAYER_DECAY = 0.0"),
        ({"layer_decay": 1.1}, "at most 1"),
        ({"lr_factors": "stm:0.1"}, "no stage 'stm'; did you mean stem"),
        ({"lr_factors": "stem"}, "expected stage:factor"),
        ({"lr_factors": "stem:fast"}, "expected stage:factor"),
        ({"lr_factors": "stem:0"}, "FREEZE.NAME frozen"),
        ({"lr_factors": "stem:nan"}, "a factor above 0"),
        ({"lr_factors": "blocks:2,blocks.1:3"}, "'blocks.1' is named twice"),
    ],
)
def test_invalid_factors(settings, message):
    with pytest.raises(ValueError, match=message):
        stage_factors(STAGES, **settings)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_groups_by_factor_share_one_schedule_and_decay_norms_only_if_set(name):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = OPTIMIZERS.get(name)(model, 0.1, {"0.weight": 0.1, "0.bias": 0.1}, weight_decay=0.5)
    set_rate(optimizer, 0.04)
    names = {id(p): n for n, p in model.named_parameters()}
    rate = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rate == {n: pytest.approx(0.004 if n.startswith("0.") else 0.04) for n in names.values()}
    assert base_rate(optimizer) == pytest.approx(0.04)
    decay = {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {n for n, d in decay.items() if d} == {"0.weight", "2.weight"}
    optimizer = OPTIMIZERS.get(name)(model, 0.1, None, False, weight_decay=0.5)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5] and len(
        optimizer.param_groups[0]["params"]
    ) == 6


def test_a_factor_scales_the_step():
    """Plain SGD: with factor 0.1 the first step of a weight is a tenth of the step without."""
    steps = {}
    for factor in (1.0, 0.1):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        before = model.weight.detach().clone()
        optimizer = OPTIMIZERS.get("sgd")(model, 0.1, {"weight": factor}, momentum=0.0, weight_decay=0.0)
        set_rate(optimizer, 0.1)
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        steps[factor] = before - model.weight.detach()
    torch.testing.assert_close(steps[0.1], steps[1.0] / 10)
