"""Every recording of a real kernel, against what trace-cmd says is in it."""

from __future__ import annotations

import os
import random
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tracekit.ftrace.event_format import EventFormat, Field
from tracekit.ftrace.page_stream import PageRecords, PageStream
from tracekit.ftrace.ring_buffer import Records, page_layout
from tracekit.ftrace.trace_dat import TraceDat
from tracekit.ftrace.tracepoints import TRACEPOINTS
from tracekit.importers import import_files

FOLDER = os.environ.get("TRACEKIT_TRACES") or str(Path(__file__).parents[2] / "data" / "traces")
RECORDINGS: list[Path] = sorted(Path(FOLDER).glob("*/*.dat")) if FOLDER else []
PARAMETERS: list[Path | None] = [*RECORDINGS] or [None]
SAMPLES = 200

_LINE = re.compile(r"^ *(.+?)-(\d+) +\[(\d+)\] +(\d+)\.(\d{6}): (\S+?): +(.*)$", re.MULTILINE)

needs_recordings = pytest.mark.skipif(not RECORDINGS, reason="TRACEKIT_TRACES has no recordings")
Raw = tuple[int, bytes]


class Report:
    """trace-cmd's text, and where each CPU's lines begin in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: dict[int, array[int]] = defaultdict(lambda: array("q"))
        self.names: Counter[str] = Counter()
        for line in _LINE.finditer(text):
            self._starts[int(line[3])].append(line.start())
            self.names[line[6]] += 1

    def count(self, cpu: int) -> int:
        """How many events it shows of a CPU."""
        return len(self._starts[cpu])

    def line(self, cpu: int, index: int) -> tuple[str, ...]:
        """Name, tid, CPU, seconds, microseconds, event, fields."""
        found = _LINE.match(self._text, self._starts[cpu][index])
        assert found is not None
        return tuple(found.groups())


@pytest.fixture(scope="module", params=PARAMETERS, ids=[p.stem for p in RECORDINGS] or ["none"])
def recording(request: pytest.FixtureRequest) -> Path:
    """One of the recordings."""
    if request.param is None:
        pytest.skip("TRACEKIT_TRACES names no folder with recordings")
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def report(recording: Path, trace_cmd_report: Callable[[Path], str]) -> Report:
    """What trace-cmd says is in the recording."""
    return Report(trace_cmd_report(recording))


def raw_records(
    path: Path, wanted: dict[int, set[int]]
) -> Iterator[tuple[int, array[int], dict[int, Raw]]]:
    """Of each CPU: its records' event numbers, and (time, bytes) of the wanted ones."""
    small = path.stat().st_size <= 4 << 20
    with TraceDat.open(path) as file:
        for buffer in file.buffers:
            layout = page_layout(file.header_page, buffer.page_size)
            for cpu in buffer.cpus:
                source = PageStream(file.file, cpu, buffer.page_size, file.compression)
                numbers = array("H")
                kept: dict[int, Raw] = {}
                pages = PageRecords(source, layout, path.name, small=small)
                room = Records(1, 16 * buffer.page_size, buffer.page_size).stream(0)
                while not pages.finished:
                    pages.fill(room)
                    held = room.pages.tobytes()
                    for i in range(int(room.state[3])):
                        at = int(room.at[i])
                        if at < 0:
                            continue
                        if len(numbers) in wanted[cpu.cpu]:
                            payload = held[at : at + int(room.size[i])]
                            kept[len(numbers)] = int(room.ts[i]), payload
                        numbers.append(held[at] | held[at + 1] << 8)
                yield cpu.cpu, numbers, kept


@needs_recordings
def test_each_event_name_is_counted_as_often_as_trace_cmd_shows_it(
    recording: Path, report: Report, tmp_path: Path
) -> None:
    manifest = import_files([recording], tmp_path / "t.parquet")
    counted: Counter[str] = Counter()
    for entry in manifest.recorded:
        if entry.count:
            counted[entry.name.partition(":")[2]] += entry.count
    assert counted == report.names
    rows = sum(r.count for r in manifest.recorded if r.event is not None)
    assert manifest.rows == rows + manifest.loss_marks + manifest.events.get("trace.clock_back", 0)


