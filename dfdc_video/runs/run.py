"""One run, from settings to report. It and `build`, which makes the objects, are the only readers of a whole
config.

A run folder holds config.yaml, environment.json, parameters.txt (what trains when),
checkpoints/{best,last,step}.ckpt, logs/, metrics.csv, samples/, predictions.csv and videos.csv (of the scored
split), scores.csv (one row per video) and report.json.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from yacs.config import CfgNode

from dfdc_video.config import config_hash, dump, load_dump
from dfdc_video.environment import environment
from dfdc_video.evaluation.pooling import pool_predictions
from dfdc_video.evaluation.statistics import evaluate
from dfdc_video.files import write_atomic
from dfdc_video.folders.prepared import Manifest
from dfdc_video.media.writer import VideoWriter
from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.weights.fetch import file_sha256, find_weights
from dfdc_video.models.weights.load import load_weights, read_state
from dfdc_video.records import SPLIT_NAMES
from dfdc_video.runs.build import (
    VIDEO_COLUMNS,
    build_data,
    build_freezer,
    build_lr_schedule,
    build_model,
    build_module,
    build_trainer,
    build_wandb,
    clip_spec,
    describe_parameters,
    embed,
    load_manifest,
)
from dfdc_video.training.callbacks import Freezing, LearningRates, RandomState, SampleClips

log = logging.getLogger(__name__)
MONITOR = "video/log_loss"


def check(cfg: CfgNode, *, tested: bool = True) -> Manifest:
    """What can be refused before anything is made: the schedule, the network, the data set, the starting
    weights. Returns the manifest.

    With `tested` a data set without a test split, or with one that was merged into train, is refused, too:
    nothing could be compared.
    """
    build_lr_schedule(cfg, 1)
    manifest = load_manifest(cfg)
    untested = _without_test(manifest)
    if untested and tested:
        raise ValueError(untested)
    for split in SPLIT_NAMES[: 2 if untested else 3]:
        classes = sorted(manifest.videos_of(split)["label"].unique())
        if len(classes) < 2:
            found = f"one class only (label {classes[0]})" if classes else "no video"
            raise ValueError(
                f"{manifest.root}: the {split} split has {found}; a classifier needs two: prepare more "
                "videos or change --ratios"
            )
    if cfg.MODEL.INIT_FROM:
        find_weights(cfg.MODEL.INIT_FROM)
    with torch.device("meta"):  # every layer, no memory
        model = build_model(cfg, manifest.num_classes, checkpoint_follows=True)
    if cfg.DATA.EMBEDDINGS:
        model.need_embeddings()
    if model.frozen_names and not (cfg.MODEL.INIT_FROM or cfg.MODEL.get("PRETRAINED")):
        cure = (
            "set MODEL.INIT_FROM to a checkpoint of a frame model or to timm:NAME, or MODEL.PRETRAINED true"
        )
        raise ValueError(f"the backbone of {cfg.MODEL.NAME} is frozen, and would stay random: {cure}")
    return manifest


MERGED = "merged its test split into train for a last fit: test scores would be meaningless"


def _without_test(manifest: Manifest) -> str:
    """Why a data set cannot be tested on, or nothing."""
    if manifest.summary.get("merged"):
        return f"{manifest.root} {MERGED}"
    return (
        ""
        if len(manifest.videos_of("test"))
        else (f"{manifest.root} has no test split: the test split has no video")
    )


def write_samples(
    frames: torch.Tensor,
    labels: Sequence[int],
    video_ids: Sequence[str],
    folder: Path,
    *,
    fps: float,
    most: int = 8,
) -> list[Path]:
    """The first clips of a batch (B, C, T, H, W) uint8 as small videos: what the model is really shown,
    augmentation included.
    """
    files = []
    for clip, label, video_id in list(zip(frames, labels, video_ids, strict=True))[:most]:
        file = folder / "samples" / f"{video_id}_label{label}.mp4"
        images = clip.permute(1, 2, 3, 0).cpu().numpy()
        height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
        with VideoWriter(file, fps=fps) as writer:
            for image in images:
                writer.add(image[:height, :width])
        files.append(file)
    return files


def _join_logs(folder: Path) -> None:
    """Every (resumed) part of the CSV log as one metrics.csv; a step that was run twice counts once, as it
    was run last.
    """
    files = sorted(folder.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    parts = [pd.read_csv(p) for p in files if p.stat().st_size]
    if not parts:
        return
    table = pd.concat(parts, ignore_index=True).groupby(["epoch", "step"], as_index=False).last()
    write_atomic(folder / "metrics.csv", table.to_csv(index=False))


def train(
    cfg: CfgNode,
    folder: Path,
    *,
    name: str,
    resume: bool = False,
    quiet: bool = False,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fit, keep the checkpoint with the best validation `video/log_loss`, score the test split with it, write
    the run folder.

    On a data set without a test split, or that merged it into train, the validation split is scored instead,
    into the folder `val`. `extra` (experiment, arm) goes into report.json. Returns the report. Raises
    KeyboardInterrupt when stopped; `resume` continues.
    """
    manifest = check(cfg, tested=False)
    torch.set_float32_matmul_precision("high")
    L.seed_everything(cfg.SEED, workers=False, verbose=False)
    data = build_data(cfg, manifest)
    checkpoint = _newest_checkpoint(Path(folder)) if resume else None
    steps_per_epoch = len(data.train_dataloader())
    module = build_module(cfg, manifest, steps_per_epoch=steps_per_epoch, checkpoint_follows=bool(checkpoint))
    freezer = build_freezer(cfg, module.model, steps_per_epoch)
    table = describe_parameters(cfg, module.model, freezer)
    data.dataset("val")  # an empty validation split is found before the first epoch, not after it
    starts_from = cfg.MODEL.INIT_FROM and not checkpoint
    loaded = (
        load_weights(module.model, cfg.MODEL.INIT_FROM, keep_head=cfg.MODEL.KEEP_HEAD)
        if starts_from
        else None
    )
    # only now: whatever was refused has left nothing behind
    folder = _claim(Path(folder), cfg, manifest, resume=resume)
    if cfg.DATA.EMBEDDINGS:
        if checkpoint:
            # what is frozen is needed now, the rest again when the fit starts
            load_weights(module.model, checkpoint, keep_head=True)
        embed(data, module.model, ("train", "val"), quiet=quiet)
    if loaded:
        file = find_weights(cfg.MODEL.INIT_FROM)
        if isinstance(file, Path):
            loaded.notes.append(f"SHA-256 of the file: {file_sha256(file)}")
        log.info("%s", loaded)
        write_atomic(folder / "init_from.txt", f"{loaded}\n")
    log.info("%s", table)
    write_atomic(folder / "parameters.txt", f"{table}\n")
    write_atomic(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    checkpoints = partial(
        ModelCheckpoint, folder / "checkpoints", enable_version_counter=False, save_on_train_epoch_end=False
    )
    best = checkpoints(filename="best", monitor=MONITOR, mode="min")
    # of its own: save_last of the one above writes only where the metric improved
    last = checkpoints(filename="last")
    step = checkpoints(filename="step", every_n_train_steps=cfg.TRAIN.CHECKPOINT_EVERY_STEPS)
    stride = cfg.CLIP.STRIDE_FRAMES / 30 if cfg.CLIP.STRIDE_FRAMES else cfg.CLIP.STRIDE_SECONDS
    samples = SampleClips(folder, partial(write_samples, fps=1 / stride))
    loggers = [CSVLogger(folder, name="logs"), *build_wandb(cfg, folder, name, manifest)]
    callbacks = [best, last, step, RandomState(), LearningRates(), samples]
    if cfg.FREEZE.NAME != "none" or cfg.FREEZE.FREEZE_BN:
        callbacks.append(Freezing(freezer))
    trainer = build_trainer(cfg, folder, loggers=loggers, callbacks=callbacks, quiet=quiet)
    started = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=checkpoint)
    except SystemExit as stop:  # Lightning turns Ctrl-C into an exit
        raise KeyboardInterrupt from stop
    finally:
        _join_logs(folder)
    if trainer.interrupted:
        raise KeyboardInterrupt
    seconds = _add_seconds(folder, time.monotonic() - started)
    split = "val" if _without_test(manifest) else "test"
    if split == "val":
        log.info("no test: %s; val, which chose the checkpoint, is scored instead", _without_test(manifest))
    report = score(
        folder,
        split=split,
        quiet=quiet,
        extra={"name": name, "train_seconds": round(seconds, 1), **(extra or {})},
    )
    for logger in loggers[1:]:
        logger.log_metrics(
            {f"{split}/{k}": v["value"] for k, v in report["metrics"].items() if v["value"] is not None}
        )
        logger.experiment.finish(quiet=True)  # type: ignore[attr-defined]
    return report


