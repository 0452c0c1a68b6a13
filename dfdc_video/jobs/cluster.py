"""Jobs on a Ray cluster: every CPU gets a supervisor, which holds one isolated worker process.

A video that crashes or hangs therefore ends that worker process only, with the same reason as without a
cluster. A supervisor ends when its node is lost or Ray's memory monitor stops it: its video is tried again
elsewhere. Nodes that join later are used, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dfdc_video import __version__
from dfdc_video.jobs.workers import Job, Worker

RETRIES = 3  # of a video whose supervisor was lost
BAD_STARTS = 20  # supervisors lost in a row before their first video: the nodes lack something
CHECKING = -1
STORAGE_SECONDS = 10.0  # until a file written on one machine is visible on another
OBJECT_STORE_BYTES = 80 << 20  # nothing large is sent


class Supervisor:
    """On a node: runs one job at a time, in a process that may die."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def check(self, wanted: Sequence[str], version: str, patience_seconds: float) -> str:
        """Return "" where this node sees the storage and runs the same version; ValueError where not."""
        deadline = time.monotonic() + patience_seconds
        while missing := [path for path in wanted if not Path(path).exists()]:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"node {socket.gethostname()} does not see {missing[0]}: --root and --out must be on "
                    "storage that every node has under the same path"
                )
            time.sleep(0.2)
        if version != __version__:
            raise ValueError(
                f"node {socket.gethostname()} has dfdc_video {__version__}, this machine {version}: "
                "install the same version"
            )
        return ""

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_seconds: float) -> str:
        """The outcome of one job (see `Worker.outcome`)."""
        if self.worker is None or self.worker.is_lost():
            self.worker = Worker()
            while self.worker.outcome(1.0) is None:
                pass
        self.worker.give(0, (function, arguments), timeout_seconds)
        while (outcome := self.worker.outcome(1.0)) is None:
            pass
        return outcome


@contextlib.contextmanager
def cluster(
    address: str, *, workers: int, root: Path, out: Path
) -> Iterator[Callable[..., Generator[tuple[int, str], None, None]]]:
    """Connect, and yield a function like `workers.run_jobs` that uses every CPU of the cluster.

    The address "local" starts a cluster with `workers` CPUs. ValueError without Ray, without a cluster at
    `address`, and where a node does not see `root` and `out`.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs Ray: pip install 'dfdc_video[cluster]', on every node") from None
    own: dict[str, Any] = (
        {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        if address == "local"
        else {}
    )
    try:
        if ":" in address.removeprefix("ray://"):  # otherwise Ray waits for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"no Ray cluster could be used at {address!r} ({str(error).strip().splitlines()[0]}); start "
            "one with `ray start --head`, or use --ray local"
        ) from error
    token = out / f".ray-{uuid.uuid4().hex}"
    try:
        token.touch()
        yield partial(_run_jobs, ray, [str(root), str(token)])
    finally:
        ray.shutdown()
        token.unlink(missing_ok=True)


def _run_jobs(
    ray: Any, needed: list[str], jobs: Sequence[Job], *, workers: int, timeout_seconds: float
) -> Generator[tuple[int, str], None, None]:
    """Number and outcome of every job, in the order of completion.

    The cluster's CPUs, not `workers`, determine how many run at a time.
    """
    start = ray.remote(num_cpus=1, max_restarts=0)(Supervisor).remote
    waiting, left, losses = deque(range(len(jobs))), len(jobs), Counter[int]()
    # pending result -> its supervisor and the number of the job, CHECKING for the check of the node
    busy: dict[Any, tuple[Any, int]] = {}
    try:
        while left:
            running = sum(number != CHECKING for _, number in busy.values())
            places = min(int(ray.cluster_resources().get("CPU", 0)), len(waiting) + running) - len(busy)
            for supervisor in [start() for _ in range(places)]:
                busy[supervisor.check.remote(needed, __version__, STORAGE_SECONDS)] = (supervisor, CHECKING)
            for reference in ray.wait(list(busy), timeout=1.0)[0] if busy else ():
                supervisor, number = busy.pop(reference)
                outcome = _outcome(ray, reference)
                losses[number] = 0 if outcome is not None else losses[number] + 1
                if outcome is not None and waiting:
                    following = waiting.popleft()
                    busy[supervisor.run.remote(*jobs[following], timeout_seconds)] = (supervisor, following)
                else:
                    ray.kill(supervisor)
                if number == CHECKING and losses[number] >= BAD_STARTS:
                    raise OSError(
                        f"{BAD_STARTS} workers in a row died on starting: every node needs dfdc_video "
                        f"{__version__} with all of its requirements"
                    )
                if number != CHECKING and outcome is None and losses[number] <= RETRIES:
                    waiting.append(number)
                elif number != CHECKING:
                    left -= 1
                    lost = f"crash: its node or worker was lost {losses[number]} times"
                    yield number, lost if outcome is None else outcome
            if not busy:
                time.sleep(1.0)  # no node is alive: one may join
    finally:
        for supervisor, _ in busy.values():
            ray.kill(supervisor)


def _outcome(ray: Any, reference: Any) -> str | None:
    """What a supervisor returned; None where it was lost. Raises errors that would affect every job."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        return None
