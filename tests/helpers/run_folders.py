"""Run folders with predictions whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def make_videos(num_groups: int = 12, *, methods: tuple[str, ...] = ("spatial", "temporal")) -> pd.DataFrame:
    """One real and one fake per method in every group."""
    rows = [
        {
            "video_id": f"g{g:02d}_{m}",
            "label": int(m != "real"),
            "method": m,
            "group_id": f"g{g:02d}",
            "status": "ok",
        }
        for g in range(num_groups)
        for m in ("real", *methods)
    ]
    return pd.DataFrame(rows)


def make_predictions(
    videos: pd.DataFrame,
    *,
    strength: float = 2.0,
    seed: int = 0,
    blind_to: tuple[str, ...] = (),
    num_classes: int = 2,
) -> pd.DataFrame:
    """Two tracks of two clips for every readable video; logits are normal with the label's mean raised by
    `strength`. Fakes of the methods in `blind_to` are scored like reals.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for video in videos[videos["status"] == "ok"].itertuples():
        for clip in range(4):
            logits = rng.normal(size=num_classes)
            logits[0 if video.method in blind_to else video.label] += strength
            row = {
                "video_id": video.video_id,
                "track_id": f"{video.video_id}_{clip // 2}",
                "start_frame": 16 * (clip % 2),
                "label": video.label,
            }
            rows.append(row | {f"logit_{k}": x for k, x in enumerate(logits)})
    return pd.DataFrame(rows)


def make_curves(num_epochs: int = 4) -> pd.DataFrame:
    """As Lightning's CSVLogger writes them: one row per logged step, most cells empty."""
    rows: list[dict[str, Any]] = []
    for epoch in range(num_epochs):
        rows += [
            {"epoch": epoch, "step": 10 * epoch + s, "train/loss": 0.7 / (epoch + 1) + 0.01 * s}
            for s in (4, 9)
        ]
        rows.append(
            {
                "epoch": epoch,
                "step": 10 * epoch + 9,
                "video/log_loss": 0.7 / (epoch + 1),
                "video/auc": 0.5 + 0.1 * epoch,
            }
        )
    return pd.DataFrame(rows)


def write_run(
    folder: Path,
    *,
    videos: pd.DataFrame | None = None,
    predictions: pd.DataFrame | None = None,
    curves: pd.DataFrame | None = None,
    report: dict[str, Any] | None = None,
    **prediction_settings: Any,
) -> Path:
    """A run folder as `dfdc-video train` leaves it."""
    folder.mkdir(parents=True)
    videos = make_videos() if videos is None else videos
    predictions = make_predictions(videos, **prediction_settings) if predictions is None else predictions
    videos.to_csv(folder / "videos.csv", index=False)
    predictions.to_csv(folder / "predictions.csv", index=False)
    (make_curves() if curves is None else curves).to_csv(folder / "metrics.csv", index=False)
    entries = {
        "name": folder.name,
        "config_name": "small",
        "split": "test",
        "split_hash": "0123456789ab",
        "manifest_path": "prepared/manifest.parquet",
        "checkpoint": "best.ckpt",
        "config_hash": "c0ffee",
        "commit": "abc1234",
        "seed": 0,
        "clip": {"num_frames": 16, "frame_stride": 2},
        "pooling": {"NAME": "mean"},
        "num_parameters": 11_200_000,
        "train_seconds": 95.0,
        "environment": {"python": "3.11", "torch": "2.15"},
    }
    (folder / "report.json").write_text(json.dumps(entries | (report or {})), encoding="utf-8")
    return folder
