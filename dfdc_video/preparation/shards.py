"""A prepared folder in pieces: what each run of `prepare` read and hashed, so that pieces made anywhere can
be put together.

    OUT/settings.json         what OUT was made with; other settings need another OUT
    OUT/records/<part>.json   the videos, refusals, content hashes and failures of one part: "all", "2-of-8", or a folder's name
    OUT/hashes/<part>.json    content hash of every raw file, by path, size and time
    OUT/work/<video_id>.json  what came out of one video (`faces.batch`)
    OUT/tracks/...            face videos

A part holds whole families (an original and its fakes), so that what comes out of a video is the same
whatever the number of parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dfdc_video.files import load_json, write_atomic
from dfdc_video.records import Rejection, Video


@dataclass(frozen=True)
class Part:
    """What one run was given. `hashes` are SHA-256 by video_id, `failures` the crashes and time-outs, which a
    rerun tries again.
    """

    name: str
    videos: list[Video] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    failures: list[Rejection] = field(default_factory=list)


def _safe(name: str) -> str:
    return name.replace("/", "__")


def record_path(out: Path, name: str) -> Path:
    return out / "records" / f"{_safe(name)}.json"


def write_part(out: Path, part: Part) -> None:
    path = record_path(out, part.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(part)) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def read_parts(out: Path) -> list[Part]:
    """Every part of a folder, by name. ValueError for a damaged one, and where "I-of-N" parts are missing or
    of several N.
    """
    parts = []
    for path in sorted((out / "records").glob("*.json")):
        raw = load_json(path)
        if raw is None:
            raise ValueError(f"{path} is damaged; delete it and run `dfdc-video prepare` for that part again")
        videos = [Video(**{**v, "identities": tuple(v["identities"])}) for v in raw["videos"]]
        rejections, failures = ([Rejection(**r) for r in raw[key]] for key in ("rejections", "failures"))
        parts.append(Part(raw["name"], videos, rejections, raw["hashes"], failures))
    if not parts:
        raise ValueError(f"{out} has no records/: expected a folder made by `dfdc-video prepare`")
    _check_complete([p.name for p in parts], out)
    return parts


def _check_complete(names: Sequence[str], out: Path) -> None:
    numbered = [name.split("-of-") for name in names if "-of-" in name and name.replace("-of-", "").isdigit()]
    totals = {int(total) for _, total in numbered}
    if len(totals) > 1:
        raise ValueError(
            f"{out} holds parts of {' and of '.join(map(str, sorted(totals)))}: use one --num-parts, and "
            "another --out for the other"
        )
    for total in totals:
        missing = sorted(set(range(1, total + 1)) - {int(index) for index, _ in numbered})
        if missing:
            raise ValueError(
                f"part {', '.join(map(str, missing))} of {total} is missing; run `dfdc-video prepare … "
                f"--num-parts {total} --part N`, then `dfdc-video merge` with all of their folders"
            )  # fmt: skip


def union(parts: Sequence[Part]) -> Part:
    """All parts as one, in the order of paths. A video that two parts have must be the same in both."""
    videos: dict[str, Video] = {}
    hashes: dict[str, str] = {}
    for part in parts:
        for v in part.videos:
            known = videos.setdefault(v.video_id, v)
            if known != v or hashes.get(v.video_id, part.hashes.get(v.video_id)) != part.hashes.get(
                v.video_id
            ):
                raise ValueError(
                    f"video {v.video_id} differs between the parts ({known.path} and {v.path}): were they "
                    "made from the same data set?"
                )
            if v.video_id in part.hashes:
                hashes[v.video_id] = part.hashes[v.video_id]

    def every(key: str) -> list[Rejection]:
        return sorted({r for p in parts for r in getattr(p, key)}, key=lambda r: (r.path, r.reason))

    return Part(
        "all", sorted(videos.values(), key=lambda v: v.path), every("rejections"), hashes, every("failures")
    )


def in_part(video: Video, part: int, num_parts: int) -> bool:
    """Whether a video's family falls to `part` (from 1): by a hash of its original's id, whatever else there
    is.
    """
    family = video.source_id or video.video_id
    return int(hashlib.sha256(family.encode()).hexdigest(), 16) % num_parts == part - 1


def resolve_sources(videos: Sequence[Video]) -> tuple[list[Video], list[Rejection]]:
    """Let every fake name the video at the end of its chain of originals; a circle of originals is refused."""
    by_id = {v.video_id: v for v in videos}
    if len(by_id) < len(videos):
        seen: set[str] = set()
        twice = next(v for v in videos if v.video_id in seen or seen.add(v.video_id))  # type: ignore[func-returns-value]
        raise ValueError(
            f"video_id {twice.video_id!r} stands for {by_id[twice.video_id].path} and for {twice.path}: "
            "the reader must tell them apart"
        )
    result, rejections = [], []
    for v in videos:
        source, way = v.source_id, {v.video_id}
        while source in by_id and by_id[source].source_id and source not in way:
            way.add(source)
            source = by_id[source].source_id
        if source in way:
            rejections.append(
                Rejection(v.video_id, v.path, "read", f"circular originals: {' -> '.join(sorted(way))}")
            )
        else:
            result.append(replace(v, source_id=source))
    return result, rejections


def hash_files(
    root: Path, out: Path, name: str, videos: Sequence[Video], workers: int
) -> tuple[dict[str, str], list[Rejection]]:
    """SHA-256 by video_id. What was hashed in an earlier run is not read again, as long as size and time
    agree.
    """
    path = out / "hashes" / f"{_safe(name)}.json"
    known = load_json(path) or {}
    current: dict[str, list[Any]] = {}
    hashes, rejections = {}, []

    def one(video: Video) -> list[Any]:
        file = root / video.path
        stat = file.stat()
        before = known.get(video.path)
        if before and before[:2] == [stat.st_size, stat.st_mtime_ns]:
            return before
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]

    with ThreadPoolExecutor(workers) as pool:
        futures = [(video, pool.submit(one, video)) for video in videos]
        for video, future in futures:
            try:
                current[video.path] = future.result()
                hashes[video.video_id] = current[video.path][2]
            except OSError as error:
                rejections.append(
                    Rejection(video.video_id, video.path, "read", f"unreadable file: {error.strerror}")
                )
    if current != known:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({**known, **current}) + "\n")
    return hashes, rejections


def read_settings(out: Path) -> dict[str, Any]:
    """The settings of a prepared folder, or of a part of one."""
    path = out / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"{out} has no settings.json: expected a folder made by `dfdc-video prepare`")
    settings = load_json(path)
    if settings is None:
        raise ValueError(f"{path} is damaged; delete {out} or use another --out")
    return settings


def claim(out: Path, settings: dict[str, Any], *, open_until_done: Collection[str] = ()) -> None:
    """Write settings.json into a new folder; refuse a folder that was made with other settings, or by
    something else.

    Settings of `open_until_done` may change as long as there are no tables: a split that was refused in the
    end costs no extraction.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out is a folder")
    if (out / "settings.json").is_file():
        before = read_settings(out)
        still_open = () if (out / "summary.json").is_file() else open_until_done
        before |= {name: settings[name] for name in still_open}
        if differing := differences(before, settings):
            raise ValueError(
                f"{out} was prepared with other settings ({differing}); use the same ones or another "
                f"--out. For another split of the same faces: `dfdc-video merge {out} --out NEW --split …`"
            )  # fmt: skip
        write_atomic(out / "settings.json", json.dumps(settings, indent=2) + "\n")
        return
    # which a kill may have left
    if out.is_dir() and any(p.name != ".settings.json.part" for p in out.iterdir()):
        raise ValueError(
            f"{out} is not empty and was not made by `dfdc-video prepare`; give a new folder as --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "settings.json", json.dumps(settings, indent=2) + "\n")


def differences(before: dict[str, Any], settings: dict[str, Any]) -> str:
    names = sorted(before.keys() | settings.keys())
    return "; ".join(
        f"{k} {before.get(k)!r}, now {settings.get(k)!r}" for k in names if before.get(k) != settings.get(k)
    )


def link_into(out: Path, sources: Sequence[Path]) -> None:
    """Bring records, results and face videos of other folders into `out`: hard links, or copies on another
    file system.
    """
    sources = [s for s in sources if s.resolve() != out.resolve()]
    if not sources:
        return
    # it holds what these folders hold, and nothing from an earlier call
    shutil.rmtree(out / "records", ignore_errors=True)
    for source in sources:
        for folder in ("records", "work", "tracks"):
            for path in sorted(
                p for p in (source / folder).rglob("*") if p.is_file() and not p.name.startswith(".")
            ):
                target = out / path.relative_to(source)
                if folder == "records" and target.is_file() and target.read_bytes() != path.read_bytes():
                    target = target.with_name(
                        f"{target.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.json"
                    )
                _link(path, target)


def _link(path: Path, target: Path) -> None:
    if target.is_file():
        a, b = path.stat(), target.stat()
        if target.samefile(path) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copy2(path, temporary)
    os.replace(temporary, target)