def _add_seconds(folder: Path, seconds: float) -> float:
    """Training time over all parts of a resumed run."""
    file = folder / "train_seconds.txt"
    total = seconds + (float(file.read_text(encoding="utf-8")) if file.is_file() else 0.0)
    write_atomic(file, f"{total:.1f}\n")
    return total


def _claim(folder: Path, cfg: CfgNode, manifest: Manifest, *, resume: bool) -> Path:
    """Make the run folder, or check that the one to resume belongs to these settings and this data."""
    config, text = folder / "config.yaml", dump(cfg)
    if resume:
        stored = load_dump(config)
        if config_hash(stored) != config_hash(cfg):
            hashes = f"config hash {config_hash(stored)}, now {config_hash(cfg)}"
            raise ValueError(
                f"{folder} was started with other settings ({hashes}); resume it as it was, or choose "
                "another --out"
            )
        return folder
    if config.is_file():
        raise ValueError(
            f"{folder} already holds a run; continue it with --resume {folder}, or choose another --out"
        )
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_atomic(config, text)
    data = {
        "path": str(manifest.root.resolve()),
        "split_hash": manifest.split_hash,
        "merged": manifest.summary.get("merged", ""),
    }
    write_atomic(folder / "data.json", json.dumps(data) + "\n")
    return folder


