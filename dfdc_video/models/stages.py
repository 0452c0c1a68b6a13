"""Stages of a network, from its input to its head: what freezing and learning-rate factors are told by name."""

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
    """Stage -> names of its parameters, first to last; each of `names` (as of `named_parameters`) is in
    exactly one.

    In the backbone (`network.backbone` of timm, `network.body` of pytorchvideo) the numbered parts are stages
    under their own names; one without numbers has a stage for each of its modules. What stands before the
    first number is `stem`, or else the first numbered part is; what stands between two belongs to the
    earlier; what follows the last is `neck`. A part beside the backbone (`network.rnn`) is a stage of its
    own, and `head` is what lies under `heads`.
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
