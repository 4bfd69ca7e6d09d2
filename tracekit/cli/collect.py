"""``tracekit collect``."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collectors.session import Collected, Progress
    from collectors.tracefs.install import Installed

__all__ = ("collect",)

PER_CPU_MOST = 1 << 30
EVERY_S = 0.5
SOURCES = ("tracefs", "bcc")


def collect(
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder to record into")
    ],
    purpose: Annotated[
        str,
        typer.Option(
            metavar="PURPOSE",
            help="What is to be judged: dma or linger; none records what --event names only",
        ),
    ] = "dma",
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="SYSTEM:NAME", help="A trace event to record as well (again: more)"),
    ] = None,
    only: Annotated[
        str, typer.Option(metavar="SOURCE", help="Record from this source: tracefs, or bcc alone")
    ] = "tracefs",
    duration: Annotated[
        str | None, typer.Option(metavar="D", help="End after this time; else with Ctrl-C")
    ] = None,
    vm: Annotated[
        str | None,
        typer.Option(metavar="NAME|PID", help="Record only this VM's threads, and new ones"),
    ] = None,
    spool: Annotated[
        bool,
        typer.Option(help="Keep the kernel's pages as they are, to import later; decode nothing"),
    ] = False,
    flush: Annotated[
        str, typer.Option(metavar="D", help="How often pages are taken that are not full")
    ] = "1s",
    segment: Annotated[
        str, typer.Option(metavar="D", help="How long a segment of the trace is at most")
    ] = "10s",
    buffer: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Ring buffer for each CPU; the plan's, else"),
    ] = None,
    clock: Annotated[
        str, typer.Option(metavar="CLOCK", help="mono, as QEMU's own traces, or boot")
    ] = "mono",
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Remove the oldest segments beyond this; --spool ends there"
        ),
    ] = None,
    max_segments: Annotated[
        int, typer.Option(metavar="N", min=0, help="Keep at most the newest N segments; 0: all")
    ] = 0,
) -> None:
    """Record this host, as root, until Ctrl-C: into a folder of trace segments, or of raw pages.

    Only setting up needs root; what others wrote is read by processes without any right. The
    kernel is left as it was found. A spool becomes a trace by tracekit import.

    Example: tracekit collect --purpose dma --duration 60s -o trace
    """
    from collectors.plans import PLANS
    from collectors.recorder import CLOCKS
    from collectors.session import Options
    from collectors.session import collect as record
    from tracekit.cli.duration import parse_duration
    from tracekit.cli.size import parse_size
    from tracekit.errors import TracekitError, UnknownNameError, UsageError

    if purpose not in (*PLANS, "none"):
        raise UnknownNameError("purpose", purpose, (*PLANS, "none"))
    if only not in SOURCES:
        raise UnknownNameError("source", only, SOURCES)
    if purpose == "none" and not event:
        raise UsageError("--purpose none records nothing", help="name events with --event")
    if only == "bcc":
        if purpose == "none" or event or vm or spool or buffer or max_size or max_segments:
            raise UsageError(
                "--only bcc records a whole plan as text, without limits",
                help="it takes --purpose, --duration and -o",
            )
        limit = parse_duration(duration, "--duration") if duration is not None else 0
        _from_bcc(out, purpose, limit / 1e9)
        return
    if clock not in CLOCKS:
        raise UnknownNameError("clock", clock, CLOCKS)
    if spool and max_segments:
        raise UsageError("--spool makes no segments", help="--max-size ends a spool")
    buffer_kb = parse_size(buffer, "--buffer") >> 10 if buffer is not None else 0
    if buffer is not None and not 16 << 10 <= buffer_kb << 10 <= PER_CPU_MOST:
        raise UsageError(f"--buffer {buffer} is not between 16K and 1G for each CPU")
    flush_ns = parse_duration(flush, "--flush")
    if flush_ns < 10_000_000:
        raise UsageError(f"--flush {flush} is too often", help="at least 10ms")
    options = Options(
        out=out,
        purpose=purpose,
        plan=PLANS.get(purpose),
        events=tuple(event or ()),
        vm=vm,
        spool=spool,
        duration_ns=parse_duration(duration, "--duration") if duration is not None else 0,
        flush_ns=flush_ns,
        segment_ns=max(parse_duration(segment, "--segment"), flush_ns),
        buffer_kb=buffer_kb,
        max_bytes=parse_size(max_size, "--max-size") if max_size is not None else 0,
        max_segments=max_segments,
        clock=clock,
    )
    line = _Line()
    try:
        collected = record(options, line.show, line.begin)
    except TracekitError:
        line.end()
        raise
    line.end()
    _say_how_it_was(options.out, collected, spool)
    if collected.problems:
        raise TracekitError(
            "; ".join(collected.problems), help="tracekit doctor --clean tries again"
        )
    if collected.signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        raise typer.Exit(130)


def _from_bcc(out: Path, purpose: str, seconds: float) -> None:
    """Record from the BPF source alone, into a folder that an import reads."""
    from collectors.bcc import record
    from collectors.children import stop_signals
    from collectors.plans import PLANS
    from tracekit.cli.console import write_output

    begun = [0.0]

    def ready(source: object) -> None:
        begun[0] = time.monotonic()
        print("ready: recording; Ctrl-C ends it", file=sys.stderr, flush=True)

    with stop_signals() as stop:

        def over() -> bool:
            return bool(stop.signal) or 0 < seconds < time.monotonic() - begun[0]

        told = record(PLANS[purpose], out, over, ready)
        ended_by = stop.signal
    for name in told.left_out:
        print(f"left out: {name}", file=sys.stderr)
    write_output(
        f"{out}: {told.events:,} events, {told.lost:,} lost\n"
        f"next: tracekit import {out}/trace.txt --probes {out}/dynamic_events -o trace.parquet\n",
        None,
    )
    if ended_by:
        raise typer.Exit(130)


class _Line:
    """The progress line on a terminal; nothing in a pipe."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = (0.0, 0)
        self._width = 0

    def begin(self, installed: Installed) -> None:
        """Say what cannot be recorded, and that everything else is now."""
        for left in installed.left_out:
            print(f"left out: {left.what}: {left.why}", file=sys.stderr)
        print("ready: recording; Ctrl-C ends it", file=sys.stderr, flush=True)

    def show(self, progress: Progress) -> None:
        """Now and then."""
        now = time.monotonic()
        since, events = self._last
        if not self._shown or now - since < EVERY_S:
            return
        rate = (progress.events - events) / (now - since) if since else 0.0
        self._last = (now, progress.events)
        text = (
            f"{progress.seconds:,.0f} s  {rate:,.0f} events/s  {progress.lost:,} lost"
            f"  {progress.moved / 1e6:,.1f} MB"
        )
        if progress.segments:
            text += f"  {progress.segments:,} segments, {progress.written / 1e6:,.1f} MB"
        self._width = max(self._width, len(text))
        print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the terminal's line free."""
        if self._shown and self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)


def _say_how_it_was(out: Path, collected: Collected, spool: bool) -> None:
    from tracekit.cli.console import write_output

    progress = collected.progress
    lines = [
        f"{out}: {progress.events:,} events in {progress.seconds:,.1f} s,"
        f" {progress.lost:,} lost, {progress.moved / 1e6:,.1f} MB of pages"
    ]
    share = progress.cpu_s / progress.seconds if progress.seconds else 0.0
    lines[0] += f" moved with {share:.1%} of a CPU"
    if not spool:
        lines[0] += f"; {progress.rows:,} rows in {progress.segments:,} segments"
    if progress.late:
        lines.append(f"{progress.late:,} events came after their segment: their times were held")
    lines += [f"blind: {probe}" for probe in collected.silent]
    if collected.ended not in ("", "asked"):
        lines.append(f"ended: {collected.ended}")
    if spool:
        lines.append(f"next: tracekit import {out} -o trace.parquet")
    else:
        lines.append(f"next: tracekit replay {out}")
    write_output("\n".join(lines) + "\n", None)
