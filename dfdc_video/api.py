"""Models for Python and notebooks: by the name of a model config, without a data set, a run or a command
line.

    model = dfdc_video.build_model("slowfast_r50_8x8", num_classes=400)
    print(dfdc_video.load_weights(model, "SLOWFAST_8x8_R50.pyth", keep_head=True))
    logits = model.eval()(frames)      # uint8 (B, C, T, H, W) -> (B, num_classes)
"""

from __future__ import annotations

from typing import Any

from dfdc_video.config import complete, config_names, find_config, keywords, merge, read_tree
from dfdc_video.config.schema import PLAIN, SHARED
from dfdc_video.models.classifier import VideoClassifier, build_classifier
from dfdc_video.models.weights.load import LoadReport, load_weights
from dfdc_video.models.weights.write import save_pyslowfast
from dfdc_video.registry import MODELS, nearest, settings_of

__all__ = ["LoadReport", "VideoClassifier", "build_model", "load_weights", "save_pyslowfast"]
CLIP_SETTINGS = ("num_frames", "height", "width")


def build_model(name: str, num_classes: int = 2, **overrides: Any) -> VideoClassifier:
    """The model that configs/model/NAME.yaml describes, in training mode, with fresh weights (timm's with
    `pretrained=True`).

    `overrides` are settings of its MODEL section in lower case, and `num_frames`, `height`, `width` (pixels)
    of the clip that it is built for. `num_classes` 1 gives one logit, of class 1. ValueError for a name or a
    setting that does not exist, or a value that does not fit.
    """
    known = [n.removeprefix("model/") for n in config_names("model")]
    if name not in known:
        raise ValueError(f"unknown model '{name}'; {nearest(name, known)}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes = {num_classes!r}: expected a whole number, 1 or more")
    tree = read_tree(find_config(f"model/{name}"))
    allowed = {*settings_of(MODELS.get(tree["MODEL"]["NAME"])), *CLIP_SETTINGS}
    for key in overrides:
        if key not in allowed:
            raise ValueError(f"model {name} has no setting '{key}'; {nearest(key, allowed)}")
    clip = {k.upper(): v for k, v in overrides.items() if k in CLIP_SETTINGS}
    model = {k.upper(): v for k, v in overrides.items() if k not in CLIP_SETTINGS}
    assert all(k in PLAIN["CLIP"] for k in clip), clip
    cfg = complete(merge(tree, {"CLIP": clip, "MODEL": model}))
    settings = keywords(cfg.MODEL, tuple(SHARED["MODEL"]))
    size = (cfg.CLIP.HEIGHT, cfg.CLIP.WIDTH)
    return build_classifier(cfg.MODEL.NAME, num_classes, cfg.CLIP.NUM_FRAMES, size, **settings)
