"""Does the preparation of thousands of videos leak? Memory, open files and speed over one long run, and the
time of a second run with nothing left to do.

    dfdc-video bench soak [num_videos 2000] [--out FILE]

Few videos are generated; copies differ in a few bytes at their end, so that every file has its own content
hash and is processed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfdc_video.folders.prepared import PreparedFolder, load_prepared
from dfdc_video.registry import BENCHMARKS
from dfdc_video.synthetic import deepfakes

MB = 1e6
SKIPPED = 0.04  # share of a phase at its start that does not count, while workers import modules


@dataclass
class Watch:
    """Samples of a process and its workers, from /proc, until it is `over`."""

    pid: int
    out: Path
    every_seconds: float
    # videos done, resident bytes by process, most open files of one
    samples: list[tuple[int, dict[int, int], int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.wait(self.every_seconds):
            done = PreparedFolder(self.out).num_results()
            own = [self.pid, *workers_of(self.pid)]
            self.samples.append(
                (done, {p: b for p in own if (b := resident_bytes(p))}, max(open_files(p) for p in own))
            )

    def row(self, name: str, *, workers: bool, low: int, high: int) -> str:
        """A table row of the memory in MB between two counts of videos: first and last quarter, slope, peak.

        Samples at the last count, when the tables are written, count for the peak only.
        """
        points = []
        for done, memory, _ in self.samples:
            chosen = [b for p, b in memory.items() if (p != self.pid) == workers]
            if chosen and low <= done <= high:
                points.append((done, sum(chosen) / len(chosen) / MB))
        start, end, slope = growth([(done, value) for done, value in points if done < high], low, high)
        peak = max((value for _, value in points), default=math.nan)
        return f"| {name} | {start:.1f} | {end:.1f} | {slope:+.2f} | {peak:.1f} |"


def workers_of(parent: int) -> list[int]:
    """Process ids of the spawned workers, without the resource tracker of multiprocessing."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit():
                continue
            of = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if of == parent and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return sorted(found)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def open_files(pid: int) -> int:
    """Open file descriptors of a process; 0 where it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def growth(points: Sequence[tuple[int, float]], low: int, high: int) -> tuple[float, float, float]:
    """Means over the first and the last quarter of `low` to `high` videos, and the slope per 1,000 videos."""
    quarters = [(low + SKIPPED * (high - low), low + (high - low) / 4), (high - (high - low) / 4, high)]
    means = []
    for start, end in quarters:
        inside = [(done, value) for done, value in points if start <= done <= end]
        if not inside:
            return math.nan, math.nan, math.nan
        means.append([sum(column) / len(inside) for column in zip(*inside, strict=True)])
    (x0, y0), (x1, y1) = means
    return y0, y1, (y1 - y0) / (x1 - x0) * 1000


def make_videos(root: Path, *, num_videos: int, num_identities: int, seconds: float) -> int:
    """Write `num_videos` files in DFDC's layout; returns how many of them are originals.

    A folder holds every generated video once, with its own tail.
    """
    generated = root.with_name(f"{root.name}_generated")
    deepfakes.generate(
        generated,
        num_identities=num_identities,
        seconds=seconds,
        parts=1,
        extras=False,
        progress=lambda done, total: None,
    )
    (listing,) = generated.glob("*/metadata.json")
    rows = json.loads(listing.read_text()).items()
    entries = sorted(rows, key=lambda entry: (bool(entry[1].get("original")), entry[0]))  # originals first
    originals = 0
    for number in range(math.ceil(num_videos / len(entries))):
        folder = root / f"dfdc_train_part_{number}"
        folder.mkdir(parents=True)
        chosen = entries[: num_videos - number * len(entries)]
        tail = struct.pack(">I4sQ", 16, b"free", number)  # an MP4 box that readers skip
        renamed = {name: f"{Path(name).stem}{number:03d}.mp4" for name, _ in entries}
        metadata = {}
        for name, row in chosen:
            (folder / renamed[name]).write_bytes((listing.parent / name).read_bytes() + tail)
            original = {"original": renamed[row["original"]]} if row.get("original") else {}
            metadata[renamed[name]] = {**row, **original}
        (folder / "metadata.json").write_text(json.dumps(metadata))
        originals += sum(not e.get("original") for _, e in chosen)
    return originals


def prepare(root: Path, out: Path, watch_seconds: float, **settings: Any) -> tuple[float, Watch]:
    """Run `prepare` in a process of its own and watch it; returns its seconds and the samples."""
    words = [w for name, value in settings.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    started = time.perf_counter()
    verb = [sys.executable, "-m", "dfdc_video", "prepare", "dfdc"]
    command = [*verb, "--root", str(root), "--out", str(out), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid, out, watch_seconds)
        thread = threading.Thread(target=watch.run, daemon=True)
        thread.start()
        assert process.stderr is not None
        errors = process.stderr.read()
        code = process.wait()
        watch.over.set()
        thread.join()
    if code:
        raise OSError(f"prepare ended with exit code {code}: {errors.strip().splitlines()[-1]}")
    return time.perf_counter() - started, watch


@BENCHMARKS.register(name="soak")
def soak(
    *,
    num_videos: int = 2000,
    num_identities: int = 26,
    seconds: float = 0.5,
    size: int = 64,
    workers: int = 2,
    every_seconds: float = 0.5,
) -> str:
    """Memory, open files and speed over thousands of short videos, and the time of a second run."""
    if not Path("/proc/self/statm").exists():
        raise ValueError("the soak test reads memory from /proc: it needs Linux")
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    try:
        originals = make_videos(
            folder / "raw", num_videos=num_videos, num_identities=num_identities, seconds=seconds
        )
        # a random split: copies of one video are a leak, which this benchmark accepts
        settings = {"size": size, "workers": workers, "split": "random"}
        first, watch = prepare(folder / "raw", folder / "out", every_seconds, **settings)
        second, _ = prepare(folder / "raw", folder / "out", every_seconds, **settings)
        statuses = load_prepared(folder / "out").videos["status"].value_counts().to_dict()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [
        watch.row("parent", workers=False, low=0, high=num_videos),
        watch.row("worker, originals (detection)", workers=True, low=0, high=originals),
        watch.row("worker, fakes (boxes of the original)", workers=True, low=originals, high=num_videos),
    ]
    files = [most for done, _, most in watch.samples if done]
    quarter = max(1, len(files) // 4)
    counts = ", ".join(f"{n} {status}" for status, n in statuses.items())
    lines = [
        f"{num_videos} videos of {seconds:g} s ({counts}), {workers} workers, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}.",
        "",
        "| process | first quarter, MB | last quarter, MB | per 1,000 videos, MB | peak, MB |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"- {num_videos / first:.1f} videos/s: {first:.1f} s from raw files to the finished set; a second "
        f"run with nothing to do: {second:.1f} s.",
        f"- Open files of one process: at most {max(files[:quarter], default=0)} in the first quarter, "
        f"{max(files[-quarter:], default=0)} in the last.",
        f"- Resident memory from /proc/PID/statm every {every_seconds:g} s ({len(watch.samples)} samples), "
        f"mean over the workers; quarters by videos done, without the first {SKIPPED:.0%} of a phase. The "
        "block that a worker keeps for the frames of a video is included.",
    ]
    return "\n".join(lines)
