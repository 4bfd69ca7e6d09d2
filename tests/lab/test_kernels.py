"""Workloads under ``tracekit collect --spool`` in real kernels: their violations and no others.

A kernel boots once and runs all of its workloads; each test looks at one of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl
import pytest

from lab.boot import Ran
from lab.scenarios import GUESTS, Guest, Workload, import_bcc, import_spool, judge, run_guest

pytestmark = pytest.mark.lab

RUNS = [(guest, workload) for guest in GUESTS for workload in guest.workloads]


class Figures(Protocol):
    """The part of conftest's that is added to here."""

    kernels: set[str]
    workloads: int
    expected: int
    found: int
    others: int


@pytest.fixture(scope="module")
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    """All guests that tests were selected for, two at a time."""
    selected = {
        item.callspec.params["guest"].name
        for item in request.session.items
        if isinstance(item, pytest.Function) and "guest" in getattr(item, "fixturenames", ())
        if hasattr(item, "callspec") and "guest" in item.callspec.params
    }
    with ThreadPoolExecutor(max_workers=2) as pool:
        runs = {}
        for guest in GUESTS:
            if guest.name in selected:
                folder = tmp_path_factory.mktemp("guest")
                runs[guest.name] = (folder, pool.submit(run_guest, guest, folder))
        yield Recorded(runs)


@dataclass(frozen=True)
class Recorded:
    """By guest: the folder that it fills, and when it is full."""

    runs: dict[str, tuple[Path, Future[Ran]]]

    def folder(self, guest: Guest) -> Path:
        folder, running = self.runs[guest.name]
        running.result()
        return folder


@pytest.mark.parametrize(("guest", "workload"), RUNS, ids=[f"{g.name}-{w.name}" for g, w in RUNS])
def test_exactly_the_violations_of_the_workload_s_own_log_are_found(
    guest: Guest, workload: Workload, recorded: Recorded, figures: Figures
) -> None:
    folder = recorded.folder(guest)
    figures.kernels.add(guest.stock or "the lab's own")
    figures.workloads += 1
    judgements = judge(workload, folder, bcc=guest.bcc)
    for judgement in judgements:
        figures.expected += len(judgement.expected)
        figures.found += len(judgement.found) - len(judgement.others)
        figures.others += len(judgement.others)
    for judgement in judgements:
        assert judgement.found == judgement.expected
        assert judgement.document["trace"]["lost_events"] == 0
        assert judgement.document["trace"]["events"] > 0


BOTH = [
    (g, purpose) for g in GUESTS if g.bcc for purpose in sorted({w.purpose for w in g.workloads})
]
"""Guests where the BPF source recorded beside tracefs."""
# When, in which order and by which source; and what bcc cannot know: the context of interrupts.
NOT_COMPARED = ("ts_ns", "seq", "source", "context", "pid", "comm")
TYPED_ONLY = {"vsock.release", "vsock.transport_release"}
"""Here bcc reads fields that tracefs cannot on a kernel without types in probes (before 6.4)."""


def events_of(trace: Path, main_thread: int) -> pl.DataFrame:
    """What the workload's main thread did, and all that happened to vsock, VFIO and the IOMMU while
    it ran."""
    rows = pl.read_parquet(trace).with_columns(pl.col(pl.Categorical).cast(pl.String))
    own = rows.filter(pl.col("tid") == main_thread)
    ours = pl.col("event").str.contains(r"^(vsock|vfio|iommu)\.")
    return rows.filter(
        ((pl.col("tid") == main_thread) | ours)
        & (pl.col("ts_ns") >= own["ts_ns"].min())
        & (pl.col("ts_ns") <= own["ts_ns"].max())
    ).drop(NOT_COMPARED)


@pytest.mark.parametrize(("guest", "purpose"), BOTH, ids=[f"{g.name}-{p}" for g, p in BOTH])
def test_the_bpf_source_sees_what_tracefs_sees(
    guest: Guest, purpose: str, recorded: Recorded
) -> None:
    folder = recorded.folder(guest)
    (workload,) = (w for w in guest.workloads if w.purpose == purpose)
    main_thread = json.loads((folder / f"{workload.name}.json").read_text())["pid"]
    tracefs = events_of(import_spool(workload, folder), main_thread)
    bcc = events_of(import_bcc(purpose, folder), main_thread)
    assert json.loads((folder / f"bcc-{purpose}" / "stats").read_text())["lost"] == 0
    assert len(bcc) == len(tracefs) > 200
    for name in sorted({*tracefs["event"], *bcc["event"]}):
        one, other = (rows.filter(pl.col("event") == name) for rows in (tracefs, bcc))
        filled = {c for c in one.columns if one[c].null_count() < len(one)}
        more = {c for c in other.columns if other[c].null_count() < len(other)} - filled
        assert not more or name in TYPED_ONLY, (name, more)
        wanted = sorted(filled)
        assert Counter(other.select(wanted).rows()) == Counter(one.select(wanted).rows()), name
