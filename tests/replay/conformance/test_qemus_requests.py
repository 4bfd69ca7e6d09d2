"""What QEMU's own trace says it was asked is held against what was done."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from conforming import driven, followed

from replay.conformance.calls import COLUMNS
from replay.conformance.conformance import Conformance, Follower
from replay.conformance.told import judged, violations_of
from tracekit.events import Event
from tracekit.events.qemu import QemuConvertMemory
from tracekit.findings import Severity
from tracekit.importers import import_files
from tracekit.store import Trace, open_trace
from tracekit.synth.guest import BASE, GENERATIONS, PAGE, Guest

SAMPLE = Path(__file__).parents[2] / "data" / "qemu"
NAMED = os.environ.get("TRACEKIT_TRACES")
FOLDER = Path(NAMED) / "qemu" if NAMED and (Path(NAMED) / "qemu").is_dir() else SAMPLE
NAMES = sorted(p.name.removesuffix(".truth.json") for p in FOLDER.glob("*.truth.json"))
LOGS = [
    (name, suffix)
    for name in NAMES
    for suffix in ("qemu.log.gz", "simpletrace.bin")
    if (FOLDER / f"{name}.{suffix}").exists()
]

FULL_CONTAINER = 1156
"""A seed whose containers are soon full."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tracekit-requests-")


@functools.cache
def merged(name: str, suffix: str) -> Trace:
    """A recording of the kernel and one of QEMU as one trace."""
    out = Path(_folder().name) / f"{name}-{suffix}.parquet"
    files = [FOLDER / f"{name}.trace.dat", FOLDER / f"{name}.{suffix}"]
    import_files(files, out, probes=FOLDER / "dynamic_events-qemu.txt")
    return open_trace(out)


def conformance(trace: Trace, without: int = 0) -> Conformance:
    """What is said of a trace whose n-th plug of a block was not recorded by QEMU."""
    import pyarrow.compute as pc

    follower = Follower(trace.manifest.events, compiled=False)
    for batch in trace.batches(COLUMNS):
        if without:
            plugs = pc.and_(
                pc.equal(batch.column("event").cast("string"), "qemu.virtio_mem"),
                pc.fill_null(pc.equal(batch.column("cmd"), 0), False),
            )
            rows = [i for i, is_plug in enumerate(plugs.to_pylist()) if is_plug]
            if 0 < without <= len(rows):
                gone = rows[without - 1]
                kept = [i for i in range(batch.num_rows) if i != gone]
                batch, without = batch.take(kept), 0
            else:
                without -= len(rows)
        follower.feed(batch)
    return follower.finish()


@functools.cache
def whole(name: str, suffix: str) -> Conformance:
    return conformance(merged(name, suffix))


