"""Our networks as checkpoints for other programs."""

from __future__ import annotations

from pathlib import Path

import torch

from dfdc_video.files import whole_file
from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.weights.convert import PYSLOWFAST_EPS, ZOO_PREFIX, inner_names
from dfdc_video.models.weights.names import pyslowfast_names


def save_pyslowfast(model: VideoClassifier, path: str | Path) -> Path:
    """Write a SlowFast, Slow, C2D, I3D or X3D as a checkpoint for PySlowFast: `model_state` with its names.

    It contains head and batch statistics but no optimiser state and no epoch, so PySlowFast initialises from
    it and does not resume. ValueError for other models.
    """
    # PySlowFast has no mask head
    state = {name: t for name, t in model.state_dict().items() if not name.startswith("mask_head.")}
    zoo = inner_names(model, ZOO_PREFIX)
    names = pyslowfast_names(zoo)
    nameless = [n for n in zoo if n not in names] if len(zoo) == len(state) else list(state)
    if nameless:
        raise ValueError(
            f"PySlowFast has no name for {nameless[0]} of this {type(model.network).__name__}; expected "
            "SlowFast, Slow, C2D, I3D or X3D"
        )
    theirs = {names[name]: state[ZOO_PREFIX + name].detach().cpu().clone() for name in zoo}
    for name in [n for n in theirs if n.endswith(".branch1.weight")]:
        norm = name.removesuffix(".weight") + "_bn."
        # an identity norm where PySlowFast expects one: see _fold_shortcut_norms in convert
        if f"{norm}weight" not in theirs:
            ones = torch.ones(len(theirs[name]))
            theirs |= {
                f"{norm}weight": ones,
                f"{norm}bias": 0 * ones,
                f"{norm}running_mean": 0 * ones,
                f"{norm}running_var": ones - PYSLOWFAST_EPS,
            }
            theirs[f"{norm}num_batches_tracked"] = torch.tensor(0)
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        torch.save({"model_state": theirs}, temporary)
    return path
