"""Names of our tensors in PySlowFast, in its Caffe2 files and in efficientnet_pytorch.

Each function maps the names of the model to be filled to those of the other program. The inverse map renames
the tensors of a file; a tensor that is not in it remains unexplained. Sources: PySlowFast's
`video_model_builder.py`, `resnet_helper.py` and `c2_model_loading.py`; EfficientNet-PyTorch's `model.py`; the
sequence model of NTech's DFDC solution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# pytorchvideo -> PySlowFast inside a residual block, after "blocks.N.….res_blocks.M."
RESIDUAL = (
    (r"branch1_conv\.", "branch1."),
    (r"branch1_norm\.", "branch1_bn."),
    (r"branch2\.norm_b\.1\.block\.0\.", "branch2.se.fc1."),
    (r"branch2\.norm_b\.1\.block\.2\.", "branch2.se.fc2."),
    (r"branch2\.norm_b\.0\.", "branch2.b_bn."),
    (r"branch2\.norm_([abc])\.", r"branch2.\1_bn."),
    (r"branch2\.conv_([abc])\.", r"branch2.\1."),
)
# Names without a stage number. In X3D's stem the library has the two names swapped: its `conv_t` is the
# spatial convolution.
STEM = (
    (r"conv\.conv_t\.", "conv_xy."),
    (r"conv\.conv_xy\.", "conv."),
    (r"conv\.", "conv."),
    (r"norm\.", "bn."),
)
HEAD = (
    (r"proj\.", "projection."),
    (r"pool\.pre_conv\.", "conv_5."),
    (r"pool\.pre_norm\.", "conv_5_bn."),
    (r"pool\.post_conv\.", "lin_5."),
    (r"pool\.post_norm\.", "lin_5_bn."),
)
LEAF = r"(weight|bias|running_mean|running_var|num_batches_tracked)$"
CAFFE2_NORM = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
CAFFE2_OTHER = {"weight": "w", "bias": "b"}

# timm -> efficientnet_pytorch: outside the blocks, and in blocks with and without expansion
EFFICIENTNET = (
    ("conv_stem", "_conv_stem"),
    ("bn1", "_bn0"),
    ("conv_head", "_conv_head"),
    ("bn2", "_bn1"),
    ("classifier", "_fc"),
)
SQUEEZE = (("conv_dw", "_depthwise_conv"), ("se.conv_reduce", "_se_reduce"), ("se.conv_expand", "_se_expand"))
EXPANDING = (
    *SQUEEZE,
    ("conv_pw", "_expand_conv"),
    ("bn1", "_bn0"),
    ("bn2", "_bn1"),
    ("conv_pwl", "_project_conv"),
    ("bn3", "_bn2"),
)
PLAIN = (*SQUEEZE, ("bn1", "_bn1"), ("conv_pw", "_project_conv"), ("bn2", "_bn2"))


def _first_match(rest: str, rules: Iterable[tuple[str, str]]) -> str | None:
    for pattern, new in rules:
        if re.match(pattern + LEAF, rest):
            return re.sub("^" + pattern, new, rest)
    return None


def pyslowfast_names(zoo_names: Iterable[str]) -> dict[str, str]:
    """Name in pytorchvideo (`blocks.…`) -> name in PySlowFast, for SlowFast, Slow, C2D, I3D and X3D; other
    tensors have no entry.

    PySlowFast numbers the stages s1 (the stem) to s5 and names pathways `pathwayP`; pytorchvideo numbers all
    blocks, including pooling without weights.
    """
    zoo_names = list(zoo_names)
    numbers = sorted({int(n.split(".")[1]) for n in zoo_names if re.match(r"blocks\.\d+\.", n)})
    result = {}
    for name in zoo_names:
        match = re.match(
            r"blocks\.(\d+)\.(multipathway_fusion\.|(?:multipathway_blocks\.(\d+)\.)?(?:res_blocks\.(\d+)\.)?)(.*)",
            name,
        )
        if not match:
            continue
        number, kind, pathway, block, rest = match.groups()
        stage, pathway = f"s{1 + numbers.index(int(number))}", pathway or "0"
        if kind.startswith("multipathway_fusion"):
            tail, where = (
                _first_match(rest, ((r"conv_fast_to_slow\.", "conv_f2s."), (r"norm\.", "bn."))),
                f"{stage}_fuse.",
            )
        elif block is not None:
            tail, where = _first_match(rest, RESIDUAL), f"{stage}.pathway{pathway}_res{block}."
        elif int(number) == numbers[0]:
            tail, where = _first_match(rest, STEM), f"{stage}.pathway{pathway}_stem."
        else:
            tail, where = _first_match(rest, HEAD), "head."
        if tail is not None:
            result[name] = where + tail
    return result


def caffe2_names(names: Iterable[str]) -> dict[str, str]:
    """Name in PySlowFast's `.pyth` -> name of the blob in its Caffe2 files, for SlowFast, Slow, C2D and I3D.

    The fast pathway has the prefix `t_`; a fusion is named after the last block of the preceding fast stage.
    `riv` is the running variance. Batch counters have no blob.
    """
    names = list(names)
    blocks = [re.match(r"(s\d+)\.pathway1_res(\d+)\.", n) for n in names]
    last: dict[str, int] = {}
    for found in filter(None, blocks):
        last[found[1]] = max(last.get(found[1], 0), int(found[2]))
    result = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        blob = _caffe2_module(module, last)
        kind = (CAFFE2_NORM if module.endswith("bn") else CAFFE2_OTHER).get(leaf)
        if blob and kind:
            result[name] = f"{blob}_{kind}"
    return result


def _caffe2_module(module: str, last: dict[str, int]) -> str:
    if module == "head.projection":
        return "pred"
    if found := re.fullmatch(r"s1\.pathway(\d)_stem\.(conv|bn)", module):
        return ("t_" if found[1] == "1" else "") + {"conv": "conv1", "bn": "res_conv1_bn"}[found[2]]
    if found := re.fullmatch(r"(s(\d+))_fuse\.(conv_f2s|bn)", module):
        before = "t_pool1" if found[2] == "1" else f"t_res{found[2]}_{last.get(found[1], 0)}_branch2c_bn"
        return f"{before}_subsample" + ("_bn" if found[3] == "bn" else "")
    if found := re.fullmatch(r"s(\d+)\.pathway(\d)_res(\d+)\.(branch1|branch2\.[abc])(_bn)?", module):
        prefix = "t_" if found[2] == "1" else ""
        return f"{prefix}res{found[1]}_{found[3]}_{found[4].replace('.', '')}{found[5] or ''}"
    return ""


def efficientnet_names(timm_names: Iterable[str]) -> dict[str, list[str]]:
    """Name in timm -> names in efficientnet_pytorch; a temporal expansion is in a module of its own there
    (`_expand_conv.conv`).

    efficientnet_pytorch numbers the blocks consecutively, timm per stage.
    """
    timm_names = list(timm_names)
    order: list[str] = []
    for name in timm_names:
        block = _block(name)
        if block and block not in order:
            order.append(block)
    expanding = {_block(n) for n in timm_names if ".conv_pwl." in n}
    result = {}
    for name in timm_names:
        block = _block(name)
        module, _, leaf = name.removeprefix(block).rpartition(".")
        rules = EFFICIENTNET if not block else EXPANDING if block in expanding else PLAIN
        other = dict(rules).get(module)
        if other is None:
            continue
        where = f"_blocks.{order.index(block)}." if block else ""
        result[name] = [f"{where}{other}.{leaf}"]
        if other == "_expand_conv":
            result[name].append(f"{where}{other}.conv.{leaf}")
    return result


def _block(name: str) -> str:
    """ "blocks.3.0." of "blocks.3.0.conv_pw.weight", "" outside the blocks."""
    found = re.match(r"blocks\.\d+\.\d+\.", name)
    return found[0] if found else ""
