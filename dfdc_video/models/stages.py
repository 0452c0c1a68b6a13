"""Stages of a network, from its input to its head: the units of freezing and learning-rate factors."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A numbered part of a timm or pytorchvideo network: blocks.3, layer2, stages.1, block12, s4,
# features.denseblock1, features.7.
NUMBERED = re.compile(
    r"(?:features\.(?=dense))?((?:dense)?(?:block|stage|layer)s?[._]?\d+|s\d+|features\.\d+)(?=\.)"
)
BACKBONES = ("network.backbone.", "network.body.")


def group_by_stage(names: Iterable[str], *, heads: tuple[str, ...]) -> dict[str, list[str]]:
    """Stage -> names of its parameters, from input to head; each of `names` (those of `named_parameters`) is
    in exactly one stage.

    In the backbone (`network.backbone` of timm, `network.body` of pytorchvideo) each numbered part is a stage
    of that name; a backbone without numbered parts has one stage per module. Parameters before the first
    numbered part are the `stem` (without any, the first numbered part is); those between two parts belong to
    the earlier one; those after the last are the `neck`. Modules beside the backbone (`network.rnn`) are
    stages of their own; `head` holds everything under the prefixes `heads`.
    """
    names = list(names)
    head = [n for n in names if any(n == h or n.startswith(h + ".") for h in heads)]
    backbone = {n: n.removeprefix(p) for n in names for p in BACKBONES if n.startswith(p) and n not in head}
    keys = {n: match[1] if (match := NUMBERED.match(inner)) else "" for n, inner in backbone.items()}
    if not any(keys.values()):
        keys = {n: inner.removeprefix("features.").split(".")[0] for n, inner in backbone.items()}
    first, last = next(iter(keys.values()), ""), next((n for n in reversed(keys) if keys[n]), "")
    found: dict[str, list[str]] = {}
    current = "stem"
    for name in names:
        if name in head:
            continue
        if name in keys:
            if keys[name]:
                current = "stem" if keys[name] == first else keys[name]
            stage = current
        else:
            part = name.removeprefix("network.").split(".")[0]
            stage = "neck" if part == "head" else part  # layers in one module with the classifier
        found.setdefault(stage, []).append(name)
        if name == last:
            current = "neck"  # for what is left of the backbone
    return {**found, "head": head}
