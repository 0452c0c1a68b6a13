"""Jobs on a real Ray cluster of two nodes on this machine, one of which is killed meanwhile: the result is
the same as locally.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from dfdc_video.jobs import cluster as cluster_module
from dfdc_video.jobs.cluster import cluster as connect
from dfdc_video.jobs.workers import run_jobs
from dfdc_video.preparation.prepare import prepare

pytest.importorskip("ray")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture
def folder():
    """A short path, as Ray's sockets require."""
    made = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


# For the workers of a node, through a sitecustomize.py: the second node stops for good in its first face
# video, the head waits for that in its third.
HOLD = """
import os, time
from pathlib import Path
replace, count, marker = os.replace, 0, Path(os.environ["HOLD_MARKER"])
def replace_or_hold(source, target, **kwargs):
    global count
    count += os.fspath(target).endswith(".mp4")
    if os.environ["HOLD_NODE"] == "second" and count == 1:
        marker.touch()
        time.sleep(600)
    while os.environ["HOLD_NODE"] == "head" and count >= 3 and not marker.exists():
        time.sleep(0.05)
    replace(source, target, **kwargs)
os.replace = replace_or_hold
"""


@pytest.fixture
def nodes(folder):
    """A head and a second node, one CPU each."""
    from ray._private.utils import get_ray_address_file
    from ray.cluster_utils import Cluster

    # a head with its own temp_dir writes there, too, and does not create it
    Path(get_ray_address_file(None)).parent.mkdir(exist_ok=True)
    (folder / "hook").mkdir()
    (folder / "hook/sitecustomize.py").write_text(HOLD)
    hook = {"PYTHONPATH": str(folder / "hook"), "HOLD_MARKER": str(folder / "held")}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "temp_dir": str(folder / "r"), "env_vars": {**hook, "HOLD_NODE": "head"}},
    )
    try:
        second = cluster.add_node(**NODE, env_vars={**hook, "HOLD_NODE": "second"})
        yield cluster, second
    finally:
        cluster.shutdown()


def outcome(out: Path) -> dict[str, bytes]:
    """Every file of a data set except its page; results and summary without the measured times."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name != "summary.html"):
        name, content = path.relative_to(out).as_posix(), path.read_bytes()
        if name.startswith("work/") or name == "summary.json":
            content = json.dumps({**json.loads(content), "seconds": 0}).encode()
        found[name] = content
    return found


def test_a_node_that_is_killed_changes_nothing(nodes, folder, make_video, monkeypatch):
    cluster, second = nodes
    labels = {}
    for n in range(12):
        make_video(f"raw/v{n:02d}.mp4", num_frames=60, identity=n, height=180, width=240)
        fake = {"label": "FAKE", "original": f"v{n - 6:02d}.mp4"}
        labels[f"v{n:02d}.mp4"] = fake if n >= 6 else {"label": "REAL"}
    root = make_video("raw/broken.mp4", num_frames=9).parent
    (root / "broken.mp4").write_bytes(b"not a video")
    (root / "metadata.json").write_text(json.dumps({**labels, "broken.mp4": {"label": "REAL"}}))
    local = prepare("dfdc", root, folder / "local", size=64, workers=2)
    lost = []

    def watched(*arguments, outcome_of=cluster_module._outcome):
        found = outcome_of(*arguments)
        lost.extend([1] if found is None else [])
        return found

    monkeypatch.setattr(cluster_module, "_outcome", watched)
    killer = threading.Thread(target=kill_at_work, args=(cluster, second, folder / "held"), daemon=True)
    killer.start()
    prepare("dfdc", root, folder / "out", size=64, ray=cluster.address)
    killer.join(timeout=10)
    assert lost and not killer.is_alive(), "the node should have been killed during its work"
    assert len(local.videos) == 13 and len(local.tracks) == 12
    found = outcome(folder / "out")
    assert found == outcome(folder / "local")
    assert {"train.csv", "tracks.parquet", "quarantine.csv", "kitti/v00.txt"} <= found.keys()


def kill_at_work(cluster, node, held: Path) -> None:
    """Kill a node while it processes a video."""
    while not held.exists():
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)


KILL = """
import os, signal, time
with open(__file__ + ".log", "a") as file:
    file.write("x")
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(60)
"""


def test_failures_have_the_same_reasons_as_without_a_cluster(folder):
    (folder / "kill.py").write_text(KILL)
    quick = (time.sleep, (0.01,))
    calls = [(os._exit, (3,)), (time.sleep, (60,)), (int, ("x",)), (os._exit, (0,)), quick, quick, quick]
    settings = {"workers": 1, "timeout_seconds": 3}
    with connect("local", workers=2, root=folder, out=folder) as run:
        assert len(list(folder.glob(".ray-*"))) == 1
        assert dict(run(calls, **settings)) == dict(run_jobs(calls, **settings))
        killer = (runpy.run_path, (str(folder / "kill.py"),))
        expected = {0: "crash: its node or worker was lost 4 times", 1: "", 2: "", 3: ""}
        assert dict(run([killer, quick, quick, quick], **settings)) == expected
        assert (folder / "kill.py.log").read_text() == "xxxx"
        with pytest.raises(FileNotFoundError, match="/nowhere"):
            list(run([(os.stat, ("/nowhere",))], **settings))
    assert not list(folder.glob(".ray-*"))


def test_a_node_without_the_storage_is_named(folder, monkeypatch):
    monkeypatch.setattr(cluster_module, "STORAGE_SECONDS", 0.5)
    expected = "does not see .*/elsewhere: --root and --out must be on storage that every node has"
    with (
        pytest.raises(ValueError, match=expected),
        connect("local", workers=1, root=folder / "elsewhere", out=folder) as run,
    ):
        list(run([(int, ("1",))], workers=1, timeout_seconds=30))


def test_no_cluster_and_no_ray(folder, monkeypatch):
    for address in ("127.0.0.1:9", "nonsense", "host:port"):
        expected = f"no Ray cluster could be used at '{address}' .*--ray local"
        with (
            pytest.raises(ValueError, match=expected),
            connect(address, workers=1, root=folder, out=folder),
        ):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ValueError, match=r"pip install 'dfdc_video\[cluster\]'"),
        connect("local", workers=1, root=folder, out=folder),
    ):
        pass
