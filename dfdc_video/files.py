"""Files: written whole or not at all, JSON that may be damaged, and the error of a full disk."""

from __future__ import annotations

import errno
import filecmp
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PARTIAL = ".part"


def partial_path(path: Path, *, shared: bool = False, keep_suffix: bool = False) -> Path:
    """The hidden temporary file beside `path` that is written before it gets that name.

    With `shared`, several processes may write the same file: each has a name of its own. With `keep_suffix`
    the name still ends as the file's does, for encoders that choose the container by it.
    """
    owner = f".{os.getpid()}" if shared else ""
    if keep_suffix:
        return path.with_name(f".{path.stem}{owner}{PARTIAL}{path.suffix}")
    return path.with_name(f".{path.name}{owner}{PARTIAL}")


def is_partial(path: Path) -> bool:
    """Whether a file is one that a killed process left unfinished."""
    return path.name.startswith(".") and PARTIAL in path.suffixes


@contextmanager
def whole_file(
    path: Path, *, shared: bool = False, keep_suffix: bool = False, sync: bool = True
) -> Iterator[Path]:
    """Yield a temporary path; the file that is written there becomes `path` when the block ends.

    It is on disk (fsync) before it is renamed, and removed where the block raises: a killed process leaves
    the old file or the new one, never a part. Without `sync` a power failure may lose the file: for many
    small ones that are quickly made again.
    """
    temporary = partial_path(path, shared=shared, keep_suffix=keep_suffix)
    try:
        yield temporary
        publish(temporary, path, sync=sync)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path, *, sync: bool = True) -> None:
    """Give a finished file its name, or drop it where the file of that name holds the same bytes.

    With `sync` the bytes are on disk before the name is: after a power failure the file is the old one or the
    new one. A finished folder of files replaces the folder of that name.
    """
    if (
        path.is_file()
        and path.stat().st_size == temporary.stat().st_size
        and filecmp.cmp(path, temporary, shallow=False)
    ):
        temporary.unlink()
        return
    if temporary.is_dir():
        for file in temporary.iterdir() if sync else ():
            _sync(file)
        shutil.rmtree(path, ignore_errors=True)
    if sync:
        _sync(temporary)
    os.replace(temporary, path)
    if sync:
        with suppress(OSError):  # some network file systems cannot sync a folder
            _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Write text whole or not at all; a file with the same text is left alone."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_json(path: Path, *, keys: Collection[str] = ()) -> dict[str, Any] | None:
    """The object that a JSON file holds, or None where it is missing or damaged, or lacks one of `keys`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= set(keys) else None


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explain_full_disk(out: Path) -> Iterator[None]:
    """Replace the errors of a full disk by one line that says what to do."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(
            f"disk full, or a file too large for it, in {out}: free space and run the same command again; "
            "what is done is kept"
        ) from error
