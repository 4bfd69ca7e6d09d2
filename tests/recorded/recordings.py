"""Recordings of real kernels with their ground truth, as streams of events.

``$TRACEKIT_TRACES`` names a folder whose sub-folders hold ``trace-NAME.dat`` beside
``expected-NAME.json`` (what must be found, computed from what the workload itself logged) and
``NAME.trace.dat`` (no fault in it).  Without it: the sample in tests/data/traces.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.stream import COLUMNS
from tracekit.importers import import_files
from tracekit.store import open_trace

__all__ = ("FOLDER", "Planted", "Recording", "Stream", "recordings")

SAMPLE = Path(__file__).parents[1] / "data" / "traces"
FOLDER = Path(os.environ.get("TRACEKIT_TRACES") or SAMPLE)
LONG = 1_000_000
"""Events from which the reference takes too long."""

_COLUMNS = (*COLUMNS, "cpu")


@dataclass(frozen=True)
class Planted:
    """One fault that the workload made: which finding, which bytes, between which times."""

    code: str
    iova: int
    size: int
    from_ns: tuple[int, int]
    until_ns: tuple[int, int] | None

    @property
    def severities(self) -> tuple[str, ...]:
        """TK102 of a recording without KVM is a warning or an error: nothing there says private."""
        return ("warning", "error") if self.code == "TK102" else ("error",)


@dataclass(frozen=True)
class Recording:
    """One recording and what it is known to hold."""

    path: Path
    expected: dict[str, Any] | None

    @property
    def name(self) -> str:
        return self.path.name.removeprefix("trace-").removesuffix(".dat").removesuffix(".trace")

    @property
    def group(self) -> str:
        """The folder: what kind of workload it was."""
        return self.path.parent.name

    @property
    def is_long(self) -> bool:
        return self.group == "long"

    @property
    def pid(self) -> int | None:
        return self.expected["pid"] if self.expected else None

    @property
    def planted(self) -> list[Planted]:
        out = []
        for v in (self.expected or {}).get("violations", ()):
            if v["kind"] == "early_map":
                out.append(Planted("TK103", v["iova"], v["size"], tuple(v["at_ns"]), None))
            else:
                code = {"set_private": "TK101", "punch_hole": "TK102"}[v["trigger"]]
                out.append(
                    Planted(code, v["iova"], v["size"], tuple(v["from_ns"]), tuple(v["until_ns"]))
                )
        return out

    @property
    def refused(self) -> Counter[str]:
        """Refused calls, each a warning."""
        codes = {"dma_unmap": "TK105", "dma_map": "TK106", "set_private": "TK202"}
        codes["set_shared"] = "TK202"
        failed = (self.expected or {}).get("failed_ioctls", ())
        return Counter(codes[call["op"]] for call in failed)

    @property
    def definitions(self) -> Path | None:
        """The recorder's definitions of its dynamic events."""
        kernel = (self.expected or {}).get("kernel", "qemu")
        near = self.path.parent / f"dynamic_events-{kernel}.txt"
        found = [near, *sorted(FOLDER.glob(f"*/dynamic_events-{kernel}.txt"))]
        return next((path for path in found if path.is_file()), None)

    def imported(self, *, probes: bool) -> Path:
        """The recording as a trace, imported once in this run of the tests."""
        return _imported(self.path, self.definitions if probes else None)

    def stream(self, *, probes: bool = False) -> Stream:
        return _stream(self.imported(probes=probes))


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """All recordings of memory, in the order of their names."""
    out = []
    for path in sorted(FOLDER.glob("*/*.dat")):
        if path.parent.name == "vsock":
            continue
        truth = path.parent / f"expected-{path.stem.removeprefix('trace-')}.json"
        out.append(Recording(path, json.loads(truth.read_text()) if truth.is_file() else None))
    return tuple(out)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tracekit-recorded-")


@functools.cache
def _imported(path: Path, definitions: Path | None) -> Path:
    out = Path(_folder().name) / f"{path.stem}{'-probes' if definitions else ''}.parquet"
    import_files([path], out, probes=definitions)
    return out


