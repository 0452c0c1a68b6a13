"""Many videos -> a result each, on disk, so that a second run continues where the first one stopped.

A result is a function of the video's bytes, its original's, and the settings. It exists once a video is done.
A video that makes its worker crash or hang is skipped and listed, and the next run tries it again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.faces.extract import extract
from dfdc_video.files import explain_full_disk, is_full
from dfdc_video.folders.manifest import STREAM_FIELDS, track_from_row, track_row
from dfdc_video.folders.prepared import PreparedFolder
from dfdc_video.jobs.workers import run_jobs
from dfdc_video.media.reader import UnreadableVideo
from dfdc_video.preparation.settings import PrepareSettings
from dfdc_video.records import Rejection, Stream, Track, Video

log = logging.getLogger(__name__)
STORAGE_SECONDS = 60.0  # for a node to see what another one has written
# with less space than this any failure is taken for one of a full disk: not every library reports it
ROOM_BYTES = 1 << 16


def _digest(result: dict[str, Any] | None) -> str:
    """What a fake takes over from its original, as twelve hex digits; "" where there is nothing to take."""
    if not result or not result["tracks"]:
        return ""
    return hashlib.sha256(json.dumps([result["stream"], result["tracks"]]).encode()).hexdigest()[:12]


def _keys(
    folder: PreparedFolder, videos: Sequence[Video], hashes: dict[str, str], ids: set[str]
) -> dict[str, tuple[str, str, str]]:
    """What each result depends on: the video's content, its original's, and the boxes that it takes over."""
    digests = {source: _digest(folder.result(source)) for source in {v.source_id for v in videos} & ids}
    return {
        v.video_id: (
            hashes[v.video_id],
            hashes[v.source_id] if v.source_id in ids else "",
            digests.get(v.source_id, ""),
        )
        for v in videos
    }


def _is_done(folder: PreparedFolder, video: Video, key: tuple[str, str, str]) -> bool:
    """Whether there is a result of this very file, with this very original, and all its files."""
    result = folder.result(video.video_id)
    if (
        not result
        or "files" not in result
        or key != (result["content_hash"], result["source_hash"], result["source_tracks"])
    ):
        return False
    return set(result["files"]) <= set(folder.files_of(video.video_id))


def _extract_one(
    root: str,
    out: str,
    video: Video,
    content_hash: str,
    source_hash: str,
    source_digest: str,
    settings: dict[str, Any],
) -> str:
    """In a worker: extract one video and write its result. A file that cannot be decoded has a result, too.

    Returns the reason of a failure that may not be the video's fault, or "".
    """
    folder = PreparedFolder(Path(out))
    folder.clear(video.video_id)
    source = _source(folder, video.source_id, source_digest) if source_digest else None
    result: dict[str, Any] = {
        "content_hash": content_hash,
        "source_hash": source_hash,
        "source_tracks": source_digest,
        "status": "unreadable",
    }
    result |= {"own_boxes": True, "tracks": [], "rejections": [], "signature": [], "difference": None}
    try:
        result |= _extracted(Path(root, video.path), folder.root, video, source, dict(settings))
    except Exception as error:
        full = is_full(error) or shutil.disk_usage(folder.root).free < ROOM_BYTES
        folder.clear(video.video_id)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), out) from error
        if not isinstance(error, UnreadableVideo):
            raise
        if isinstance(error.__cause__, (OSError, MemoryError)):  # may be the machine's fault: tried again
            return f"unreadable: {error}"
        result["rejections"] = [{"stage": "decode", "reason": f"unreadable: {error}"}]
    result["files"] = folder.files_of(video.video_id)
    folder.write_result(video.video_id, result)
    return ""


def _source(folder: PreparedFolder, video_id: str, digest: str) -> dict[str, Any]:
    """The result of an original that has this digest.

    On shared storage it may become visible some time after it was written.
    """
    deadline = time.monotonic() + STORAGE_SECONDS
    while _digest(result := folder.result(video_id)) != digest:
        if time.monotonic() > deadline:
            raise OSError(
                f"{folder.result_path(video_id)} is not what was written there: do two runs use this "
                "folder, or is it not shared?"
            )
        time.sleep(0.5)
    assert result is not None
    return result


def _extracted(
    path: Path, out: Path, video: Video, source: dict[str, Any] | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Extract and annotate: the fields of a result that depend on the pixels."""
    asked = {name: settings.pop(name, False) for name in ("landmarks", "masks")}
    original = _original(source)
    found = extract(path, out, video_id=video.video_id, original=original, **settings)
    if any(asked.values()):
        from dfdc_video.faces.annotate import annotate

        annotate(out, found.tracks, original[1] if original and not found.own_boxes else None, **asked)
    return {
        "status": "ok" if found.tracks else "no_face",
        "own_boxes": found.own_boxes,
        "cuts": found.cuts,
        "stream": {c: getattr(found.stream, c) for c in STREAM_FIELDS},
        "tracks": [track_row(t) for t in found.tracks],
        "rejections": [{"stage": r.stage, "reason": r.reason} for r in found.rejections],
        "signature": found.signature,
        "difference": found.difference,
        "seconds": {k: round(v, 3) for k, v in found.seconds.items()},
    }


