"""`prepare` as a program that is killed, gets no disk, or meets a video that takes its decoder down: run
again, the result is the same.

A hook is put into the program and its workers through a `sitecustomize.py` on PYTHONPATH, which Python runs
before anything else.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dfdc_video.preparation import prepare as prepare_module
from dfdc_video.preparation.prepare import prepare

SETTINGS = {"size": 64, "ratios": (0.5, 0.0, 0.5)}
OPTIONS = "--size 64 --ratios 0.5 0 0.5 --workers {workers} --timeout-seconds {seconds}"
# The program dies when a file is about to get its name, or just has got it: {name} is the end of its path.
KILL = """
import os, signal
replace = os.replace
def replace_and_die(source, target, **kwargs):
    if os.fspath(target).endswith({name!r}):
        if {after!r}:
            replace(source, target, **kwargs)
        import multiprocessing
        parent = multiprocessing.parent_process()
        os.kill(parent.pid if parent else os.getpid(), signal.SIGKILL)
        if parent:
            import time
            time.sleep(60)
    replace(source, target, **kwargs)
os.replace = replace_and_die
"""
# Two videos end in the library that reads them: in a crash, and in a loop.
BAD_DECODER = """
import ctypes, time
from dfdc_video.media import reader as video
probe = video.probe
def probe_or_die(path, *args, **kwargs):
    if path.stem == {crash!r}:
        ctypes.string_at(0)
    if path.stem == {hang!r}:
        time.sleep(600)
    return probe(path, *args, **kwargs)
video.probe = probe_or_die
"""


@pytest.fixture(scope="module")
def root(synthetic, tmp_path_factory) -> Path:
    """Four originals and their fakes, a broken file and a duplicate, a second each."""
    root = tmp_path_factory.mktemp("failing") / "raw"
    synthetic.generate(
        root, num_identities=4, seconds=1.0, parts=2, seed=1, progress=lambda done, total: None
    )
    return root


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> dict[str, bytes]:
    """What an uninterrupted run makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare("dfdc", root, out, workers=2, **SETTINGS)
    return outputs(out)


def outputs(out: Path) -> dict[str, bytes]:
    """Every file that counts; of results and summary all but the times that they took. summary.html tells
    times, hashes/ those of files.
    """
    files = {
        p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")
    }
    found = {
        name: p.read_bytes()
        for name, p in files.items()
        if not name.startswith("hashes/") and name != "summary.html"
    }
    timed = {
        name: {**json.loads(data), "seconds": 0}
        for name, data in found.items()
        if name.startswith("work/") or name == "summary.json"
    }
    return found | {name: json.dumps(value).encode() for name, value in timed.items()}


def run(
    root: Path, out: Path, *, hook: str = "", workers: int = 2, seconds: int = 120, **more
) -> tuple[int, str]:
    """Exit code and what was said."""
    environment = dict(os.environ)
    if hook:
        folder = Path(tempfile.mkdtemp(dir=out.parent))
        (folder / "sitecustomize.py").write_text(hook)
        environment["PYTHONPATH"] = str(folder)
    words = [
        "prepare",
        "dfdc",
        "--root",
        str(root),
        "--out",
        str(out),
        *OPTIONS.format(workers=workers, seconds=seconds).split(),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "dfdc_video", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        **more,
    )
    return done.returncode, done.stderr


def assert_nothing_half(out: Path, whole: dict[str, bytes]) -> None:
    """Every file that a stopped run shows under its name is as the uninterrupted run makes it."""
    for name, data in outputs(out).items():
        assert data == whole[name], f"{name} was left half-written"


def test_a_kill_while_any_kind_of_file_is_written(root, whole, tmp_path):
    out = tmp_path / "out"
    last = sorted(name for name in whole if name.startswith("kitti/"))[-1]
    before, after = (
        ("settings.json", "tracks.parquet", last, "summary.html"),
        ("records/all.json", "test.csv"),
    )
    for name in (before[0], after[0], before[1], after[1], *before[2:]):
        (out / name).unlink(missing_ok=True)  # a file that is there and would not change is not written
        code, errors = run(root, out, hook=KILL.format(name=name, after=name in after))
        assert code == -signal.SIGKILL, f"not killed at {name}: {errors}"
        assert (out / name).exists() == (name in after)
        assert_nothing_half(out, whole)
    assert run(root, out)[0] == 0
    assert outputs(out) == whole


