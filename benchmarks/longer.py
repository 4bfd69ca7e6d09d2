"""A recording, or a trace, several times over: the same again and again, later in time."""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ("recording_times", "trace_times")

PAUSE_NS = 1_000_000_000
TIDS = 100_000
OBJECTS = 1 << 40
CHUNK_PAGES = 10


def trace_times(trace: Path, out: Path, times: int) -> None:
    """Write a Parquet trace so many times, one after the other.

    Each time by other processes, and with other objects of the kernel: the recording may have ended
    before the end of those of the time before.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from tracekit.store import TraceWriter, open_trace

    whole = open_trace(trace)
    begin, end = whole.manifest.span_ns or (0, 0)
    with TraceWriter(out) as writer:
        for number in range(times):
            later, other = number * (end - begin + PAUSE_NS), number * TIDS
            by = {"ts_ns": later, "until_ns": later, "tid": other, "pid": other}
            by["object"] = number * OBJECTS
            for batch in whole.batches():
                moved = batch.drop_columns(["seq"])
                for name, step in by.items():
                    at, field = moved.schema.get_field_index(name), moved.schema.field(name)
                    column = pc.add(moved.column(at), pa.scalar(step, field.type))
                    moved = moved.set_column(at, field, column)
                writer.write(moved)
        writer.finish(whole.manifest)


def recording_times(recording: Path, out: Path, times: int, span_ns: int) -> None:
    """Write a packed trace.dat of version 7 so many times: each page again, with a later stamp.

    What is not pages stays, byte for byte; the pages follow at the end of the file, where its
    options now say that they are.  ``span_ns``: from its first event to its last.
    """
    from tracekit.ftrace.compression import compress
    from tracekit.ftrace.page_stream import PageStream
    from tracekit.ftrace.trace_dat import TraceDat

    said = bytearray(recording.read_bytes())
    with TraceDat.open(recording) as source, out.open("wb") as file:
        (buffer,) = source.buffers
        file.write(said)
        for cpu in buffer.cpus:
            if not cpu.size:
                continue
            assert cpu.compressed, "a recording whose pages are not packed"
            begin, chunks = file.tell(), 0
            file.write(bytes(4))
            chunk = bytearray(CHUNK_PAGES * buffer.page_size)
            for number in range(times):
                stream = PageStream(source.file, cpu, buffer.page_size, source.compression)
                while size := stream.fill(memoryview(chunk)):
                    for at in range(0, size, buffer.page_size):
                        (stamp,) = struct.unpack_from("<Q", chunk, at)
                        struct.pack_into("<Q", chunk, at, stamp + number * (span_ns + PAUSE_NS))
                    packed = compress(bytes(chunk[:size]), source.compression)
                    file.write(struct.pack("<II", len(packed), size) + packed)
                    chunks += 1
            end = file.tell()
            file.seek(begin)
            file.write(struct.pack("<I", chunks))
            # An option of each instance holds number, place and size; the size is without the
            # number of chunks.
            place = said.index(struct.pack("<IQQ", cpu.cpu, cpu.offset, cpu.size))
            file.seek(place)
            file.write(struct.pack("<IQQ", cpu.cpu, begin, end - begin - 4))
            file.seek(end)
