"""Every finding of the recordings shrunk: how small, how fast, and proven minimal.

Usage: python -m benchmarks.shrink [TRACE.parquet | RECORDING.dat]...

Prints a Markdown table.  CPU is of one call of ``replay.shrink.shrink`` in a process that has paid
for imports and compiled code; it includes the replay of the whole trace in which the finding is
looked up.  Every small trace is replayed without each of its frames: exit status 1 if one of these
still shows the finding.  Without an argument: the recordings of ``$TRACEKIT_TRACES`` with findings,
those of vsock under each model of lingering.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replay.shrink import Options

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parent.parent
    sys.path[:1] = [str(ROOT / "tests"), str(ROOT)]

from benchmarks.figures import say, skipped

MODELS = ("legacy", "v1", "merged")
WITH_FAULTS = ("buggy", "fmt-default", "iommufd-correct")


def main() -> int:
    """Run the benchmark; 0 if all small traces are minimal."""
    from shrinking import assert_minimal

    from replay.shrink import shrink
    from tracekit.store import open_trace

    if not (sys.argv[1:] or recorded()):
        skipped("no trace given, and $TRACEKIT_TRACES has no recordings")
        return 0
    print("| recording | finding | | events | become | frames | replays | CPU |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    worst, bad = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, path, options in traces(Path(folder)):
            trace = open_trace(path)
            for finding in options.run(trace).findings:
                begin = time.process_time()
                small = shrink(trace, finding.id, options=options)
                seconds = time.process_time() - begin
                worst = max(worst, seconds)
                try:
                    assert_minimal(small)
                except AssertionError as why:
                    print(f"NOT MINIMAL: {why}")
                    bad += 1
                cells = (
                    name,
                    finding.id,
                    finding.severity.value,
                    f"{small.of_events:,}",
                    f"{small.trace.manifest.rows:,}",
                    str(len(set(small.frames))),
                    str(small.tried),
                    f"{seconds:.1f} s",
                )
                print("| " + " | ".join(cells) + " |", flush=True)
    print(f"\nslowest: {worst:.1f} s of CPU; not minimal: {bad}")
    say("shrink, the slowest finding", worst, "s")
    say("shrink, findings that are not minimal", bad, "", most=0)
    return 1 if bad else 0


def traces(folder: Path) -> Iterator[tuple[str, Path, Options]]:
    """What to shrink: a name, a trace, and how it is replayed."""
    from replay.shrink import Options

    given = [Path(a) for a in sys.argv[1:]]
    for path in given or recorded():
        name = path.name.removeprefix("trace-").removesuffix(".dat").removesuffix(".parquet")
        trace = path if path.suffix == ".parquet" else imported(path, folder)
        if path.parent.name != "vsock":
            yield name, trace, Options()
            continue
        for model in MODELS:
            yield f"{name}, {model}", trace, Options(linger_model=model)


def recorded() -> list[Path]:
    """The recordings in which something is to be found."""
    found = Path(os.environ.get("TRACEKIT_TRACES", ".")).glob("*/trace-*.dat")
    return sorted(
        p for p in found if p.parent.name == "vsock" or any(w in p.name for w in WITH_FAULTS)
    )


def imported(path: Path, folder: Path) -> Path:
    """A recording as a trace."""
    from tracekit.importers import import_files

    out = folder / f"{path.stem}.parquet"
    kernel = path.stem.removeprefix("trace-vsock-")
    probes = path.parent / f"dynamic_events-{kernel}.txt"
    import_files([path], out, probes=probes if probes.is_file() else None)
    return out


if __name__ == "__main__":
    sys.exit(main())