@pytest.mark.parametrize(("name", "suffix"), LOGS)
def test_requests_and_calls_of_real_qemu_agree(name: str, suffix: str) -> None:
    trace = merged(name, suffix)
    c = whole(name, suffix)
    assert c.listeners.departed == 0
    regions = trace.manifest.events.get("qemu.region", 0)
    asked = c.listeners.plugs + c.listeners.unplugs if "vmem" in name else 0
    assert c.listeners.requests > max(asked, regions // 20)
    told = judged(c)
    assert told.decided >= 0.95 * (told.decided + told.undecided)
    print(f"{name}: {told.decided} decided, {told.undecided} not, {c.listeners.requests} told")


def test_a_block_that_nobody_asked_for_is_told() -> None:
    """The guest's request left out of QEMU's log: the map stands alone."""
    name, suffix = next(((n, s) for n, s in LOGS if "vmem" in n), LOGS[0])
    trace = merged(name, suffix)
    all_of_it = whole(name, suffix).listeners
    c = conformance(trace, without=2 if "vmem" in name else 1)
    assert c.listeners.plugs == all_of_it.plugs
    told = {d.what for d in c.listeners.departures}
    if "vmem" in name:
        assert told == {"unrequested"}
        assert {v.severity for v in violations_of(c)} == {Severity.ERROR}
    else:  # one request for 32 blocks: the log's time has no room for more
        assert told <= {"unrequested"}
        assert c.listeners.requests < all_of_it.requests


def asking(guest: Guest, requests: Iterable[tuple[int, int, bool]], *, tid: int) -> list[Event]:
    """The guest's recording, with the line that QEMU writes before each conversion."""
    lines: list[Event] = []
    for first, count, private in requests:
        before = guest.events[-1].ts_ns
        lines.append(
            QemuConvertMemory(
                ts_ns=before + 1, tid=tid or None, gpa=BASE + first * PAGE,
                size=count * PAGE, attributes=8 if private else 0,
            )
        )  # fmt: skip
        guest.convert(first, count, private=private)
    return sorted([*guest.events, *lines], key=lambda e: e.ts_ns)


def some() -> Iterator[tuple[int, int, bool]]:
    yield from ((0, 4, False), (2, 4, False), (1, 2, True), (8, 8, False), (0, 16, True))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("tid", [100, 0])
def test_conversions_are_those_that_qemu_tells(generation: str, tid: int, tmp_path: Path) -> None:
    guest = Guest(generation, blocks=16)
    guest.plug_device()
    events = asking(guest, some(), tid=tid)
    c = followed(events, tmp_path, generation)
    assert c.listeners.departed == 0
    assert c.tally.diverging == 0
    if generation != "v4":
        assert c.listeners.requests == 5
        silent = [e for i, e in enumerate(events) if e is not _asked(events)[2]]
        gone = followed(silent, tmp_path, generation)
        assert [d.what for d in gone.listeners.departures] in (["unrequested"], [])


def _asked(events: list[Event]) -> list[Event]:
    return [e for e in events if e.name_ == "qemu.convert_memory"]


def test_a_request_that_was_not_answered_is_told(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    guest.plug_device()
    events = asking(guest, some(), tid=100)
    last = events[-1]
    ignored = QemuConvertMemory(ts_ns=last.ts_ns + 1, tid=100, gpa=1 << 32, size=4096, attributes=0)
    c = followed([*events, ignored], tmp_path, "merged")
    assert [d.what for d in c.listeners.departures] == ["unanswered"]
    (told,) = violations_of(c)
    assert told.rule == "merged:listener-unanswered-shared"


def test_the_attribute_of_a_new_slot_answers_no_request(tmp_path: Path) -> None:
    """All of a slot is made private when it is made, and nobody asked for that."""
    guest = Guest("merged", blocks=16)
    guest.plug_device()
    events = asking(guest, [*some()][:-1], tid=100)
    last = events[-1]
    ignored = QemuConvertMemory(
        ts_ns=last.ts_ns + 1, tid=100, gpa=BASE, size=16 * PAGE, attributes=8
    )
    c = followed([*events, ignored], tmp_path, "merged")
    assert [d.what for d in c.listeners.departures] == ["unanswered"]


def test_with_the_request_v4_needs_no_discard_to_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversions that failed have no discard: only QEMU's own line says how large they were."""
    lines: list[Event] = []
    convert = Guest.convert

    def told(self: Guest, first: int, count: int, *, private: bool) -> None:
        lines.append(
            QemuConvertMemory(
                ts_ns=self.events[-1].ts_ns + 1, tid=100, gpa=BASE + first * PAGE,
                size=count * PAGE, attributes=8 if private else 0,
            )
        )  # fmt: skip
        convert(self, first, count, private=private)

    monkeypatch.setattr(Guest, "convert", told)
    guest = driven("v4", FULL_CONTAINER)
    without = followed(guest.events, tmp_path, "v4").tally
    events = sorted([*guest.events, *lines], key=lambda e: e.ts_ns)
    c = followed(events, tmp_path, "v4")
    assert without.reasons["unknown_request"] > 5
    assert c.tally.reasons.get("unknown_request", 0) == 0
    assert c.tally.conforming > without.conforming
    assert c.tally.diverging == 0
