"""Isolated processes: jobs that may crash, hang or eat the memory, and cost nothing but themselves.

A worker is a spawned process with a pipe of its own, so that its end, however sudden, is seen at once and
touches no other worker. It dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

# a function that spawned processes can import, and its arguments
Job = tuple[Callable[..., Any], tuple[Any, ...]]
START_SECONDS = 600.0  # for a process to come up and import what it needs, on a busy machine
POLL_SECONDS = 1.0


def _serve(channel: Connection) -> None:
    """The worker's side: one job after another, until nobody is at the other end."""
    # Ctrl-C reaches the whole terminal; the parent ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)
    channel.send("")  # ready
    while True:
        try:
            function, arguments = channel.recv()
        except EOFError:
            return
        channel.send(_answer(function, arguments))


def _follow_parent() -> None:
    """End with the parent, also where it was killed: nobody else may be writing when the next run starts."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str | Exception:
    """Nothing where the job is done, or in one line why not. What would befall every job (disk, missing
    library) comes back as an exception.
    """
    try:
        said = function(*arguments)
        return said if isinstance(said, str) else ""
    except MemoryError as error:
        return f"memory: not enough for this video {_first_line(error)}".rstrip()
    except OSError as error:  # those of libraries do not unpickle
        return error if type(error).__module__ == "builtins" else OSError(error.errno, _first_line(error))
    except ImportError as error:
        return ImportError(_first_line(error))
    except Exception as error:
        return f"failure: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


class Worker:
    """One spawned process and the job that it is at. A process that has died or was stopped is not used
    again.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks of detectors that hang
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.job = -1  # number of the job that it is at; -1: starting
        self.alive, self.idle = True, False
        self._expect(START_SECONDS)

    def _expect(self, seconds: float) -> None:
        self.limit_seconds, self.deadline = seconds, time.monotonic() + seconds

    def give(self, number: int, job: Job, timeout_seconds: float) -> None:
        assert self.idle and self.alive
        self.job, self.idle = number, False
        self._expect(timeout_seconds)
        with contextlib.suppress(OSError):  # it is dead: `answer` will say so
            self.channel.send(job)

    def answer(self, wait_seconds: float = 0.0) -> str | None:
        """What became of the job: "" is done, other text says why not; None as long as it runs. Raises what
        befalls every job.
        """
        try:
            if self.channel.poll(wait_seconds):
                said = self.channel.recv()
            elif time.monotonic() < self.deadline:
                return None
            else:
                self.stop()
                said = f"timeout: not done after {self.limit_seconds:g} s"
        except (EOFError, OSError):
            self.stop(patience_seconds=5)
            said = f"crash: the worker died, {_exit_code(self.process.exitcode)}"
        if isinstance(said, Exception):
            raise said
        if said and self.job == -1:
            raise OSError(f"a worker process did not start ({said}); what it wrote above says why")
        self.idle = True
        return said

    def is_lost(self) -> bool:
        """Whether it has ended; one that died between two jobs is found out here, so that no job is blamed
        for it.
        """
        if self.alive and self.idle and self.channel.poll():
            self.stop()
        return not self.alive

    def stop(self, patience_seconds: float = 0) -> None:
        self.alive = False
        self.process.join(patience_seconds)
        self.process.kill()
        self.process.join(10)  # one that waits for a dead network drive cannot be killed
        self.channel.close()


def _exit_code(code: int | None) -> str:
    names = {-s.value: f" ({s.name})" for s in signal.Signals}
    return f"exit code {code}{names.get(code or 0, '')}"


def run_jobs(
    jobs: Sequence[Job], *, workers: int, timeout_seconds: float
) -> Generator[tuple[int, str], None, None]:
    """Number and outcome of every job ("" or why not), in the order in which they end. Raises what would
    befall every job.
    """
    waiting, left = deque(enumerate(jobs)), len(jobs)
    pool: list[Worker] = []
    try:
        while left:
            pool = [w for w in pool if not w.is_lost()]
            at_work = sum(w.job >= 0 and not w.idle for w in pool)
            pool += [Worker() for _ in range(min(workers, len(waiting) + at_work) - len(pool))]
            for w in pool:
                if w.idle and waiting:
                    w.give(*waiting.popleft(), timeout_seconds)
            wait([w.channel for w in pool], POLL_SECONDS)
            for w in pool:
                number = w.job
                if not w.idle and (said := w.answer()) is not None and number >= 0:
                    left -= 1
                    yield number, said
    finally:
        for w in pool:
            w.stop()
