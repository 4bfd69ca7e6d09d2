"""Traces on disk: Parquet that anyone can open, with a manifest that says what it is."""

from tracekit.store.events import from_events, write_events
from tracekit.store.location import Place, Remote, locate
from tracekit.store.manifest import Manifest, RecordedName
from tracekit.store.reader import Trace, open_trace
from tracekit.store.schema import arrow_schema, batch_schema
from tracekit.store.writer import TraceWriter

__all__ = (
    "Manifest",
    "Place",
    "RecordedName",
    "Remote",
    "Trace",
    "TraceWriter",
    "arrow_schema",
    "batch_schema",
    "from_events",
    "locate",
    "open_trace",
    "write_events",
)
