"""extraction.py and workers.py: what a run writes, what it does again, and what a crash leaves undone.

Real videos, real processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfdc_video.files import is_full
from dfdc_video.folders.prepared import RESULT_KEYS, PreparedFolder
from dfdc_video.jobs.workers import run_jobs
from dfdc_video.preparation import extraction
from dfdc_video.preparation.extraction import extract_all, run_pool
from dfdc_video.preparation.settings import PrepareSettings
from dfdc_video.records import Video

NAMES = ("a", "b", "a_fake", "a_other", "broken")


def video(name: str, source: str = "") -> Video:
    return Video(name, "t", f"{name}.mp4", int("fake" in name), source_id=source)


VIDEOS = [video("a"), video("b"), video("a_fake", "a"), video("a_other", "gone"), video("broken")]
HASHES = {name: name * 3 for name in NAMES}


@pytest.fixture
def root(make_video, tmp_path) -> Path:
    """Two originals, a fake of one of them, a fake whose original is missing, and a file that is no video."""
    for number, name in enumerate(NAMES[:4]):
        make_video(
            f"raw/{name}.mp4",
            num_frames=16,
            identity=0 if name == "a_fake" else number,
            height=180,
            width=240,
        )
    (tmp_path / "raw/broken.mp4").write_text("no video")
    return tmp_path / "raw"


def run(root, out, videos=VIDEOS, hashes=HASHES, workers=2, **more):
    settings = PrepareSettings(size=64, workers=workers, timeout_seconds=120, **more)
    return extract_all(root, out, videos, hashes, settings)


def tree(out: Path) -> dict[str, bytes]:
    """Everything that was made, without the times that it took."""
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    return {
        k: json.dumps({**json.loads(v), "seconds": 0}).encode() if k.startswith("work/") else v
        for k, v in files.items()
    }


def stamps(out: Path) -> dict[str, int]:
    return {p.stem: p.stat().st_mtime_ns for p in (out / "work").glob("*.json")}


def test_results_depend_neither_on_order_nor_on_workers_nor_on_an_earlier_run(root, tmp_path):
    assert (
        run(root, tmp_path / "one", workers=1) == [] == run(root, tmp_path / "three", VIDEOS[::-1], workers=3)
    )
    one = tree(tmp_path / "one")
    assert one == tree(tmp_path / "three") and len(one) == 5 + 4
    results = {name: PreparedFolder(tmp_path / "one").result(name) for name in NAMES}
    assert {n: r["status"] for n, r in results.items()} == {
        **dict.fromkeys(NAMES, "ok"),
        "broken": "unreadable",
    }
    assert {n: r["own_boxes"] for n, r in results.items()} == {**dict.fromkeys(NAMES, True), "a_fake": False}
    assert {n: (r["content_hash"], r["source_hash"]) for n, r in results.items()} == {
        n: (n * 3, "aaa" if n == "a_fake" else "") for n in NAMES
    }
    assert results["broken"]["rejections"][0]["reason"].startswith(
        "unreadable: broken.mp4 is not a readable video"
    )
    before = stamps(tmp_path / "one")
    assert run(root, tmp_path / "one") == [] and stamps(tmp_path / "one") == before
    # Another original, without its fakes: these stay as they are; with them they are done again.
    changed = {**HASHES, "a": "other"}
    run(root, tmp_path / "one", VIDEOS[:2], changed)
    assert [n for n, t in stamps(tmp_path / "one").items() if t != before[n]] == ["a"]
    run(root, tmp_path / "one", VIDEOS, changed)
    assert {n for n, t in stamps(tmp_path / "one").items() if t != before[n]} == {"a", "a_fake"}
    # A face video that was lost, and what a killed run left, are made good.
    (tmp_path / "three/tracks/b/b_00.mp4").unlink()
    PreparedFolder(tmp_path / "three").result_path("a_other").unlink()
    (tmp_path / "three/tracks/a_other/.a_other_00.1.part.mp4").write_text("half")
    (tmp_path / "three/work/.a_other.json.part").write_text("{")
    (tmp_path / "three/work/broken.json").write_text('{"content_hash": ')
    run(root, tmp_path / "three")
    assert tree(tmp_path / "three") == one
    # A fake is done with its own boxes where its original is not part of the set, and is another result.
    run(root, tmp_path / "three", VIDEOS[2:3])
    assert PreparedFolder(tmp_path / "three").result("a_fake")["own_boxes"]


def test_a_fake_whose_original_crashed_is_done_again_with_its_boxes(root, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    videos = [VIDEOS[0], VIDEOS[2]]

    def crash_on_a(jobs, **settings):
        return run_jobs(
            [(os._exit, (3,)) if arguments[2].video_id == "a" else (f, arguments) for f, arguments in jobs],
            **settings,
        )

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "run_jobs", crash_on_a)
        (failure,) = run(root, out, videos)
    assert (failure.video_id, failure.stage, failure.reason) == (
        "a",
        "decode",
        "crash: the worker died, exit code 3",
    )
    assert (
        not PreparedFolder(out).result_path("a").exists()
        and PreparedFolder(out).result("a_fake")["own_boxes"]
    )
    assert "1 fakes have boxes of their own" in caplog.text
    assert run(root, out, videos) == [] and not PreparedFolder(out).result("a_fake")["own_boxes"]
    run(root, tmp_path / "at_once", videos)
    assert tree(out) == tree(tmp_path / "at_once")


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (time.sleep, (60,), "timeout: not done after 2 s"),
        (os._exit, (3,), "crash: the worker died, exit code 3"),
        (os._exit, (0,), "crash: the worker died, exit code 0"),
        (ctypes.string_at, (0,), "crash: the worker died, exit code -11 (SIGSEGV)"),
        (bytearray, (1 << 62,), "memory: not enough for this video"),
        (int, ("x",), "failure: ValueError: invalid literal"),
    ],
)
def test_a_hang_or_a_crash_costs_one_video(tmp_path, function, arguments, reason):
    left = tmp_path / "tracks/bad/half.mp4"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    ended = []
    calls = [(function, arguments), *[(time.sleep, (0.05,))] * 3]
    jobs = [
        (video(name), arguments) for name, (_, arguments) in zip(("bad", "b", "c", "d"), calls, strict=True)
    ]
    failures = run_pool(
        function,
        jobs,
        PreparedFolder(tmp_path),
        workers=1,
        timeout_seconds=2,
        done=lambda: ended.append(1),
        run=lambda _, **k: run_jobs(calls, **k),
    )
    assert [(f.video_id, f.stage) for f in failures] == [("bad", "decode")] and failures[0].reason.startswith(
        reason
    )
    assert len(ended) == 4 and not left.exists()


def children() -> set[int]:
    return {
        int(p) for task in Path("/proc/self/task").iterdir() for p in (task / "children").read_text().split()
    }


def test_a_lack_that_concerns_every_video_stops_the_run(tmp_path):
    before = children()
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        run_pool(
            os.stat,
            [(video("a"), ("/nowhere",))],
            PreparedFolder(tmp_path),
            workers=1,
            timeout_seconds=30,
            done=int,
        )
    with pytest.raises(ImportError, match="no_such_library"):
        run_pool(
            __import__,
            [(video("a"), ("no_such_library",))],
            PreparedFolder(tmp_path),
            workers=1,
            timeout_seconds=30,
            done=int,
        )
    assert children() == before


ALONE = """
import time
from dfdc_video.jobs.workers import run_jobs
if __name__ == "__main__":
    list(run_jobs([(time.sleep, (600,))] * 2, workers=2, timeout_seconds=600))
