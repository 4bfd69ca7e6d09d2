"""Replay of a recorded trace through ``replay.run``, the function behind the command.

Usage: python -m benchmarks.replay [TRACE.parquet | RECORDING.dat] [--times N]

Prints events per second of CPU time (user and system, median of five runs in one process, after one
that pays for imports and compiled code), and that of what compares conversions alone; and peak
memory of the command over the trace, over the trace ten times (by other processes each time, so
that there are ten times as many VMs, too), and over made traces of one VM.  Checks that every run
finds the same violations, and ten times as many.  Without an argument: the long recording of
``$TRACEKIT_TRACES``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # else this file's folder, where the package "replay" would be this file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say, skipped
from benchmarks.longer import trace_times
from benchmarks.processes import MIB, long_recording, measured, ours

if TYPE_CHECKING:
    from tracekit.findings import ReplayResult

RUNS = 5


def main() -> int:
    """Run the benchmark; 0 if the results are sane."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", nargs="?", type=Path)
    parser.add_argument("--times", type=int, default=10, help="for the memory of a longer one")
    options = parser.parse_args()
    given = options.trace or long_recording()
    if given is None:
        skipped("no trace given, and $TRACEKIT_TRACES has no long recording")
        return 0
    cpus = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        trace, many = the_trace(given, Path(folder)), Path(folder) / "many.parquet"
        events, seconds, clock, errors = timed(trace)
        print(f"events               {events:,}")
        print(f"errors found         {dict(sorted(errors.items()))}")
        print(f"CPU a run            {seconds:.3f} s")
        print(f"events/s of CPU      {events / seconds / 1e6:.2f} M")
        print(f"by the clock         {clock:.3f} s on {cpus} processors", flush=True)
        speed = events / seconds / 1e6
        say("replay from Parquet", speed, "M events/s", runs=RUNS, least=10, stretch=20)
        name = f"replay from Parquet, wall, on {cpus} processors"
        say(name, events / clock / 1e6, "M events/s", runs=RUNS, shown=True)
        conformance(trace)
        trace_times(trace, many, options.times)
        (one, found), (ten, more) = (of_command(path) for path in (trace, many))
        print(f"peak RSS             {one:.0f} MB")
        print(f"{options.times} times the events  {ten:.0f} MB ({ten / one:.2f}x)")
        say("replay, peak memory", one, "MB", most=300, stretch=250)
        name = f"replay, peak memory with {options.times} times the events / with the trace"
        say(name, ten / one, "x", most=1.1, stretch=1.05)
        wanted = {code: count * options.times for code, count in errors.items()}
        assert (found, more) == (errors, wanted), f"found {found}, {more}"
        one_vm(Path(folder), events, options.times)
    return 0


def the_trace(given: Path, folder: Path) -> Path:
    """The Parquet trace to replay, imported first if it is a recording."""
    if given.suffix != ".dat":
        return given
    from tracekit.importers import import_files

    out = folder / "trace.parquet"
    import_files([given], out)
    return out


def errors_of(result: ReplayResult) -> dict[str, int]:
    """How many violations of each code."""
    from tracekit.findings import Severity

    errors: Counter[str] = Counter()
    for finding in result.findings:
        if finding.severity is Severity.ERROR:
            errors[finding.code] += finding.count
    return dict(errors)


def timed(path: Path) -> tuple[int, float, float, dict[str, int]]:
    """Events, median seconds of a run of CPU and by the clock, and errors found by code."""
    from replay import run
    from tracekit.store import open_trace

    seconds, clock, seen = [], [], None
    for _ in range(1 + RUNS):
        trace = open_trace(path)
        start, began = time.process_time(), time.perf_counter()
        result = run(trace)
        seconds.append(time.process_time() - start)
        clock.append(time.perf_counter() - began)
        errors = errors_of(result)
        assert seen is None or seen == errors, "two runs differ"
        seen = errors
    assert seen is not None
    cpu, wall = statistics.median(seconds[1:]), statistics.median(clock[1:])
    return result.trace.events, cpu, wall, seen


def conformance(path: Path) -> None:
    """What replay does for TK201 alone: read the trace, and compare its conversions."""
    from replay.conformance.conformance import Follower
    from replay.engine.stream import COLUMNS
    from tracekit.store import open_trace

    seconds = []
    for _ in range(1 + RUNS):
        trace = open_trace(path)
        start = time.process_time()
        follower = Follower(trace.manifest.events)
        for batch in trace.batches(COLUMNS):
            follower.feed(batch)
        tally = follower.finish().tally
        seconds.append(time.process_time() - start)
    cpu = statistics.median(seconds[1:])
    each, events = tally.compared / cpu / 1e6, trace.manifest.rows / cpu / 1e6
    assert tally.compared, "no conversion was compared"
    print(f"conformance          {tally.compared:,} conversions in {cpu:.3f} s of CPU:")
    print(f"                     {each:.4f} M conversions/s, {events:.2f} M events/s", flush=True)
    name = "conformance, reading the trace too, under every generation"
    say(name, each, "M conversions/s", runs=RUNS, least=3, stretch=10)
    say(name, events, "M events/s", runs=RUNS)


def one_vm(folder: Path, events: int, times: int) -> None:
    """What memory a longer trace of the same VM needs."""
    from tracekit.synth.generate import generate

    peaks = []
    for number in (events, events * times):
        made = folder / "made.parquet"
        generate("parallel-vcpus", made, seed=1, events=number)
        peak, found = of_command(made)
        assert not found, f"found {found} in a correct trace"
        peaks.append(peak)
        print(f"one VM               {peak:.0f} MB for {number:,} events", flush=True)
    name = f"replay, peak memory with {times} times the events of one VM / with them once"
    say(name, peaks[1] / peaks[0], "x", most=1.1, stretch=1.05)


def of_command(path: Path) -> tuple[float, dict[str, int]]:
    """The memory that ``tracekit replay`` needs at its largest, in MB, and the errors it finds."""
    out = path.with_suffix(".json")
    words = ours("replay", str(path), "--format", "json", "-o", str(out))
    peak = measured(words, alike=(0, 1)).peak * MIB / 1e6
    errors: Counter[str] = Counter()
    for finding in json.loads(out.read_text())["findings"]:
        if finding["severity"] == "error":
            errors[finding["code"]] += finding["count"]
    return peak, dict(errors)


if __name__ == "__main__":
    raise SystemExit(main())
