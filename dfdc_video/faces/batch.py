"""Many videos -> a result each: one worker process a video, with a time limit, and results on disk that a second run takes up.

A crash or a hang costs the one video that caused it. OUT/work/<video_id>.json exists once a video is done.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, as_completed
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.faces.extract import extract
from dfdc_video.manifest import track_from_row, track_row, write_atomic
from dfdc_video.records import Rejection, Stream, Track, Video
from dfdc_video.video import UnreadableVideo

log = logging.getLogger(__name__)
STREAM_FIELDS = ("num_frames", "fps", "height_px", "width_px", "rotation_degrees", "codec")


def result_path(out: Path, video_id: str) -> Path:
    return out / "work" / f"{video_id}.json"


def load_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_done(out: Path, video: Video, content_hash: str) -> bool:
    """Whether a result of this very file is there, with all its face videos."""
    result = load_json(result_path(out, video.video_id))
    if not result:
        return False
    return result["content_hash"] == content_hash and all((out / t["crop_path"]).is_file() for t in result["tracks"])


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)


def _extract_one(root: str, out: str, video: Video, content_hash: str, settings: dict[str, Any]) -> None:
    """In a worker: extract one video and write its result, whole or not at all. A file that does not decode is a result, too."""
    result: dict[str, Any] = {"content_hash": content_hash, "status": "unreadable", "own_boxes": True, "tracks": [], "rejections": []}
    folder = Path(out, "tracks", video.video_id)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    try:
        found = extract(Path(root, video.path), out, video_id=video.video_id, original=_original(Path(out), video.source_id), **settings)
    except UnreadableVideo as error:
        shutil.rmtree(folder, ignore_errors=True)
        result["rejections"] = [{"stage": "decode", "reason": f"unreadable: {error}"}]
    else:
        result |= {
            "status": "ok" if found.tracks else "no_face",
            "own_boxes": found.own_boxes,
            "cuts": found.cuts,
            "stream": {c: getattr(found.stream, c) for c in STREAM_FIELDS},
            "tracks": [track_row(t) for t in found.tracks],
            "rejections": [{"stage": r.stage, "reason": r.reason} for r in found.rejections],
            "seconds": {k: round(v, 3) for k, v in found.seconds.items()},
        }
    path = result_path(Path(out), video.video_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(result) + "\n")


def _original(out: Path, video_id: str) -> tuple[Stream, list[Track]] | None:
    """Stream and tracks of an original that is done and has faces. Its own time stamps are not needed."""
    result = load_json(result_path(out, video_id)) if video_id else None
    if not result or not result["tracks"]:
        return None
    stream = Stream(**result["stream"], timestamps_seconds=np.zeros(result["stream"]["num_frames"]))
    return stream, [track_from_row(t) for t in result["tracks"]]


def extract_all(
    root: Path, out: Path, videos: Sequence[Video], hashes: dict[str, str], settings: dict[str, Any], *, workers: int, timeout_seconds: float
) -> list[Rejection]:
    """Run what is not done: originals, then the fakes that were made from them. Returns the crashes and timeouts, which a rerun tries again."""
    todo = [v for v in videos if not _is_done(out, v, hashes[v.video_id])]
    redone = {v.video_id for v in todo}
    todo += [v for v in videos if v.video_id not in redone and v.source_id in redone]  # their boxes may change
    log.info("%d of %d videos were done before", len(videos) - len(todo), len(videos))
    failures: list[Rejection] = []
    if not todo:
        return failures
    for v in todo:
        result_path(out, v.video_id).unlink(missing_ok=True)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("faces"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("faces", total=len(todo))
        for phase in ([v for v in todo if not v.source_id], [v for v in todo if v.source_id]):
            jobs = [(v, (str(root), str(out), v, hashes[v.video_id], settings)) for v in phase]
            failures += run_pool(_extract_one, jobs, out, workers=workers, timeout_seconds=timeout_seconds, done=lambda: bar.advance(task))
    return failures


def run_pool(
    function: Callable[..., None],
    jobs: Sequence[tuple[Video, tuple[Any, ...]]],
    out: Path,
    *,
    workers: int,
    timeout_seconds: float,
    done: Callable[[], Any],
) -> list[Rejection]:
    """Each job in a spawned worker with a time limit. A lack of disk, memory or a library stops the run; other failures cost one video."""
    from pebble import ProcessExpired, ProcessPool

    failures: list[Rejection] = []
    if not jobs:
        return failures
    pool = ProcessPool(max_workers=min(workers, len(jobs)), initializer=_start_worker, context=multiprocessing.get_context("spawn"))
    try:
        futures: dict[Future[None], Video] = {pool.schedule(function, args=arguments, timeout=timeout_seconds): video for video, arguments in jobs}
        for future in as_completed(futures):
            video, reason = futures[future], ""
            try:
                future.result()
            except (FutureTimeout, TimeoutError):
                reason = f"timeout: not done after {timeout_seconds:g} s"
            except (ProcessExpired, CancelledError) as error:
                reason = f"crash: the worker died, exit code {getattr(error, 'exitcode', 'unknown')}"
            except (OSError, ImportError, MemoryError):
                raise
            except Exception as error:
                reason = f"failure: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
            if reason:
                shutil.rmtree(out / "tracks" / video.video_id, ignore_errors=True)
                failures.append(Rejection(video.video_id, video.path, "decode", reason))
            done()
    except BaseException as error:
        pool.stop()
        pool.join()
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"stopped; what is done is kept in {out}: run the same command again to continue") from None
        raise
    pool.close()
    pool.join()
    return failures
