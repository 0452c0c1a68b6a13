"""One run, from settings to report: the only reader of a whole config. Everything below takes plain keyword arguments.

A run folder holds config.yaml, environment.json, parameters.txt (what trains when), checkpoints/{best,last,step}.ckpt, logs/, metrics.csv,
samples/, predictions.csv and videos.csv (of the scored split), scores.csv (one row per video) and report.json.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from yacs.config import CfgNode

from dfdc_video.config import SHARED, config_hash, dump, keywords, load_dump, to_dict
from dfdc_video.data.datamodule import ClipData
from dfdc_video.data.sampling import ClipSpec
from dfdc_video.environment import bf16_is_native, environment
from dfdc_video.evaluation.pooling import pool_predictions
from dfdc_video.evaluation.statistics import evaluate
from dfdc_video.manifest import Manifest, write_atomic
from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.weights import find_weights, load_weights, read_state
from dfdc_video.records import SPLIT_NAMES
from dfdc_video.registry import AUGMENTATIONS, FREEZING, LOSSES, MODELS, OPTIMIZERS, SAMPLERS
from dfdc_video.training.callbacks import Freezing, LearningRates, RandomState, SampleClips
from dfdc_video.training.freezing import Freezer, Layout, parameter_table
from dfdc_video.training.module import ClassifierModule
from dfdc_video.training.optim import Rates, stage_factors
from dfdc_video.writer import VideoWriter

log = logging.getLogger(__name__)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # devices found, tips, "max_epochs reached": nothing that a run needs
for noise in ("does not have many workers", "is smaller than the logging interval", "`isinstance.treespec", "Checkpoint directory"):
    warnings.filterwarnings("ignore", message=f".*{noise}")
MONITOR = "video/log_loss"
VIDEO_COLUMNS = ["video_id", "label", "method", "group_id", "status"]


def clip_spec(cfg: CfgNode) -> ClipSpec:
    return ClipSpec(**{k.lower(): v for k, v in cfg.CLIP.items()})


def load_manifest(cfg: CfgNode) -> Manifest:
    if not cfg.DATA.PATH:
        raise ValueError("DATA.PATH is empty: give the --out folder of `dfdc-video prepare`, for example DATA.PATH prepared/dfdc")
    return Manifest.load(cfg.DATA.PATH, boxes=False)


def build_data(cfg: CfgNode, manifest: Manifest) -> ClipData:
    return ClipData(
        manifest,
        clip_spec(cfg),
        sampler=partial(SAMPLERS.get(cfg.SAMPLER.NAME), **keywords(cfg.SAMPLER)),
        augment=AUGMENTATIONS.get(cfg.AUGMENT.NAME)(**keywords(cfg.AUGMENT)),
        batch_size=cfg.TRAIN.BATCH_SIZE,
        test_batch_size=cfg.TEST.BATCH_SIZE,
        num_clips=cfg.TEST.NUM_CLIPS,
        seed=cfg.SEED,
        num_workers=cfg.DATA.NUM_WORKERS,
        decoder=cfg.DATA.DECODER,
        cache=cfg.DATA.CACHE,
    )


def build_model(cfg: CfgNode, num_classes: int, *, checkpoint_follows: bool = False) -> VideoClassifier:
    """The network of a config with fresh weights, or timm's where the config says so and no checkpoint replaces them anyway."""
    torch.manual_seed(cfg.SEED)  # weights depend on the seed alone, not on what ran before
    settings = keywords(cfg.MODEL, tuple(SHARED["MODEL"]))
    if checkpoint_follows and "pretrained" in settings:
        settings["pretrained"] = False  # scoring or resuming a run must not need the network
    return MODELS.get(cfg.MODEL.NAME)(num_classes, cfg.CLIP.NUM_FRAMES, (cfg.CLIP.HEIGHT, cfg.CLIP.WIDTH), **settings)


GROUP_KEYS = ("LAYER_DECAY", "LR_FACTORS", "NO_DECAY_NORM")  # of OPTIM: about parameters, not about steps


