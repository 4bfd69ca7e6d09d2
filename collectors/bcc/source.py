"""Runs a BPF program through Debian's python3-bpfcc and writes what it sees as a trace.

The result is a folder: ``trace.txt``, a line an event as ftrace prints it, in order of time;
``dynamic_events``, what the probes read; ``stats``, what was counted.  ``tracekit import
OUT/trace.txt --probes OUT/dynamic_events`` makes a trace of it.  Losses are lines in the text, as
ftrace has them: the kernel's own marks, and what the program counted besides.
"""

from __future__ import annotations

import ctypes
import heapq
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from collectors.bcc.program import Kind, build_program
from collectors.plans import Plan
from collectors.tracefs.files import Tracefs, find_tracefs
from tracekit.errors import TracekitError

__all__ = ("BccSource", "Recorded", "available", "record")

BINDING = Path("/usr/lib/python3/dist-packages")
"""Where Debian has its Python packages; an environment of our own does not look there."""
VALUES, TEXT, COMM = 12, 64, 16
PAGES = 256
"""Of buffer for each CPU."""
IN_ORDER_NS = 2_000_000_000
"""A thread may be stopped for so long between its event's time and the buffer."""
POLL_MS = 100


class _Event(ctypes.Structure):
    """``struct event`` of event.c."""

    _fields_ = (
        ("ts", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("tgid", ctypes.c_uint32),
        ("tid", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("comm", ctypes.c_char * COMM),
        ("value", ctypes.c_uint64 * VALUES),
        ("text", ctypes.c_char * TEXT),
    )


@dataclass(kw_only=True)
class Recorded:
    """What came of it.  ``marked``: of the lost events, those whose place the kernel showed."""

    events: int
    lost: int
    marked: int
    left_out: tuple[str, ...]


def available() -> str | None:
    """Why there is no BPF source here; ``None``: there is one."""
    try:
        _binding()
    except TracekitError as error:
        return error.message
    return None if os.geteuid() == 0 else "only root may load BPF programs"


def record(
    plan: Plan,
    out: Path,
    stop: Callable[[], bool],
    ready: Callable[[BccSource], None],
) -> Recorded:
    """Record a plan into the new folder ``out`` until ``stop()``; ``ready`` is called once.

    :raises TracekitError: bcc is not installed, the kernel refuses the program, or ``out`` cannot
        be written
    """
    source = BccSource(plan)
    try:
        try:
            out.mkdir(mode=0o700)
            (out / "dynamic_events").write_text("\n".join(source.program.definitions) + "\n")
            with (out / "trace.txt").open("x", encoding="utf-8") as text:
                source.write_to(text)
                ready(source)
                while not stop():
                    source.poll()
                told = source.finish()
            (out / "stats").write_text(json.dumps(asdict(told), indent=1) + "\n")
        except OSError as why:
            raise TracekitError(f"cannot write {out}: {why.strerror}") from None
        return told
    finally:
        source.close()


class BccSource:
    """A loaded program and its events."""

    def __init__(self, plan: Plan) -> None:
        """Compile, load and attach; nothing is seen before :meth:`write_to`.

        :raises TracekitError: bcc is not installed, or the kernel refuses the program
        """
        bcc = _binding()
        tracefs = find_tracefs()
        self.program = build_program(
            plan, has_event=tracefs.has_event, functions=_functions(tracefs)
        )
        if not self.program.kinds:
            raise TracekitError(f"nothing of the {plan.purpose} plan can be recorded here")
        self._events = self._newest = self._put_count = 0
        self._before: list[int] = []
        self._marked: dict[int, int] = {}
        self._waiting: list[tuple[int, int, str]] = []
        self._text: TextIO | None = None
        try:
            self._bpf: Any = bcc.BPF(text=self.program.text, cflags=["-w"])
            for attach in self.program.attach:
                add = self._bpf.attach_kretprobe if attach.returns else self._bpf.attach_kprobe
                add(event=attach.name, fn_name=attach.function)
        except Exception as why:  # bcc raises Exception itself
            raise TracekitError(
                f"the kernel or its headers do not take the BPF program: {why}",
                help="bcc needs the running kernel's headers (linux-headers-$(uname -r)) of an age"
                " near its own; without it tracefs records",
            ) from None

    def write_to(self, text: TextIO) -> None:
        """From now on events are taken, and written in order of time."""
        self._text = text
        self._bpf["events"].open_perf_buffer(self._take, page_cnt=PAGES, lost_cb=self._lose)
        self._before = self._failed()  # until there are buffers, every event fails

    def poll(self) -> None:
        """Take what is there, wait a little for more, and write what is old enough."""
        begun = time.monotonic_ns()
        self._bpf.perf_buffer_poll(timeout=POLL_MS)
        self._write(begun - IN_ORDER_NS)

    def finish(self) -> Recorded:
        """Take what came until now, and what was counted."""
        until = time.monotonic_ns()
        while True:
            before = self._events
            self._bpf.perf_buffer_poll(timeout=POLL_MS)
            if self._events == before or self._newest > until:
                break
        counted = [now - then for now, then in zip(self._failed(), self._before, strict=True)]
        for cpu, count in enumerate(counted):
            missing = count - self._marked.get(cpu, 0)
            if missing > 0:
                self._put(time.monotonic_ns(), f"CPU:{cpu} [LOST {missing} EVENTS]")
        self._write(1 << 63)
        marked = sum(self._marked.values())
        return Recorded(
            events=self._events,
            lost=max(sum(counted), marked),
            marked=marked,
            left_out=self.program.left_out,
        )

    def close(self) -> None:
        """Take the program out of the kernel."""
        self._bpf.cleanup()

    def _failed(self) -> list[int]:
        """By CPU: events that found no room."""
        failed = self._bpf["failed"]
        return [int(count) for count in failed[failed.Key(0)]]

    def _take(self, cpu: int, data: int, size: int) -> None:
        if size < ctypes.sizeof(_Event):
            return
        event = _Event.from_address(data)
        if event.kind >= len(self.program.kinds):
            return
        self._events += 1
        self._newest = max(self._newest, event.ts)
        self._put(event.ts, line_of(event, self.program.kinds[event.kind]))

    def _lose(self, cpu: int, count: int) -> None:
        self._marked[cpu] = self._marked.get(cpu, 0) + count
        self._put(time.monotonic_ns(), f"CPU:{cpu} [LOST {count} EVENTS]")

    def _put(self, ts: int, line: str) -> None:
        self._put_count += 1  # of equal times, the first that came is the first
        heapq.heappush(self._waiting, (ts, self._put_count, line))

    def _write(self, before: int) -> None:
        assert self._text is not None
        while self._waiting and self._waiting[0][0] < before:
            self._text.write(heapq.heappop(self._waiting)[2] + "\n")
        self._text.flush()


def line_of(event: _Event, kind: Kind) -> str:
    """An event as ftrace prints it."""
    comm = _plain(event.comm)
    seconds, ns = divmod(event.ts, 1_000_000_000)
    said = kind.line(tuple(event.value), _plain(event.text), comm, event.tid)
    who = f"{comm}-{event.tid} ({event.tgid})"
    return f"{who} [{event.cpu:03}] ..... {seconds}.{ns:09}: {said}"


def _plain(text: bytes) -> str:
    """Bytes of the kernel's as one word of a line."""
    return "".join(chr(c) if 32 <= c < 127 else "?" for c in text)


def _functions(tracefs: Tracefs) -> frozenset[str]:
    found = tracefs.functions()
    if found is None:
        raise TracekitError("tracefs does not say which functions there are")
    return found


def _binding() -> Any:
    """The module ``bcc`` of python3-bpfcc.

    :raises TracekitError: it is not installed
    """
    for extra in ([], [str(BINDING)]):
        sys.path += extra
        try:
            found = importlib.import_module("bcc")
            if hasattr(found, "BPF"):  # another project of this name has none
                return found
        except (ImportError, OSError):
            pass
        finally:
            for _ in extra:
                sys.path.remove(str(BINDING))
        sys.modules.pop("bcc", None)
    raise TracekitError(
        "there is no BPF source: bcc is not installed", help="Debian: apt-get install python3-bpfcc"
    )
