"""A trace's sockets through ``judge_lingering``: what ``replay`` adds for a trace of vsock.

Usage: python -m benchmarks.linger [MILLIONS OF EVENTS]

Made recordings, repeated with other ports until they are long (4 million events by default):
packet-heavy (bulk data, one fault in each repetition), mixed (the same among three times as many
other events), and many short connections.  Prints events per second of CPU time (user and system,
the median of five runs in one process, after one that pays for imports and compiled code), and peak
memory of fresh processes over a quarter of the packet-heavy trace and over all of it.  Checks that
each run finds every planted fault, judges every close and says nothing else.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from tracekit.synth.vsock.generate import Made

if __name__ == "__main__":  # else this file's folder, where the package "replay" is another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say
from benchmarks.processes import MIB, once, own_peak

RUNS = 5
FIRST_PORT, PORTS = 49_152, 1 << 24
BATCH_EVENTS = 1 << 16


def main() -> int:
    """Run the benchmark; 0 if every result is right."""
    if len(sys.argv) == 3 and sys.argv[1] == "--once":
        return alone(Path(sys.argv[2]))
    events = int(float(sys.argv[1] if len(sys.argv) > 1 else 4) * 1_000_000)
    from tracekit.synth.vsock.generate import generate

    bulk = generate(
        "bulk", seed=1, fault="early-return",
        parameters={"connections": "4", "total_bytes": "9000000"},
    )  # fmt: skip
    short = generate("request-response", seed=1, parameters={"connections": "6", "requests": "2"})
    with tempfile.TemporaryDirectory() as folder:
        heavy = Path(folder) / "heavy.parquet"
        for name, made, others in (
            ("packet-heavy", bulk, 0), ("mixed", bulk, 3), ("short connections", short, 0),
        ):  # fmt: skip
            path = heavy if name == "packet-heavy" else Path(folder) / "other.parquet"
            times, rows = write(path, made, events, others)
            seconds = timed(path, made, times)
            print(f"{name + ', events/s of CPU':<32} {rows / seconds / 1e6:.2f} M of {rows:,}")
            say(f"sockets, {name}", rows / seconds / 1e6, "M events/s", runs=RUNS)
        quarter = Path(folder) / "quarter.parquet"
        write(quarter, bulk, events // 4, 0)
        small, large = (once(__file__, str(path)) * MIB / 1e6 for path in (quarter, heavy))
        print(f"{'peak RSS, a quarter':<32} {small:.0f} MB")
        print(f"{'peak RSS, the whole':<32} {large:.0f} MB ({large / small:.2f}x)")
        say("sockets, peak memory", large, "MB")
    return 0


def write(path: Path, made: Made, events: int, others: int) -> tuple[int, int]:
    """The recording again and again, with ``others`` times as many events of other things.

    Returns how many times, and the events of the whole.
    """
    import pyarrow as pa

    from tracekit.store import Manifest, TraceWriter
    from tracekit.store.events import from_events

    ordered = sorted(made.events, key=lambda e: e.ts_ns)
    base = pa.Table.from_batches(list(from_events(ordered))).unify_dictionaries()
    base = with_others(base.combine_chunks(), others) if others else base.combine_chunks()
    times = max(1, events // len(base))
    each = max(1, BATCH_EVENTS // len(base))
    with TraceWriter(path) as writer:
        for first in range(0, times, each):
            writer.write(repeated(base, first, min(each, times - first)))
        writer.finish(Manifest(kernel=made.kernel, hz=made.hz))
    return times, times * len(base)


def with_others(base: pa.Table, times: int) -> pa.Table:
    """As many IOMMU maps between any two events of the recording."""
    import numpy as np
    import pyarrow as pa

    from tracekit.events.iommu import IommuMap
    from tracekit.store.events import from_events

    ts = np.repeat(base["ts_ns"].to_numpy(), times)
    maps = [
        IommuMap(ts_ns=int(t), cpu=2, pid=900, tid=900, iova=i << 12, size=4096, paddr=i << 12)
        for i, t in enumerate(ts.tolist())
    ]
    other = pa.Table.from_batches(list(from_events(maps)))
    both = pa.concat_tables([base, other]).unify_dictionaries().combine_chunks()
    return both.take(pa.array(np.argsort(both["ts_ns"].to_numpy(), kind="stable")))


def repeated(base: pa.Table, first: int, times: int) -> pa.RecordBatch:
    """Repetitions ``first`` to ``first + times``, each later and from other ports."""
    import numpy as np
    import pyarrow as pa

    n = len(base)
    at = np.repeat(np.arange(first, first + times), n)
    ts = base["ts_ns"].to_numpy()
    out: list[Any] = []
    for field in base.schema:
        column = base[field.name].combine_chunks()
        if pa.types.is_dictionary(field.type):
            indices = pa.concat_arrays([column.indices] * times)
            out.append(pa.DictionaryArray.from_arrays(indices, column.dictionary))
            continue
        whole = pa.concat_arrays([column] * times)
        if field.name == "ts_ns":
            whole = pa.array(np.tile(ts, times) + at * int(ts[-1] - ts[0] + 1_000_000), field.type)
        elif field.name in ("local", "peer"):
            values = np.asarray(whole.fill_null(0)).astype(np.uint64)
            own = (values & np.uint64(0xFFFFFFFF)) >= np.uint64(FIRST_PORT)
            moved = values + (at * 64 % PORTS).astype(np.uint64)
            gone = ~np.asarray(whole.is_valid())
            whole = pa.array(np.where(own, moved, values), pa.uint64(), mask=gone)
            whole = whole.cast(field.type)
        out.append(whole)
    return pa.RecordBatch.from_arrays(out, schema=base.schema)


def timed(path: Path, made: Made, times: int) -> float:
    """Median CPU seconds; every run must say what was planted, and judge every close."""
    from replay.linger.run import judge_lingering
    from tracekit.findings import Severity
    from tracekit.store import open_trace

    expected = Counter({p.code: times for p in made.planted})
    closes = sum(e.name_ == "vsock.release" for e in made.events) * times
    seconds = []
    for _ in range(1 + RUNS):
        trace = open_trace(path)
        start = time.process_time()
        found = judge_lingering(trace, compiled=True)
        seconds.append(time.process_time() - start)
        told = Counter(b.code for b in found.breaches if b.severity is not Severity.NOTE)
        assert told == expected, f"found {told}, planted {expected}"
        assert found.judged["TK303"].decided >= closes, "a close was not judged"
    return statistics.median(seconds[1:])


def alone(path: Path) -> int:
    """Judge in this process and print its peak memory in MiB."""
    from replay.linger.run import judge_lingering
    from tracekit.store import open_trace

    judge_lingering(open_trace(path), compiled=True)
    print(own_peak())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
