"""One run, from settings to report: train, score, and the model of a finished run."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from yacs.config import CfgNode

from dfdc_video.config import config_hash
from dfdc_video.environment import environment
from dfdc_video.evaluation.pooling import pool_predictions
from dfdc_video.evaluation.statistics import evaluate
from dfdc_video.folders.manifest import Manifest
from dfdc_video.folders.run import SCORED_COLUMNS, RunFolder
from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.weights.fetch import file_sha256, find_weights
from dfdc_video.models.weights.load import LoadReport, load_weights, read_state
from dfdc_video.runs.build import (
    build_data,
    build_freezer,
    build_module,
    build_trainer,
    build_wandb,
    clip_spec,
    describe_parameters,
    embed,
    load_manifest,
    model_of,
    precision,
)
from dfdc_video.runs.checks import MERGED, check, why_untested
from dfdc_video.training.callbacks import Freezing, LearningRates, RandomState, SampleClips
from dfdc_video.training.freezer import Freezer
from dfdc_video.training.module import ClassifierModule

log = logging.getLogger(__name__)
MONITOR = "video/log_loss"


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
    manifest, run = check(cfg, tested=False), RunFolder(folder)
    torch.set_float32_matmul_precision("high")
    L.seed_everything(cfg.SEED, workers=False, verbose=False)
    data = build_data(cfg, manifest)
    checkpoint = _newest_checkpoint(run) if resume else None
    steps_per_epoch = len(data.train_dataloader())
    module = build_module(cfg, manifest, steps_per_epoch=steps_per_epoch, checkpoint_follows=bool(checkpoint))
    freezer = build_freezer(cfg, module.model, steps_per_epoch)
    parameters = describe_parameters(cfg, module.model, freezer)
    data.dataset("val")  # an empty validation split is found before the first epoch, not after it
    loaded = _load_initial_weights(cfg, module.model) if cfg.MODEL.INIT_FROM and not checkpoint else None
    # only now: whatever was refused has left nothing behind
    trained_on = {
        "path": str(manifest.root.resolve()),
        "split_hash": manifest.split_hash,
        "merged": manifest.summary.get("merged", ""),
    }
    run.claim(cfg, data=trained_on, resume=resume)
    if cfg.DATA.EMBEDDINGS:
        if checkpoint:
            # the frozen weights are needed now; everything else is restored when the fit starts
            load_weights(module.model, str(checkpoint), keep_head=True)
        embed(data, module.model, ("train", "val"), quiet=quiet)
    if loaded:
        log.info("%s", loaded)
        run.write_initial_weights(str(loaded))
    log.info("%s", parameters)
    run.write_parameters(parameters)
    run.write_environment({**environment(), "precision": precision(cfg)})
    wandb = build_wandb(cfg, run, name, manifest)
    trainer = build_trainer(
        cfg,
        run.path,
        loggers=[CSVLogger(run.path, name=run.LOGS), *wandb],
        callbacks=_callbacks(cfg, run, freezer),
        quiet=quiet,
    )
    seconds = _fit(trainer, module, data, run=run, checkpoint=checkpoint)
    report = _score_trained(
        run, manifest, quiet=quiet, extra={"name": name, "train_seconds": round(seconds, 1), **(extra or {})}
    )
    _finish_wandb(wandb, report)
    return report


def _newest_checkpoint(run: RunFolder) -> Path | None:
    """Where a resumed run continues; ValueError for a damaged file: Lightning raises anything."""
    checkpoint = run.newest_checkpoint()
    if checkpoint:
        try:
            read_state(checkpoint)
        except ValueError as error:
            raise ValueError(
                f"{checkpoint} is damaged: delete it to continue from an older checkpoint, or from the start"
            ) from error
    return checkpoint


def _load_initial_weights(cfg: CfgNode, model: VideoClassifier) -> LoadReport:
    """Load MODEL.INIT_FROM; the report names the file by its SHA-256."""
    loaded = load_weights(model, cfg.MODEL.INIT_FROM, keep_head=cfg.MODEL.KEEP_HEAD)
    file = find_weights(cfg.MODEL.INIT_FROM)
    if isinstance(file, Path):
        loaded.notes.append(f"SHA-256 of the file: {file_sha256(file)}")
    return loaded


def _callbacks(cfg: CfgNode, run: RunFolder, freezer: Freezer) -> list[Callback]:
    """Checkpoints, exact resumption, learning rates in the log, sample clips, freezing."""
    checkpoints = partial(
        ModelCheckpoint, run.checkpoints, enable_version_counter=False, save_on_train_epoch_end=False
    )
    stride = cfg.CLIP.STRIDE_FRAMES / 30 if cfg.CLIP.STRIDE_FRAMES else cfg.CLIP.STRIDE_SECONDS
    callbacks = [
        checkpoints(filename=run.BEST, monitor=MONITOR, mode="min"),
        checkpoints(filename=run.LAST),  # save_last of the one above writes only where the metric improved
        checkpoints(filename=run.STEP, every_n_train_steps=cfg.TRAIN.CHECKPOINT_EVERY_STEPS),
        RandomState(),
        LearningRates(),
        SampleClips(run.sample, fps=1 / stride),
    ]
    if cfg.FREEZE.NAME != "none" or cfg.FREEZE.FREEZE_BN:
        callbacks.append(Freezing(freezer))
    return callbacks


def _fit(
    trainer: L.Trainer,
    module: ClassifierModule,
    data: L.LightningDataModule,
    *,
    run: RunFolder,
    checkpoint: Path | None,
) -> float:
    """Fit from `checkpoint` or from the start; returns the training time in seconds over all parts."""
    started = time.monotonic()
    try:
        trainer.fit(module, data, ckpt_path=str(checkpoint) if checkpoint else None)
    except SystemExit as stop:  # Lightning turns Ctrl-C into an exit
        raise KeyboardInterrupt from stop
    finally:
        run.join_logs()
    if trainer.interrupted:
        raise KeyboardInterrupt
    return run.add_train_seconds(time.monotonic() - started)


def _score_trained(
    run: RunFolder, manifest: Manifest, *, quiet: bool, extra: dict[str, Any]
) -> dict[str, Any]:
    """Score the test split, or val where the data set cannot be tested on."""
    untested = why_untested(manifest)
    if untested:
        log.info("no test: %s; val, which chose the checkpoint, is scored instead", untested)
    return score(run.path, split="val" if untested else "test", quiet=quiet, extra=extra)


def _finish_wandb(loggers: list[Logger], report: dict[str, Any]) -> None:
    """Log the metrics of the scored split to W&B and end its run."""
    metrics = {f"{report['split']}/{k}": v["value"] for k, v in report["metrics"].items()}
    for logger in loggers:
        logger.log_metrics({k: v for k, v in metrics.items() if v is not None})
        logger.experiment.finish(quiet=True)  # type: ignore[attr-defined]


def load_model(folder: str | Path) -> VideoClassifier:
    """The model of a run folder with the weights of its best checkpoint, in evaluation mode; its data set is
    not needed.
    """
    run = RunFolder(Path(folder))
    cfg, checkpoint = run.config(), run.best_checkpoint()
    state = read_state(checkpoint)[0]
    head = f"{model_of(cfg, 2, checkpoint_follows=True).head_names[0]}.weight"
    model = model_of(cfg, len(state[head]), checkpoint_follows=True)
    load_weights(model, checkpoint, keep_head=True)
    return model.eval()


def score(
    folder: Path, *, split: str = "test", quiet: bool = False, extra: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Score a split with a run's best checkpoint; write predictions.csv, videos.csv, scores.csv, report.json.

    The files of the test split are in the run folder itself, those of another split in a folder of its name.
    ValueError where the data set was split anew since training: then trained-on videos may be among the
    tested; and for test where it was merged into train.
    """
    run = RunFolder(folder)
    cfg, checkpoint = run.config(), run.best_checkpoint()
    manifest = load_manifest(cfg)
    _refuse_leaks(run, manifest, split)
    data = build_data(cfg, manifest)
    module = build_module(cfg, manifest, checkpoint_follows=True)
    videos = manifest.videos_of(split)[list(SCORED_COLUMNS)]
    module.videos["test"] = videos
    load_weights(module.model, checkpoint, keep_head=True)
    if cfg.DATA.EMBEDDINGS:
        embed(data, module.model, (split,), quiet=quiet)
    trainer = build_trainer(cfg, run.path, loggers=[], callbacks=[], quiet=quiet)
    started = time.monotonic()
    trainer.test(module, dataloaders=data.views(split), verbose=False)
    out = run.of_split(split)
    out.write_predictions(module.predictions, videos)
    scores = pool_predictions(module.predictions, videos, pooling=cfg.TEST.POOLING)
    made_with = environment()
    report = {
        "name": run.path.name,
        **out.kept_entries(),
        **(extra or {}),
        "config_name": cfg.MODEL.NAME,
        "split": split,
        "split_hash": manifest.split_hash,
        "manifest_path": str(manifest.root),
        "checkpoint": str(checkpoint.relative_to(run.path)),
        "config_hash": config_hash(cfg),
        "commit": made_with["commit"],
        "seed": cfg.SEED,
        "clip": clip_spec(cfg).policy(num_clips=cfg.TEST.NUM_CLIPS),
        "pooling": {"NAME": cfg.TEST.POOLING},
        "precision": precision(cfg),
        "num_parameters": sum(p.numel() for p in module.model.parameters()),
        "test_seconds": round(time.monotonic() - started, 1),
        **evaluate(scores, num_samples=cfg.TEST.NUM_BOOTSTRAP),
        **({"mask_iou": module.mask_iou} if cfg.MASK.WEIGHT else {}),
        "unreadable_tracks": module.bad,
        "environment": made_with,
    }
    report = _without_nan(report)
    out.write_report(scores, report)
    return report


def _refuse_leaks(run: RunFolder, manifest: Manifest, split: str) -> None:
    """ValueError where videos of `split` may have been trained on."""
    trained = run.data()
    if split == "test" and trained.get("merged"):
        raise ValueError(f"{run.path} was trained on a set that {MERGED}")
    if split == "test" and why_untested(manifest):
        raise ValueError(why_untested(manifest))
    if trained["split_hash"] != manifest.split_hash:
        raise ValueError(
            f"{run.path} was trained on split {trained['split_hash']}, {manifest.root} is now split "
            f"{manifest.split_hash}: trained-on videos may be among the tested"
        )


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None instead, all the way down."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value