def _original(result: dict[str, Any] | None) -> tuple[Stream, list[Track]] | None:
    """Stream and tracks of an original that is done and has faces. Its own timestamps are not needed."""
    if not result or not result["tracks"]:
        return None
    stream = Stream(**result["stream"], timestamps_seconds=np.zeros(result["stream"]["num_frames"]))
    return stream, [track_from_row(t) for t in result["tracks"]]


def extract_all(
    root: Path,
    out: Path,
    videos: Sequence[Video],
    hashes: dict[str, str],
    settings: PrepareSettings,
) -> list[Rejection]:
    """Extract what is not done: originals, then the fakes that take their boxes.

    Returns the crashes and timeouts, which the next run tries again. A fake whose original fails is done with
    boxes of its own, and again once its original is there. Raises OSError, in one line, where the disk is
    full.
    """
    root, out = Path(root).absolute(), Path(out).absolute()
    folder = PreparedFolder(out)
    out.mkdir(parents=True, exist_ok=True)
    ids = {v.video_id for v in videos}
    fakes = [v for v in videos if v.source_id in ids]
    originals = [v for v in videos if v.source_id not in ids]
    assert not {v.source_id for v in fakes} & {v.video_id for v in fakes}, (
        "a fake of a fake: its source must be the original"
    )
    failures: list[Rejection] = []
    per_video = settings.extraction()
    with explain_full_disk(out), _runner(settings, root, out) as run:
        for name, phase in (("originals", originals), ("fakes", fakes)):
            keys = _keys(folder, phase, hashes, ids)
            todo = [v for v in phase if not _is_done(folder, v, keys[v.video_id])]
            jobs = [(v, (str(root), str(out), v, *keys[v.video_id], per_video)) for v in todo]
            with _bar(name, done=len(phase) - len(todo), total=len(phase), hidden=not todo) as done:
                failures += run_pool(
                    _extract_one,
                    jobs,
                    folder,
                    workers=settings.workers,
                    timeout_seconds=settings.timeout_seconds,
                    done=done,
                    run=run,
                )
    lost = {r.video_id for r in failures}
    orphans = sum(v.source_id in lost for v in fakes)
    if orphans:
        log.warning(
            "%d fakes have boxes of their own, since their originals failed; they are extracted again once "
            "these succeed",
            orphans,
        )
    return sorted(failures, key=lambda r: (r.path, r.video_id))


@contextmanager
def _runner(settings: PrepareSettings, root: Path, out: Path) -> Iterator[Callable[..., Any]]:
    if not settings.ray:
        yield run_jobs
        return
    from dfdc_video.jobs.cluster import cluster

    with cluster(settings.ray, workers=settings.workers, root=root, out=out) as run:
        yield run


@contextmanager
def _bar(name: str, *, done: int, total: int, hidden: bool) -> Iterator[Callable[[], None]]:
    log.info("%s: %d of %d already done", name, done, total)
    if hidden:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(f"faces of {name}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda: bar.advance(task)


def run_pool(
    function: Callable[..., Any],
    jobs: Sequence[tuple[Video, tuple[Any, ...]]],
    folder: PreparedFolder,
    *,
    workers: int,
    timeout_seconds: float,
    done: Callable[[], Any],
    run: Callable[..., Any] = run_jobs,
) -> list[Rejection]:
    """Run each job in a process of its own with a time limit.

    A full disk or a missing library stops the run; other failures concern one video, which is returned with
    the reason.
    """
    failures: list[Rejection] = []
    outcomes = run(
        [(function, arguments) for _, arguments in jobs], workers=workers, timeout_seconds=timeout_seconds
    )
    try:
        for number, reason in outcomes:
            video = jobs[number][0]
            if reason:
                folder.clear(video.video_id)
                failures.append(Rejection(video.video_id, video.path, "decode", reason))
            done()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; what is done is kept in {folder.root}: run the same command again to continue"
        ) from None
    finally:
        outcomes.close()
    return failures
