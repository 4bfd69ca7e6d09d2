"""Several recordings of one host -> rows in one order of time.

The trace's clock is that of the first of the kernel's recordings.  Stamps of files on another clock
are shifted, by an offset that is stated, recorded or estimated.  Where there is none, the kernel's
recordings are refused, and QEMU's are laid beside the others: their first row at the trace's
beginning, and the manifest's ``incomparable`` says that their times mean nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tracekit.errors import ImportFormatError, UsageError
from tracekit.importers._define import Source
from tracekit.importers.clocks import Anchors, Offset, estimate
from tracekit.importers.qemu_log import SOURCE, QemuLogSource
from tracekit.importers.simpletrace import SimpletraceSource
from tracekit.store import Manifest

__all__ = ("MergedSource", "merged_manifest")

PAIR_MONO = "clock_pair_mono_ns"
PAIR_REALTIME = "clock_pair_realtime_ns"
PAIR_ERROR = "clock_pair_error_ns"
"""Keys of a source in its manifest: one moment on both clocks, and how far apart they were read."""

NOT_COMPARABLE = "nothing: laid at the trace's beginning"

_INT64 = 1 << 63


@dataclass
class _Input:
    """One of the sources, and the rows of it that wait."""

    source: Source
    batches: Iterator[pa.RecordBatch]
    shift_ns: int = 0
    held: pa.RecordBatch | None = None

    def fill(self) -> bool:
        """See that rows wait, if there are any left."""
        while self.held is None or not self.held.num_rows:
            batch = next(self.batches, None)
            if batch is None:
                self.held = None
                return False
            self.held = _shifted(batch, self.shift_ns)
        return True

    def last_ns(self) -> int:
        """Of the rows that wait."""
        assert self.held is not None
        return int(self.held.column("ts_ns")[-1].as_py())

    def take(self, until_ns: int) -> pa.RecordBatch:
        """The rows that wait, up to a moment."""
        assert self.held is not None
        times = self.held.column("ts_ns").to_numpy()
        count = int(np.searchsorted(times, until_ns, side="right"))
        taken, self.held = self.held.slice(0, count), self.held.slice(count)
        return taken


class MergedSource:
    """Sources of one host as one."""

    def __init__(
        self, openers: Sequence[Callable[[], Source]], clock_offset: Offset | None = None
    ) -> None:
        """Open the sources, and find out how far their clocks are apart.

        That reads them all once if their clocks differ and no offset is stated.

        :raises TracekitError: one cannot be read
        :raises ImportFormatError: one is damaged
        :raises UsageError: their clocks cannot be brought together, or an offset is for none
        """
        self.rows = 0
        self._sources: list[Source] = []
        self._openers = openers
        try:
            self._open()
            self.clock = _clock_of(self._sources)
            self.name = ", ".join(s.name for s in self._sources)
            self._offsets = self._find_offsets(clock_offset)
        except BaseException:
            self.close()
            raise

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in time order; rows of one time in the order of the sources.

        :raises ImportFormatError: damaged content
        :raises UsageError: an offset takes times out of their range
        """
        inputs = []
        for source in self._sources:
            offset = self._offsets.get(source.clock)
            inputs.append(_Input(source, _named(source), 0 if offset is None else offset.ns))
        while inputs := [i for i in inputs if i.fill()]:
            # What no input can still bring anything before.
            until = min(i.last_ns() for i in inputs)
            pieces = [p for p in (i.take(until) for i in inputs) if p.num_rows]
            batch = pieces[0] if len(pieces) == 1 else _in_order(pieces)
            self.rows += batch.num_rows
            yield batch

    def manifest(self) -> Manifest:
        """What the sources say; once their batches were taken.

        :raises UsageError: they are of different hosts
        """
        manifests = []
        for source in self._sources:
            manifest = source.manifest()
            clock: dict[str, str | int | None] = {"clock": source.clock}
            offset = self._offsets.get(source.clock)
            if offset is not None:
                clock |= {
                    "clock_offset_ns": offset.ns,
                    "clock_error_ns": offset.error_ns,
                    "clock_offset_from": offset.how,
                }
            manifests.append(
                replace(manifest, sources=tuple({**s, **clock} for s in manifest.sources))
            )
        lost = any(o.how == NOT_COMPARABLE for o in self._offsets.values())
        return merged_manifest(manifests, self.clock, (SOURCE,) if lost else ())

    def close(self) -> None:
        """Give all files back."""
        for source in self._sources:
            source.close()

    def _open(self) -> None:
        self.close()
        self._sources = []
        for opener in self._openers:
            self._sources.append(opener())

    def _find_offsets(self, stated: Offset | None) -> dict[str, Offset]:
        """By clock, for all but the trace's own."""
        others = sorted({s.clock for s in self._sources} - {self.clock})
        if stated is not None:
            if not others:
                raise UsageError(
                    f"--clock-offset is for files on another clock, and all are on {self.clock!r}"
                )
            if len(others) > 1:
                raise UsageError(
                    "one --clock-offset does not do for files on two other clocks:"
                    f" {', '.join(others)} against {self.clock}"
                )
            return {others[0]: stated}
        if not others:
            return {}
        found = self._survey(others)
        self._open()
        return found

    def _survey(self, others: list[str]) -> dict[str, Offset]:
        """Read everything once, for what tells the offsets."""
        lines = {clock: Anchors() for clock in others}
        begins: dict[str, int] = {}
        manifests: list[Manifest] = []
        for source in self._sources:
            if source.clock in lines and _is_qemu(source):
                for batch in _begun(source, begins):
                    lines[source.clock].add(batch)
                manifests.append(source.manifest())
        calls = {clock: Anchors(lines[clock]) for clock in others}
        for source in self._sources:
            if source.clock in lines and _is_qemu(source):
                continue
            for batch in _begun(source, begins):
                if source.clock == self.clock:
                    for clock in others:
                        calls[clock].add(batch)
            manifests.append(source.manifest())
        found: dict[str, Offset] = {}
        for clock in others:
            offset = self._paired(clock, manifests) or estimate(lines[clock], calls[clock])
            if offset is None:
                self._check_apart(clock)
                begin = begins.get(self.clock, 0) - begins.get(clock, 0)
                offset = Offset(begin, None, NOT_COMPARABLE)
            found[clock] = offset
        return found

    def _paired(self, clock: str, manifests: Sequence[Manifest]) -> Offset | None:
        """The offset by a moment that a recording has on both clocks."""
        if {clock, self.clock} != {"mono", "realtime"}:
            return None
        for manifest in manifests:
            for source in manifest.sources:
                mono, realtime = source.get(PAIR_MONO), source.get(PAIR_REALTIME)
                if isinstance(mono, int) and isinstance(realtime, int):
                    error = source.get(PAIR_ERROR)
                    return Offset(
                        mono - realtime if self.clock == "mono" else realtime - mono,
                        error if isinstance(error, int) else None,
                        f"both clocks in {source.get('file')}"[:400],
                    )
        return None

    def _check_apart(self, clock: str) -> None:
        """See that rows on a clock without an offset can be told from the others.

        :raises UsageError: they cannot
        """
        here = [s for s in self._sources if s.clock == clock]
        if all(_is_qemu(s) for s in here) and not any(
            _is_qemu(s) for s in self._sources if s.clock != clock
        ):
            return
        other = next(s for s in self._sources if s.clock == self.clock)
        raise UsageError(
            f"{here[0].name} is on the clock {clock!r} and {other.name} on {self.clock!r},"
            " and nothing says how far they are apart",
            help="--clock-offset DURATION: what to add to the former's times",
        )


