"""State dicts of PySlowFast (also in Caffe2 files), efficientnet_pytorch, pytorchvideo's zoo and timm under
our names; see `write` for the opposite direction.

The mapping is derived from the model to be filled (see `names`). What cannot be mapped name by name is
computed here and noted: a norm that only one of the libraries has, a head with one output for a model with
two.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from timm.layers import Conv2dSame, resample_abs_pos_embed
from torch import nn

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.weights.names import caffe2_names, efficientnet_names, pyslowfast_names

ZOO_PREFIX, TIMM_PREFIX = "network.body.", "network.backbone."
CAFFE2 = "Caffe2"
PYSLOWFAST_EPS = 1e-5  # of every norm of PySlowFast
EFFICIENTNET_EPS = 1e-3  # of every norm of efficientnet_pytorch, as in TensorFlow
SHORTCUT_NORM = re.compile(r"(s\d+\.pathway\d+_res\d+)\.branch1_bn\.")


@runtime_checkable
class InterpolatesPositions(Protocol):
    """A network whose position embeddings can be interpolated: `mvit`."""

    def interpolate_positions(self, state: dict[str, torch.Tensor], prefix: str) -> list[str]: ...


@dataclass
class Converted:
    """Tensors under our names; those without one keep theirs. `left_out`: name -> reason; `notes`: remarks
    for the user.
    """

    state: dict[str, torch.Tensor]
    source: str
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def to_our_names(
    model: VideoClassifier, state: dict[str, torch.Tensor], source: str, *, keep_head: bool
) -> Converted:
    """Rename the tensors of a file as in `model` (our own names stay) and interpolate position embeddings to
    the model's size.
    """
    result = _renamed_by_source(model, state, source, keep_head=keep_head)
    if isinstance(model.network, InterpolatesPositions):
        result.notes.extend(model.network.interpolate_positions(result.state, "network."))
    else:
        _interpolate_timm_positions(model, result)
    return result


def _interpolate_timm_positions(model: VideoClassifier, result: Converted) -> None:
    """Interpolate position embeddings of timm's vision transformers for another image size as timm does:
    bicubic, from a square grid.
    """
    backbone, name = getattr(model.network, "backbone", None), f"{TIMM_PREFIX}pos_embed"
    table, wanted = result.state.get(name), getattr(backbone, "pos_embed", None)
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if (
        table is None
        or wanted is None
        or grid is None
        or table.ndim != 3
        or table.shape == wanted.shape
        or not table.is_floating_point()
    ):
        return
    prefix = 0 if getattr(backbone, "no_embed_class", False) else getattr(backbone, "num_prefix_tokens", 1)
    side = math.isqrt(max(table.shape[1] - prefix, 0))
    if side and side * side == table.shape[1] - prefix and prefix + math.prod(grid) == wanted.shape[1]:
        result.state[name] = resample_abs_pos_embed(table.float(), list(grid), num_prefix_tokens=prefix)
        result.notes.append(
            f"position embeddings interpolated from {side} x {side} to {grid[0]} x {grid[1]} patches"
        )


def _renamed_by_source(
    model: VideoClassifier, state: dict[str, torch.Tensor], source: str, *, keep_head: bool
) -> Converted:
    if source == CAFFE2:
        return _from_caffe2(model, state)
    if any(name.startswith("network.") for name in state):
        return Converted(state, source)
    if any(name.startswith("s1.pathway0_stem.") for name in state):
        return _from_pyslowfast(model, state, f"PySlowFast, {source}")
    if "_conv_stem.weight" in state:
        return _from_efficientnet(model, state, f"efficientnet_pytorch, {source}", keep_head=keep_head)
    for prefix, kind in ((ZOO_PREFIX, "pytorchvideo"), (TIMM_PREFIX, "timm")):
        if any(name.startswith(prefix) for name in model.state_dict()):
            return Converted({prefix + name: t for name, t in state.items()}, f"{kind}, {source}")
    return Converted(state, source)


def inner_names(model: VideoClassifier, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in model.state_dict() if name.startswith(prefix)]


def _from_pyslowfast(model: VideoClassifier, state: dict[str, torch.Tensor], source: str) -> Converted:
    ours = {
        theirs: ZOO_PREFIX + name for name, theirs in pyslowfast_names(inner_names(model, ZOO_PREFIX)).items()
    }
    result = Converted({ours.get(name, name): t for name, t in state.items()}, source)
    _fold_shortcut_norms(result, ours)
    return result


def _fold_shortcut_norms(result: Converted, ours: dict[str, str]) -> None:
    """Fold the norm after X3D's first shortcut, which PySlowFast has and pytorchvideo has not (the shortcut
    keeps the number of channels).

    Its scale goes into the shortcut's convolution, its offset into the bias of the norm at the end of the
    other branch, so the sum of the two branches is unchanged.
    """
    state = result.state
    nameless = (SHORTCUT_NORM.match(name) for name in state if name not in ours)
    for block in sorted({found[1] for found in nameless if found}):
        conv, other = (ours.get(f"{block}.{name}", "") for name in ("branch1.weight", "branch2.c_bn.bias"))
        leaves = ("weight", "bias", "running_mean", "running_var")
        norm = [state[name] for leaf in leaves if (name := f"{block}.branch1_bn.{leaf}") in state]
        if conv not in state or other not in state or len(norm) < 4 or len({t.shape for t in norm}) > 1:
            continue  # stays unexplained
        weight, bias, mean, var = (t.double() for t in norm)
        scale = weight / (var + PYSLOWFAST_EPS).sqrt()
        if len(scale) != len(state[conv]) or scale.shape != state[other].shape:
            continue
        state[conv] = (state[conv].double() * scale.view(-1, *[1] * (state[conv].ndim - 1))).float()
        state[other] = (state[other].double() + bias - mean * scale).float()
        for name in [n for n in state if n.startswith(f"{block}.branch1_bn.")]:
            del state[name]
            result.left_out[name] = (
                "folded into the convolution of its shortcut and the bias beside it; pytorchvideo has no "
                "norm there"
            )


def _from_caffe2(model: VideoClassifier, state: dict[str, torch.Tensor]) -> Converted:
    zoo = pyslowfast_names(inner_names(model, ZOO_PREFIX))
    blobs = caffe2_names(zoo.values())
    ours = {blobs[theirs]: ZOO_PREFIX + name for name, theirs in zoo.items() if theirs in blobs}
    target, result = model.state_dict(), Converted({}, "Caffe2 of PySlowFast")
    for name, tensor in state.items():
        if name.endswith("_momentum") or name in ("lr", "model_iter"):
            result.left_out[name] = "state of the optimiser, no weight"
            continue
        ours_name = ours.get(name, name)
        wanted = target.get(ours_name)
        if wanted is not None and tensor.ndim < wanted.ndim and tensor.numel() == wanted.numel():
            # a linear layer for a 1x1x1 convolution
            tensor = tensor.reshape(*tensor.shape, *[1] * (wanted.ndim - tensor.ndim))
        result.state[ours_name] = tensor
    return result


def _from_efficientnet(
    model: VideoClassifier, state: dict[str, torch.Tensor], source: str, *, keep_head: bool
) -> Converted:
    backbone = getattr(model.network, "backbone", None)
    # named here, since a network without a classifier leaves them out with a reason of its own
    behind = [
        f"{module}.{leaf}" for module in ("conv_head", "bn2", "classifier") for leaf in ("weight", "bias")
    ]
    names = (
        efficientnet_names(dict.fromkeys([*inner_names(model, TIMM_PREFIX), *behind]))
        if backbone is not None
        else {}
    )
    ours = {other: TIMM_PREFIX + name for name, others in names.items() for other in others}
    result = Converted({ours.get(name, name): t for name, t in state.items()}, source)
    if backbone is None or not hasattr(backbone, "conv_stem"):
        return result
    eps = {m.eps for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)}
    if eps != {EFFICIENTNET_EPS}:
        found = ", ".join(map(str, sorted(eps)))
        need = f"weights of efficientnet_pytorch need norms with eps {EFFICIENTNET_EPS}"
        raise ValueError(f"{need}, this backbone has {found}: use tf_efficientnet_b0 to b8")
    if any(isinstance(m, Conv2dSame) for m in backbone.modules()):
        result.notes.append(
            "efficientnet_pytorch pads for its nominal image size, this model for its input's size: they "
            "differ where maps have odd sizes; set static_padding_px (224 for B0, 600 for B7) for the "
            "original padding"
        )
    head = [f"{TIMM_PREFIX}classifier.{leaf}" for leaf in ("weight", "bias")]
    if (
        keep_head
        and model.num_classes == 2
        and all(n in result.state and len(result.state[n]) == 1 for n in head)
    ):
        for name in head:
            result.state[name] = torch.cat((torch.zeros_like(result.state[name]), result.state[name]))
        result.notes.append(
            "the head's one output is the logit of class 1, the logit of class 0 is 0: the softmax of "
            "both is the original's sigmoid"
        )
    return result