def test_kills_while_videos_are_worked_at(root, whole, tmp_path):
    """Before a face video gets its name; as a result is about to be written; and when it just was."""
    out = tmp_path / "out"
    results = {Path(name).stem: json.loads(data) for name, data in whole.items() if name.startswith("work/")}
    fake = next(name for name, result in results.items() if not result["own_boxes"])
    crop = next(
        name for name in whole if name.startswith("tracks/") and results[name.split("/")[1]]["own_boxes"]
    )
    assert run(root, out, hook=KILL.format(name=crop, after=False))[0] == -signal.SIGKILL
    assert list((out / crop).parent.glob(".*.part*")) and not (out / crop).exists()
    assert_nothing_half(out, whole)
    for workers, after in ((1, False), (3, True)):
        assert (
            run(root, out, workers=workers, hook=KILL.format(name=f"work/{fake}.json", after=after))[0]
            == -signal.SIGKILL
        )
        assert (out / f"work/{fake}.json").exists() == after
    assert_nothing_half(out, whole)
    assert len(list(out.glob("work/*.json"))) < len(results)
    assert run(root, out, workers=3)[0] == 0
    assert outputs(out) == whole and not list(out.glob("tracks/*/.*"))


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(kilobytes) -> a folder on a file system of that size; again, to change it. Needs the right
    to mount one.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def resize(kilobytes: int) -> Path:
        options = f"{'remount,' if os.path.ismount(folder) else ''}size={kilobytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        return folder

    yield resize
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def assert_told(errors: str) -> None:
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert (
        line.startswith("error: disk full")
        and "free space and run the same command again" in line
        and "Traceback" not in errors
    )


def test_a_full_disk_stops_the_run_and_room_ends_it_well(root, whole, small_disk):
    needed = sum(map(len, whole.values())) // 1024
    stopped_at = []
    for share in (0.1, 0.5, 0.85, 1.0, 1.2, 5.0):  # in the first videos, in later ones, and in the tables
        out = small_disk(int(needed * share)) / "out"
        code, errors = run(root, out)
        assert_nothing_half(out, whole)
        if code == 0:
            break
        assert_told(errors)
        stopped_at.append(len(list(out.glob("work/*.json"))))
    assert outputs(out) == whole
    assert len(stopped_at) >= 3 and stopped_at == sorted(stopped_at) and stopped_at[0] < stopped_at[-1]


def test_a_file_that_may_not_grow_is_told_like_a_full_disk(root, whole, tmp_path):
    """Needs no rights: no file of the run may be larger than the median face video."""
    out = tmp_path / "out"
    sizes = sorted(len(data) for name, data in whole.items() if name.endswith(".mp4"))
    code, errors = run(
        root, out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[len(sizes) // 2],) * 2)
    )
    assert code == 2
    assert_told(errors)
    assert_nothing_half(out, whole)
    assert run(root, out)[0] == 0 and outputs(out) == whole


def test_a_decoder_that_crashes_or_hangs_takes_down_one_video(root, whole, tmp_path):
    names = sorted(Path(name).stem for name in whole if name.startswith("tracks/"))
    crash, hang = (n.rsplit("_", 1)[0] for n in (names[2], names[9]))
    found = {}
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        code, errors = run(
            root, out, hook=BAD_DECODER.format(crash=crash, hang=hang), workers=workers, seconds=12
        )
        assert code == 0, errors
        found[workers] = outputs(out)
    assert found[1] == found[3]
    rows = list(csv.DictReader((tmp_path / "out1/quarantine.csv").read_text().splitlines()))
    told = {r["video_id"]: r["reason"] for r in rows if r["video_id"] in (crash, hang)}
    assert told == {
        crash: "crash: the worker died, exit code -11 (SIGSEGV)",
        hang: "timeout: not done after 12 s",
    }
    others = [n for n in whole if n.startswith("tracks/") and n.split("/")[1] not in (crash, hang)]
    alone = {n for n in others if n not in found[1]}
    assert not alone, "videos that are fine must have their face videos"
    # the decoder was mended: what failed is done, with what depends on it
    assert run(root, tmp_path / "out3")[0] == 0
    assert outputs(tmp_path / "out3") == whole


def test_the_order_in_which_a_reader_names_videos_does_not_matter(root, whole, tmp_path, monkeypatch):
    reader = prepare_module.DATASETS.get("dfdc")

    def backwards(root, **settings):
        videos, rejections = reader(root, **settings)
        return videos[::-1], rejections[::-1]

    monkeypatch.setattr(prepare_module.DATASETS, "get", lambda name: backwards)
    prepare("dfdc", root, tmp_path / "out", workers=1, **SETTINGS)
    assert outputs(tmp_path / "out") == whole
