"""perf.data: header, event attributes, features, and an index of the samples of tracepoints.

File mode has everything around the records at places that the header names, the formats of events
behind the records; pipe mode has it as records among the others.  All is read once, in steps of
256 KiB; what stays in memory is an index (:mod:`tracekit.perf.index`) and thread names.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tracekit.compiled.kernels import kernel
from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import Cursor, RegularFile
from tracekit.ftrace.event_format import EventFormat
from tracekit.perf.attributes import (
    CPU,
    MAX_ATTRIBUTES,
    TIME,
    Attribute,
    Layouts,
    parse_attribute,
)
from tracekit.perf.compressed import Spool, decompressed
from tracekit.perf.index import CpuIndex
from tracekit.perf.tracing_data import parse_tracing_data
from tracekit.perf.walk import ALIGN, END, FAULTS, FULL, MAX_CPUS, walk

__all__ = ("MAGIC", "SALVAGE", "PerfData", "is_perf_data")

MAGIC = b"PERFILE2"
OLD_MAGIC = b"PERFFILE"
SALVAGE = "`--salvage` keeps what is intact and marks the rest as lost"

FORMATS = ".formats"
"""Behind the name of a damaged file: the file with the formats that it lacks."""

HEADER_SIZE, PIPE_HEADER_SIZE = 104, 16
TRACING_DATA, HOSTNAME, OSRELEASE, VERSION, ARCH, NRCPUS = 1, 3, 4, 5, 6, 7
EVENT_DESC, SAMPLE_TIME, COMPRESSED_FEATURE, CLOCK_DATA = 12, 21, 27, 29
WANTED = (
    TRACING_DATA, HOSTNAME, OSRELEASE, VERSION, ARCH, NRCPUS, EVENT_DESC, SAMPLE_TIME,
    COMPRESSED_FEATURE, CLOCK_DATA,
)  # fmt: skip
"""Features that say something of use."""
MAX_FEATURE = 64 << 20
MAX_IDS = 1 << 22

MMAP, LOST, COMM, THROTTLE, UNTHROTTLE, FORK, SAMPLE, MMAP2 = 1, 2, 3, 5, 6, 7, 9, 10
LOST_SAMPLES = 13
HEADER_ATTR, HEADER_TRACING_DATA, ID_INDEX, AUXTRACE = 64, 66, 69, 71
HEADER_FEATURE, COMPRESSED, COMPRESSED2 = 80, 81, 83
LOST_SAMPLES_BPF = 1 << 15
"""In a record's misc: a filter of perf's own dropped them, nothing was lost."""

STEP = 256 << 10
LARGEST = 0xFFFF
"""A record's size has 16 bits."""
ROOM = 1 << 16
MAX_LAYOUTS = 64
NO_CPU = -1
MOST = (1 << 63) - 1


