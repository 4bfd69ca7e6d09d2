"""The process that moves pages: from descriptors that root opened, without root, into files.

It decodes nothing and imports nothing heavy.  Pages go into files for a while (a *chunk*); then the
next chunk begins.  A recording that is only spooled is one chunk.  Each chunk says up to which
time every CPU was drained: its watermark.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from collectors.tracefs.cpu_pages import CpuPages, Pipe

__all__ = ("CHUNKS", "CLOCKS", "COMPLETE", "RESERVE", "Chunk", "Limits", "Loss", "Recorder", "Told")

CHUNKS = ".open"
"""Where chunks lie that no segment was made of yet."""
COMPLETE = "chunk.json"
RESERVE = ".reserve"
RESERVE_BYTES = 8 << 20
"""Given back when the disk is full, so that what was recorded can be brought to an end."""
MARGIN_NS = 100_000_000
"""An event can appear in its buffer so much later than its time says, and still be in order."""
EMPTY_WAIT_S = 0.005
ONLINE = Path("/sys/devices/system/cpu/online")
COMMS_MAX = 1 << 16
CLOCKS: dict[str, Callable[[], int]] = {
    "mono": time.monotonic_ns,
    "boot": lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
}
"""The trace clocks that a process can read as well."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Events of a CPU that no page shows as lost.  ``count`` -1: nobody counted them."""

    cpu: int
    from_ns: int
    until_ns: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Files with pages, and what is known of them.  ``watermark_ns``: every event before it is in
    this chunk or an earlier one; 0: of all there are, this is the last.  ``overrun``: events that
    the kernel counted as overwritten meanwhile; a page that shows a loss may not have room for how
    many it were."""

    number: int
    watermark_ns: int
    overrun: int
    losses: tuple[Loss, ...]
    comms: dict[str, str]

    def to_json(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: str) -> Chunk:
        """What :meth:`to_json` wrote."""
        raw = json.loads(text)
        losses = tuple(Loss(**loss) for loss in raw.pop("losses"))
        return cls(losses=losses, **raw)


@dataclass(kw_only=True)
class Told:
    """How the recording goes.  ``moved``: bytes; ``cpu_s``: what this process used of a CPU.
    ``ended``: why it did; empty while it runs."""

    events: int = 0
    lost: int = 0
    moved: int = 0
    cpu_s: float = 0.0
    ended: str = ""

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``chunk_ns`` and ``chunk_bytes``: when a chunk ends; ``None``: there is one only.
    ``most_bytes``: of pages on disk; 0: as many as there is room for.  ``clock``: the pages'."""

    flush_ns: int
    chunk_ns: int | None = None
    chunk_bytes: int = 256 << 20
    most_bytes: int = 0
    clock: str = "mono"


@dataclass
class _Counted:
    """What was counted of a CPU at the last flush, and when."""

    unmarked: int = 0
    overrun: int = 0
    at_ns: int = 0


