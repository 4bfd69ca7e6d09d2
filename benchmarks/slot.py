"""What the engine knows of a memory slot of 1 TiB made private in one call.

Usage: python -m benchmarks.slot [GIB]

Prints the bytes of the engine's state, as a checkpoint takes them, and how much more memory the
process needs than with a slot of 1 MiB.  Replay must say that the one page mapped afterwards was
private.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say
from benchmarks.processes import MIB, once, own_peak

MOST_MB = 1.0


def main() -> None:
    """Print the figures of one size."""
    if len(sys.argv) == 4 and sys.argv[1] == "--once":
        state_of(Path(sys.argv[2]), int(sys.argv[3]))
        print(own_peak())
        return
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slot.parquet"
        state = state_of(path, gib << 30) / 1e6
        small, large = (once(__file__, str(path), str(size)) for size in (MIB, gib << 30))
    name = f"a slot of {gib:,} GiB made private in one call"
    print(f"{name}: {state:.3f} MB of state, {large - small:.1f} MiB more than one of 1 MiB")
    say(f"{name}: state", state, "MB", most=MOST_MB)
    say(f"{name}: more memory than with 1 MiB", large - small, "MiB")


def state_of(path: Path, size: int) -> int:
    """Replay such a recording; bytes of the engine's state at its end."""
    from replay import run
    from replay.engine.engine import Engine
    from replay.engine.stream import COLUMNS
    from tracekit.store import open_trace, write_events

    write_events(path, recorded(size))
    trace = open_trace(path)
    found = {f.code for f in run(trace, compiled=True).findings}
    assert "TK103" in found, f"the page that was mapped is not known to be private: {found}"
    engine = Engine(events=trace.manifest.events, compiled=True)
    for batch in trace.batches(COLUMNS):
        engine.feed(batch)
    return bytes_of(engine.kept_state())


def bytes_of(state: Any) -> int:
    """Of all arrays in it."""
    if isinstance(state, dict):
        return sum(map(bytes_of, state.values()))
    return int(getattr(state, "nbytes", 0))


def recorded(size: int) -> Any:
    """A VM with one slot, private from end to end, of which a device then gets a page."""
    from tracekit.events import EVENT_TYPES
    from tracekit.synth.calls import PAGE, Call, Op
    from tracekit.synth.rows import SOURCES, rows
    from tracekit.synth.vmm import BASE, Region, Vmm

    vmm = Vmm(regions=(Region(size=size),))
    steps = (Op.CREATE_VM, Op.CREATE_GMEM, Op.MMAP, Op.SLOT, Op.OPEN, Op.ATTACH)
    calls = [Call(step, BASE, size) for step in steps]
    calls.append(Call(Op.ATTRIBUTE, BASE, size, 8, parts=((BASE, size),)))
    calls.append(Call(Op.MAP, BASE + size // 2, PAGE))
    every = [row for call in calls for row in rows(call, vmm, vmm.tid)]
    return [
        EVENT_TYPES[row.event](
            ts_ns=at * 10_000, cpu=0, tid=vmm.tid, source=SOURCES[row.event], **row.columns
        )
        for at, row in enumerate(every)
    ]


if __name__ == "__main__":
    main()
