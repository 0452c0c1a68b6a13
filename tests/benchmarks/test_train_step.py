"""The ruler runs every precision of a config and its models really learn from the steps that it times."""

import torch

from dfdc_video.benchmarks import train_step


def test_every_precision_is_measured_and_steps_change_the_model():
    found = train_step.measure(("frame_small",), repeats=2, warm_up=0)
    assert set(found) == {("frame_small", p) for p in train_step.PRECISIONS} and all(
        s > 0 for s in found.values()
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    before = model[1].weight.detach().clone()
    train_step.one_step(
        model,
        torch.optim.AdamW(model.parameters(), 0.1),
        torch.rand(4, 12),
        torch.tensor([0, 1, 0, 1]),
        "32-true",
    )
    assert not torch.equal(before, model[1].weight)