@needs_recordings
def test_random_records_agree_with_trace_cmd_field_by_field(
    recording: Path, report: Report, tmp_path: Path
) -> None:
    import_files([recording], tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    cpus = table["cpu"].to_numpy()
    sources = table["source"].unify_dictionaries().combine_chunks()
    index = np.asarray(sources.indices.fill_null(-1))
    recognised = {sources.dictionary[i].as_py() for i in np.unique(index) if i >= 0}
    with TraceDat.open(recording) as file:
        formats = {f.id: f for f in file.formats}
        present = [c.cpu for b in file.buffers for c in b.cpus]
    places = [(c, i) for c in present for i in range(report.count(c))]
    wanted: dict[int, set[int]] = defaultdict(set)
    for cpu, i in random.Random(7).sample(places, min(SAMPLES, len(places))):
        wanted[cpu].add(i)
    checked = 0
    for cpu, numbers, kept in raw_records(recording, wanted):
        assert len(numbers) == report.count(cpu), f"CPU {cpu}"
        with_row = [i for i, n in enumerate(numbers) if formats[n].source in recognised]
        # Rows of one CPU are in the order of its records; marks of the recording are no records.
        rows = np.flatnonzero((cpus == cpu) & (index >= 0))
        assert len(rows) == len(with_row)
        row_of = dict(zip(with_row, rows.tolist(), strict=True))
        for i, (ts, payload) in kept.items():
            event, line = formats[numbers[i]], report.line(cpu, i)
            _check_line(line, ts, payload, event)
            if i in row_of:
                row = table.slice(row_of[i], 1).to_pylist()[0]
                _check_row(row, line, ts, payload, event)
            checked += 1
    assert checked == min(SAMPLES, len(places))


def _check_line(line: tuple[str, ...], ts: int, payload: bytes, event: EventFormat) -> None:
    _, tid, _, seconds, micros, name, text = line
    assert name == event.name
    assert int(tid) == int.from_bytes(payload[4:8], "little", signed=True)
    assert abs(int(seconds) * 10**6 + int(micros) - ts / 1000) <= 0.5
    fields = list(event.fields.values())
    for field, after in zip(fields, [*fields[1:], None], strict=True):
        begin = text.index(f"{field.name}=") + len(field.name) + 1
        end = text.index(f" {after.name}=", begin) if after is not None else len(text)
        shown = text[begin:end]
        if field.name == "ip" and event.source == "ftrace:print":
            continue  # trace-cmd shows the function's name
        _check_field(shown, field, payload, event)


def _check_field(shown: str, field: Field, payload: bytes, event: EventFormat) -> None:
    place = f"{event.source} {field.name}: {shown!r}"
    if field.data_loc:
        at = int.from_bytes(payload[field.offset : field.offset + 2], "little")
        size = int.from_bytes(payload[field.offset + 2 : field.offset + 4], "little")
        text = payload[at : at + size].split(b"\0")[0].decode("utf-8", "replace")
        assert shown.strip() == text.strip(), place
    elif field.array:
        end = field.offset + field.size if field.size else len(payload)
        text = payload[field.offset : end].split(b"\0")[0].decode("utf-8", "replace")
        assert text.startswith(shown.strip()) or shown.strip() == text.strip(), place
    else:
        raw = payload[field.offset : field.offset + field.size]
        values = {int.from_bytes(raw, "little"), int.from_bytes(raw, "little", signed=True)}
        if field.size == 8:  # system call arguments of type int
            values |= {int.from_bytes(raw[:4], "little")}
            values |= {int.from_bytes(raw[:4], "little", signed=True)}
        shown = shown.split()[0]
        if shown.startswith("0x"):
            assert int(shown, 16) in values, place
        else:
            forms = {form % v for v in values for form in ("%d", "%x", "%o")}
            assert (shown.lstrip("0") or "0") in forms, place  # %#016llx of 0 is all zeros


def _check_row(
    row: dict[str, object], line: tuple[str, ...], ts: int, payload: bytes, event: EventFormat
) -> None:
    assert row["ts_ns"] == ts
    assert row["source"] == event.source
    assert row["tid"] == int(line[1])
    assert row["comm"] == line[0] or line[0].strip() in ("<...>", "<idle>")
    assert row["context"] == payload[2]
    point = TRACEPOINTS.get(event.source)
    if point is None:
        return
    for column, name in point.columns.items():
        if column in point.shifts or column in point.no_negative or name not in event.fields:
            continue
        field = event.fields[name]
        value = row[column]
        if field.number and value is not None:
            assert isinstance(value, int)
            mask = (1 << 8 * field.value_size) - 1
            raw = payload[field.offset : field.offset + field.size]
            assert value & mask == int.from_bytes(raw, "little") & mask
        elif field.data_loc and value is not None:
            assert f"{name}={value}" in line[6]
