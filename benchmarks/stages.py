"""Where the CPU goes: import and replay of a trace, stage by stage.

Usage: python -m benchmarks.stages [RECORDING.dat]

Profiles the functions behind the commands on one processor, in one process, after a run that pays
for imports and compiled code; what that costs is a stage of its own.  Prints nanoseconds of CPU an
event, and how many events a second each stage would let through if there were nothing else.
Without an argument: the long recording of ``$TRACEKIT_TRACES``.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say, skipped
from benchmarks.processes import ENVIRONMENT, long_recording

Names = tuple[tuple[str, str], ...]
"""File (how its path ends) and function; with ``COMPILED`` the function that calls machine code.

Kernels stand there twice: where nothing is compiled they are called by their names."""
COMPILED = "compiled: "

IMPORT: dict[str, Names] = {
    "reading the recording, decompressing": (("ftrace/page_stream.py", "_next_chunk"),),
    "decoding pages": (
        (COMPILED + "ftrace/page_stream.py", "_decode_first"),
        ("ftrace/ring_buffer.py", "decode_pages"),
    ),
    "gathering fields into columns": (
        (COMPILED + "ftrace/decoder.py", "batches"),
        ("ftrace/gather.py", "gather"),
        ("ftrace/columns.py", "to_batch"),
        ("ftrace/columns.py", "intern"),
    ),
    "writing Parquet": (("parquet/core.py", "write_table"),),
}
REPLAY: dict[str, Names] = {
    "reading Parquet": (("store/segment.py", "in_batches"),),
    "columns into arrays": (
        ("engine/columns.py", "fill"),
        ("engine/columns.py", "merge"),
        ("engine/stream.py", "_codes"),
        ("engine/stream.py", "_threads"),
        ("conformance/calls.py", "_threads"),
    ),
    "the engine's kernel": (
        (COMPILED + "engine/engine.py", "feed"),
        ("kernel/frames.py", "run"),
    ),
    "conformance's kernels": (
        (COMPILED + "conformance/calls.py", "feed"),
        (COMPILED + "conformance/matcher.py", "_take"),
        ("kernel/frames.py", "extract"),
        ("kernel/follow.py", "match"),
    ),
    "evidence of the findings": (("replay/evidence.py", "explain"),),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", nargs="?", type=Path)
    parser.add_argument("--once", choices=("import", "replay"), help=argparse.SUPPRESS)
    parser.add_argument("--trace", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    recording = options.recording or long_recording()
    if recording is None or not recording.is_file():
        skipped("no recording given, and $TRACEKIT_TRACES has no long one")
        return 0
    if options.once:
        staged(options.once, recording, options.trace)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for command in ("import", "replay"):
            # Each in a process of its own: the other's imports are not to be had for nothing.
            words = ["--once", command, "--trace", f"{folder}/t.parquet", str(recording)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.stages", *words], env=ENVIRONMENT, check=False
            )
            if done.returncode:
                return 1
    return 0


def staged(command: str, recording: Path, trace: Path) -> None:
    """Print and say the stages of one command; ``trace``: what import writes and replay reads."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.process_time()
    work, stages = of_import(recording, trace) if command == "import" else of_replay(trace)
    events = work()
    first = time.process_time() - began
    again = time.process_time()
    work()
    again = time.process_time() - again
    profile = cProfile.Profile(time.process_time)
    profile.runcall(work)
    spent = split(profile, stages, again)
    spent["the first time: imports, compiled code"] = max(first - again, 0.0)
    whole = again + spent["the first time: imports, compiled code"]
    print(f"{command} of {events:,} events: {whole:.2f} s of CPU")
    for stage, seconds in spent.items():
        rate = events / seconds / 1e6 if seconds else float("inf")
        print(f"  {stage:<40} {1e9 * seconds / events:8.1f} ns an event  {rate:8.1f} M events/s")
        say(f"{command}: {stage}", 1e9 * seconds / events, "ns an event")


def of_import(recording: Path, out: Path) -> tuple[Callable[[], int], dict[str, Names]]:
    """Import to ``out``, and the stages of that."""
    from tracekit.importers import import_files
    from tracekit.store import open_trace

    def work() -> int:
        import_files([recording], out)
        return open_trace(out).manifest.rows

    return work, IMPORT


def of_replay(trace: Path) -> tuple[Callable[[], int], dict[str, Names]]:
    """Replay of a trace, and the stages of that."""
    from replay import run
    from tracekit.store import open_trace

    def work() -> int:
        result = run(open_trace(trace), compiled=not os.environ.get("NUMBA_DISABLE_JIT"))
        return result.trace.events

    return work, REPLAY


def _of(
    place: tuple[str, int, str], below: float, callers: Mapping[Any, Any], names: Names
) -> Iterator[float]:
    """The time below a function if it is one of those named, or below what calls compiled code."""
    file, _, function = place
    if file.endswith("compiled/function.py") and function == "__call__":
        for (caller, _, name), (_, _, _, by_caller) in callers.items():
            if any(
                (COMPILED + caller).endswith(end.removeprefix(COMPILED)) and name == asked
                for end, asked in names
                if end.startswith(COMPILED)
            ):
                yield by_caller
    elif any(file.endswith(end) and function == asked for end, asked in names):
        yield below


def split(profile: cProfile.Profile, stages: Mapping[str, Names], whole: float) -> dict[str, float]:
    """Seconds by stage, and of what is left, scaled to a run that nobody profiled."""
    entries: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in entries.values())
    spent = {}
    for stage, names in stages.items():
        found = [
            below
            for place, (_, _, _, whole_below, callers) in entries.items()
            for below in _of(place, whole_below, callers, names)
        ]
        assert found, f"nothing is called {names} any more"
        spent[stage] = sum(found) * whole / total
    spent["the rest"] = whole - sum(spent.values())
    return spent


if __name__ == "__main__":
    raise SystemExit(main())
