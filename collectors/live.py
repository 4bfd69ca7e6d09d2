"""The process that makes segments: complete chunks of pages in, Parquet files out.

What the pages say was written by others, so this process has no right of any kind.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from collectors.chunks import About, decode_chunk
from collectors.recorder import CHUNKS, COMPLETE, Chunk
from tracekit.errors import TracekitError
from tracekit.ftrace.loss_rows import Loss, between, in_order, loss_rows
from tracekit.store import TraceWriter

__all__ = ("decode_chunks", "warm_up")

NOT_COUNTED = -1


class Segments:
    """Writes chunk after chunk: rows before its watermark, the others with the next one."""

    def __init__(self, folder: Path, *, max_bytes: int = 0, max_segments: int = 0) -> None:
        """``folder``: of the trace.  The limits: the oldest segments beyond them go."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_segments = max_segments
        self._about = About.read(folder / CHUNKS / "about")
        self._held: pa.RecordBatch | None = None
        self._done_ns = -(1 << 63)
        self._sizes: dict[Path, int] = {}
        self.rows = 0
        self.segments = 0
        self.late = 0
        self.recorded: dict[str, int] = {}

    @property
    def written(self) -> int:
        """Bytes of the segments that are kept."""
        return sum(self._sizes.values())

    def add(self, chunk: Chunk) -> None:
        """Write the chunk's segment, if it has any rows, and remove its pages.

        :raises TracekitError: it cannot be written
        :raises ImportFormatError: its pages are damaged
        """
        place = self._folder / CHUNKS / f"{chunk.number:06}"
        losses = [
            Loss(cpu=x.cpu, from_ns=x.from_ns, until_ns=x.until_ns, count=x.count)
            for x in chunk.losses
        ]
        decoding = decode_chunk(self._about, place, chunk)
        extra = [b for b in (self._held, loss_rows(losses)) if b is not None]
        self._held = None
        waiting = in_order(extra) if extra else None
        path = self._folder / f"{chunk.number:06}.parquet"
        with TraceWriter(path, first_seq=self.rows) as writer:
            for batch in between(waiting, self._held_back(decoding.batches())):
                self._write(writer, batch, chunk.watermark_ns)
            last_chance = not chunk.watermark_ns and not self.segments
            if writer.rows or last_chance or any(n for _, n in decoding.recorded()):
                manifest = decoding.manifest(losses, chunk.overrun)
                self.rows += writer.finish(manifest).rows
                self.segments += 1
                self._sizes[path] = path.stat().st_size
        for source, count in decoding.recorded():
            self.recorded[source] = self.recorded.get(source, 0) + count
        if chunk.watermark_ns:
            self._done_ns = max(self._done_ns, chunk.watermark_ns)
        shutil.rmtree(place, ignore_errors=True)
        self._remove_oldest()

    def _held_back(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """No row is earlier than the segments that are closed: those that are come at their end."""
        for batch in batches:
            times = batch.column("ts_ns").to_numpy()
            late = int(np.searchsorted(times, self._done_ns, "left"))
            if late:
                # A loss mark, which has no source, may begin at an event before.
                self.late += late - batch.column("source").slice(0, late).null_count
                held = pa.array(np.maximum(times, self._done_ns))
                batch = batch.set_column(0, batch.schema.field(0), held)
            yield batch

    def _write(self, writer: TraceWriter, batch: pa.RecordBatch, watermark: int) -> None:
        """Write the rows before the watermark, and keep the others."""
        cut = batch.num_rows
        if watermark:
            cut = int(np.searchsorted(batch.column("ts_ns").to_numpy(), watermark, "left"))
        if cut:
            writer.write(batch.slice(0, cut))
        if cut < batch.num_rows:
            rest = batch.slice(cut)
            self._held = rest if self._held is None else in_order([self._held, rest])

    def _remove_oldest(self) -> None:
        while len(self._sizes) > 1 and (
            (self._max_segments and len(self._sizes) > self._max_segments)
            or (self._max_bytes and self.written > self._max_bytes)
        ):
            oldest = min(self._sizes)
            oldest.unlink(missing_ok=True)
            del self._sizes[oldest]


def decode_chunks(
    folder: Path, wake: int, said: int, *, max_bytes: int = 0, max_segments: int = 0
) -> None:
    """Decode chunks as they become complete, until the other end of ``wake`` is closed.

    Lines of JSON on how it goes are written to ``said``.
    """
    segments: Segments | None = None
    number = 1
    ended = False
    while True:
        complete = folder / CHUNKS / f"{number:06}" / COMPLETE
        if not complete.exists():
            if ended:
                break
            ended = not os.read(wake, 4096)
            continue
        chunk = Chunk.from_json(complete.read_text(encoding="utf-8"))
        try:
            segments = segments or Segments(folder, max_bytes=max_bytes, max_segments=max_segments)
            segments.add(chunk)
        except TracekitError as error:
            _say(said, {"error": error.message.replace(str(folder) + "/", "")})
            return
        _say(said, _told(segments))
        number += 1
    told: dict[str, object] = {"done": True}
    if segments is not None:
        told |= _told(segments) | {"recorded": segments.recorded}
        shutil.rmtree(folder / CHUNKS, ignore_errors=True)
    _say(said, told)


def warm_up() -> None:
    """Load what decoding and writing need, while it can still be read."""
    import tempfile

    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    from collectors.chunks import load_kernels

    load_kernels()
    batch = loss_rows([Loss(cpu=0, from_ns=1, until_ns=2, count=NOT_COUNTED)])
    assert batch is not None
    with tempfile.TemporaryDirectory(prefix="tracekit-") as name:
        from tracekit.store import Manifest, open_trace

        path = Path(name) / "warm.parquet"
        with TraceWriter(path) as writer:
            writer.write(in_order([batch, batch]))
            writer.finish(Manifest())
        open_trace(path)


def _told(segments: Segments) -> dict[str, object]:
    return {
        "segments": segments.segments,
        "rows": segments.rows,
        "written": segments.written,
        "late": segments.late,
    }


def _say(to: int, what: dict[str, object]) -> None:
    view = memoryview(json.dumps(what).encode() + b"\n")
    with suppress(OSError):  # nobody listens any more
        while view:
            view = view[os.write(to, view) :]
