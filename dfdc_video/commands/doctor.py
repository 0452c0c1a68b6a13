"""`dfdc-video doctor`: check the installation and the machine.

One line per part: what was found, or what is missing and how to install it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfdc_video.environment import bf16_is_native, environment

ORDER = 10
HELP = "check the installation: versions, decoders, GPU, precision, disk space"
ENOUGH_DISK_GB = 5
# relative; bf16 has 8 bits of mantissa, and wrong cuDNN kernels (9.8 to 9.10) were off by whole factors
BF16_ERROR = 0.02


class Finding(NamedTuple):
    what: str
    ok: bool
    needed: bool  # False: optional
    text: str


def _packages() -> Iterator[Finding]:
    for name, version in environment()["packages"].items():
        cure = " (install: pip install -e . -c constraints.txt)" if version == "missing" else ""
        yield Finding(name, version != "missing", True, version + cure)


def _decoders() -> Iterator[Finding]:
    """Every decoder must return the frames of a small video that is written here."""
    import numpy as np

    from dfdc_video.media.writer import VideoWriter
    from dfdc_video.registry import DECODERS

    levels = np.linspace(40, 200, 8).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "levels.mp4"
        try:
            with VideoWriter(path, fps=25) as writer:
                for level in levels:
                    writer.add(np.full((64, 64, 3), level, np.uint8))
        except Exception as error:  # any failure of the encoder is a finding
            yield Finding("H.264 encoder (libx264)", False, True, f"{error}; reinstall av (pip install av)")
            return
        yield Finding("H.264 encoder (libx264)", True, True, "writes")
        for name in DECODERS.names():
            try:
                means = DECODERS.get(name)(path, np.arange(8)).mean(axis=(1, 2, 3))
                good = bool(np.abs(means - levels).max() < 4)
                text = "reads" if good else f"reads wrong frames: means {means.round().tolist()}"
                yield Finding(f"decoder {name}", good, True, text)
            except Exception as error:  # as above
                yield Finding(
                    f"decoder {name}", False, True, f"{str(error).splitlines()[0][:100]}; reinstall {name}"
                )
    found = shutil.which("ffmpeg")
    yield Finding(
        "ffmpeg program",
        found is not None,
        False,
        found or "not found and not needed: decord, PyAV and OpenCV bundle their own libraries",
    )


def _precision() -> Iterator[Finding]:
    """Conv3d forward and backward in bf16 against fp32, since some torch and cuDNN versions are wrong or very
    slow there.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name(0) if device == "cuda" else "none; training runs on the CPU"
    yield Finding("GPU", device == "cuda", False, name)
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(16, 32, (3, 3, 3), padding=1).to(device)
    clip = torch.randn(2, 16, 8, 28, 28, device=device)
    results = []
    for enabled in (False, True):
        conv.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            out = conv(clip).float()
        out.square().mean().backward()
        results.append((out.detach(), conv.weight.grad.clone()))  # type: ignore[union-attr]
    for what, low, high in zip(("forward", "backward"), results[1], results[0], strict=True):
        error = float((low - high).norm() / high.norm())
        text = f"relative error {error:.4f} against fp32" + (
            "" if error < BF16_ERROR else "; use TRAIN.PRECISION 32-true, or another torch/cuDNN"
        )
        yield Finding(f"Conv3d bf16 {what} ({device})", error < BF16_ERROR, False, text)
    native = bf16_is_native()
    text = (
        "in hardware: TRAIN.PRECISION auto trains in bf16-mixed"
        if native
        else "not in hardware: TRAIN.PRECISION auto trains in 32-true"
    )
    yield Finding("bf16", native, False, text)


def _detectors() -> Iterator[Finding]:
    import mediapipe

    folder = Path(mediapipe.__file__).parent / "modules" / "face_detection"
    for name in ("short", "full"):
        files = sorted(folder.glob(f"face_detection_{name}_range*.tflite"))
        yield Finding(
            f"BlazeFace {name} range",
            bool(files),
            True,
            files[0].name if files else "model missing: pip install mediapipe==0.10.21",
        )


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    text = f"{free:.0f} GB free here" + (
        "" if free > ENOUGH_DISK_GB else f"; the demo and its environment need {ENOUGH_DISK_GB} GB"
    )
    yield Finding("disk", free > ENOUGH_DISK_GB, False, text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    return doctor()


def doctor() -> int:
    """Print every finding; returns 1 where a required part is missing, else 0."""
    made_with = environment()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("", "Python", f"{made_with['python']} on {made_with['platform']}")
    cores, threads = made_with["cpu_count"], made_with["num_threads"]
    table.add_row("", "processor", f"{escape(made_with['cpu'])}, {cores} cores, {threads} threads in PyTorch")
    broken = 0
    for section in (_packages, _detectors, _decoders, _precision, _disk):
        try:
            findings = list(section())
        except ImportError as error:
            text = f"{error}; pip install -e . -c constraints.txt"
            findings = [Finding(section.__name__.strip("_"), False, True, text)]
        for finding in findings:
            broken += finding.needed and not finding.ok
            mark = "[red]missing[/]" if finding.needed else "[yellow]note[/]"
            table.add_row("[green]ok[/]" if finding.ok else mark, finding.what, escape(finding.text))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print("ready" if not broken else f"{broken} needed part(s) missing, see above")
    return 1 if broken else 0