def _newest_checkpoint(folder: Path) -> str | None:
    """The later of last.ckpt (end of an epoch) and step.ckpt (within one); none where the run was stopped
    before the first.
    """
    files = [
        p for p in (folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "step.ckpt") if p.is_file()
    ]
    return str(max(files, key=lambda p: p.stat().st_mtime_ns)) if files else None


def best_checkpoint(folder: Path) -> Path:
    checkpoint = Path(folder) / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        cure = f"continue it with `dfdc-video train --resume {folder}`"
        raise FileNotFoundError(
            f"{folder} has no checkpoints/best.ckpt: the run did not finish an epoch; {cure}"
        )
    return checkpoint


def load_run(folder: str | Path) -> VideoClassifier:
    """The model of a run folder with the weights of its best checkpoint, in evaluation mode; its data set is
    not needed.
    """
    cfg, checkpoint = load_dump(Path(folder) / "config.yaml"), best_checkpoint(Path(folder))
    state = read_state(checkpoint)[0]
    head = f"{build_model(cfg, 2, checkpoint_follows=True).head_names[0]}.weight"
    model = build_model(cfg, len(state[head]), checkpoint_follows=True)
    load_weights(model, checkpoint, keep_head=True)
    return model.eval()


def score(
    folder: Path, *, split: str = "test", quiet: bool = False, extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Score a split with a run's best checkpoint and write predictions.csv, videos.csv, scores.csv,
    report.json.

    The files of the test split lie in the run folder itself, those of another split in a folder of its name.
    ValueError where the data set was split anew since training: then trained-on videos may be among the
    tested; and for test where it was merged into train.
    """
    folder = Path(folder)
    cfg = load_dump(folder / "config.yaml")
    checkpoint = best_checkpoint(folder)
    manifest = load_manifest(cfg)
    trained = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    if split == "test" and trained.get("merged"):
        raise ValueError(f"{folder} was trained on a set that {MERGED}")
    if split == "test" and _without_test(manifest):
        raise ValueError(_without_test(manifest))
    trained_on = trained["split_hash"]
    if trained_on != manifest.split_hash:
        now = f"{manifest.root} is now split {manifest.split_hash}"
        raise ValueError(
            f"{folder} was trained on split {trained_on}, {now}: trained-on videos may be among the tested"
        )
    data = build_data(cfg, manifest)
    module = build_module(cfg, manifest, checkpoint_follows=True)
    module.videos["test"] = manifest.videos_of(split)[VIDEO_COLUMNS]
    load_weights(module.model, checkpoint, keep_head=True)
    if cfg.DATA.EMBEDDINGS:
        embed(data, module.model, (split,), quiet=quiet)
    loader_trainer = build_trainer(cfg, folder, loggers=[], callbacks=[], quiet=quiet)
    started = time.monotonic()
    loader_trainer.test(module, dataloaders=data.views(split), verbose=False)
    out = folder if split == "test" else folder / split
    out.mkdir(exist_ok=True)
    previous = (
        json.loads((out / "report.json").read_text(encoding="utf-8"))
        if (out / "report.json").is_file()
        else {}
    )
    kept = {k: previous[k] for k in ("name", "train_seconds", "experiment", "arm") if k in previous}
    module.predictions.to_csv(out / "predictions.csv", index=False)
    module.videos["test"].to_csv(out / "videos.csv", index=False)
    scores = pool_predictions(module.predictions, module.videos["test"], pooling=cfg.TEST.POOLING)
    scores.to_csv(out / "scores.csv", index=False)
    made_with = environment()
    report = {
        "name": folder.name,
        **kept,
        **(extra or {}),
        "config_name": cfg.MODEL.NAME,
        "split": split,
        "split_hash": manifest.split_hash,
        "manifest_path": str(manifest.root),
        "checkpoint": "checkpoints/best.ckpt",
        "config_hash": config_hash(cfg),
        "commit": made_with["commit"],
        "seed": cfg.SEED,
        "clip": clip_spec(cfg).policy(num_clips=cfg.TEST.NUM_CLIPS),
        "pooling": {"NAME": cfg.TEST.POOLING},
        "num_parameters": sum(p.numel() for p in module.model.parameters()),
        "test_seconds": round(time.monotonic() - started, 1),
        **evaluate(scores, num_samples=cfg.TEST.NUM_BOOTSTRAP),
        **({"mask_iou": module.mask_iou} if cfg.MASK.WEIGHT else {}),
        "unreadable_tracks": module.bad,
        "environment": made_with,
    }
    write_atomic(out / "report.json", json.dumps(_plain(report), indent=2) + "\n")
    return _plain(report)


def _plain(value: Any) -> Any:
    """JSON has no NaN: None instead, all the way down."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value