@functools.lru_cache(maxsize=4)
def _stream(path: Path) -> Stream:
    trace = open_trace(path)
    batches = list(trace.batches(_COLUMNS))
    return Stream(pa.Table.from_batches(batches).unify_dictionaries().combine_chunks())


@dataclass
class Stream:
    """Events in order, as a table or as rows: whole, cut, or with events lost.

    ``order``: row numbers of ``base``; -1 - k is the k-th mark of ``lost``, a (from, until, CPU).
    """

    base: pa.Table
    order: Any = None
    lost: list[tuple[int, int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.base.num_rows if self.order is None else len(self.order)

    @functools.cached_property
    def ts_ns(self) -> Any:
        return self.base["ts_ns"].to_numpy()

    @functools.cached_property
    def cpu(self) -> Any:
        return self.base["cpu"].fill_null(-1).to_numpy()

    @functools.cached_property
    def names(self) -> Any:
        """Each event's type, as a number."""
        return self.base["event"].combine_chunks().indices.to_numpy()

    @functools.cached_property
    def all_rows(self) -> list[dict[str, Any]]:
        return self.base.to_pylist()

    def events(self) -> Counter[str]:
        """How many events of each type."""
        kept = self.names if self.order is None else self.names[self.order[self.order >= 0]]
        types = self.base["event"].combine_chunks().dictionary.to_pylist()
        counts = np.bincount(kept, minlength=len(types))
        out = Counter({name: int(n) for name, n in zip(types, counts, strict=True) if n})
        out["trace.lost"] += len(self.lost)
        return out

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every event as the reference takes it."""
        if self.order is None:
            return iter(self.all_rows)
        marks = self._marks()
        return (self.all_rows[i] if i >= 0 else marks[-1 - i] for i in self.order.tolist())

    def table(self) -> pa.Table:
        """Every event as the engine takes it."""
        if self.order is None:
            return self.base
        if not self.lost:
            return self.base.take(self.order)
        marks = pa.Table.from_pylist(self._marks(), schema=_plain(self.base.schema))
        marks = marks.cast(self.base.schema)
        both = pa.concat_tables([self.base, marks]).unify_dictionaries().combine_chunks()
        n = self.base.num_rows
        return both.take(pa.array(np.where(self.order >= 0, self.order, n - 1 - self.order)))

    def cut(self, events: int) -> Stream:
        """The first events only."""
        assert self.order is None
        out = Stream(self.base.slice(0, events))
        if "all_rows" in self.__dict__:
            out.__dict__["all_rows"] = self.all_rows[:events]
        return out

    def without(self, removed: Any) -> Stream:
        """Some events lost, and the loss marked: between the neighbours on that CPU."""
        assert self.order is None
        n = self.base.num_rows
        gone = np.zeros(n, bool)
        gone[removed] = True
        places, lost = [], []
        for cpu in np.unique(self.cpu[gone]).tolist():
            here = np.flatnonzero(self.cpu == cpu)
            hole = gone[here]
            starts = np.flatnonzero(hole & ~np.r_[False, hole[:-1]])
            ends = np.flatnonzero(hole & ~np.r_[hole[1:], False])
            for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
                before = int(here[first - 1]) if first else -1
                after = int(here[last + 1]) if last + 1 < len(here) else n - 1
                places.append(before)
                lost.append((int(self.ts_ns[max(before, 0)]), int(self.ts_ns[after]), cpu))
        kept = np.flatnonzero(~gone)
        where = np.r_[kept * 2, np.asarray(places, np.int64) * 2 + 1]
        what = np.r_[kept, -1 - np.arange(len(lost))]
        out = Stream(self.base, what[np.argsort(where, kind="stable")], lost)
        for shared in ("ts_ns", "cpu", "names", "all_rows"):
            if shared in self.__dict__:
                out.__dict__[shared] = self.__dict__[shared]
        return out

    def _marks(self) -> list[dict[str, Any]]:
        empty = dict.fromkeys(self.base.column_names)
        return [
            {**empty, "event": "trace.lost", "ts_ns": t0, "until_ns": t1, "cpu": cpu, "seq": -1}
            for t0, t1, cpu in self.lost
        ]


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with text instead of dictionaries."""
    return pa.schema(
        pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema
    )
