"""What the readers of data sets share: safe names, ids, and metadata with clear errors.

Names in metadata are untrusted input: none of them is opened before `usable` has accepted it. An id comes
from the video's own path alone, so that any subset of a data set gives the same ones.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from dfdc_video.records import Rejection, Video
from dfdc_video.registry import nearest

MAX_NAME_BYTES = 255  # of one component of a path, on every usual file system
PLAIN = re.compile(r"[a-z0-9]+([._\-][a-z0-9]+)*")
MAX_PLAIN_ID = 80
# control characters, bytes that are not UTF-8, line and paragraph separators
CONTROL = ("Cc", "Cs", "Zl", "Zp")


class Repeated(list):
    """The different values of a key that a JSON object has more than once; plain `json` keeps the last."""


def read_metadata(path: Path) -> Any:
    """The content of a JSON file.

    Keys that occur twice with different values give a `Repeated`. ValueError for a damaged file.
    """

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            known = result.setdefault(key, value)
            if known is not value and known != value:
                result[key] = Repeated([*(known if isinstance(known, Repeated) else [known]), value])
        return result

    try:
        return json.loads(_text(path), object_pairs_hook=collect)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({str(error)[:80]}); download it again") from error


def load_table(path: Path, example: str) -> dict[str, list[dict[str, Any]]]:
    """A JSON file of {name: {...}}: every entry that is given for a name.

    `example` is what the error says was expected.
    """
    raw = read_metadata(path)
    table = (
        {k: list(v) if isinstance(v, Repeated) else [v] for k, v in raw.items()}
        if isinstance(raw, dict)
        else {}
    )
    if not table or not all(isinstance(e, dict) for entries in table.values() for e in entries):
        raise ValueError(f"{path}: expected {example} with one entry or more")
    return table


def load_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1."""
    lines = _text(path).split("\n")  # not splitlines: a name may contain other line separators
    return [(number, line.strip(" \t\r")) for number, line in enumerate(lines, start=1) if line.strip()]


def load_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header, with their line numbers; a damaged or short row is empty."""
    lines = [(number, _cells(line)) for number, line in load_lines(path)]
    header = [name.strip() for name in lines[0][1]] if lines else []
    for number, cells in lines[1:]:
        complete = len(cells) >= len(header)
        yield number, dict(zip(header, (c.strip(" ") for c in cells), strict=False)) if complete else {}


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); download it again"
        ) from error


def values(entries: Iterable[dict[str, Any]], key: str) -> list[Any]:
    """All values of `key` in the entries of one name, except null and NaN (which pandas writes for it)."""
    given = [v for e in entries for v in (e[key] if isinstance(e.get(key), Repeated) else [e.get(key)])]
    return [v for v in given if v is not None and v == v]


def agreed(what: str, given: Iterable[Any]) -> Any:
    """The one value that all of `given` have, None for none; ValueError "contradictory <what>" otherwise."""
    first, *others = list(given) or [None]
    for other in others:
        if other != first:
            raise ValueError(f"contradictory {what}: {first!r:.40} and {other!r:.40}")
    return first


def bad_name(name: str) -> str:
    """Why a name from metadata is refused, whatever is on disk; "" where it is not."""
    pure = PurePosixPath(name)
    if not name.isprintable() and any(unicodedata.category(c) in CONTROL for c in name):
        return "bad name: control characters, or bytes that are not UTF-8"
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or PureWindowsPath(name).drive:
        return "outside the root: names must be relative, with /, and stay below their folder"
    if not pure.parts or str(pure) != name:
        return "bad name: empty, or not in its shortest form"
    longest = max(len(part.encode()) for part in pure.parts)
    return (
        f"implausible name: {longest} bytes, expected at most {MAX_NAME_BYTES}"
        if longest > MAX_NAME_BYTES
        else ""
    )


def usable(root: Path, relative: str) -> str:
    """Why `relative` cannot be used as a video below `root`; "" where it can.

    Reasons: an unsafe name, a link, not a regular file, a missing file.
    """
    problem = bad_name(relative)
    if problem:
        return problem
    path, mode = Path(root), 0
    try:
        for part in PurePosixPath(relative).parts:
            path = path / part
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                return "a link: links are not followed; put the file itself there"
    except (FileNotFoundError, NotADirectoryError):
        return "missing file: it is named and not there"
    except OSError as error:
        return f"unreadable path: {error.strerror}"
    return (
        ""
        if stat.S_ISREG(mode)
        else "not a regular file: a folder or a device, or a folder that cannot be opened"
    )


def list_files(root: Path, suffixes: Sequence[str], under: str = "") -> list[str]:
    """Paths relative to `root`, POSIX, sorted, of files with one of the suffixes.

    Links to folders, which are not followed, and folders that cannot be opened are listed, too, so that
    `usable` refuses them by name. Hidden names (`._a.mp4` of macOS) are left out. `under` limits the search
    to one folder.
    """
    found = []

    def unopened(error: OSError) -> None:
        found.append(Path(error.filename))

    top = Path(root, under)
    for folder, folders, files in os.walk(top, onerror=unopened) if top.is_dir() else ():
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [path for path in (Path(folder, name) for name in folders) if path.is_symlink()]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(path.relative_to(root).as_posix() for path in found)


def video_id_of(relative: str) -> str:
    """An id from a path: "real/anna/a.mp4" is "real__anna__a".

    Different paths have different ids, also where case is ignored. A path that does not become an id
    unchanged (capitals, other characters, another suffix than .mp4, length) gets "--" and a part of its hash,
    which no plain path can give.
    """
    parts = PurePosixPath(relative).with_suffix("").parts
    plain = "__".join(parts)
    if (
        relative.endswith(".mp4")
        and len(plain) <= MAX_PLAIN_ID
        and all(PLAIN.fullmatch(part) for part in parts)
    ):
        return plain
    readable = re.sub(r"[^A-Za-z0-9_.\-]+", "_", plain)[:MAX_PLAIN_ID]
    digest = hashlib.sha256(relative.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{readable if readable[:1].isalnum() else 'v' + readable}--{digest}"


def refuse(path: str, reason: str) -> Rejection:
    """A rejection of the reading stage.

    In its path control characters are escaped and excessive length is cut.
    """
    if bad_name(path).startswith("bad name: control"):
        path = path.encode("unicode_escape").decode("ascii")
    return Rejection("", path if len(path) <= 300 else f"{path[:300]}…", "read", reason)


def chosen(what: str, given: str | Sequence[str], known: Sequence[str]) -> list[str]:
    """The names that a setting gives, one or several; ValueError for an unknown one."""
    names = [given] if isinstance(given, str) else list(dict.fromkeys(given))
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; {nearest(str(name), known)}")
    return names


def mask_at(root: Path, relative: str) -> tuple[str, list[Rejection]]:
    """The path of a mask video, or "" where there is none, and the refusal of one that cannot be used."""
    problem = usable(root, relative)
    if not problem:
        return relative, []
    return "", [] if problem.startswith("missing file") else [refuse(relative, problem)]


def distinct(videos: Iterable[Video]) -> tuple[list[Video], list[Rejection]]:
    """Of videos with the same id keep the first by path and refuse the others.

    These are copies of the same name in two folders.
    """
    first: dict[str, Video] = {}
    rejections = []
    for video in sorted(videos, key=lambda v: v.path):
        kept = first.setdefault(video.video_id.lower(), video)
        if kept is not video:
            rejections.append(
                refuse(video.path, f"name clash: its id {video.video_id} is that of {kept.path}")
            )
    return list(first.values()), rejections
