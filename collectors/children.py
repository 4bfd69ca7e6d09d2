"""Processes of ours that do one thing each and tell how it goes; and the signals that end them."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from tracekit.errors import TracekitError

__all__ = ("Child", "Children", "Stop", "stop_signals")


@dataclass
class Child:
    """A process of ours: its pid, and the pipe on which it tells how it goes."""

    pid: int
    said: int
    rest: bytes = b""
    told: dict[str, object] = field(default_factory=dict)
    alive: bool = True


class Children:
    """All that one supervisor made."""

    def __init__(self, stop: Stop) -> None:
        """``stop``: what else to listen to."""
        self._stop = stop
        self._all: list[Child] = []

    @property
    def alive(self) -> bool:
        """Whether one has not ended."""
        return any(child.alive for child in self._all)

    def fork(self, work: Callable[[int], None]) -> Child:
        """Run ``work`` in a process of its own, which tells through the pipe it is given."""
        said, tell = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            os.close(tell)
            child = Child(pid, said)
            self._all.append(child)
            return child
        _in_child(work, said, tell)

    def listen(self, seconds: float) -> None:
        """Take what children say; a child whose pipe ends has ended."""
        alive = {child.said: child for child in self._all if child.alive}
        heard, _, _ = select.select([*alive, self._stop.wakes], [], [], seconds)
        for fd in heard:
            if fd == self._stop.wakes:
                with suppress(BlockingIOError):
                    os.read(fd, 512)
                continue
            child = alive[fd]
            data = os.read(fd, 1 << 16)
            if not data:
                child.alive = False
                continue
            *lines, child.rest = (child.rest + data).split(b"\n")
            for line in lines:
                child.told.update(json.loads(line))

    def end(self) -> None:
        """Wait for those that have ended, and end the others."""
        for child in self._all:
            self._end(child)

    @staticmethod
    def _end(child: Child) -> None:
        if child.alive:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            child.alive = False
        with suppress(ChildProcessError):
            os.waitpid(child.pid, 0)


class Stop:
    """Set by a signal; ``wakes`` can be read once one came."""

    def __init__(self) -> None:
        self.signal = 0
        self.wakes, self._wake = os.pipe()
        os.set_blocking(self.wakes, False)
        os.set_blocking(self._wake, False)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        with suppress(BlockingIOError):
            os.write(self._wake, b"x")

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.wakes)
        os.close(self._wake)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Signals that end a recording do so cleanly; more of them change nothing."""
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()


def _in_child(work: Callable[[int], None], said: int, tell: int) -> NoReturn:
    """Do the work and be gone; nothing of the parent's runs here any more."""
    status = 1
    try:
        os.close(said)
        os.setsid()  # Ctrl-C is for the supervisor, which then tells us
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        work(tell)
        status = 0
    except TracekitError as error:
        with suppress(OSError):
            os.write(tell, json.dumps({"error": error.message}).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(status)
