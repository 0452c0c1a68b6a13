"""Weights files for tests: small models, what is saved of them, and hostile files."""

from __future__ import annotations

import os
import pickle

import torch

from dfdc_video.models.classifier import build_classifier
from dfdc_video.models.weights.names import caffe2_names, pyslowfast_names

SLOWFAST = {"depth": 18, "width": 16, "alpha": 4, "beta_inv": 4}


def make(name, num_classes=2, **settings):
    return build_classifier(name, num_classes, 8, (64, 64), **settings).eval()


def frame(num_classes=2, backbone="test_efficientnet"):
    return make("frame", num_classes, backbone=backbone)


def saved(tmp_path, content, name="weights.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def accounted(report, model, state):
    """Assert that every tensor of the model and of the file appears in the report exactly once."""
    assert sorted(report.matched + list(report.missing)) == sorted(model.state_dict())
    assert len(report.matched) + len(report.left_out) == len(state)


class Hostile:
    """Unpickling it creates the folder `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def moved(model):
    """Give the model norms and running statistics as after training: the initial ones would hide a mix-up."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5 * name.endswith("running_var"))
    return model


def caffe2_file(tmp_path, content, name="model.pkl", protocol=2):
    (tmp_path / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return tmp_path / name


def caffe2_blobs(model):
    zoo = {n.removeprefix("network.body."): t for n, t in model.state_dict().items()}
    names = pyslowfast_names(zoo)
    blobs = caffe2_names(names.values())
    return {blobs[names[n]]: t.numpy() for n, t in zoo.items() if names[n] in blobs}
