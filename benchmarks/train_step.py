"""Seconds per training step (forward, backward, optimiser) of the small configs, by precision.

    dfdc-video bench train_step [repeats 12] [configs '[frame_small, slowfast_small]']

All configs and precisions take turns in one process, so that other load on the machine affects all of them;
medians are printed with the ratio to 32-true. Batch and clip are those of the config, frames are random.
"""

from __future__ import annotations

import statistics
import time

import torch

from dfdc_video.config import resolve
from dfdc_video.registry import BENCHMARKS
from dfdc_video.runs.build import model_of

SMALL = ("frame_small", "cnn_lstm_small", "efficientnet3d_small", "slowfast_small")
PRECISIONS = ("32-true", "bf16-mixed")


def one_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    frames: torch.Tensor,
    label: torch.Tensor,
    precision: str,
) -> float:
    """Seconds of one step, until the device is done."""
    device = frames.device.type
    started = time.perf_counter()
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = torch.nn.functional.cross_entropy(model(frames).float(), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(
    configs: tuple[str, ...] = SMALL, *, repeats: int = 12, warm_up: int = 2
) -> dict[tuple[str, str], float]:
    """(config, precision) -> median seconds per step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setups = {}
    for name in configs:
        cfg = resolve(name)
        shape = (cfg.TRAIN.BATCH_SIZE, 3, cfg.CLIP.NUM_FRAMES, cfg.CLIP.HEIGHT, cfg.CLIP.WIDTH)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        label = torch.arange(shape[0], device=device) % 2
        for precision in PRECISIONS:
            model = model_of(cfg, 2).channels_last().to(device)
            setups[name, precision] = (
                model,
                torch.optim.AdamW(model.parameters(), 1e-3),
                frames,
                label,
                precision,
            )
    times: dict[tuple[str, str], list[float]] = {key: [] for key in setups}
    for turn in range(warm_up + repeats):
        for key, setup in setups.items():
            seconds = one_step(*setup)
            if turn >= warm_up:
                times[key].append(seconds)
    return {key: statistics.median(values) for key, values in times.items()}


@BENCHMARKS.register(name="train_step")
def train_step(*, configs: tuple[str, ...] = SMALL, repeats: int = 12) -> str:
    """Seconds per training step (forward, backward, optimiser) of small configs, by precision."""
    found = measure(configs, repeats=repeats)
    lines = [
        "| config | " + " | ".join(f"{p}, ms" for p in PRECISIONS) + " | ratio |",
        "|---|" + "---|" * (len(PRECISIONS) + 1),
    ]
    for name in configs:
        row = [found[name, p] for p in PRECISIONS]
        lines.append(
            f"| {name} | " + " | ".join(f"{1000 * s:.0f}" for s in row) + f" | {row[0] / row[1]:.2f} |"
        )
    return "\n".join(lines)
