"""Losses against torch, rates as functions of the step, and the warm-up traps of transfer runs."""

import pytest
import torch

from dfdc_video.registry import LOSSES, OPTIMIZERS, SCHEDULES
from dfdc_video.training.optim import Rates, rates_of, set_rate


def rates(**kwargs):
    base = dict(schedule="cosine", lr=0.1, lr_scale=1.0, end_lr=0.0, warmup_start_lr=0.01, warmup_epochs=2.0, epochs=10, steps_per_epoch=5)
    return Rates.build(**base | kwargs)


def test_warm_up_then_shape():
    r = rates()
    assert r(0) == pytest.approx(0.01) and r(5) == pytest.approx(0.055) and r(10) == pytest.approx(0.1)
    assert r(30) == pytest.approx(0.05), "half way down the cosine"
    assert 0 < r(49) < 0.001 and r(50) == pytest.approx(0)
    assert rates(schedule="constant")(40) == pytest.approx(0.1)
    assert rates(schedule="linear", end_lr=0.02)(30) == pytest.approx(0.06)


def test_lr_scale_moves_base_warm_up_and_end_together():
    one, tenth = rates(end_lr=0.001), rates(end_lr=0.001, lr_scale=0.1)
    assert all(tenth(s) == pytest.approx(one(s) / 10) for s in range(51))


def test_contradictions_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"starts at 0.01, above the base rate 0.001.*LR_SCALE"):
        rates(lr=0.001)
    with pytest.raises(ValueError, match="warm-up of 10 epochs in a run of 10"):
        rates(warmup_epochs=10.0)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_every_schedule_starts_at_one_and_never_rises(name):
    values = [SCHEDULES.get(name)(p / 100) for p in range(101)]
    assert values[0] == 1 and all(a >= b - 1e-12 for a, b in zip(values, values[1:], strict=False)) and values[-1] >= 0


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
    assert set(rates_of([optimizer])) == {0.05}
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
