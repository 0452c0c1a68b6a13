"""Checks before a run writes anything: do settings, data set and starting weights fit together?"""

from __future__ import annotations

import torch
from yacs.config import CfgNode

from dfdc_video.folders.manifest import Manifest
from dfdc_video.models.weights.fetch import find_weights
from dfdc_video.records import SPLIT_NAMES
from dfdc_video.runs.build import build_lr_schedule, load_manifest, model_of

MERGED = "merged its test split into train for a final fit: test scores would be meaningless"


def check(cfg: CfgNode, *, tested: bool = True) -> Manifest:
    """Check schedule, network, data set and starting weights of a config; returns the manifest of its data.

    With `tested`, a data set without a test split, or one that was merged into train, is refused as well:
    there would be nothing to compare.
    """
    build_lr_schedule(cfg, 1)
    manifest = load_manifest(cfg)
    untested = why_untested(manifest)
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
        model = model_of(cfg, manifest.num_classes, checkpoint_follows=True)
    if cfg.DATA.EMBEDDINGS:
        model.need_embeddings()
    if model.frozen_names and not (cfg.MODEL.INIT_FROM or cfg.MODEL.get("PRETRAINED")):
        raise ValueError(
            f"the backbone of {cfg.MODEL.NAME} is frozen, and would stay random: set MODEL.INIT_FROM to a "
            "checkpoint of a frame model or to timm:NAME, or MODEL.PRETRAINED true"
        )
    return manifest


def why_untested(manifest: Manifest) -> str:
    """Why a data set cannot be tested on; empty where it can."""
    if manifest.summary.get("merged"):
        return f"{manifest.root} {MERGED}"
    if not len(manifest.videos_of("test")):
        return f"{manifest.root} has no video in its test split"
    return ""
