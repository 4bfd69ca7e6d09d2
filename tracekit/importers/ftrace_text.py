"""ftrace text -> a trace: what ``trace`` and ``trace_pipe`` of tracefs show, and ``trace-cmd
report``.

The file is read twice: once to see that it can be read and which events, probes and CPUs it has,
then for its rows.  A text says less than a recording: no clock, no host, stamps in microseconds
unless it was printed with nanoseconds, and not every column (``NOT_SHOWN``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.decoder import SMALL, Decoder, Stream
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.text_events import TextEvents
from tracekit.ftrace.text_lines import TextLines
from tracekit.ftrace.text_records import BEAT, TextRecords, survey
from tracekit.importers._define import Options
from tracekit.store import Manifest, RecordedName

__all__ = ("CLOCK", "NOT_SHOWN", "FtraceTextSource")

CLOCK = "unknown"
"""The text does not name its clock; tracefs's own default is not monotonic."""
NOT_SHOWN = {
    "trace-cmd report": {
        "kvm.exit": ("flags", "id"),
        "kvm.userspace_exit": ("ret",),
        "*": ("context",),
    },
    "trace-cmd report -R": {"*": ("context",)},
    "trace": {"kvm.exit": ("flags",), "kvm.userspace_exit": ("flags", "ret")},
}
"""Columns that a recording fills and its text may not, by what printed it and event type (``*``:
any).  ``context`` is there where the flags were printed; exit reasons where they have no name; of a
KVM_RUN's result and reason, the kernel prints one.  A marker's text is kept up to its first line's
end, a thread's name as it was printed last."""
MAX_NAME = 200


class FtraceTextSource:
    """ftrace text as a source of rows."""

    clock = CLOCK

    def __init__(self, path: Path, options: Options) -> None:
        """Open ``path`` and read it once.

        :raises TracekitError: the file cannot be read
        :raises ImportFormatError: a line that is none of ftrace's
        """
        self.name = path.name
        self._definitions = options.definitions
        self._file = RegularFile(path)
        try:
            self._lines = TextLines(self._file, salvage=options.salvage)
            events = TextEvents(options.definitions)
            self._survey = survey(self._lines, events)
            self._records = TextRecords(self._lines, events, self._survey, self.name)
            streams = [
                Stream(one.cpu, one, f"{self.name}, CPU {one.cpu}")
                for one in self._records.streams()
            ]
            names = {t: n.decode("utf-8", "replace") for t, n in self._survey.names.items()}
            self._decoder = Decoder(
                events.formats(),
                streams,
                comms=names,
                kallsyms=Kallsyms(events.kallsyms()),
                definitions={d.source: d for d in options.definitions},
                small=self._file.size < SMALL,
            )
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._decoder.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The text's rows in time order; those of one thread in the order of its lines.

        :raises ImportFormatError: lines that are far out of order
        """
        processes = _Processes(self._survey.processes)
        for batch in self._decoder.batches():
            if self._records.grain > 1:
                for name in ("ts_ns", "until_ns"):
                    batch = _with(batch, name, _floor(batch.column(name), self._records.grain))
            if not self._survey.flags:
                batch = _with(batch, "context", pa.nulls(batch.num_rows, pa.uint8()))
            if self._survey.processes:
                batch = _with(batch, "pid", processes.of(batch.column("tid")))
            yield batch

    def manifest(self) -> Manifest:
        """What the text says; once its batches were taken."""
        decoder, lines, grain = self._decoder, self._lines, self._records.grain
        counts: dict[tuple[str, str | None, str | None], int] = {}
        for one in decoder.recorded():
            if one.source != f"?:{BEAT}":
                function = None if one.function is None else one.function[:MAX_NAME]
                key = (one.source[:MAX_NAME], one.event, function)
                counts[key] = counts.get(key, 0) + one.count
        source: dict[str, str | int | None] = {
            "file": self.name,
            "format": "ftrace text",
            "stamp_precision_ns": grain,
            "lines": lines.lines,
        }
        if grain > 1:
            source["order"] = (
                "stamps are rounded to microseconds; equal ones are in the text's order"
            )
        for name, count in (
            ("bad_lines_skipped", lines.bad),
            ("marker_lines_not_kept", lines.continued),
            ("overwritten_events", lines.overwritten),
        ):
            if count:
                source[name] = count
        span = decoder.span_ns
        return Manifest(
            clock=self.clock,
            cpus=len(self._survey.cpus),
            span_ns=None if span is None else (span[0] // grain * grain, span[1] // grain * grain),
            rows=decoder.rows,
            events=decoder.events(),
            recorded=tuple(
                RecordedName(name=name, count=count, event=event, function=function)
                for (name, event, function), count in counts.items()
            ),
            lost_events=decoder.lost_events,
            loss_marks=decoder.loss_marks,
            lost_unknown=decoder.lost_unknown,
            sources=(source,),
            probes=tuple(d.text for d in self._definitions),
            disagreements=decoder.disagreements(),
        )

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class _Processes:
    """Process ids by thread, as arrays."""

    def __init__(self, of: dict[int, int]) -> None:
        self._tids = np.array(sorted(of), np.int64)
        self._pids = np.array([of[t] for t in sorted(of)], np.int32)

    def of(self, tids: pa.Array) -> pa.Array:
        """The processes of threads; null where the text never showed it."""
        asked = tids.fill_null(-1).to_numpy()
        at = np.minimum(np.searchsorted(self._tids, asked), len(self._tids) - 1)
        return pa.array(self._pids[at], pa.int32(), mask=self._tids[at] != asked)


def _floor(times: pa.Array, grain: int) -> pa.Array:
    """Times without what is below a stamp's last digit."""
    if times.null_count == len(times):
        return times
    known = times.is_valid().to_numpy(zero_copy_only=False)
    values = times.fill_null(0).to_numpy()
    return pa.array(values // grain * grain, pa.int64(), mask=None if known.all() else ~known)


def _with(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    at = batch.schema.get_field_index(name)
    return batch.set_column(at, batch.schema.field(name), column)
