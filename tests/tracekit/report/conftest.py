"""Results: one of the trace on each check's page, and made ones without a trace behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from judging import events_of, example_of

from replay import run
from tracekit.cli.pages import all_pages
from tracekit.findings import (
    Confidence,
    EvidenceRow,
    Finding,
    Judged,
    Occurrence,
    Outcome,
    ReplayResult,
    Severity,
    TraceSummary,
    VmRef,
)
from tracekit.report.page import CheckPage
from tracekit.store import open_trace, write_events

MIB = 1 << 20
BASE = 0x7FE00000


def row(ts_us: int | None, seq: int | None, what: str, address: int, size: int) -> EvidenceRow:
    return EvidenceRow(
        ts_ns=None if ts_us is None else ts_us * 1000,
        seq=seq,
        what=what,
        text=f"{what:<8} [{address:#x}, +{size >> 20} MiB)",
        address=address,
        size=size,
    )


CHAIN = (
    row(12_861_330, 47102, "shared", BASE, 2 * MIB),
    row(12_861_402, 47103, "map", BASE, 2 * MIB),
    row(12_904_881, 48213, "private", BASE, 2 * MIB),
    row(12_904_890, 48214, "unmap", BASE, MIB),
    row(12_904_951, 48216, "discard", BASE, 2 * MIB),
    row(None, None, "unmap", BASE + MIB, MIB),
    EvidenceRow(ts_ns=12_946_097_000, seq=51877, what="end", text="the trace ends"),
)


SOCKET_LIFE = tuple(
    EvidenceRow(ts_ns=ts_us * 1000, seq=seq, what=what, text=text)
    for ts_us, seq, what, text in (
        (900_000, 12, "begin", "the connection begins"),
        (950_000, 20, "option", "setsockopt(SO_LINGER)"),
        (990_000, 31, "data", "last data sent"),
        (1_000_000, 33, "enter", "close() begins"),
        (1_500_000, 40, "sent", "everything is handed over"),
        (3_000_000, 52, "leave", "close() returns"),
    )
)


def socket_finding(code: str, name: str, severity: Severity) -> Finding:
    """A finding of one socket."""
    one = Occurrence(
        iova=None,
        gpa=None,
        size=None,
        from_ns=1_000_000_000,
        until_ns=3_000_000_000,
        events=(12, 20, 31, 33, 40, 52),
        chain=SOCKET_LIFE,
        local=(0xFFFFFFFF, 212967182),
        peer=(1, 7002),
        waited_ns=2_000_000_000,
        timeout_ns=5_000_000_000,
        unsent_bytes=0,
    )
    return Finding(
        id=f"{code}-3f2a9c01",
        code=code,
        name=name,
        severity=severity,
        confidence=Confidence.CERTAIN,
        title="waited on after everything was sent",
        vm=VmRef(name="python3", pid=293),
        container=None,
        device=None,
        count=2,
        occurrences=(one, one),
        notes=("slack: 250 ms",),
    )


def finding(code: str, name: str, severity: Severity) -> Finding:
    """A finding of the upper half of a 2 MiB range, or of a socket."""
    if code.startswith("TK30"):
        return socket_finding(code, name, severity)
    of_memory = not code.startswith("TK9")
    one = Occurrence(
        iova=BASE + MIB if of_memory else None,
        gpa=BASE + MIB if of_memory else None,
        size=MIB if of_memory else None,
        from_ns=12_904_890_000,
        until_ns=None,
        events=(47102, 47103, 48213, 48214),
        chain=CHAIN if of_memory else (),
    )
    return Finding(
        id=f"{code}-3f2a9c01",
        code=code,
        name=name,
        severity=severity,
        confidence=Confidence.CERTAIN,
        title="1 MiB of private guest memory is still mapped for a device",
        vm=VmRef(name="tdx-7", pid=4127, kvm=0xFFFF888100B46F00),
        container=0xFFFF888101066F00,
        device="0000:3b:00.0",
        count=1,
        occurrences=(one,),
    )


def result(*findings: Finding, path: str = "traces/tdx-hotplug.parquet") -> ReplayResult:
    """A result with these findings; other checks held, and the vsock ones could not judge."""
    outcomes = [
        Outcome(
            code=code,
            name=page.name,
            judged=Judged(decided=41_207, undecided=704, reasons={"loss": 704})
            if code == "TK101"
            else Judged(reasons={"no_event:vsock": 1})
            if code.startswith("TK30")
            else Judged(decided=10),
            findings=tuple(f for f in findings if f.code == code),
        )
        for code, page in all_pages().items()
    ]
    return ReplayResult(
        trace=TraceSummary(
            path=path,
            events=51_878,
            span_ns=(1_000_000_000, 12_946_097_000),
            lost_events=704,
            kernel="7.3.4",
            vms=1,
            clock="mono",
        ),
        outcomes=tuple(outcomes),
        grace_ns=1_000_000,
    )


@pytest.fixture
def pages() -> dict[str, CheckPage]:
    return all_pages()


@pytest.fixture
def make_finding() -> Callable[[str, str, Severity], Finding]:
    return finding


@pytest.fixture
def make_result() -> Callable[..., ReplayResult]:
    return result


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ReplayResult]:
    """What the replay says of the trace on a check's page, with or without the other checks."""
    folder = tmp_path_factory.mktemp("examples")
    made: dict[tuple[str, bool], ReplayResult] = {}

    def judged(code: str, *, alone: bool = False) -> ReplayResult:
        if (code, alone) not in made:
            path = folder / f"{code}.parquet"
            if not path.exists():
                write_events(path, events_of(example_of(code)))
            in_place = code == "TK111"
            got = run(open_trace(path), only=[code] if alone else None, in_place=in_place)
            assert any(f.code == code for f in got.findings)
            named = replace(got.trace, path=f"examples/{code}.parquet")
            options = ("--in-place",) if in_place else ()
            made[code, alone] = replace(got, trace=named, options=options)
        return made[code, alone]

    return judged


EVIL = "<img src=x onerror=alert(1)>\x1b]0;owned\x07\u202e`|[x](javascript:y)@all =1+1\n]]>&\udc9b"
"""A process's name that means harm to a page, a terminal, a chat, a spreadsheet and a parser."""


@pytest.fixture
def evil_result() -> ReplayResult:
    """A finding whose every text was chosen by somebody hostile."""
    one = finding("TK101", "stale-iommu-mapping", Severity.ERROR)
    chain = (EvidenceRow(ts_ns=1, seq=1, what="map", text=EVIL, address=BASE, size=MIB),)
    evil = replace(
        one,
        vm=VmRef(name=EVIL, pid=1),
        device=EVIL,
        title=f"title {EVIL}",
        notes=(EVIL,),
        occurrences=(replace(one.occurrences[0], chain=(*CHAIN, *chain)),),
    )
    made = result(evil, path=f"/tmp/{EVIL}.parquet")
    return replace(made, trace=replace(made.trace, clock=EVIL, kernel=EVIL), options=(EVIL,))


@pytest.fixture
def evil_text() -> str:
    return EVIL
