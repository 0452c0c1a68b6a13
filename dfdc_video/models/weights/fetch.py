"""Weights by path, URL or timm name. A URL includes the SHA-256 of its file, which is downloaded once into a
cache.

The cache is the folder named by DFDC_VIDEO_CACHE, or else ~/.cache/dfdc_video. Files are stored under their
hash, and only if it is right.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from dfdc_video.files import whole_file
from dfdc_video.models.weights.from_timm import is_timm, timm_state

SCHEMES = ("http", "https", "file")
SUFFIXES = (".ckpt", ".pth", ".pyth", ".pkl", ".pt", ".bin", ".safetensors")
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20


def cache_folder() -> Path:
    return Path(os.environ.get("DFDC_VIDEO_CACHE") or "~/.cache/dfdc_video").expanduser()


def is_url(text: str | Path) -> bool:
    return isinstance(text, str) and "://" in text


def find_weights(source: str | Path) -> Path | str:
    """Locate or download what MODEL.INIT_FROM names.

    Returns the file of a path or of `URL#sha256=HEX`, or `timm:NAME` itself, with its weights then in timm's
    cache. FileNotFoundError if there is no such file, with what to download and where to put it; ValueError
    for a URL with a missing or wrong hash and for a name without weights in timm.
    """
    if is_timm(source):
        timm_state(str(source))
        return str(source)
    return find_file(source)


def find_file(source: str | Path) -> Path:
    """`find_weights` for a path or a URL."""
    if is_url(source):
        url, _, fragment = str(source).partition("#")
        return resolve_weights(url, sha256=fragment.removeprefix("sha256="))
    path = Path(source).expanduser()
    if path.is_dir():
        # also one folder below, where a run keeps its checkpoints
        found = (*path.glob("*"), *path.glob("*/*"))
        inside = sorted(p for p in found if p.suffix in SUFFIXES and p.is_file())
        raise FileNotFoundError(
            f"{source} is a folder, expected a file of "
            f"weights{f': {inside[0]}, for example' if inside else ''}"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"no file at {source}; put the weights there, name another file ({', '.join(SUFFIXES)}), "
            "URL#sha256=HEX or timm:NAME, "
            "or set MODEL.INIT_FROM to '' for random weights"
        )
    return path


def resolve_weights(url: str, *, sha256: str) -> Path:
    """The cached file of `url` (http, https or file), downloaded if need be.

    ValueError if its content does not have the given SHA-256, FileNotFoundError if the download fails.
    """
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise ValueError(
            f"weights at {url}: cannot download by '{scheme}', expected a path or a URL with "
            f"{', '.join(SCHEMES)}"
        )
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(
            f"weights at {url}: given the SHA-256 '{sha256}', expected 64 hex digits, URL#sha256=HEX "
            "(`sha256sum FILE` prints it)"
        )
    sha256 = sha256.lower()
    name = (
        re.sub(r"[^\w.-]", "_", urllib.parse.unquote(Path(urllib.parse.urlsplit(url).path).name)) or "weights"
    )
    target = cache_folder() / "weights" / sha256[:16] / name
    if target.is_file():
        found = file_sha256(target)
        if found != sha256:
            raise ValueError(
                f"{target} was downloaded from {url} but now has the SHA-256 {found}, expected {sha256}; "
                "delete it and start again"
            )
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target, shared=True) as temporary:
        with temporary.open("wb") as file:
            found = _download(url, file, target)
        if found != sha256:
            raise ValueError(
                f"{url} has the SHA-256 {found}, expected {sha256}: not kept; check the hash, or download "
                "from the original source"
            )
    return target


def _download(url: str, file: IO[bytes], target: Path) -> str:
    """Copy the content of `url` into an open file and return its SHA-256."""
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            expected = int(response.headers.get("Content-Length") or 0)
            size = 0
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if size < expected:
            raise OSError(f"the connection ended after {size} of {expected} bytes")
    except (OSError, ValueError, urllib.error.URLError) as error:
        cause = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        reason = (str(cause).strip().splitlines() or [type(error).__name__])[0][:120]
        raise FileNotFoundError(
            f"could not download {url} ({reason}); download it on a machine with a network and put it at "
            f"{target}"
        ) from error
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
