"""Pretrained weights of timm by name, fetched by timm itself into the caches that it has them in: `timm:NAME`
or `timm:NAME.TAG`.

timm knows where weights lie and in which format, and its caches serve without a network. Its client for the
hub asks again and again for most of a minute where there is none: here it is asked once whether anything
answers, and otherwise looks into its cache only.
"""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, get_deprecated_models

from dfdc_video.registry import nearest

PREFIX = "timm:"
TIMEOUT_SECONDS = 5
HUB_FILE = "model.safetensors"  # what the hub calls weights, where timm has no other name for them


def is_timm(source: str | Path) -> bool:
    return isinstance(source, str) and source.startswith(PREFIX)


def backbone_config(backbone: str) -> PretrainedCfg:
    """What timm knows of ARCHITECTURE or ARCHITECTURE.TAG; ValueError with the nearest names where it knows
    none of that name.
    """
    architecture = backbone.split(".")[0]
    if not timm.is_model(architecture):
        raise ValueError(f"unknown timm backbone '{backbone}'; {_nearest(backbone, timm.list_models())}")
    try:
        return timm.get_pretrained_cfg(backbone) or PretrainedCfg()
    except RuntimeError as error:  # a tag that the architecture does not have
        raise ValueError(
            f"unknown timm backbone '{backbone}'; "
            f"{nearest(backbone, timm.list_pretrained(f'{architecture}.*'))}"
        ) from error


def find_timm(source: str) -> tuple[str, PretrainedCfg]:
    """`timm:NAME` -> the full name, with the default tag where none was given, and what timm knows of these
    weights.

    ValueError for an unknown name, with the nearest ones, and for one without pretrained weights.
    """
    name = source.removeprefix(PREFIX)
    name = get_deprecated_models().get(name) or name  # what timm called it before it had tags
    known = timm.list_pretrained()
    without_tag = {full.split(".")[0] for full in known}
    if name in known or name in without_tag:
        config = backbone_config(name)
        if config.has_weights:
            return (f"{config.architecture}.{config.tag}" if config.tag else name), config
    if name in timm.list_models():
        raise ValueError(
            f"MODEL.INIT_FROM: timm has the architecture {name} but no pretrained weights for it; name "
            "others or a file"
        )
    raise ValueError(
        f"MODEL.INIT_FROM: timm has no weights '{name}'; {_nearest(name, without_tag.union(known))}"
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    """`nearest`, without the thousands of names that timm knows where none is near."""
    tail = nearest(name, known)
    return (
        tail
        if tail.startswith("did you mean")
        else "timm.list_pretrained() in Python lists the names with weights"
    )


def timm_state(
    source: str, size: tuple[int, int] | None = None
) -> tuple[dict[str, torch.Tensor], str, PretrainedCfg]:
    """The state dict of `timm:NAME` by timm's names, with its classifier, its full name, and what timm knows
    of it.

    Vision transformers get their position embeddings for images of `size` = (height, width) pixels,
    interpolated by timm; without it they keep their own. ValueError for a name without weights,
    FileNotFoundError with what to fetch and what to set where they cannot be had.
    """
    name, config = find_timm(source)
    options = {"img_size": size} if size and config.fixed_input_size else {}
    # The weights that it starts with are replaced: they must not move what is drawn for other things.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return fetched(name, config, **options).state_dict(), name, config


def fetched(name: str, config: PretrainedCfg, **options: Any) -> Any:
    """timm's network with its pretrained weights; FileNotFoundError in one line where they can neither be
    fetched nor read from a cache.
    """
    with _cache_if_offline(config) as offline:
        try:
            return timm.create_model(name, pretrained=True, **options)
        except TypeError:
            raise  # a setting that the architecture does not take
        except Exception as error:  # a download fails with errors of four libraries
            # What is missing because nothing answers is said by the hub in many words; a damaged file in the
            # cache is another matter.
            words = offline if offline and isinstance(error, OSError) else str(error)
            reason = (words.strip().splitlines() or [type(error).__name__])[0][:120]
            raise FileNotFoundError(
                f"the weights of timm's {name} could not be fetched or read ({reason}); "
                f"fetch {weights_url(config)} on a machine with a network, put the file anywhere and set "
                "MODEL.INIT_FROM to it"
            ) from error


def weights_url(config: PretrainedCfg) -> str:
    if config.hf_hub_id:
        from huggingface_hub import constants

        repository, _, revision = config.hf_hub_id.partition("@")
        return f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{config.hf_hub_filename or HUB_FILE}"
    return (
        str(config.url if isinstance(config.url, str) else config.url[0])
        if config.url
        else "them from timm's release page"
    )


@contextmanager
def _cache_if_offline(config: PretrainedCfg) -> Iterator[str]:
    """Within, timm's downloads fail at once where nothing answers, after a look into their caches. Yields
    why, '' where something does.
    """
    from huggingface_hub import constants

    before, patience = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    offline = "HF_HUB_OFFLINE is set" if before and config.hf_hub_id else _unreachable(weights_url(config))
    constants.HF_HUB_OFFLINE = before or bool(offline)
    if offline:
        socket.setdefaulttimeout(TIMEOUT_SECONDS)  # torch's downloads have none of their own
    try:
        yield offline
    finally:
        constants.HF_HUB_OFFLINE = before
        socket.setdefaulttimeout(patience)


def _unreachable(url: str) -> str:
    """Why nothing answers at `url`, or ''."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return ""  # an answer
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            return ""  # somebody is there; whom to trust is the client's business
        return (str(cause).strip().splitlines() or [type(error).__name__])[0][:120]
    return ""
