"""The same stage on a Ray cluster: every CPU of it gets a supervisor, which holds one isolated worker process
as on a single machine.

A video that crashes or hangs therefore ends that worker process and gives the same reason as without a
cluster. What can end a supervisor is the loss of its node, or Ray's memory monitor: its video is tried again
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
LOOKING = -1
STORAGE_SECONDS = 10.0  # until a file written on one machine is seen on another
OBJECT_STORE_BYTES = 80 << 20  # nothing large travels


class Supervisor:
    """On a node: runs one job at a time in a process that may die."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def look(self, wanted: Sequence[str], version: str, patience_seconds: float) -> str:
        """Whether this node sees the storage and runs the same code; ValueError where not."""
        deadline = time.monotonic() + patience_seconds
        while missing := [path for path in wanted if not Path(path).exists()]:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"node {socket.gethostname()} does not see {missing[0]}: --root and --out must be on "
                    "storage that every node has under the same path"
                )  # fmt: skip
            time.sleep(0.2)
        if version != __version__:
            raise ValueError(
                f"node {socket.gethostname()} has dfdc_video {__version__}, this machine {version}: "
                "install the same"
            )
        return ""

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout_seconds: float) -> str:
        if self.worker is None or self.worker.is_lost():
            self.worker = Worker()
            while self.worker.answer(1.0) is None:
                pass
        self.worker.give(0, (function, arguments), timeout_seconds)
        while (said := self.worker.answer(1.0)) is None:
            pass
        return said


@contextlib.contextmanager
def cluster(
    address: str, *, workers: int, root: Path, out: Path
) -> Iterator[Callable[..., Generator[tuple[int, str], None, None]]]:
    """Connect, and give a function like `workers.run_jobs` that uses every CPU of the cluster; "local" starts
    one with `workers` CPUs.

    ValueError without Ray, without a cluster at `address`, and where a node does not see `root` and `out`.
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
        if ":" in address.removeprefix("ray://"):  # or Ray waits for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"no Ray cluster could be used at {address!r} ({str(error).strip().splitlines()[0]}); start "
            "one with `ray start --head`, or use --ray local"
        ) from error  # fmt: skip
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
    """Number and outcome of every job, in the order in which they end. Not `workers` but the cluster's CPUs
    say how many at a time.
    """
    start = ray.remote(num_cpus=1, max_restarts=0)(Supervisor).remote
    waiting, left, losses = deque(range(len(jobs))), len(jobs), Counter[int]()
    # an answer to come -> the supervisor and the number of its job, LOOKING for the first one
    busy: dict[Any, tuple[Any, int]] = {}
    try:
        while left:
            at_work = sum(number != LOOKING for _, number in busy.values())
            places = min(int(ray.cluster_resources().get("CPU", 0)), len(waiting) + at_work) - len(busy)
            for supervisor in [start() for _ in range(places)]:
                busy[supervisor.look.remote(needed, __version__, STORAGE_SECONDS)] = (supervisor, LOOKING)
            for reference in ray.wait(list(busy), timeout=1.0)[0] if busy else ():
                supervisor, number = busy.pop(reference)
                said = _answer(ray, reference)
                losses[number] = 0 if said is not None else losses[number] + 1
                if said is not None and waiting:
                    following = waiting.popleft()
                    busy[supervisor.run.remote(*jobs[following], timeout_seconds)] = (supervisor, following)
                else:
                    ray.kill(supervisor)
                if number == LOOKING and losses[number] >= BAD_STARTS:
                    raise OSError(
                        f"{BAD_STARTS} workers in a row died on starting: every node needs dfdc_video "
                        f"{__version__} with all that it needs"
                    )
                if number != LOOKING and said is None and losses[number] <= RETRIES:
                    waiting.append(number)
                elif number != LOOKING:
                    left -= 1
                    yield (
                        number,
                        f"crash: its node or worker was lost {losses[number]} times"
                        if said is None
                        else said,
                    )
            if not busy:
                time.sleep(1.0)  # no node is alive: one may join
    finally:
        for supervisor, _ in busy.values():
            ray.kill(supervisor)


def _answer(ray: Any, reference: Any) -> str | None:
    """What a supervisor says; None where it is lost. Raises what would befall every job."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        return None
