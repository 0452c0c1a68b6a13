"""Files: written whole or not at all, read or found damaged, and what a full disk says."""

from __future__ import annotations

import errno
import filecmp
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, text: str) -> None:
    """Write through a temporary name, so that a kill leaves the old file or the new one and never a part;
    equal text is left alone.
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, or drop it where the file of that name holds the same bytes."""
    if (
        path.is_file()
        and path.stat().st_size == temporary.stat().st_size
        and filecmp.cmp(path, temporary, shallow=False)
    ):
        temporary.unlink()
    else:
        os.replace(temporary, path)


def load_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is a lack of disk."""
    while error is not None:
        if getattr(error, "errno", None) in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def told_when_full(out: Path) -> Iterator[None]:
    """Turn what a full disk raises into one line that says what to do."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(
            f"disk full, or a file too large for it, in {out}: free space and run the same command "
            "again; "
            "what is done is kept"
        ) from error
