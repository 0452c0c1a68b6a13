"""Config -> objects: data, network, learning rates, freezing, loss and trainer of a run. The rooms below take
plain keyword arguments.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from yacs.config import CfgNode

from dfdc_video.config import config_hash, keywords, to_dict
from dfdc_video.config.schema import SHARED
from dfdc_video.data.datamodule import ClipData
from dfdc_video.data.sampling import ClipSpec
from dfdc_video.environment import bf16_is_native
from dfdc_video.folders.manifest import Manifest
from dfdc_video.folders.prepared import load_prepared
from dfdc_video.folders.run import SCORED_COLUMNS, RunFolder
from dfdc_video.models.classifier import VideoClassifier, build_classifier
from dfdc_video.models.mask import add_mask_head
from dfdc_video.registry import AUGMENTATIONS, FREEZING, LOSSES, OPTIMIZERS, SAMPLERS
from dfdc_video.training.freezer import Freezer, parameter_table
from dfdc_video.training.freezing import Layout
from dfdc_video.training.module import ClassifierModule
from dfdc_video.training.optimisers import stage_factors
from dfdc_video.training.schedules import LRSchedule

# warnings of Lightning and PyTorch that are about choices made here on purpose
EXPECTED_WARNINGS = (
    "does not have many workers",
    "in eval mode at the start",
    "smaller than the logging",
    "isinstance.treespec",
    "Checkpoint directory",
)


def silence_lightning() -> None:
    """No reports of devices, tips or "max_epochs reached", and no expected warnings; idempotent."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for text in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{text}")


def clip_spec(cfg: CfgNode) -> ClipSpec:
    return ClipSpec(**{k.lower(): v for k, v in cfg.CLIP.items()})


def load_manifest(cfg: CfgNode) -> Manifest:
    if not cfg.DATA.PATH:
        raise ValueError(
            "DATA.PATH is empty: give the --out folder of `dfdc-video prepare`, for example DATA.PATH "
            "prepared/dfdc"
        )
    return load_prepared(cfg.DATA.PATH, boxes=False)


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
        masks=cfg.MASK.THRESHOLD if cfg.MASK.WEIGHT else None,
    )


def embed(data: ClipData, model: VideoClassifier, splits: Sequence[str], *, quiet: bool) -> None:
    """Let `data` serve per-frame embeddings of these splits, from the frozen part of `model`; what is not
    cached yet is computed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = model.training
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with torch.inference_mode(), Progress(*columns, disable=quiet) as bar:
        task = bar.add_task("embedding tracks", total=None)
        model.to(device).eval()
        data.embed(
            splits,
            key=model.embedding_key(),
            embed=lambda frames: model.embed(frames.to(device)),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    model.train(training)


def model_of(cfg: CfgNode, num_classes: int, *, checkpoint_follows: bool = False) -> VideoClassifier:
    """The network of a config, with fresh weights or, where the config says so, those of timm, unless a
    checkpoint replaces them anyway.
    """
    torch.manual_seed(cfg.SEED)  # initial weights depend on the seed alone
    settings = keywords(cfg.MODEL, tuple(SHARED["MODEL"]))
    if checkpoint_follows and "pretrained" in settings:
        settings["pretrained"] = False  # scoring or resuming a run must not need the internet
    size = (cfg.CLIP.HEIGHT, cfg.CLIP.WIDTH)
    model = build_classifier(cfg.MODEL.NAME, num_classes, cfg.CLIP.NUM_FRAMES, size, **settings)
    return add_mask_head(model, stage=cfg.MASK.STAGE) if cfg.MASK.WEIGHT else model


GROUP_KEYS = ("LAYER_DECAY", "LR_FACTORS", "NO_DECAY_NORM")  # of OPTIM: per parameter group, not per step


def build_factors(cfg: CfgNode, model: VideoClassifier) -> dict[str, float]:
    """Stage -> multiple of the base learning rate."""
    return stage_factors(
        model.parameters_by_stage(), layer_decay=cfg.OPTIM.LAYER_DECAY, lr_factors=cfg.OPTIM.LR_FACTORS
    )


def build_freezer(cfg: CfgNode, model: VideoClassifier, steps_per_epoch: int) -> Freezer:
    """The freezing policy of a config; ValueError where it does not fit the model or the run's length."""
    layout = Layout.of(model, steps_per_epoch=steps_per_epoch, total_steps=cfg.TRAIN.EPOCHS * steps_per_epoch)
    policy = FREEZING.get(cfg.FREEZE.NAME)(layout, **keywords(cfg.FREEZE, tuple(SHARED["FREEZE"])))
    return Freezer(model, policy, freeze_bn=cfg.FREEZE.FREEZE_BN)


