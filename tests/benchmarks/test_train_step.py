"""The benchmark of training steps runs every precision of a config, and the steps that it times train."""

import torch

from dfdc_video.benchmarks import train_step


def test_every_precision_is_measured_and_steps_change_the_model():
    found = train_step.measure(("frame_small",), repeats=2, warm_up=0)
    assert set(found) == {("frame_small", p) for p in train_step.PRECISIONS}
    assert all(seconds > 0 for seconds in found.values())
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    before = model[1].weight.detach().clone()
    optimiser = torch.optim.AdamW(model.parameters(), 0.1)
    train_step.one_step(model, optimiser, torch.rand(4, 12), torch.tensor([0, 1, 0, 1]), "32-true")
    assert not torch.equal(before, model[1].weight)