"""


def is_alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_end_with_their_parent(tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    process = subprocess.Popen([sys.executable, str(tmp_path / "alone.py")])
    found: list[str] = []
    deadline = time.monotonic() + 60
    # the resource tracker of multiprocessing is one, too
    while len(found) < 3 and time.monotonic() < deadline:
        time.sleep(1.0)
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(found) == 3 and all(is_alive(p) for p in found)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(is_alive(p) for p in found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [p for p in found if is_alive(p)]


def test_a_worker_that_cannot_start_is_an_error(tmp_path):
    (tmp_path / "unguarded.py").write_text(ALONE.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "unguarded.py")], capture_output=True, text=True, timeout=120
    )
    assert (
        done.returncode == 1
        and "a worker process did not start (crash: the worker died, exit code 1)" in done.stderr
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("library", ["python", "av", "numpy", "pyarrow"])
def test_every_library_says_that_the_disk_is_full(library, tmp_path):
    import av
    import numpy as np
    import pandas as pd

    full = tmp_path / "full"
    full.symlink_to("/dev/full")  # some libraries delete what they could not write

    def write_video():
        with av.open(str(full), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for packet in (*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)):
                container.mux(packet)

    write = {
        "python": lambda: full.write_text("x"),
        "av": write_video,
        "numpy": lambda: np.savetxt(full, np.zeros(9)),
        "pyarrow": lambda: pd.DataFrame({"a": [1]}).to_parquet(full),
    }[library]
    with pytest.raises(Exception) as caught:
        write()
    assert is_full(caught.value) and not is_full(ValueError("full"))


def test_a_fake_never_takes_boxes_that_are_not_those_of_its_original(tmp_path, monkeypatch):
    """Where storage is shared badly, a node may see an older result."""
    monkeypatch.setattr(extraction, "STORAGE_SECONDS", 0.1)
    (tmp_path / "work").mkdir()
    result = dict.fromkeys(RESULT_KEYS) | {"stream": {"fps": 30.0}, "tracks": [{"track_id": "a_00"}]}
    PreparedFolder(tmp_path).result_path("a").write_text(json.dumps(result))
    assert extraction._source(PreparedFolder(tmp_path), "a", extraction._digest(result)) == result
    with pytest.raises(OSError, match=r"work/a.json is not what was written there"):
        extraction._source(PreparedFolder(tmp_path), "a", "another")
