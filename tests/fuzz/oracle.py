"""What must hold whatever the input: one clear error and nothing left behind, or a sound trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fuzz.define import COMPILED, Case

import replay
from tracekit.cli.pages import all_pages
from tracekit.errors import TracekitError
from tracekit.events import EVENT_TYPES
from tracekit.importers import ftrace_text, import_files, perf_data, trace_dat
from tracekit.report.json import render_json
from tracekit.report.terminal import render_terminal
from tracekit.report.trace_info import import_summary
from tracekit.store import Manifest, Trace, TraceWriter, arrow_schema, open_trace

__all__ = ("check_import", "check_replay", "check_trace", "refused_well")

if COMPILED:
    for module in (trace_dat, perf_data, ftrace_text):
        assert hasattr(module, "SMALL")
        setattr(module, "SMALL", 0)  # noqa: B010
MAX_MESSAGE, MAX_LINES = 3000, 4
MAX_REPLAYED = 1500
"""Rows of an imported trace that are replayed too."""


def refused_well(error: TracekitError) -> None:
    """The message is a few lines, in the words of this project; the CLI spells out what is odd."""
    assert error.message.strip()
    for text in (error.message, error.help or ""):
        assert len(text) < MAX_MESSAGE, f"a message of {len(text)} characters"
        assert len(text.splitlines()) <= MAX_LINES, "a message of many lines"
        assert "Traceback" not in text


def check_import(case: Case, folder: Path) -> str:
    """Import the case's files; whether they were ``read`` or ``refused``."""
    out = folder / "out" / "t.parquet"
    out.parent.mkdir()
    options = dict(case.options)
    for name in ("probes", "trace_events"):
        if options.get(name) is not None:
            options[name] = folder / options[name]
    before = sorted(p.name for p in folder.iterdir())
    try:
        manifest = import_files([folder / name for name in case.inputs], out, **options)
    except TracekitError as error:
        refused_well(error)
        assert not list(out.parent.iterdir()), "something is left behind"
        return "refused"
    finally:
        assert sorted(p.name for p in folder.iterdir()) == before
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    import_summary(out, manifest)
    trace = check_trace(out, again=case.deep)
    assert trace.manifest == manifest
    if case.deep and manifest.rows <= MAX_REPLAYED:
        check_replay(trace)
    return "read"


def check_trace(path: Path, *, again: bool = True) -> Trace:
    """Open a trace and read it: what it says of itself holds, and written again it is the same."""
    trace = open_trace(path)
    manifest = trace.manifest
    batches = list(trace.batches())
    table = pa.Table.from_batches(batches, schema=arrow_schema())
    assert table.num_rows == manifest.rows == len(trace)
    counted = {
        v["values"]: v["counts"] for v in table["event"].cast(pa.utf8()).value_counts().to_pylist()
    }
    assert counted == manifest.events
    assert not counted.keys() - EVENT_TYPES.keys()
    if manifest.span_ns is not None:
        times = table["ts_ns"].to_numpy()
        assert (int(times[0]), int(times[-1])) == manifest.span_ns
    assert Manifest.from_json(manifest.to_json(), path) == manifest
    if again:
        _check_again(path, batches, manifest)
    some = np.unique(np.linspace(0, max(manifest.rows - 1, 0), 3).astype(np.int64))
    assert trace.rows(some.tolist()).num_rows == min(manifest.rows, len(some))
    return trace


def _check_again(path: Path, batches: list[pa.RecordBatch], manifest: Manifest) -> None:
    other = path.with_name("again.parquet")
    with TraceWriter(other) as writer:
        for batch in batches:
            writer.write(batch.drop_columns(["seq"]))
        writer.finish(manifest)
    # Text decodes as dictionaries that may differ; the values may not.
    assert _rows(path).equals(_rows(other)), "written again, the rows are others"
    other.unlink()


def _rows(path: Path) -> pa.Table:
    table = pa.Table.from_batches(open_trace(path).batches(), schema=arrow_schema())
    plain = [f.with_type(pa.utf8()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(plain))


def check_replay(trace: Trace, **options: Any) -> str:
    """Replay a trace and report it; whether it was judged or ``refused``."""
    try:
        result = replay.run(trace, compiled=COMPILED, **options)
    except TracekitError as error:
        refused_well(error)
        return "refused"
    render_json(result)
    text = render_terminal(result, all_pages(), colour=False)
    strange = {c for c in text if not c.isprintable() and c != "\n"}
    assert not strange, f"the report holds {sorted(strange)[:5]!r}"
    return "judged"
