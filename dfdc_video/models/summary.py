"""The cost of a model: parameters, and multiply-adds of one clip.

There are two independent counts. `summarise` works on torch's meta device: seconds for the largest model, no
memory. `fvcore_flops` is fvcore's count from a trace, which needs one real forward pass, since a trace on
meta tensors misses convolutions. A test asserts that they agree.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfdc_video.models.classifier import VideoClassifier
from dfdc_video.registry import MODELS

NORMS_AND_POOLING = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "adaptive_avg_pool2d")
A_PAPER = re.compile(r"\(([A-Z][^()]*\b(?:19|20)\d\d)\)")  # (Feichtenhofer et al. 2019)


def summarise(model: VideoClassifier) -> dict[str, Any]:
    """Cost of one clip of the model's `clip_shape` in evaluation mode; the model is not changed.

    - `parameters`, `trainable`: numbers of parameters, without buffers;
    - `flops`: multiply-adds of one clip (B = 1), counted as one each, as in papers and in fvcore: those of
      convolutions, linear layers, matrix products, attention and recurrent cells. Normalisation layers,
      activations, pooling, sums and softmax are not counted, although they take time (`fvcore_flops` lists
      them);
    - `input`: (C, T, H, W).
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        on_meta(model)(torch.zeros(1, *model.clip_shape, dtype=torch.uint8, device="meta"))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops": counter.get_total_flops() // 2,  # torch counts the multiplication and the addition
        "input": tuple(model.clip_shape),
    }


def source_of(name: str, text: str = "") -> str:
    """The papers ("Authors year; …") cited in `text` (a config's first comment) and in a registered model's
    docstring; empty if there are none.
    """
    text = " ".join([*text.split(), *(inspect.getdoc(MODELS.get(name)) or "").split()])
    return "; ".join(dict.fromkeys(A_PAPER.findall(text)))


def fvcore_flops(model: VideoClassifier) -> tuple[int, dict[str, int]]:
    """fvcore's count of the same multiply-adds, and the operations that it does not count (torch name ->
    number of calls). Runs one forward pass of a black clip on the model's device.

    Recurrent cells and fused attention, unknown to fvcore, are added here; normalisation and one kind of
    pooling, which fvcore counts, are left out.
    """
    clip = torch.zeros(1, *model.clip_shape, dtype=torch.uint8, device=model.mean.device)
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            analysis = FlopCountAnalysis(model.eval(), clip)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            analysis.set_op_handle(
                **{
                    "aten::scaled_dot_product_attention": _attention,
                    "aten::lstm": _recurrent,
                    "aten::gru": _recurrent,
                }
            )
            counted = {
                operation: n
                for operation, n in analysis.by_operator().items()
                if operation not in NORMS_AND_POOLING
            }
            return int(sum(counted.values())), dict(sorted(analysis.unsupported_ops().items()))
    finally:
        for module, mode in training.items():
            module.training = mode


def on_meta(model: VideoClassifier) -> VideoClassifier:
    """A copy of the model on the meta device, in evaluation mode. Parameters and buffers are replaced during
    the copy, so that no values are copied.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
        )
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo).eval()


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Query (…, N, D), key (…, M, D), value (…, M, E): N·M·D for the scores and N·M·E for the weighted sum,
    per head and sample.
    """
    query, key, value = (get_shape(v) for v in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(inputs: list[Any], outputs: list[Any]) -> int:
    """Input (B, T, I), state, weights: every weight matrix is applied once per step of each sequence."""
    batch, steps = get_shape(inputs[0])[:2]
    weights = [get_shape(w) for w in inputs[2].node().inputs()]
    return batch * steps * sum(math.prod(shape) for shape in weights if len(shape) == 2)