class Recorder:
    """Moves the pages of all CPUs until it is told to stop, or cannot go on."""

    def __init__(
        self,
        cpus: Sequence[CpuPages],
        limits: Limits,
        *,
        folder: Path,
        saved_cmdlines: int = -1,
        tracing_on: int = -1,
        online: Path = ONLINE,
    ) -> None:
        """``folder``: to write to.  ``saved_cmdlines``, ``tracing_on``: tracefs's files, open."""
        self._cpus = list(cpus)
        self._limits = limits
        self._folder = folder
        self._cmdlines = saved_cmdlines
        self._switch = tracing_on
        self._cpu_before = time.process_time()
        self._now = CLOCKS[limits.clock]
        self._online = online
        self._pipe = Pipe()
        self._comms: dict[str, str] = {}
        self._counted = {cpu.cpu: _Counted() for cpu in self._cpus}
        self._losses: list[Loss] = []
        self._overrun = 0
        self._broken = False
        self._chunk = 0
        self._chunk_bytes = 0
        self._chunk_began = 0
        self.told = Told()
        self._by_fd = {cpu.raw: cpu for cpu in self._cpus}
        self._poll = select.poll()
        self._watched: set[int] = set()

    # -- the loop --------------------------------------------------------------------------------

    def run(self, stop: int, status: int, chunks: int = -1) -> None:
        """Record until ``stop`` can be read (or its other end is closed), then drain.

        Lines of :class:`Told` go to ``status``; ``chunks`` is told of every complete chunk.
        """
        self._poll.register(stop, select.POLLIN | select.POLLHUP)
        self._reserve()
        self._begin_chunk(self._now())
        self._watch_online()
        _say(status, self.told.to_line())  # ready
        next_flush = self._now() + self._limits.flush_ns
        try:
            while not self.told.ended:
                wait_ns = max(next_flush - self._now(), 0)
                if self._wait(wait_ns, stop):
                    break
                if self._now() >= next_flush:
                    began = self._flush()
                    next_flush = max(next_flush, began) + self._limits.flush_ns
                    self._end_chunk_if_due(began, chunks)
                    _say(status, self.told.to_line())
        except OSError as why:
            self._cannot_write(why)
        self._finish(chunks)
        self.told.ended = self.told.ended or "asked"
        _say(status, self.told.to_line())

    def _wait(self, ns: int, stop: int) -> bool:
        """Move what becomes ready within ``ns``; whether to stop."""
        moved = 0
        ready = self._poll.poll(ns / 1e6 + 0.5)
        for fd, what in ready:
            if fd == stop:
                return True
            if what & (select.POLLERR | select.POLLNVAL):
                self._unwatch(fd)
                continue
            moved += self._moved(self._by_fd[fd].move_full(self._pipe))
        if ready and not moved:
            time.sleep(EMPTY_WAIT_S)  # ready, but no page is full
        return False

    def _flush(self) -> int:
        """Take everything that is there, also of pages that are not full; when that began."""
        began = self._now()
        for cpu in self._cpus:
            self._moved(cpu.move_full(self._pipe) + cpu.take_partial())
        self._count(began)
        self._note_comms()
        self._watch_online()
        most = self._limits.most_bytes
        if most and self._limits.chunk_ns is None and self.told.moved >= most:
            self.told.ended = "as large as --max-size allows"
        return began

    def _moved(self, count: int) -> int:
        self.told.moved += count
        self._chunk_bytes += count
        return count

    def _finish(self, chunks: int) -> None:
        """Switch recording off, drain what is left, and end the last chunk."""
        if self._switch >= 0:
            with contextlib.suppress(OSError):
                os.write(self._switch, b"0")
        if not self._broken:
            try:
                # Until nothing comes: full pages become readable as partial ones are taken.
                for _ in range(64):
                    before = self.told.moved
                    self._flush()
                    if self.told.moved == before:
                        break
            except OSError as why:
                self._cannot_write(why)
        (self._folder / RESERVE).unlink(missing_ok=True)
        self._count(self._now())
        self._end_chunk(0, chunks)

    def _cannot_write(self, why: OSError) -> None:
        """The disk is full, or worse: from here on nothing is known."""
        self._broken = True
        full = why.errno in (errno.ENOSPC, errno.EDQUOT)
        self.told.ended = "the disk is full" if full else f"cannot write: {why.strerror}"
        (self._folder / RESERVE).unlink(missing_ok=True)
        now = self._now()
        for cpu in self._cpus:
            cpu.cut_to_whole_pages()
            since = self._counted[cpu.cpu].at_ns
            self._losses.append(Loss(cpu=cpu.cpu, from_ns=since, until_ns=now, count=-1))

    # -- what is known beside the pages ----------------------------------------------------------

    def _count(self, now: int) -> None:
        """Read every CPU's statistics; what they show as lost becomes a loss of this interval."""
        events = lost = 0
        for cpu in self._cpus:
            stats = cpu.stats()
            counted = self._counted[cpu.cpu]
            events += stats.read
            lost += stats.overrun + stats.unmarked
            more = stats.unmarked - counted.unmarked
            if more > 0:
                self._losses.append(
                    Loss(cpu=cpu.cpu, from_ns=counted.at_ns, until_ns=now, count=more)
                )
            self._overrun += stats.overrun - counted.overrun
            counted.overrun = stats.overrun
            counted.unmarked, counted.at_ns = stats.unmarked, now
        self.told.events, self.told.lost = events, lost
        self.told.cpu_s = round(time.process_time() - self._cpu_before, 3)

    def _note_comms(self) -> None:
        """Keep the names of threads, of which the kernel remembers few."""
        if self._cmdlines < 0:
            return
        try:
            text = os.pread(self._cmdlines, 1 << 18, 0).decode("utf-8", "replace")
        except OSError:
            return
        for line in text.splitlines():
            tid, _, name = line.strip().partition(" ")
            if tid.isdigit() and name and len(self._comms) < COMMS_MAX:
                self._comms[tid] = name

    def _watch_online(self) -> None:
        """Wait for CPUs that came up; those that went down keep what is in their buffers."""
        up = _cpu_list(self._online)
        for cpu in self._cpus:
            if cpu.raw not in self._watched and (up is None or cpu.cpu in up):
                self._watched.add(cpu.raw)
                self._poll.register(cpu.raw, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.discard(fd)
            self._poll.unregister(fd)

    # -- files -----------------------------------------------------------------------------------

    def _begin_chunk(self, now: int) -> None:
        self._chunk += 1
        self._chunk_bytes = 0
        self._chunk_began = now
        up = _cpu_list(self._online)
        for cpu in self._cpus:
            counted = self._counted[cpu.cpu]
            counted.at_ns = counted.at_ns or now
            cpu.into(self._place(cpu.cpu))
            if self._limits.chunk_ns is None and (up is None or cpu.cpu in up):
                _ = cpu.file  # an empty file says that the CPU is there

    def _place(self, cpu: int) -> Path:
        if self._limits.chunk_ns is None:
            return self._folder / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw"
        return self._folder / CHUNKS / f"{self._chunk:06}" / f"cpu{cpu}"

    def _end_chunk_if_due(self, began: int, chunks: int) -> None:
        limits = self._limits
        if limits.chunk_ns is None:
            return
        due = began - self._chunk_began >= limits.chunk_ns
        if due or self._chunk_bytes >= limits.chunk_bytes:
            self._end_chunk(began - MARGIN_NS, chunks)
            self._begin_chunk(began)

    def _end_chunk(self, watermark: int, chunks: int) -> None:
        chunk = Chunk(
            number=self._chunk,
            watermark_ns=watermark,
            overrun=self._overrun,
            losses=tuple(self._losses),
            comms=dict(self._comms),
        )
        if chunks >= 0:
            # The file is there when the chunk is complete; the pipe only wakes who waits for it.
            place = self._folder / CHUNKS / f"{chunk.number:06}" / COMPLETE
            write_private(place.with_name(".part"), chunk.to_json())
            os.replace(place.with_name(".part"), place)
            _say(chunks, b"\n")
            self._comms.clear()
        else:
            self._write_spool(chunk)
        self._losses.clear()
        self._overrun = 0

    def _write_spool(self, chunk: Chunk) -> None:
        """What an import needs beside the pages."""
        comms = "".join(f"{tid} {name}\n" for tid, name in chunk.comms.items())
        write_private(self._folder / "saved_cmdlines", comms.encode())
        lines = [f"{x.cpu} {x.from_ns} {x.until_ns} {x.count}\n" for x in chunk.losses]
        if lines:
            write_private(self._folder / "losses", "".join(lines).encode())
        for cpu in self._cpus:
            if cpu.place.exists():
                write_private(cpu.place.with_name("stats"), cpu.stats_text().encode())

    def _reserve(self) -> None:
        file = os.open(self._folder / RESERVE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVE_BYTES)
        except OSError:
            pass  # no room even now: the first page will say so
        finally:
            os.close(file)


def write_private(path: Path, data: bytes) -> None:
    """A file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(file, "wb") as opened:
        opened.write(data)


def _say(to: int, line: bytes) -> None:
    """Tell another process, which may be gone."""
    view = memoryview(line)
    try:
        while view:
            view = view[os.write(to, view) :]
    except OSError:
        pass


def _cpu_list(path: Path) -> frozenset[int] | None:
    """``0-3,8`` as numbers; ``None`` where it does not say."""
    try:
        text = path.read_text(encoding="ascii").strip()
        parts = [part.partition("-") for part in text.split(",") if part]
        return frozenset(n for a, _, b in parts for n in range(int(a), int(b or a) + 1))
    except (OSError, ValueError):
        return None
