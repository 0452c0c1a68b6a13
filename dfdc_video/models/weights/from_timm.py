"""Pretrained weights of timm by name, `timm:NAME` or `timm:NAME.TAG`, downloaded by timm into its own caches.

timm knows location and format of its weights, and its caches work without a network. Its hub client retries
for most of a minute if there is none, so we check once whether the server answers and otherwise let it look
into its cache only.
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
HUB_FILE = "model.safetensors"  # the hub's file name unless timm gives another


def is_timm(source: str | Path) -> bool:
    return isinstance(source, str) and source.startswith(PREFIX)


def backbone_config(backbone: str) -> PretrainedCfg:
    """timm's entry for ARCHITECTURE or ARCHITECTURE.TAG; ValueError with the nearest if there is none."""
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
    """`timm:NAME` -> the full name (with the default tag if none is given) and timm's entry for it.

    ValueError for an unknown name, with the nearest ones, and for a name without pretrained weights.
    """
    name = source.removeprefix(PREFIX)
    name = get_deprecated_models().get(name) or name  # names from before timm had tags
    known = timm.list_pretrained()
    without_tag = {full.split(".")[0] for full in known}
    if name in known or name in without_tag:
        config = backbone_config(name)
        if config.has_weights:
            return (f"{config.architecture}.{config.tag}" if config.tag else name), config
    if name in timm.list_models():
        raise ValueError(
            f"MODEL.INIT_FROM: timm has the architecture {name} but no pretrained weights for it; "
            "name others, or a file"
        )
    raise ValueError(
        f"MODEL.INIT_FROM: timm has no weights '{name}'; {_nearest(name, without_tag.union(known))}"
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    """`nearest`, but without listing timm's thousands of names if none is near."""
    tail = nearest(name, known)
    return (
        tail
        if tail.startswith("did you mean")
        else "timm.list_pretrained() in Python lists the names with weights"
    )


def timm_state(
    source: str, size: tuple[int, int] | None = None
) -> tuple[dict[str, torch.Tensor], str, PretrainedCfg]:
    """The state dict of `timm:NAME` (timm's names, with classifier), its full name, and timm's entry.

    With `size` = (height, width) in pixels timm interpolates the position embeddings of vision transformers
    to that size. ValueError for a name without weights; FileNotFoundError, with what to download and what to
    set, if they are not available.
    """
    name, config = find_timm(source)
    options = {"img_size": size} if size and config.fixed_input_size else {}
    # the network's initial weights are replaced: creating them must not advance the random generator
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return fetched(name, config, **options).state_dict(), name, config


def fetched(name: str, config: PretrainedCfg, **options: Any) -> Any:
    """timm's network with its pretrained weights; FileNotFoundError, on one line, if they can neither be
    downloaded nor read from a cache.
    """
    with _cache_if_offline(config) as offline:
        try:
            return timm.create_model(name, pretrained=True, **options)
        except TypeError:
            raise  # a setting that the architecture does not take
        except Exception as error:  # a download fails with errors of four libraries
            # without a network the hub's own message is long and unspecific; for a damaged file in the cache
            # it is the right one
            words = offline if offline and isinstance(error, OSError) else str(error)
            reason = (words.strip().splitlines() or [type(error).__name__])[0][:120]
            raise FileNotFoundError(
                f"the weights of timm's {name} could not be downloaded or read ({reason}); "
                f"download {weights_url(config)} on a machine with a network and set MODEL.INIT_FROM to the "
                "file"
            ) from error


def weights_url(config: PretrainedCfg) -> str:
    if config.hf_hub_id:
        from huggingface_hub import constants

        repository, _, revision = config.hf_hub_id.partition("@")
        file = config.hf_hub_filename or HUB_FILE
        return f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{file}"
    return (
        str(config.url if isinstance(config.url, str) else config.url[0])
        if config.url
        else "them from timm's release page"
    )


@contextmanager
def _cache_if_offline(config: PretrainedCfg) -> Iterator[str]:
    """Inside the block timm's downloads use their caches only if the server does not answer. Yields the
    reason, or '' if it does.
    """
    from huggingface_hub import constants

    before, patience = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    offline = "HF_HUB_OFFLINE is set" if before and config.hf_hub_id else _unreachable(weights_url(config))
    constants.HF_HUB_OFFLINE = before or bool(offline)
    if offline:
        socket.setdefaulttimeout(TIMEOUT_SECONDS)  # torch's downloads have no timeout of their own
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
            return ""  # the server is there; certificates are the client's concern
        return (str(cause).strip().splitlines() or [type(error).__name__])[0][:120]
    return ""
