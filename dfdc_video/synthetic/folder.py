"""The folder of a synthetic data set of any task: settings, worker processes, resuming, progress bar."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dfdc_video.files import write_atomic
from dfdc_video.media.writer import VideoWriter

SETTINGS_FILE = "synthetic.json"
NOT_SETTINGS = ("root", "workers", "progress")  # arguments that do not change the videos
Progress = Callable[[int, int], None]
# (root, planned video, settings) -> path below the root, after rendering and encoding the video
Render = Callable[[str, dict[str, Any], dict[str, Any]], str]


def settings_from(arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The settings among a generator's arguments, as JSON gives them back (tuples as lists), and `more`."""
    settings = {k: v for k, v in arguments.items() if k not in NOT_SETTINGS}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()} | more


def need(settings: dict[str, Any], name: str, low: float, what: str = "") -> None:
    """ValueError unless a setting is at least `low`."""
    if settings[name] < low:
        raise ValueError(f"{name}={settings[name]}, expected {low} or more{what}")


def check_film(settings: dict[str, Any], workers: int) -> None:
    """ValueError unless size, length, coding and workers can be used."""
    for name in ("height", "width"):
        need(settings, name, 64)
        if settings[name] % 2:
            raise ValueError(f"{name}={settings[name]}: H.264 with 4:2:0 colour needs an even size")
    need(settings, "seconds", 0.2)
    need(settings, "gop", 1)
    if not 0 <= settings["crf"] <= 51:
        raise ValueError(f"crf={settings['crf']}, expected 0 (lossless) to 51")
    if workers < 0:
        raise ValueError(f"workers={workers}, expected 0 (in this process) or more")


def claim(root: Path, settings: dict[str, Any]) -> None:
    """Claim an empty folder for a synthetic data set, or continue in one with the same settings."""
    path = root / SETTINGS_FILE
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}); remove the folder or choose another") from error
        differing = sorted(k for k in {*there, *settings} if there.get(k) != settings.get(k))
        if differing:
            changes = ", ".join(f"{k}={there.get(k)} there, {settings.get(k)} asked for" for k in differing)
            raise ValueError(
                f"{root} holds a synthetic data set with other settings ({changes}); choose another folder "
                "or remove it"
            )
        return
    if root.is_dir() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty and holds no {SETTINGS_FILE}; choose a new folder")
    root.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(settings, indent=2) + "\n")


def encode(root: str, video: dict[str, Any], frames: Iterable[np.ndarray], settings: dict[str, Any]) -> str:
    """Write one planned video, whole or not at all, and return its path below `root`.

    OpenCV uses one thread, since workers share the processor.
    """
    import cv2

    cv2.setNumThreads(1)
    with VideoWriter(
        Path(root) / video["path"], fps=video["fps"], crf=settings["crf"], gop=settings["gop"]
    ) as writer:
        for frame in frames:
            writer.add(frame)
    return str(video["path"])


def render_missing(
    render: Render,
    root: Path,
    videos: list[dict[str, Any]],
    settings: dict[str, Any],
    *,
    workers: int,
    progress: Progress | None,
) -> int:
    """Call `render(root, video, settings)` in worker processes for every missing video; returns how many."""
    todo = [v for v in videos if not (root / v["path"]).is_file()]
    with _shown(progress) as report:
        for done in _render_all(render, root, todo, settings, workers):
            report(len(videos) - len(todo) + done, len(videos))
    return len(todo)


def _render_all(
    render: Render, root: Path, todo: list[dict[str, Any]], settings: dict[str, Any], workers: int
) -> Iterator[int]:
    """0, then the number of finished videos after each."""
    yield 0
    if workers == 0:
        for done, video in enumerate(todo, start=1):
            render(str(root), video, settings)
            yield done
        return
    if not todo:
        return
    # spawn: a fork of a process in which a detector has run would deadlock
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(todo)), mp_context=context) as pool:
        jobs = [pool.submit(render, str(root), video, settings) for video in todo]
        try:
            for done, job in enumerate(concurrent.futures.as_completed(jobs), start=1):
                job.result()
                yield done
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _shown(progress: Progress | None) -> Iterator[Progress]:
    """The caller's hook, or a progress bar with the time left."""
    if progress is not None:
        yield progress
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task("rendering videos", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
