"""Isolated processes for jobs that may crash, hang or exhaust the memory without affecting other jobs.

A worker is a spawned process with its own pipe, so that its death is noticed at once and affects no other
worker. It dies with the process that started it.
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

# a function that spawned processes can import; its arguments
Job = tuple[Callable[..., Any], tuple[Any, ...]]
START_SECONDS = 600.0  # for a process to start and import its modules, on a busy machine
POLL_SECONDS = 1.0


def _serve(channel: Connection) -> None:
    """The worker's side: one job after another, until the pipe is closed."""
    # Ctrl-C reaches all processes of a terminal; the parent stops its workers itself
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
        channel.send(_run(function, arguments))


def _follow_parent() -> None:
    """Exit with the parent, even if it was killed: no worker may still write when the next run starts."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str | Exception:
    """The outcome of a job: "" or the reason for its failure in one line.

    An exception is returned where the error would affect every job (disk, missing library).
    """
    try:
        result = function(*arguments)
        return result if isinstance(result, str) else ""
    except MemoryError as error:
        return f"memory: not enough for this video {_first_line(error)}".rstrip()
    except OSError as error:  # subclasses of libraries cannot be unpickled
        return error if type(error).__module__ == "builtins" else OSError(error.errno, _first_line(error))
    except ImportError as error:
        return ImportError(_first_line(error))
    except Exception as error:
        return f"failure: {type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


class Worker:
    """One spawned process and its current job. A process that has died or was stopped is not used again."""

    def __init__(self) -> None:
        # a fork would copy the locks of detectors and deadlock
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.job = -1  # number of the current job; -1: starting
        self.alive, self.idle = True, False
        self._expect(START_SECONDS)

    def _expect(self, seconds: float) -> None:
        self.limit_seconds, self.deadline = seconds, time.monotonic() + seconds

    def give(self, number: int, job: Job, timeout_seconds: float) -> None:
        """Start a job; the worker must be idle."""
        assert self.idle and self.alive
        self.job, self.idle = number, False
        self._expect(timeout_seconds)
        with contextlib.suppress(OSError):  # it is dead, which `outcome` will report
            self.channel.send(job)

    def outcome(self, wait_seconds: float = 0.0) -> str | None:
        """The outcome of the job, "" or the reason for its failure; None while it runs.

        Raises errors that affect every job.
        """
        try:
            if self.channel.poll(wait_seconds):
                outcome = self.channel.recv()
            elif time.monotonic() < self.deadline:
                return None
            else:
                self.stop()
                outcome = f"timeout: not done after {self.limit_seconds:g} s"
        except (EOFError, OSError):
            self.stop(patience_seconds=5)
            outcome = f"crash: the worker died, {_exit_code(self.process.exitcode)}"
        if isinstance(outcome, Exception):
            raise outcome
        if outcome and self.job == -1:
            raise OSError(f"a worker process did not start ({outcome}); see its output above")
        self.idle = True
        return outcome

    def is_lost(self) -> bool:
        """Whether it has ended; a death between two jobs is noticed here, so that no job is blamed for it."""
        if self.alive and self.idle and self.channel.poll():
            self.stop()
        return not self.alive

    def stop(self, patience_seconds: float = 0) -> None:
        """Kill the process, unless it ends by itself in time."""
        self.alive = False
        self.process.join(patience_seconds)
        self.process.kill()
        self.process.join(10)  # a process that waits for a dead network drive cannot be killed
        self.channel.close()


def _exit_code(code: int | None) -> str:
    names = {-s.value: f" ({s.name})" for s in signal.Signals}
    return f"exit code {code}{names.get(code or 0, '')}"


def run_jobs(
    jobs: Sequence[Job], *, workers: int, timeout_seconds: float
) -> Generator[tuple[int, str], None, None]:
    """Number and outcome of every job ("" or the reason for its failure), in the order of completion.

    Raises errors that would affect every job.
    """
    waiting, left = deque(enumerate(jobs)), len(jobs)
    pool: list[Worker] = []
    try:
        while left:
            pool = [w for w in pool if not w.is_lost()]
            running = sum(w.job >= 0 and not w.idle for w in pool)
            pool += [Worker() for _ in range(min(workers, len(waiting) + running) - len(pool))]
            for w in pool:
                if w.idle and waiting:
                    w.give(*waiting.popleft(), timeout_seconds)
            wait([w.channel for w in pool], POLL_SECONDS)
            for w in pool:
                number = w.job
                if not w.idle and (outcome := w.outcome()) is not None and number >= 0:
                    left -= 1
                    yield number, outcome
    finally:
        for w in pool:
            w.stop()
