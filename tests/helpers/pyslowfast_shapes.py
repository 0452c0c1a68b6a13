"""Names and shapes of PySlowFast's networks, as its builders create them, and weights determined by those
alone.
"""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
import torch


def tensor_for(name, shape):
    """Random values seeded by the tensor's name, scaled to keep a deep network's activations in range."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    values = np.asarray(np.random.RandomState(seed).standard_normal(shape), dtype="float32")
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif name.endswith("running_mean"):
        values = 0.1 * values
    elif len(shape) == 1:
        values = 0.1 * values + (1 if name.endswith("weight") else 0)
    else:
        values = values * np.sqrt(2.0 / np.prod(shape[1:]))
    return torch.from_numpy(np.ascontiguousarray(values, dtype="float32"))


def fill(shapes):
    return {name: tensor_for(name, tuple(shape)) for name, shape in shapes.items()}


def norm(name, channels):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (channels,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def pyslowfast_resnet(temporal=((1,), (1,), (1,), (3,), (3,)), depths=(3, 4, 6, 3), width=64, classes=400):
    """Names and shapes of PySlowFast's one-pathway ResNets: Slow by default.

    `temporal`: kernel lengths of the stem and of the blocks of each stage, repeated within the stage.
    """
    state = {
        "s1.pathway0_stem.conv.weight": (width, 3, temporal[0][0], 7, 7),
        **norm("s1.pathway0_stem.bn", width),
    }
    channels = width
    for stage, depth in enumerate(depths, start=2):
        inner, out, kernels = width * 2 ** (stage - 2), 4 * width * 2 ** (stage - 2), temporal[stage - 1]
        for number in range(depth):
            block = f"s{stage}.pathway0_res{number}."
            if number == 0:
                state |= {
                    f"{block}branch1.weight": (out, channels, 1, 1, 1),
                    **norm(f"{block}branch1_bn", out),
                }
            state |= {
                f"{block}branch2.a.weight": (inner, channels, kernels[number % len(kernels)], 1, 1),
                **norm(f"{block}branch2.a_bn", inner),
            }
            state |= {
                f"{block}branch2.b.weight": (inner, inner, 1, 3, 3),
                **norm(f"{block}branch2.b_bn", inner),
            }
            state |= {f"{block}branch2.c.weight": (out, inner, 1, 1, 1), **norm(f"{block}branch2.c_bn", out)}
            channels = out
    return {**state, "head.projection.weight": (classes, channels), "head.projection.bias": (classes,)}


def rounded(width, least=8, divisor=8):
    new = max(least, int(width + divisor / 2) // divisor * divisor)
    return new + divisor if new < 0.9 * width else new


def pyslowfast_x3d(depth_factor=2.2, classes=400):
    """Names and shapes of PySlowFast's X3D-S, which has a norm in every convolutional shortcut, also where
    the width does not change.
    """
    state = {
        "s1.pathway0_stem.conv_xy.weight": (24, 3, 1, 3, 3),
        "s1.pathway0_stem.conv.weight": (24, 1, 5, 1, 1),
        **norm("s1.pathway0_stem.bn", 24),
    }
    channels = 24
    for stage, (out, depth) in enumerate(((24, 1), (48, 2), (96, 5), (192, 3)), start=2):
        inner = int(2.25 * out)
        squeezed = rounded(inner * 0.0625)
        for number in range(math.ceil(depth_factor * depth)):
            block = f"s{stage}.pathway0_res{number}."
            if number == 0:
                state |= {
                    f"{block}branch1.weight": (out, channels, 1, 1, 1),
                    **norm(f"{block}branch1_bn", out),
                }
            state |= {
                f"{block}branch2.a.weight": (inner, channels, 1, 1, 1),
                **norm(f"{block}branch2.a_bn", inner),
            }
            state |= {f"{block}branch2.b.weight": (inner, 1, 3, 3, 3), **norm(f"{block}branch2.b_bn", inner)}
            if number % 2 == 0:
                for layer, shape in (("fc1", (squeezed, inner)), ("fc2", (inner, squeezed))):
                    state |= {
                        f"{block}branch2.se.{layer}.weight": (*shape, 1, 1, 1),
                        f"{block}branch2.se.{layer}.bias": shape[:1],
                    }
            state |= {f"{block}branch2.c.weight": (out, inner, 1, 1, 1), **norm(f"{block}branch2.c_bn", out)}
            channels = out
    state |= {
        "head.conv_5.weight": (432, 192, 1, 1, 1),
        **norm("head.conv_5_bn", 432),
        "head.lin_5.weight": (2048, 432, 1, 1, 1),
    }
    return {**state, "head.projection.weight": (classes, 2048), "head.projection.bias": (classes,)}


def pyslowfast_slowfast(depths, kernel, width=64, beta_inv=8, classes=400):
    """Names and shapes of PySlowFast's SlowFast whose fusions span `kernel` frames and double the channels of
    the fast pathway.
    """
    fast = pyslowfast_resnet(((5,), (3,), (3,), (3,), (3,)), depths, width // beta_inv)
    state = {}
    for name, shape in pyslowfast_resnet(depths=depths, width=width).items():
        if re.match(r"s\d\.pathway0_res0\.(branch1|branch2\.a)\.weight", name):
            shape = (shape[0], shape[1] + 2 * shape[1] // beta_inv, *shape[2:])  # concatenated by the fusion
        state[name] = shape
    state |= {
        name.replace("pathway0", "pathway1"): shape for name, shape in fast.items() if "pathway0" in name
    }
    for stage, channels in enumerate((width, 4 * width, 8 * width, 16 * width), start=1):
        narrow = channels // beta_inv
        state |= {
            f"s{stage}_fuse.conv_f2s.weight": (2 * narrow, narrow, kernel, 1, 1),
            **norm(f"s{stage}_fuse.bn", 2 * narrow),
        }
    state["head.projection.weight"] = (classes, 32 * width + 32 * width // beta_inv)
    return state