def build_factors(cfg: CfgNode, model: VideoClassifier) -> dict[str, float]:
    """Stage -> multiple of the base rate."""
    return stage_factors(model.stages(), layer_decay=cfg.OPTIM.LAYER_DECAY, lr_factors=cfg.OPTIM.LR_FACTORS)


def build_freezer(cfg: CfgNode, model: VideoClassifier, steps_per_epoch: int) -> Freezer:
    """The freezing policy of a config for a model; ValueError where it does not suit the model or the run."""
    layout = Layout.of(model, steps_per_epoch=steps_per_epoch, total_steps=cfg.TRAIN.EPOCHS * steps_per_epoch)
    policy = FREEZING.get(cfg.FREEZE.NAME)(layout, **keywords(cfg.FREEZE, tuple(SHARED["FREEZE"])))
    return Freezer(model, policy, freeze_bn=cfg.FREEZE.FREEZE_BN)


def describe_parameters(cfg: CfgNode, model: VideoClassifier, freezer: Freezer) -> str:
    """The parameter table of a run: what trains when, and how fast."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    table = parameter_table(model.stages(), sizes, freezer.policy, build_factors(cfg, model))
    return f"{table}\nBatchNorm statistics are frozen throughout" if cfg.FREEZE.FREEZE_BN else table


def build_rates(cfg: CfgNode, steps_per_epoch: int) -> Rates:
    """The rates of a config; ValueError where its schedule contradicts itself."""
    optim = {k.lower(): v for k, v in cfg.OPTIM.items() if k in SHARED["OPTIM"] and k not in GROUP_KEYS}
    return Rates.build(**optim, epochs=cfg.TRAIN.EPOCHS, steps_per_epoch=steps_per_epoch)


def check(cfg: CfgNode, *, tested: bool = True) -> Manifest:
    """What can be refused before anything is made: the schedule, the data set, the starting weights. Returns the manifest.

    With `tested` a data set without a test split, or with one that was merged into train, is refused, too: nothing could be compared.
    """
    build_rates(cfg, 1)
    manifest = load_manifest(cfg)
    untested = _without_test(manifest)
    if untested and tested:
        raise ValueError(untested)
    for split in SPLIT_NAMES[: 2 if untested else 3]:
        classes = sorted(manifest.videos_of(split)["label"].unique())
        if len(classes) < 2:
            found = f"one class only (label {classes[0]})" if classes else "no video"
            raise ValueError(f"{manifest.root}: the {split} split has {found}; a classifier needs two: prepare more videos or change --ratios")
    if cfg.MODEL.INIT_FROM:
        find_weights(cfg.MODEL.INIT_FROM)
    return manifest


MERGED = "merged its test split into train for a last fit: test scores would be meaningless"


def _without_test(manifest: Manifest) -> str:
    """Why a data set cannot be tested on, or nothing."""
    if manifest.summary.get("merged"):
        return f"{manifest.root} {MERGED}"
    return "" if len(manifest.videos_of("test")) else f"{manifest.root} has no test split: the test split has no video"


def build_module(cfg: CfgNode, manifest: Manifest, *, steps_per_epoch: int = 0, checkpoint_follows: bool = False) -> ClassifierModule:
    """Model, loss, optimiser and rates of a config; without `steps_per_epoch` a module for scoring only."""
    model = build_model(cfg, manifest.num_classes, checkpoint_follows=checkpoint_follows).channels_last()
    factors = build_factors(cfg, model)
    by_parameter = {name: factors[stage] for stage, names in model.stages().items() for name in names}
    make = partial(OPTIMIZERS.get(cfg.OPTIM.NAME), factors=by_parameter, no_decay_norm=cfg.OPTIM.NO_DECAY_NORM)
    return ClassifierModule(
        model,
        loss=LOSSES.get(cfg.LOSS.NAME)(**keywords(cfg.LOSS)),
        optimizer=partial(make, **keywords(cfg.OPTIM, tuple(SHARED["OPTIM"]))),
        rates=build_rates(cfg, steps_per_epoch) if steps_per_epoch else None,
        videos={split: manifest.videos_of(split)[VIDEO_COLUMNS] for split in ("val", "test")},
        pooling=cfg.TEST.POOLING,
        max_bad_fraction=cfg.DATA.MAX_BAD_FRACTION,
    )


def precision(cfg: CfgNode) -> str:
    if cfg.TRAIN.PRECISION != "auto":
        return cfg.TRAIN.PRECISION
    return "bf16-mixed" if bf16_is_native() else "32-true"


def _wandb(cfg: CfgNode, folder: Path, name: str, manifest: Manifest) -> list[Logger]:
    """W&B logger, or none where it is disabled. Its run id is kept in the run folder, so that a resumed run stays one run."""
    if cfg.WANDB.MODE == "disabled":
        return []
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    if cfg.WANDB.MODE == "online" and not wandb.api.api_key:
        raise ValueError("WANDB.MODE online needs an account: run `wandb login` or set WANDB_API_KEY, or use WANDB.MODE offline")
    id_file = folder / "wandb_id.txt"
    if not id_file.is_file():
        write_atomic(id_file, wandb.util.generate_id() + "\n")
    logger = WandbLogger(
        project=cfg.WANDB.PROJECT,
        name=cfg.WANDB.NAME or name,
        group=cfg.WANDB.GROUP or None,
        id=id_file.read_text(encoding="utf-8").strip(),
        save_dir=str(folder),
        offline=cfg.WANDB.MODE == "offline",
        resume="allow",
        settings=wandb.Settings(x_disable_stats=True, silent=True),
    )
    settings = {**to_dict(cfg), "split_hash": manifest.split_hash, "config_hash": config_hash(cfg)}
    logger.experiment.config.update(settings, allow_val_change=True)
    return [logger]


def write_samples(frames: torch.Tensor, labels: Sequence[int], video_ids: Sequence[str], folder: Path, *, fps: float, most: int = 8) -> list[Path]:
    """The first clips of a batch (B, C, T, H, W) uint8 as small videos: what the model is really shown, augmentation included."""
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
    """Every (resumed) part of the CSV log as one metrics.csv; a step that was run twice counts once, as it was run last."""
    files = sorted(folder.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    parts = [pd.read_csv(p) for p in files if p.stat().st_size]
    if not parts:
        return
    table = pd.concat(parts, ignore_index=True).groupby(["epoch", "step"], as_index=False).last()
    write_atomic(folder / "metrics.csv", table.to_csv(index=False))


def _trainer(cfg: CfgNode, folder: Path, *, loggers: list[Logger], callbacks: list[Any], quiet: bool) -> L.Trainer:
    import sys

    bar = RichProgressBar(leave=False) if sys.stderr.isatty() else TQDMProgressBar(refresh_rate=50)
    return L.Trainer(
        default_root_dir=folder,
        accelerator="auto",
        devices=1,
        max_epochs=cfg.TRAIN.EPOCHS,
        precision=precision(cfg),  # type: ignore[arg-type]
        gradient_clip_val=cfg.TRAIN.GRAD_CLIP or None,
        logger=loggers,
        callbacks=[*callbacks, *([] if quiet else [bar])],
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the batch samplers are complete as they are
        log_every_n_steps=20,
        benchmark=True,
    )


def train(cfg: CfgNode, folder: Path, *, name: str, resume: bool = False, quiet: bool = False, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fit, keep the checkpoint with the best validation `video/log_loss`, score the test split with it, write the run folder.

    On a data set without a test split, or that merged it into train, the validation split is scored instead, into the folder `val`.
    `extra` (experiment, arm) goes into report.json. Returns the report. Raises KeyboardInterrupt when stopped; `resume` continues.
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
    loaded = load_weights(module.model, cfg.MODEL.INIT_FROM, keep_head=cfg.MODEL.KEEP_HEAD) if starts_from else None
    folder = _claim(Path(folder), cfg, manifest, resume=resume)  # only now: whatever was refused has left nothing behind
    if loaded:
        log.info("%s", loaded)
        write_atomic(folder / "init_from.txt", f"{loaded}\n")
    log.info("%s", table)
    write_atomic(folder / "parameters.txt", f"{table}\n")
    write_atomic(folder / "environment.json", json.dumps(environment(), indent=2) + "\n")
    checkpoints = partial(ModelCheckpoint, folder / "checkpoints", enable_version_counter=False, save_on_train_epoch_end=False)
    best = checkpoints(filename="best", monitor=MONITOR, mode="min")
    last = checkpoints(filename="last")  # of its own: save_last of the one above writes only where the metric improved
    step = checkpoints(filename="step", every_n_train_steps=cfg.TRAIN.CHECKPOINT_EVERY_STEPS)
    stride = cfg.CLIP.STRIDE_FRAMES / 30 if cfg.CLIP.STRIDE_FRAMES else cfg.CLIP.STRIDE_SECONDS
    samples = SampleClips(folder, partial(write_samples, fps=1 / stride))
    loggers = [CSVLogger(folder, name="logs"), *_wandb(cfg, folder, name, manifest)]
    callbacks = [best, last, step, RandomState(), LearningRates(), samples]
    if cfg.FREEZE.NAME != "none" or cfg.FREEZE.FREEZE_BN:
        callbacks.append(Freezing(freezer))
    trainer = _trainer(cfg, folder, loggers=loggers, callbacks=callbacks, quiet=quiet)
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
    report = score(folder, split=split, quiet=quiet, extra={"name": name, "train_seconds": round(seconds, 1), **(extra or {})})
    for logger in loggers[1:]:
        logger.log_metrics({f"{split}/{k}": v["value"] for k, v in report["metrics"].items() if v["value"] is not None})
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
            raise ValueError(f"{folder} was started with other settings ({hashes}); resume it as it was, or choose another --out")
        return folder
    if config.is_file():
        raise ValueError(f"{folder} already holds a run; continue it with --resume {folder}, or choose another --out")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_atomic(config, text)
    data = {"path": str(manifest.root.resolve()), "split_hash": manifest.split_hash, "merged": manifest.summary.get("merged", "")}
    write_atomic(folder / "data.json", json.dumps(data) + "\n")
    return folder


def _newest_checkpoint(folder: Path) -> str | None:
    """The later of last.ckpt (end of an epoch) and step.ckpt (within one); none where the run was stopped before the first."""
    files = [p for p in (folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "step.ckpt") if p.is_file()]
    return str(max(files, key=lambda p: p.stat().st_mtime_ns)) if files else None


def best_checkpoint(folder: Path) -> Path:
    checkpoint = Path(folder) / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        cure = f"continue it with `dfdc-video train --resume {folder}`"
        raise FileNotFoundError(f"{folder} has no checkpoints/best.ckpt: the run did not finish an epoch; {cure}")
    return checkpoint


def load_run(folder: str | Path) -> VideoClassifier:
    """The model of a run folder with the weights of its best checkpoint, in evaluation mode; its data set is not needed."""
    cfg, checkpoint = load_dump(Path(folder) / "config.yaml"), best_checkpoint(Path(folder))
    state = read_state(checkpoint)[0]
    head = f"{build_model(cfg, 2, checkpoint_follows=True).head_names[0]}.weight"
    model = build_model(cfg, len(state[head]), checkpoint_follows=True)
    load_weights(model, checkpoint, keep_head=True)
    return model.eval()


def score(folder: Path, *, split: str = "test", quiet: bool = False, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Score a split with a run's best checkpoint and write predictions.csv, videos.csv, scores.csv, report.json.

    The files of the test split lie in the run folder itself, those of another split in a folder of its name. ValueError where the data set was
    split anew since training: then trained-on videos may be among the tested; and for test where it was merged into train.
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
        raise ValueError(f"{folder} was trained on split {trained_on}, {now}: trained-on videos may be among the tested")
    data = build_data(cfg, manifest)
    module = build_module(cfg, manifest, checkpoint_follows=True)
    module.videos["test"] = manifest.videos_of(split)[VIDEO_COLUMNS]
    load_weights(module.model, checkpoint, keep_head=True)
    loader_trainer = _trainer(cfg, folder, loggers=[], callbacks=[], quiet=quiet)
    started = time.monotonic()
    loader_trainer.test(module, dataloaders=data.views(split), verbose=False)
    out = folder if split == "test" else folder / split
    out.mkdir(exist_ok=True)
    previous = json.loads((out / "report.json").read_text(encoding="utf-8")) if (out / "report.json").is_file() else {}
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
