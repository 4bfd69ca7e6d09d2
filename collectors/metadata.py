"""What pages mean and where they are from: the files that a recording needs beside them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from collectors.plans import Plan
from collectors.snapshot import Snapshot
from collectors.tracefs.install import Installed
from collectors.tracefs.instance import Instance
from tracekit.ftrace.collected import FILE as COLLECTED

__all__ = ("Metadata", "gather_metadata")

KALLSYMS = Path("/proc/kallsyms")


@dataclass(frozen=True)
class Metadata:
    """Files by name, as an import of raw pages reads them; bytes of a page."""

    files: dict[str, bytes]
    page_size: int


def gather_metadata(
    instance: Instance, made: Installed, plan: Plan, snapshot: Snapshot, lacks: list[str]
) -> Metadata:
    """Everything but the pages, read now, as root."""
    tracefs, own = instance.tracefs, instance.files
    files = {
        f"events/{name}": tracefs.read(f"events/{name}").encode()
        for name in ("header_page", "header_event")
    }
    for source in made.events:
        name = f"events/{source.replace(':', '/')}/format"
        files[name] = own.read(name).encode()
    probes = [
        line
        for line in tracefs.read_or_nothing("dynamic_events").splitlines()
        if f":{instance.name}/" in line
    ]
    files["dynamic_events"] = "".join(f"{line}\n" for line in probes).encode()
    files["trace_clock"] = own.read("trace_clock").encode()
    subbuf = own.read_or_nothing("buffer_subbuf_size_kb").strip()
    if subbuf:
        files["buffer_subbuf_size_kb"] = f"{subbuf}\n".encode()
    files["uname"] = (" ".join([*os.uname(), "GNU/Linux"]) + "\n").encode()
    targets = {line.split()[1].partition("%")[0] for line in made.definitions.values()}
    files["kallsyms"] = _symbols(targets)
    about = {
        "purpose": plan.purpose,
        "events": made.events,
        "left_out": {left.what: left.why for left in made.left_out},
        "not_set": lacks,
        "clock_pair": _clock_pair(),
        "host": snapshot.to_dict(),
    }
    files[COLLECTED] = json.dumps(about, indent=1).encode()
    return Metadata(files, int(subbuf) * 1024 if subbuf.isdigit() else 0)


def _symbols(names: set[str]) -> bytes:
    """The lines of the symbol table about some functions: addresses of all are nobody's need."""
    found = []
    if names:
        try:
            with KALLSYMS.open(encoding="utf-8", errors="replace") as lines:
                found = [line for line in lines if line.split(None, 3)[2].rstrip() in names]
        except OSError:
            pass
    return "".join(found).encode()


def _clock_pair() -> dict[str, int]:
    """One moment on two clocks; the smallest of a few readings."""
    best = (1 << 62, 0, 0)
    for _ in range(5):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        best = min(best, (after - before, (before + after) // 2, real))
    return {"mono_ns": best[1], "realtime_ns": best[2], "error_ns": best[0] // 2 + 1}
