"""A new model is one file in dfdc_video/models and its config in configs/model: nothing else is edited, and
the gates run over it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from dfdc_video.registry import top_level

MODEL = '''
"""Two convolutions over time and space: small enough to be read as an example."""

from torch import nn

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.registry import MODELS


class TinyNetwork(nn.Module):
    """(B, C, T, H, W) -> (B, K)."""

    def __init__(self, width, num_classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(3, width, 3, stride=(1, 4, 4), padding=1), nn.BatchNorm3d(width), nn.ReLU(),
            nn.Conv3d(width, width, 3, stride=(1, 2, 2), padding=1), nn.BatchNorm3d(width), nn.ReLU(),
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, clip):
        return self.head(self.features(clip).mean((2, 3, 4)))


@MODELS.register(name="NAME")
def NAME(num_classes, num_frames, size, *, width: int = 32):
    """Two 3D convolutions."""
    network = TinyNetwork(width, num_classes)
    return VideoClassifier(
        network, clip_shape=(3, num_frames, *size), num_classes=num_classes, mean=(0.5,) * 3, std=(0.25,) * 3,
        head_names=("network.head",), cam_layer="network.features", uses_time=True,
    )
'''
CONFIG = "# Two 3D convolutions, CPU-sized: an example\nMODEL: {NAME: NAME, WIDTH: 32}\n"
UNUSED = "        self.unused = nn.Linear(1, 1)\n        self.head ="


def test_one_file_and_its_config_make_a_model(tmp_path):
    """In a copy of the checkout, since the files are found where they lie. Of two new models one has a layer
    that nothing uses: its gate fails, and no other.
    """
    root = top_level("configs").parent
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("dfdc_video", "configs", "tests/models", "tests/helpers"):
        shutil.copytree(root / name, tmp_path / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "tests/conftest.py"):
        shutil.copy(root / name, tmp_path / name)
    for name, source in (("tiny", MODEL), ("unused", MODEL.replace("        self.head =", UNUSED))):
        (tmp_path / f"dfdc_video/models/{name}.py").write_text(source.replace("NAME", name))
        (tmp_path / f"configs/model/{name}_small.yaml").write_text(
            CONFIG.replace("NAME: NAME", f"NAME: {name}")
        )
    chosen = "[tiny or every_registered or gradients and [unused"
    command = [sys.executable, "-m", "pytest", "-rA", "-m", "not slow", "-k", chosen]
    command += ["tests/models/test_registry_of_models.py", "tests/models/test_model_configs.py"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = re.findall(r"^(PASSED|FAILED) \S+::(\S+)", done.stdout, re.MULTILINE)
    outcomes = {case: outcome for outcome, case in lines}
    failed = [case for case, outcome in outcomes.items() if outcome == "FAILED"]
    assert failed == ["test_gradients_reach_every_trainable_parameter[unused]"], done.stdout + done.stderr
    assert "network.unused.weight" in done.stdout
    gates = {case for case in outcomes if case.endswith(("[tiny]", "[tiny_small]"))}
    assert len(gates) >= 13, gates
