"""Findings of recordings of real kernels, shrunk: minimal, small, the same code and cause.

``$TRACEKIT_TRACES`` may name a folder with more recordings; without it the sample in tests/data.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from recorded.recordings import FOLDER, Recording, recordings
from shrinking import assert_minimal

from replay.shrink import Options, shrink
from tracekit.importers import import_files
from tracekit.store import open_trace

_OUT = tempfile.TemporaryDirectory(prefix="tracekit-test-")
LARGEST = 60
"""Events of a small trace whose calls touch few pages each."""
FEW_PAGES = 64
MODELS = ("legacy", "merged")


@functools.cache
def sockets() -> tuple[Path, ...]:
    return tuple(sorted((FOLDER / "vsock").glob("*.dat")))


@functools.cache
def imported(path: Path) -> Path:
    out = Path(_OUT.name) / f"{path.stem}.parquet"
    kernel = path.stem.removeprefix("trace-vsock-")
    probes = path.parent / f"dynamic_events-{kernel}.txt"
    import_files([path], out, probes=probes if probes.is_file() else None)
    return out


def memory() -> list[Recording]:
    """Those with faults in them, one of each workload, and one of the others."""
    names = ("buggy", "fmt-default", "iommufd-correct")
    return [r for r in recordings() if not r.is_long and any(n in r.name for n in names)]


def all_are_minimal(path: Path, options: Options) -> int:
    trace = open_trace(path)
    found = options.run(trace).findings
    for finding in found:
        small = shrink(trace, finding.id, options=options)
        assert_minimal(small)
        frames, events = len(set(small.frames)), small.trace.manifest.rows
        print(f"{path.stem} {finding.id}: {small.of_events} events -> {events} in {frames} frames")
        assert frames <= 6
        pages = max(
            (r["size"] or 0) >> 12
            for r in small.trace.table.to_pylist()
            if r["event"] in ("ioctl.arguments", "vfio.type1_ioctl", "ioctl.entered")
        ) if finding.code < "TK300" else 0  # fmt: skip
        assert events <= LARGEST or pages > FEW_PAGES
    return len(found)


@pytest.mark.parametrize("recording", memory(), ids=lambda r: r.name)
def test_findings_about_memory(recording: Recording) -> None:
    assert all_are_minimal(recording.imported(probes=False), Options())


@pytest.mark.parametrize("model", MODELS)
def test_findings_about_sockets_under_this_kernels_and_another_model(model: str) -> None:
    found = [all_are_minimal(imported(path), Options(linger_model=model)) for path in sockets()]
    assert sum(found) >= 2


@pytest.mark.nightly
def test_findings_of_the_long_recording() -> None:
    longs = [r for r in recordings() if r.is_long]
    if not longs:
        pytest.skip(f"{FOLDER} has no long recording")
    assert sum(all_are_minimal(r.imported(probes=False), Options()) for r in longs)