@dataclass
class PerfData:
    """An open perf.data.  ``close`` it."""

    file: RegularFile
    salvage: bool = False
    pipe: bool = False
    attributes: list[Attribute] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    """Which attribute an id belongs to."""
    features: dict[int, bytes] = field(default_factory=dict)
    formats: list[EventFormat] = field(default_factory=list)
    comms: dict[int, str] = field(default_factory=dict)
    cpus: dict[int, CpuIndex] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    """Samples by attribute, behind them those of unknown ids."""
    compressed: bool = False
    damage: str = ""
    """What was wrong where reading ended; only when salvaging."""
    kernel_text: bytes = b""
    """Where the kernel was, which another boot puts elsewhere: address, size and offset."""
    formats_from: str = ""
    """The other file that the formats are from; only when salvaging."""
    spool: Spool | None = None

    @classmethod
    def open(cls, path: Path, *, salvage: bool = False, small: bool = False) -> PerfData:
        """Read all but the tracepoints' own records.

        :raises TracekitError: not a readable regular file, or no room for decompressed records
        :raises ImportFormatError: not a perf.data of a kind that is read here, or damaged
        """
        made = cls(RegularFile(path), salvage=salvage)
        try:
            reader = _Reader(made, small)
            reader.read()
            if not made.formats and any(a.tracepoint for a in made.attributes):
                made._look_beside(path, small)
            reader.finish()
        except BaseException:
            made.close()
            raise
        return made

    def _look_beside(self, path: Path, small: bool) -> None:
        """Take the formats, which perf writes last, from a whole recording of the same boot.

        :raises ImportFormatError: there is none, or it is of another boot
        """
        name, beside = self.file.name, path.with_name(path.name + FORMATS)
        if not self.salvage or not self.damage or self.pipe or path.suffix == FORMATS:
            raise ImportFormatError(f"{name}: tracepoints without the formats of events")
        if not beside.is_file():
            raise ImportFormatError(
                f"{name}: the formats of events are missing, which perf writes last",
                help=f"record the same events once more on the same boot, as {beside.name};"
                " `perf record -o - > FILE` writes them first",
            )
        other = PerfData.open(beside, small=small)
        other.close()
        if not self.kernel_text or other.kernel_text != self.kernel_text:
            raise ImportFormatError(
                f"{beside.name} does not show that it was recorded on the same boot as {name}"
            )
        self.formats, self.formats_from = other.formats, beside.name
        for number in (HOSTNAME, OSRELEASE, VERSION, ARCH, NRCPUS):
            self.features.setdefault(number, other.features.get(number, b""))

    def close(self) -> None:
        """Give the file back; a second time does nothing."""
        self.file.close()
        if self.spool is not None:
            self.spool.close()

    def read_into(self, offset: int, target: memoryview) -> None:
        """Bytes of the file, and behind its end those that were decompressed."""
        if offset < self.file.size:
            here = min(len(target), self.file.size - offset)
            self.file.read_into(offset, target[:here], "records")
            offset, target = offset + here, target[here:]
        if len(target):
            assert self.spool is not None
            self.spool.read_into(offset - self.file.size, target)

    @property
    def clocks(self) -> set[int | None]:
        """Ids of the clocks of the recorded tracepoints; ``None`` is perf's own."""
        return {a.clock for a in self.attributes if a.tracepoint}

    @property
    def sampled(self) -> bool:
        """Of a recorded tracepoint only some events were taken."""
        return any(a.tracepoint and a.sampled for a in self.attributes)

    def feature_text(self, number: int) -> str:
        """A feature that is one text; empty if it is not there."""
        data = self.features.get(number, b"")
        size = int.from_bytes(data[:4], "little")
        return data[4 : 4 + size].split(b"\0", 1)[0].decode("utf-8", "replace")

    def feature_numbers(self, number: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        """A feature that begins with numbers of these sizes; ``None``: it does not."""
        data = self.features.get(number, b"")
        if len(data) < sum(sizes):
            return None
        cursor = Cursor(data, self.file.name)
        return tuple(cursor.number(size, "feature") for size in sizes)

    def attribute_names(self) -> list[str]:
        """What perf called each event; TYPE:CONFIG where the file does not say."""
        names = [f"perf:{a.type}:{a.config:#x}" for a in self.attributes]
        # What is damaged there costs names only.
        with suppress(ImportFormatError):
            self._take_names(Cursor(self.features.get(EVENT_DESC, b""), self.file.name), names)
        return names

    def _take_names(self, cursor: Cursor, names: list[str]) -> None:
        count, size = cursor.number(4, "events"), cursor.number(4, "attribute's size")
        for index in range(min(count, MAX_ATTRIBUTES)):
            cursor.take(size, "attribute")
            ids = cursor.number(4, "ids")
            name = cursor.take(cursor.number(4, "name's size"), "name").split(b"\0", 1)[0]
            number = index
            for i in range(ids):
                id = cursor.number(8, "id")
                number = self.numbers.get(id, number) if i == 0 else number
            if name and number < len(names):
                names[number] = name.decode("utf-8", "replace")


def is_perf_data(start: bytes) -> bool:
    """Whether a file that begins so is a perf.data, of whatever kind."""
    return start[:8] in (MAGIC, MAGIC[::-1], OLD_MAGIC, OLD_MAGIC[::-1])


class _Reader:
    """Reads a file into a :class:`PerfData`."""

    def __init__(self, made: PerfData, small: bool) -> None:
        self._made = made
        self._file = made.file
        self._name = made.file.name
        self._walk = kernel(walk, compile=not small)
        self._layouts: Layouts | None = None
        self._times_laid_out = 0
        self._compressed: list[tuple[int, int]] = []
        self._names: dict[int, tuple[int, str]] = {}
        self._cpu_of_id: dict[int, int] = {}
        self._lost_of_id: dict[int, int] = {}
        self._lost_of_cpu: dict[int, int] = {}
        self._holes: list[tuple[int, int, int, int]] = []
        self._throttled: dict[int, int] = {}
        self._last = np.full(MAX_CPUS, -1, np.int64)
        self._out = (np.empty(ROOM, np.int64), np.empty(ROOM, np.int64), np.empty(ROOM, np.uint16))
        self._out_cpus = np.empty(ROOM, np.int32)
        self._state = np.zeros(2, np.int64)
        self._counts = np.zeros(1, np.int64)

    def read(self) -> None:
        """Everything."""
        made = self._made
        begin, end, whole = self._read_header()
        made.pipe = begin == PIPE_HEADER_SIZE
        self._scan(begin, end)
        if not whole and not made.damage:
            made.damage = f"it ends at byte {end}, and its writing was not finished"
        if self._compressed:
            self._decompress()
        self._flush()
        if not made.attributes:
            raise ImportFormatError(f"{self._name}: names no event that was recorded")
        made.counts = self._counts.tolist()
        made.comms = {tid: name for tid, (_, name) in self._names.items()}

    def finish(self) -> None:
        """Bring the records in order."""
        self._place_holes()
        for index in self._made.cpus.values():
            index.finish()

    # -- around the records ------------------------------------------------------------------------

    def _read_header(self) -> tuple[int, int, bool]:
        """Where the records are, and whether all that were written."""
        magic = self._file.read(0, 8, "magic")
        if magic != MAGIC:
            what = {MAGIC[::-1]: "recorded on a big-endian machine"}.get(
                magic, "of perf's first format, which is long gone"
            )
            raise ImportFormatError(f"{self._name} is a perf.data {what}")
        size = int.from_bytes(self._file.read(8, 8, "header's size"), "little")
        if size == PIPE_HEADER_SIZE:
            return PIPE_HEADER_SIZE, self._file.size, True
        if size != HEADER_SIZE:
            raise ImportFormatError(f"{self._name}: a perf.data header of {size} bytes")
        header = Cursor(self._file.read(0, HEADER_SIZE, "header"), f"{self._name}, header")
        header.take(16, "magic")
        each = header.number(8, "attribute's size")
        attributes = header.number(8, "attributes"), header.number(8, "attributes' size")
        data, data_size = header.number(8, "records"), header.number(8, "records' size")
        header.take(16, "event types")
        flags = int.from_bytes(header.take(32, "features"), "little")
        self._read_attributes(*attributes, each)
        self._new_layouts()
        end = data + data_size
        if (not data_size and self._file.size > data) or end > self._file.size:
            if not self._made.salvage:
                how = "is cut off" if data_size else "was not closed: perf was killed"
                raise ImportFormatError(
                    f"{self._name} {how}",
                    help=f"{SALVAGE}; the formats of events, which perf writes last, it takes from"
                    f" {self._name}{FORMATS}: the same events recorded once more on the same boot",
                )
            return data, self._file.size, False
        self._file.check(data, data_size, "records")
        self._read_features(end, flags)
        return data, end, True

    def _read_attributes(self, offset: int, size: int, each: int) -> None:
        if each < 80 or each > 8192 or size % each or size // each > MAX_ATTRIBUTES:
            raise ImportFormatError(f"{self._name}: {size} bytes of attributes of {each} bytes")
        data = self._file.read(offset, size, "attributes")
        for at in range(0, size, each):
            section = Cursor(data[at + each - 16 : at + each], f"{self._name}, an event's ids")
            place, length = section.number(8, "place"), section.number(8, "size")
            if length > 8 * MAX_IDS:
                raise ImportFormatError(f"{self._name}: an event with too many ids")
            ids = self._file.read(place, length, "ids")
            self._add_attribute(data[at : at + each - 16], ids)

    def _add_attribute(self, data: bytes, ids: bytes) -> None:
        made = self._made
        if len(made.attributes) >= MAX_ATTRIBUTES or len(made.numbers) + len(ids) // 8 > MAX_IDS:
            raise ImportFormatError(f"{self._name}: too many events")
        for id in np.frombuffer(ids[: len(ids) & ~7], "<u8").tolist():
            if made.numbers.setdefault(id, len(made.attributes)) != len(made.attributes):
                raise ImportFormatError(f"{self._name}: two events have the same id {id}")
        made.attributes.append(parse_attribute(data, self._name))

    def _new_layouts(self) -> None:
        made = self._made
        self._times_laid_out += 1
        if self._times_laid_out > MAX_LAYOUTS:
            raise ImportFormatError(f"{self._name}: new events again and again between records")
        self._layouts = Layouts(made.attributes, made.numbers, self._name)
        counts = np.zeros(len(made.attributes) + 1, np.int64)
        counts[: len(self._counts) - 1] = self._counts[:-1]
        self._counts = counts

    def _read_features(self, table: int, flags: int) -> None:
        """The features' table lies behind the records."""
        for number in (n for n in range(256) if flags >> n & 1):
            try:
                raw = Cursor(self._file.read(table, 16, "a feature"), self._name)
                table += 16
                offset, size = raw.number(8, "offset"), raw.number(8, "size")
                self._file.check(offset, size, f"feature {number}")
            except ImportFormatError as error:
                self._give_up(error)
                continue
            self._add_feature(number, offset, size)

    def _add_feature(self, number: int, offset: int, size: int) -> None:
        if number not in WANTED:
            return
        if size > MAX_FEATURE:
            raise ImportFormatError(f"{self._name}: feature {number} of {size} bytes")
        data = self._file.read(offset, size, f"feature {number}")
        if number == TRACING_DATA:
            self._made.formats = parse_tracing_data(data, self._name)
        else:
            self._made.features[number] = data
        if number == ARCH and (arch := self._made.feature_text(ARCH)) != "x86_64":
            raise ImportFormatError(
                f"{self._name}: recorded on a machine of type {arch[:40]!r}; x86_64 is read"
            )

    # -- the records -------------------------------------------------------------------------------

    def _scan(self, begin: int, end: int) -> None:
        """Take the records in a range of the file, or of what was decompressed behind its end."""
        buffer = np.empty(STEP + LARGEST + 1, np.uint8)
        words = buffer[: len(buffer) & ~3].view(np.uint32)
        at = begin
        while at < end:
            length = min(end - at, len(buffer))
            self._made.read_into(at, buffer[:length].data)
            try:
                step = self._scan_buffer(buffer, words, length, at)
            except ImportFormatError as error:
                self._give_up(error)
                return
            if step == 0:
                self._give_up(
                    ImportFormatError(f"{self._name}: the record at byte {at} is cut off")
                )
                return
            at += step

    def _give_up(self, error: ImportFormatError) -> None:
        """Take no more records: an error, or when salvaging a note."""
        if not self._made.salvage:
            raise ImportFormatError(error.message, help=error.help or SALVAGE)
        self._made.damage = self._made.damage or error.message

    def _scan_buffer(
        self,
        buffer: np.ndarray[tuple[int], np.dtype[np.uint8]],
        words: np.ndarray[tuple[int], np.dtype[np.uint32]],
        length: int,
        base: int,
    ) -> int:
        """Take the records in ``buffer``; how many bytes, which may be more than are there."""
        self._state[0] = 0
        none = np.empty(0, np.int64)
        while True:
            layouts = self._layouts
            result = self._walk(
                buffer, words, length, base,
                layouts.id_place if layouts else -1,
                layouts.ids if layouts else none,
                layouts.of_id if layouts else none,
                layouts.table if layouts else none.reshape(0, 8),
                *self._out, self._out_cpus, self._last, self._counts, self._state,
            )  # fmt: skip
            at = int(self._state[0])
            if result == END:
                return at
            if result == FULL:
                self._flush()
            elif result == ALIGN:
                if at:
                    return at
                raise AssertionError("a buffer begins on a multiple of four")
            elif result in FAULTS:
                raise ImportFormatError(
                    f"{self._name} is damaged at byte {base + at}: {FAULTS[result]}"
                )
            else:
                size = int(buffer[at + 6]) | int(buffer[at + 7]) << 8
                kind = int.from_bytes(buffer[at : at + 4].tobytes(), "little")
                record = buffer[at : at + size].tobytes()
                step = size + self._take(kind, record, base + at)
                self._state[0] = at + step
                if at + step > length:
                    return at + step

    def _take(self, kind: int, record: bytes, at: int) -> int:
        """A record that is no sample; how many bytes follow that belong to it."""
        cursor = Cursor(record, f"{self._name}, the record at byte {at}")
        cursor.number(4, "type")
        misc = cursor.number(2, "misc")
        cursor.number(2, "size")
        if kind != HEADER_ATTR and self._layouts is None and self._made.attributes:
            self._new_layouts()
        if kind == SAMPLE:
            if self._layouts is None:
                raise ImportFormatError(f"{self._name}: a sample before the events are named")
            return -len(record)  # now it can be read
        if kind == COMM:
            self._take_comm(cursor)
        elif kind == FORK:
            self._take_fork(cursor)
        elif kind == LOST:
            self._take_lost(cursor)
        elif kind in (THROTTLE, UNTHROTTLE):
            self._take_throttle(kind, cursor)
        elif kind == LOST_SAMPLES:
            if not misc & LOST_SAMPLES_BPF:
                count = cursor.number(8, "count")
                id, _, _ = self._sample_id(record)
                self._lost_of_id[id] = self._lost_of_id.get(id, 0) + count
        elif kind in (MMAP, MMAP2):
            self._made.kernel_text = self._made.kernel_text or record[16:40]
        elif kind == ID_INDEX:
            self._take_index(cursor)
        elif kind == COMPRESSED:
            self._add_compressed(at, 8, len(record) - 8)
        elif kind == COMPRESSED2:
            size = cursor.number(8, "size")
            cursor.take(size, "compressed data")
            self._add_compressed(at, 16, size)
        elif kind == HEADER_ATTR:
            size = int.from_bytes(record[12:16], "little")
            self._add_attribute(cursor.take(size, "attribute"), cursor.take(cursor.left, "ids"))
            self._layouts = None
        elif kind == HEADER_FEATURE:
            number = cursor.number(8, "feature")
            self._add_feature(number, at + 16, cursor.left)
        elif kind == HEADER_TRACING_DATA:
            size = cursor.number(4, "size")
            self._file.check(at + len(record), size, "tracing data")
            self._add_feature(TRACING_DATA, at + len(record), size)
            return (size + 7) & ~7
        elif kind == AUXTRACE:
            size = cursor.number(8, "size")
            self._file.check(at + len(record), size, "AUX data")
            return size
        return 0

    def _add_compressed(self, at: int, header: int, size: int) -> None:
        if at >= self._file.size:
            raise ImportFormatError(f"{self._name}: compressed records inside compressed ones")
        self._compressed.append((at + header, size))

    def _decompress(self) -> None:
        made = self._made
        made.compressed = True
        made.spool = spool = Spool()
        for piece in decompressed(self._file, self._compressed, self._name):
            if isinstance(piece, ImportFormatError):
                self._give_up(piece)
                break
            spool.write(piece)
        self._compressed = []
        self._scan(self._file.size, self._file.size + spool.size)

    def _flush(self) -> None:
        """Give the samples so far to their CPUs' indexes."""
        count = int(self._state[1])
        self._state[1] = 0
        if not count:
            return
        cpus = self._out_cpus[:count]
        order = np.argsort(cpus, kind="stable")
        ranked = cpus[order]
        ts, at, size = self._out
        begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]).tolist()
        for begin, end in zip(begins, [*begins[1:], count], strict=True):
            which = order[begin:end]
            index = self._made.cpus.setdefault(int(ranked[begin]), CpuIndex())
            index.add(ts[which], at[which], size[which])

    # -- what is no sample -------------------------------------------------------------------------

    def _sample_id(self, record: bytes) -> tuple[int, int | None, int | None]:
        """Of a record that is no sample: the event's id (0: not said), its time and CPU."""
        layouts = self._layouts
        if layouts is None:
            return 0, None, None

        def word(place: int) -> int | None:
            if not 0 < place * 8 <= len(record) - 8:
                return None
            start = len(record) - 8 * place
            return int.from_bytes(record[start : start + 8], "little")

        id = word(layouts.id_place_from_end) or 0
        time, cpu = (word(layouts.at_end(field, id)) for field in (TIME, CPU))
        if time is not None and time >> 63:
            raise ImportFormatError(f"{self._name}: a record's time is past 63 bits")
        return id, time, None if cpu is None else cpu & 0xFFFFFFFF

    def _take_comm(self, cursor: Cursor) -> None:
        cursor.number(4, "process")
        tid = cursor.number(4, "thread")
        rest = cursor.take(cursor.left, "name")
        _, time, _ = self._sample_id(bytes(16) + rest)
        name = rest.split(b"\0", 1)[0][:64].decode("utf-8", "replace")
        before = self._names.get(tid)
        if before is None or (time or 0) >= before[0]:
            self._names[tid] = (time or 0, name)

    def _take_fork(self, cursor: Cursor) -> None:
        """A new thread has its parent's name at first."""
        cursor.take(8, "processes")
        tid, parent = cursor.number(4, "thread"), cursor.number(4, "parent")
        time = cursor.number(8, "time")
        name, before = self._names.get(parent), self._names.get(tid)
        if name is not None and (before is None or time >= before[0]):
            self._names[tid] = (time, name[1])

    def _take_lost(self, cursor: Cursor) -> None:
        cursor.number(8, "id")
        count = cursor.number(8, "count")
        id, time, cpu = self._sample_id(bytes(24) + cursor.take(cursor.left, "sample id"))
        # Of a buffer per thread, the records before the loss may be any CPU's.
        known = cpu is not None and cpu < MAX_CPUS and self._cpu_of_id.get(id, cpu) == cpu
        where = cpu if known and cpu is not None else NO_CPU
        begin = int(self._last[where]) if where != NO_CPU else -1
        self._lost_of_cpu[where] = self._lost_of_cpu.get(where, 0) + count
        self._holes.append((where, begin, -1 if time is None else time, count))

    def _take_throttle(self, kind: int, cursor: Cursor) -> None:
        """The kernel stopped an event for a while because it came too often, or let it go on."""
        time, id = cursor.number(8, "time"), cursor.number(8, "id")
        number = self._made.numbers.get(id, 0)
        if number < len(self._made.attributes) and self._made.attributes[number].tracepoint:
            begin = self._throttled.pop(id, None)
            if begin is not None:
                self._holes.append((NO_CPU, begin, time & MOST, -1))
            if kind == THROTTLE:
                self._throttled[id] = time & MOST

    def _take_index(self, cursor: Cursor) -> None:
        count = cursor.number(8, "entries")
        if count * 32 > cursor.left:
            raise ImportFormatError(f"{self._name}: an index of ids that does not fit its record")
        for _ in range(count):
            id = cursor.number(8, "id")
            cursor.number(8, "number")
            cpu = cursor.number(8, "CPU")
            cursor.number(8, "thread")
            if len(self._cpu_of_id) < MAX_IDS:
                self._cpu_of_id[id] = cpu if cpu < MAX_CPUS else NO_CPU

    def _place_holes(self) -> None:
        """Put what was lost between the records, once all of them are known."""
        cpus = self._made.cpus
        last = {c: int(self._last[c]) for c in cpus}
        times = self._made.feature_numbers(SAMPLE_TIME, (8, 8)) if last else None
        begin = min((index.earliest for index in cpus.values()), default=0)
        end = max((index.latest for index in cpus.values()), default=0)
        if times is not None and end < times[1] < 1 << 63:
            end = times[1]
        holes = [(c, b, u if u >= 0 else end, n) for c, b, u, n in self._holes]
        # perf asks in the end how many each event lost: more than what the records said were lost
        # behind the last of them.
        asked: dict[int, int] = {}
        for id, count in self._lost_of_id.items():
            cpu = self._cpu_of_id.get(id, NO_CPU)
            asked[cpu] = asked.get(cpu, 0) + count
        if NO_CPU in asked or NO_CPU in self._lost_of_cpu:
            rest = sum(asked.values()) - sum(self._lost_of_cpu.values())
            if rest > 0:
                holes.append((NO_CPU, -1, end, rest))
        else:
            for cpu, count in asked.items():
                if (rest := count - self._lost_of_cpu.get(cpu, 0)) > 0:
                    holes.append((cpu, last.get(cpu, -1), end, rest))
        holes += [(NO_CPU, time, end, -1) for time in self._throttled.values()]
        if self._made.sampled:
            holes.append((NO_CPU, -1, end, -1))
        if self._made.damage:
            holes += [(c, t, end, -1) for c, t in last.items()] or [(NO_CPU, -1, end, -1)]
        for cpu, after, until, count in holes:
            index = cpus.setdefault(cpu if cpu != NO_CPU else min(cpus, default=0), CpuIndex())
            index.add_hole(after if after >= 0 else min(begin, until), until, min(count, MOST))
