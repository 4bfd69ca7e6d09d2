"""What an importer is: a format that knows its files, and an opened recording that yields rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from tracekit.ftrace.probes import Definition
from tracekit.store import Manifest

__all__ = ("Format", "Options", "Source")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user says about the recordings.

    ``definitions``: of the recording host's dynamic events.  ``salvage``: keep what intact parts
    of a damaged file hold, with the rest marked as lost.  ``trace_events``: the file that declares
    the trace events of the QEMU that wrote a simpletrace.
    """

    definitions: Sequence[Definition] = ()
    salvage: bool = False
    trace_events: Path | None = None


class Source(Protocol):
    """An opened recording."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def clock(self) -> str:
        """The clock of its ``ts_ns``, by its name in tracefs (``mono``), or ``realtime``."""

    @property
    def rows(self) -> int:
        """Rows yielded so far."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows in time order, each batch of ``tracekit.ftrace.columns.ARROW_SCHEMA``.

        :raises ImportFormatError: damaged content
        """

    def manifest(self) -> Manifest:
        """What it says about itself; asked once all its batches were taken."""

    def close(self) -> None:
        """Give back what is open; a second time does nothing."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of recordings.

    ``recognises``: of a path and the first 64 KiB behind it (none: a folder), whether it is one.
    ``open``: the recording, or a TracekitError.  ``description`` is what messages say is read.
    """

    name: str
    description: str
    recognises: Callable[[Path, bytes], bool]
    open: Callable[[Path, Options], Source]
