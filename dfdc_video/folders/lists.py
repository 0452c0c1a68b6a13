"""Kinetics-style lists, "path label": PySlowFast, pytorchvideo and MMAction2 read them as they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dfdc_video.files import write_atomic


def write_list(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    """Write lines of "path label" with one blank.

    A list without rows is left out, since other readers refuse empty files. ValueError for a path that is
    absolute or has a blank.
    """
    rows = list(rows)
    for crop_path, _ in rows:
        if " " in crop_path or crop_path.startswith(("/", "..")):
            raise ValueError(
                f"{path.name}: {crop_path!r} must be a relative path without blanks, or other readers of "
                "the list fail"
            )
    if rows:
        write_atomic(path, "".join(f"{crop_path} {label}\n" for crop_path, label in rows))
    else:
        path.unlink(missing_ok=True)


def read_list(path: str | Path) -> list[tuple[str, int]]:
    """(path, label) of every line. FileNotFoundError, or ValueError with file and line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list at {path}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split()
        if len(parts) != 2 or not parts[1].isdigit():
            hint = "; this line has commas, the separator is a blank" if "," in line else ""
            raise ValueError(
                f"{path}:{number}: {line[:80]!r}: expected 'path label' with one blank and a class "
                f"number{hint}"
            )
        rows.append((parts[0], int(parts[1])))
    if not rows:
        raise ValueError(f"{path}: no line; expected 'path label' lines")
    return rows