def merged_manifest(
    manifests: Sequence[Manifest], clock: str, incomparable: tuple[str, ...] = ()
) -> Manifest:
    """One manifest of recordings of one host; counts are sums.

    :raises UsageError: they are of different hosts or kernels
    """
    for what, said in (
        ("hosts", [m.host for m in manifests]),
        ("kernels", [m.kernel for m in manifests]),
        ("machines", [m.machine for m in manifests]),
    ):
        names = list(dict.fromkeys(name for name in said if name))
        if len(names) > 1:
            raise UsageError(
                f"recordings of different {what} are not one trace: {names[0]}, {names[1]}",
                help="import each host's files by themselves",
            )
    whole = Manifest(clock=clock)
    for manifest in manifests:
        whole = whole.merged(replace(manifest, host=None, clock=clock, span_ns=None))
    return replace(
        whole,
        host=next((m.host for m in manifests if m.host), None),
        kernel=next((m.kernel for m in manifests if m.kernel), None),
        machine=next((m.machine for m in manifests if m.machine), None),
        hz=next((m.hz for m in manifests if m.hz is not None), None),
        sources=tuple(s for m in manifests for s in m.sources),
        incomparable=incomparable,
    )


def _clock_of(sources: Sequence[Source]) -> str:
    """The trace's clock.  QEMU's lines can be matched to the kernel's calls, not the other way."""
    for source in sources:
        if not _is_qemu(source):
            return source.clock
    return next((s.clock for s in sources if s.clock != "realtime"), "realtime")


def _is_qemu(source: Source) -> bool:
    """Whether all its rows say in ``source`` that they are of QEMU's own trace."""
    return isinstance(source, QemuLogSource | SimpletraceSource)


def _begun(source: Source, begins: dict[str, int]) -> Iterator[pa.RecordBatch]:
    """A source's batches; notes when its clock's first row was."""
    for batch in _named(source):
        if batch.num_rows:
            first = int(batch.column("ts_ns")[0].as_py())
            begins[source.clock] = min(begins.get(source.clock, first), first)
        yield batch


def _named(source: Source) -> Iterator[pa.RecordBatch]:
    """A source's batches, its name in its errors."""
    try:
        yield from source.batches()
    except ImportFormatError as error:
        if source.name in error.message:
            raise
        raise ImportFormatError(f"{source.name}: {error.message}", help=error.help) from None


def _shifted(batch: pa.RecordBatch, by_ns: int) -> pa.RecordBatch:
    """The batch with its times moved."""
    if not by_ns or not batch.num_rows:
        return batch
    import pyarrow.compute as pc

    for name in ("ts_ns", "until_ns"):
        times = batch.column(name)
        ends = pc.min_max(times)
        least, most = ends["min"].as_py(), ends["max"].as_py()
        if least is None:
            continue
        if least + by_ns < -_INT64 or most + by_ns >= _INT64:
            raise UsageError(f"a clock offset of {by_ns} ns takes times out of their range")
        moved = pc.add(times, pa.scalar(by_ns, pa.int64()))
        batch = batch.set_column(
            batch.schema.get_field_index(name), batch.schema.field(name), moved
        )
    return batch


def _in_order(pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Rows of several sources in time order; of one time, in the sources' order."""
    table = pa.Table.from_batches(pieces).unify_dictionaries().combine_chunks()
    times = table.column("ts_ns").to_numpy()
    order = pa.array(np.argsort(times, kind="stable"))
    (batch,) = table.take(order).combine_chunks().to_batches()
    return batch
