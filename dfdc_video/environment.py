"""Versions, hardware and commit that a number was made with: stored with every run, shown by `dfdc-video
doctor`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch torchvision lightning pytorchvideo timm decord av mediapipe fvcore yacs wandb numpy pandas "
    "pyarrow scikit-learn opencv-contrib-python"
).split()


def versions() -> dict[str, str]:
    """Installed version of every package that results depend on; "missing" where there is none."""
    result = {}
    for name in PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = "missing"
    return result


def commit() -> str:
    """Commit of the checkout that the package runs from, with "+changes" where files differ from it; ""
    outside of a checkout.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


@cache
def _cpuinfo() -> tuple[tuple[str, str], ...]:
    """(key, value) of every line of /proc/cpuinfo; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    parts = (line.partition(":") for line in lines)
    return tuple((key.strip(), value.strip()) for key, _, value in parts)


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, as Linux names them; empty on other systems."""
    return frozenset(word for key, value in _cpuinfo() if key == "flags" for word in value.split())


def cpu_model() -> str:
    """Name of the processor model, for example "Intel(R) Xeon(R) Platinum 8481C"."""
    named = (value for key, value in _cpuinfo() if key == "model name" and value)
    return next(named, "") or platform.processor() or platform.machine()


def bf16_is_native() -> bool:
    """Whether bfloat16 runs in hardware here: on the GPU in use, or on the processor (AMX or AVX512-BF16)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())


def environment() -> dict[str, Any]:
    """What a run is made with, for JSON: floating-point results depend on it, down to CPU and threads."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "gpu": gpu,
        "bf16_native": bf16_is_native(),
        "commit": commit(),
        "packages": versions(),
    }
