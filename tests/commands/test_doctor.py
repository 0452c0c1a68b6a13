"""The doctor sees what is broken: a missing package, a decoder that gives wrong frames, a wrong kernel."""

import numpy as np
import torch

from dfdc_video import environment
from dfdc_video.commands import doctor
from dfdc_video.registry import DECODERS


def test_a_missing_package_is_counted_with_its_cure(monkeypatch, capsys):
    monkeypatch.setattr(environment, "PACKAGES", ["torch", "no-such-package"])
    assert doctor.doctor() == 1
    out = capsys.readouterr().out
    assert "no-such-package" in out and "pip install" in out and "1 needed part(s) missing" in out


def test_a_decoder_that_gives_wrong_frames_is_seen(monkeypatch):
    monkeypatch.setitem(DECODERS._obj_map, "decord", lambda path, indices: np.zeros((8, 64, 64, 3), np.uint8))
    found = {f.what: f for f in doctor._decoders()}
    assert not found["decoder decord"].ok and "wrong frames" in found["decoder decord"].text
    assert found["decoder pyav"].ok


def test_a_wrong_low_precision_kernel_is_seen(monkeypatch):
    class Wrong(torch.nn.Conv3d):
        def forward(self, clip):
            out = super().forward(clip)
            return out * 2 if out.dtype == torch.bfloat16 else out

    monkeypatch.setattr(torch.nn, "Conv3d", Wrong)
    found = [f for f in doctor._precision() if f.what.startswith("Conv3d bf16 forward")]
    assert len(found) == 1 and not found[0].ok and "32-true" in found[0].text


def test_a_complete_installation_is_ready(capsys):
    assert doctor.doctor() == 0
    out = capsys.readouterr().out
    assert out.strip().endswith("ready")
    decoding = ("decoder decord", "BlazeFace full range", "Conv3d bf16 forward")
    for part in ("torch", "processor", "threads in PyTorch", *decoding, "disk", "GPU"):
        assert part in out