def describe_parameters(cfg: CfgNode, model: VideoClassifier, freezer: Freezer) -> str:
    """The parameter table of a run: which stage trains when, at which rate."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    table = parameter_table(model.parameters_by_stage(), sizes, freezer.policy, build_factors(cfg, model))
    return f"{table}\nBatchNorm statistics are frozen throughout" if cfg.FREEZE.FREEZE_BN else table


def build_lr_schedule(cfg: CfgNode, steps_per_epoch: int) -> LRSchedule:
    """The learning-rate schedule of a config; ValueError where its schedule contradicts itself."""
    optim = {k.lower(): v for k, v in cfg.OPTIM.items() if k in SHARED["OPTIM"] and k not in GROUP_KEYS}
    return LRSchedule.from_epochs(**optim, epochs=cfg.TRAIN.EPOCHS, steps_per_epoch=steps_per_epoch)


def build_module(
    cfg: CfgNode, manifest: Manifest, *, steps_per_epoch: int = 0, checkpoint_follows: bool = False
) -> ClassifierModule:
    """The module of a config; one for scoring only without `steps_per_epoch`."""
    model = model_of(cfg, manifest.num_classes, checkpoint_follows=checkpoint_follows).channels_last()
    factors = build_factors(cfg, model)
    by_parameter = {
        name: factors[stage] for stage, names in model.parameters_by_stage().items() for name in names
    }
    make = partial(
        OPTIMIZERS.get(cfg.OPTIM.NAME), factors=by_parameter, no_decay_norm=cfg.OPTIM.NO_DECAY_NORM
    )
    return ClassifierModule(
        model,
        loss=LOSSES.get(cfg.LOSS.NAME)(**keywords(cfg.LOSS)),
        optimizer=partial(make, **keywords(cfg.OPTIM, tuple(SHARED["OPTIM"]))),
        lr_schedule=build_lr_schedule(cfg, steps_per_epoch) if steps_per_epoch else None,
        videos={split: manifest.videos_of(split)[list(SCORED_COLUMNS)] for split in ("val", "test")},
        pooling=cfg.TEST.POOLING,
        max_bad_fraction=cfg.DATA.MAX_BAD_FRACTION,
        mask_weight=cfg.MASK.WEIGHT,
    )


def precision(cfg: CfgNode) -> str:
    if cfg.TRAIN.PRECISION != "auto":
        return cfg.TRAIN.PRECISION
    return "bf16-mixed" if bf16_is_native() else "32-true"


def build_wandb(cfg: CfgNode, run: RunFolder, name: str, manifest: Manifest) -> list[Logger]:
    """W&B logger, or none where it is disabled. Its run id is kept in the run folder, so that a resumed run
    stays one run.
    """
    if cfg.WANDB.MODE == "disabled":
        return []
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    if cfg.WANDB.MODE == "online" and not wandb.api.api_key:
        raise ValueError(
            "WANDB.MODE online needs an account: run `wandb login` or set WANDB_API_KEY, or use "
            "WANDB.MODE offline"
        )
    logger = WandbLogger(
        project=cfg.WANDB.PROJECT,
        name=cfg.WANDB.NAME or name,
        group=cfg.WANDB.GROUP or None,
        id=run.wandb_id(wandb.util.generate_id),
        save_dir=str(run.path),
        offline=cfg.WANDB.MODE == "offline",
        resume="allow",
        settings=wandb.Settings(x_disable_stats=True, silent=True),
    )
    settings = {**to_dict(cfg), "split_hash": manifest.split_hash, "config_hash": config_hash(cfg)}
    logger.experiment.config.update(settings, allow_val_change=True)
    return [logger]


def build_trainer(
    cfg: CfgNode, folder: Path, *, loggers: list[Logger], callbacks: list[Any], quiet: bool
) -> L.Trainer:
    silence_lightning()
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
