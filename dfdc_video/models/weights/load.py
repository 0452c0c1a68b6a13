"""Load a checkpoint into a model and account for every tensor: matched, left out or missing, and why.

Weights only (MODEL.INIT_FROM): optimiser, epoch and counters of a run are restored by Lightning (`--resume`).
Files are read with `weights_only`, so that a pickle cannot execute code. A tensor that cannot be accounted
for is an error, never a warning.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.models.efficientnet3d import inflated
from dfdc_video.models.weights.convert import CAFFE2, TIMM_PREFIX, Converted, to_our_names
from dfdc_video.models.weights.fetch import find_file
from dfdc_video.models.weights.from_timm import is_timm, timm_state
from dfdc_video.models.weights.unpickle import is_torch, read_caffe2

WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
WRAPPED = re.compile("^(?:" + "|".join(map(re.escape, WRAPPERS)) + ")+")
NO_HEAD = "the file has no head of this model (keep_head=True)"


@dataclass(frozen=True)
class LoadReport:
    """What happened to every tensor. `left_out` are tensors of the file, `missing` tensors of the model, each
    with the reason; `notes` name conversions and anything else that may change the outputs.
    """

    path: str
    source: str  # the format of the file
    matched: list[str]
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    inflated: list[str] = field(default_factory=list)  # matched and inflated to a temporal kernel
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            (
                f"{len(self.matched)} tensors from {self.path} ({self.source}), {len(self.inflated)} of them "
                "inflated over time"
            )
        ]
        for title, names in (("left out", self.left_out), ("not in the file", self.missing)):
            by_reason: dict[str, list[str]] = {}
            for name, reason in names.items():
                by_reason.setdefault(reason, []).append(name)
            lines.extend(
                f"{title}: {len(group)} ({group[0]}{', …' if len(group) > 1 else ''}): {reason}"
                for reason, group in by_reason.items()
            )
        return "\n".join(lines + self.notes)


def load_weights(model: VideoClassifier, path: str | Path, *, keep_head: bool = False) -> LoadReport:
    """Load the weights at `path` into `model`, in place.

    `path` is a file, `URL#sha256=HEX`, or `timm:NAME` for timm's own weights of that name. Accepted are our
    checkpoints and state dicts of any family, state dicts of timm (`.pth`, `.safetensors`), pytorchvideo's
    zoo (`.pyth`), PySlowFast's checkpoints (`.pyth`, and `.pkl` of Caffe2), and EfficientNets of
    efficientnet_pytorch and of NTech's DFDC solution. 2D weights of the same backbone are inflated to the
    temporal kernels of EfficientNet-3D (divided by the kernel length) or become the backbone of a CNN-LSTM;
    MViT's position embeddings are interpolated for clips of another size. Half and double precision are
    converted to the model's. The head keeps its initialisation unless `keep_head`; then it must fit.
    ValueError if the file is not a checkpoint, belongs to another architecture or contains NaN or infinity;
    the model is then unchanged.
    """
    foreign: dict[str, str] = {}
    if is_timm(path):
        converted = _from_timm(model, str(path))
    else:
        state, source, foreign = read_state(path)
        converted = to_our_names(model, state, source, keep_head=keep_head)
    loaded, report = match(
        model, converted.state, path=str(path), source=converted.source, keep_head=keep_head
    )
    report.left_out.update({**foreign, **converted.left_out})
    report.notes.extend(converted.notes)
    model.load_state_dict({**model.state_dict(), **loaded})
    return report


def _from_timm(model: VideoClassifier, path: str) -> Converted:
    _, _, height, width = model.clip_shape
    state, name, config = timm_state(path, (height, width))
    result = Converted({TIMM_PREFIX + n: t for n, t in state.items()}, f"timm {name}")
    ours = [tuple(round(v, 4) for v in values.flatten().tolist()) for values in (model.mean, model.std)]
    theirs = [tuple(round(v, 4) for v in values) for values in (config.mean, config.std)]
    if ours != theirs:
        result.notes.append(
            f"{name} was trained on pixels of mean {theirs[0]} and std {theirs[1]}, this model takes "
            f"{ours[0]} and {ours[1]}: "
            f"set MODEL.BACKBONE {name} for its own"
        )
    return result


def read_state(path: str | Path) -> tuple[dict[str, torch.Tensor], str, dict[str, str]]:
    """Tensors by name, the kind of file, and the tensors that are not of the model (name -> reason)."""
    path = find_file(path)
    if path.suffix == ".pkl" and not is_torch(path):
        return read_caffe2(path), CAFFE2, {}
    content = _read(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, expected a state dict or a checkpoint with one"
        )
    source, foreign = "state dict", {}
    if isinstance(content.get("state_dict"), Mapping):
        source = "Lightning checkpoint"
        inner = _unwrapped(path, content["state_dict"])
        state = {name.removeprefix("model."): t for name, t in inner.items() if name.startswith("model.")}
        foreign = {
            name: "part of the training, not of the model" for name in inner if not name.startswith("model.")
        }
        if not state:
            state, source, foreign = dict(inner), "state dict of a checkpoint", {}
    elif isinstance(content.get("model_state"), Mapping):
        state, source = dict(content["model_state"]), "model_state of a checkpoint"
    else:
        state = dict(content)
    state = _unwrapped(path, state)
    strange = [str(name) for name, t in state.items() if not isinstance(t, torch.Tensor)]
    if strange or not state:
        raise ValueError(
            f"{path} is no state dict: {', '.join(strange[:3]) or 'nothing in it'}; expected names with "
            "tensors"
        )
    return state, source, foreign


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except Exception as error:  # its own error, or what a damaged header leads to
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
            raise ValueError(
                f"{path} is no safetensors file or is damaged ({reason}); download it again"
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message has many lines, with the refused name somewhere among them
        if "Unsupported global" in str(error):
            raise ValueError(
                f"{path} holds Python objects besides tensors: refused, no code was executed; save its "
                "state dict alone"
            ) from error
        raise ValueError(f"{path} is no torch checkpoint or is damaged; download or save it again") from error
    except Exception as error:  # damaged data can raise any error of the constructors that it calls
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
        raise ValueError(
            f"{path} is no torch checkpoint or is damaged ({reason}); download or save it again"
        ) from error


def _unwrapped(path: Path, state: Mapping) -> dict[str, Any]:
    """Names without the prefixes of DistributedDataParallel and torch.compile, in any order."""
    result = {WRAPPED.sub("", str(name)): t for name, t in state.items()}
    if len(result) < len(state):
        raise ValueError(
            f"{path} has tensors of one name with and without the prefix {' or '.join(WRAPPERS)}; save one "
            "of the two models only"
        )
    return result


def _within(name: str, prefixes: Iterable[str]) -> str | None:
    """The prefix, a whole module name, that `name` is under; None if there is none."""
    return next((p for p in prefixes if name == p or name.startswith(p + ".")), None)


def match(
    model: VideoClassifier, state: dict[str, torch.Tensor], *, path: str, source: str, keep_head: bool
) -> tuple[dict[str, torch.Tensor], LoadReport]:
    """Match the tensors of a file with those of a model, in the precision of the model; ValueError
    if any tensor of either remains unexplained.
    """
    report = LoadReport(path, source, [])
    loaded, unexplained = _take(model, state, report, keep_head=keep_head)
    absent = {p for p in model.new_names if not any(_within(name, (p,)) for name in state)}
    target = model.state_dict()
    for name in target:
        if name in loaded:
            report.matched.append(name)
        elif _within(name, model.head_names) and not (keep_head and name in state):
            report.missing[name] = "classifier head, initialised anew"
        elif _within(name, absent):
            report.missing[name] = "the file has no such part, initialised anew"
        elif name.endswith("num_batches_tracked") and name not in state:
            report.missing[name] = "a counter that older checkpoints do not have"
        elif name not in state:
            unexplained.append(f"{name} is not in the file")
    if keep_head and any(_within(name, model.head_names) for name in report.missing):
        unexplained.append(NO_HEAD)
    if unexplained:
        body = [n for n in target if not _within(n, model.head_names) and not _within(n, absent)]
        share = sum(n in loaded for n in body) / len(body)
        problem = "is a checkpoint of another architecture" if share < 0.5 else "does not fit the model"
        in_head = all(text == NO_HEAD or _within(text.split()[0], model.head_names) for text in unexplained)
        more = f"; and {len(unexplained) - 3} more" if len(unexplained) > 3 else ""
        advice = (
            "set MODEL.KEEP_HEAD False to start with a new head"
            if in_head
            else "check MODEL.NAME and its settings"
        )
        raise ValueError(
            f"{path} ({source}) {problem}: {len(report.matched)} of {len(target)} tensors match; "
            f"{'; '.join(unexplained[:3])}{more}; {advice}"
        )
    _check_finite(loaded, path)
    return loaded, report


def _take(
    model: VideoClassifier, state: dict[str, torch.Tensor], report: LoadReport, *, keep_head: bool
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of a file that the model takes, and what is wrong with those that it cannot take;
    the report gets those that are left out or inflated.
    """
    target = model.state_dict()
    loaded: dict[str, torch.Tensor] = {}
    unexplained: list[str] = []
    for name, tensor in state.items():
        unused = _within(name, model.unused)
        if _within(name, model.head_names) and not keep_head:
            report.left_out[name] = "classifier head, initialised anew (keep_head=False)"
        elif name not in target and unused:
            report.left_out[name] = model.unused[unused]
        elif name not in target:
            unexplained.append(f"{name} is not in the model")
        elif problem := _not_weights(tensor, target[name]):
            unexplained.append(f"{name} {problem}")
        elif tensor.shape == target[name].shape:
            loaded[name] = tensor.to(target[name].dtype)
        elif (wide := _inflate(tensor, target[name])) is not None:
            loaded[name] = wide
            report.inflated.append(name)
        else:
            unexplained.append(
                f"{name} has the shape {tuple(tensor.shape)}, expected {tuple(target[name].shape)}"
            )
    return loaded, unexplained


def _not_weights(tensor: torch.Tensor, target: torch.Tensor) -> str:
    """Why a tensor cannot provide the values of `target`, or ''."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return (
            "holds no values"
            if tensor.is_meta
            else f"has the layout {tensor.layout}, expected a dense tensor"
        )
    if tensor.is_complex() or (target.is_floating_point() and not tensor.is_floating_point()):
        found, wanted = (str(t.dtype).removeprefix("torch.") for t in (tensor, target))
        return f"is of {found}, expected {wanted}: quantised weights are not supported"
    return ""


def _check_finite(loaded: Mapping[str, torch.Tensor], path: str) -> None:
    bad = [name for name, t in loaded.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise ValueError(
            f"{path} holds NaN or infinity in {len(bad)} of its tensors ({bad[0]}): from a run that "
            "diverged, or damaged; take another"
        )


def _inflate(tensor: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """A Conv2d weight inflated to the (k, h, w) kernel `target`; None if the shapes do not allow it."""
    if (
        tensor.ndim == 4
        and target.ndim == 5
        and tensor.shape[2:] == target.shape[3:]
        and tensor.shape[:2] == target.shape[:2]
    ):
        return inflated(tensor.float(), target.shape[2]).to(target.dtype)
    return None
