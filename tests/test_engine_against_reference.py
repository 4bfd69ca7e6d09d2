"""The engine and its oracle agree: on recordings, on examples, and on traces nobody thought of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import further_examples
import pyarrow as pa
import pytest
from further_examples import Example
from hunting import hunted
from hypothesis import assume, given, note
from hypothesis import strategies as st
from matrix import cases
from matrix.judge import Case, make
from recorded.judges import engine_violations, judged_by_engine, judged_by_reference
from recorded.recordings import FOLDER, Recording, recordings
from reference.words import CALLEE_RETURNS
from reference_engine import Violation, replay
from trace_language import trace_of

from replay.checks import CHECKS
from replay.checks.violations import Violations
from replay.engine.engine import judge
from replay.engine.stream import COLUMNS
from tracekit.store import arrow_schema, open_trace

MS = 1_000_000
ABOUT_THE_TRACE = ("TK901", "TK902")
SHORT = [r for r in recordings() if not r.is_long]
SETUP = """
    0us   vmm   create-vm
    1us   vmm   memory
    2us   vmm   set-iommu
"""
EXAMPLES = {
    "the half that was not unmapped": """
        5us   vmm   map 0x100000+1M
        7us   vmm   map 0x200000+1M
        9us   vmm   private 0x100000+2M
        12us  vmm   unmap 0x100000+1M
        15us  vmm   punch 0x100000+2M
    """,
    "qemu's own order": """
        5us   vmm   private 0x100000+2M
        9us   vmm   shared 0x100000+2M
        12us  vmm   map 0x100000+2M each=4K
        15us  vmm   punch-private 0x100000+2M
        20us  vmm   private 0x100000+2M
        25us  vmm   unmap 0x100000+2M
        30us  vmm   punch 0x100000+2M
        40us  vmm   run
    """,
    "unmapped first": """
        5us   vmm   map 0x100000+2M
        9us   vmm   unmap 0x100000+2M
        12us  vmm   private 0x100000+2M
        15us  vmm   punch 0x100000+2M
        40us  vmm   run
    """,
    "still mapped at the next run": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        12us  vmm   run
        20us  vmm   unmap 0x100000+2M
    """,
    "nothing for longer than the grace, then the unmap": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        3ms   vmm   unmap 0x100000+2M
    """,
    "nothing for longer than the grace, then the discard": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        3ms   vmm   punch 0x100000+2M
    """,
    "nothing more comes": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        3ms   end
    """,
    "rolled back": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        12us  vmm   shared 0x100000+2M
        15us  vmm   run
    """,
    "made shared again by another thread": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        12us  vmm2  shared 0x100000+2M
    """,
    "another thread is unmapping": """
        5us   vmm   map 0x100000+2M
        9us   vmm   private 0x100000+2M
        12us  vmm2  unmap 0x100000+2M for=20us
        15us  vmm   punch 0x100000+2M
    """,
    "mapped in pieces while private": """
        5us   vmm   private 0x100000+16K
        9us   vmm   map 0x100000+4K
        11us  vmm   map 0x101000+4K
        12us  vmm   log
        13us  vmm   map 0x102000+4K
        15us  vmm   shared 0x100000+16K
    """,
    "mapped while another thread makes it shared": """
        5us   vmm   private 0x100000+16K
        9us   vmm2  shared 0x100000+16K for=20us
        11us  vmm   map 0x100000+16K
    """,
    "unplugged like virtio-mem does": """
        5us   vmm   map 0x200000+2M
        9us   vmm   punch 0x200000+2M no-exit
        12us  vmm   madvise 0x200000+2M no-exit
        15us  vmm   unmap 0x200000+2M
    """,
    "discarded and populated again": """
        5us   vmm   map 0x200000+2M
        9us   vmm   punch 0x200000+2M
        15us  vmm   populate 0x200000+2M
        19us  vmm   unmap 0x200000+2M
    """,
    "mapped again in vain over what was discarded": """
        5us   vmm   map 0x200000+2M
        9us   vmm   punch 0x200000+2M
        15us  vmm   map 0x200000+2M ret=-17
    """,
    "refused calls": """
        5us   vmm   map 0x200000+2M
        9us   vmm   map 0x200000+4K ret=-17
        12us  vmm   unmap 0x300000+4K ret=-22
        15us  vmm   private 0x200001+4K ret=-22
        18us  vmm   unmap 0x900000+4K
    """,
    "mapped twice": """
        5us   vmm   map 0x200000+2M
        9us   vmm   map 0x300000+2M
    """,
    "less removed than reported": """
        5us   vmm   map 0x200000+2M
        9us   vmm   unmap 0x200000+2M tell=0x1000
    """,
    "a loss in the middle": """
        5us   vmm   map 0x200000+2M
        9us   vmm   private 0x200000+2M
        lost cpu0 11us..15us
        20us  vmm   punch 0x200000+2M
        30us  vmm   map 0x200000+2M
        40us  vmm   private 0x200000+2M
        50us  vmm   punch 0x200000+2M
    """,
    "the unmap in no frame": """
        5us   vmm   map 0x200000+2M
        9us   vmm   private 0x200000+2M
        11us  vmm   iommu-unmap 0x200000+2M
        12us  vmm   run
    """,
    "the arguments from an eprobe only": """
        5us   vmm   map 0x200000+2M no-callee
        9us   vmm   private 0x200000+2M no-callee
        15us  vmm   unmap 0x200000+1M no-callee
        18us  vmm   punch 0x200000+2M
    """,
    "a domain that ends with mappings": """
        3us   vmm   map 0x100000+64K
        5us   vmm   unmap 0x100000+4K ret=-22
        9us   vmm   exit
        20us  vmm   iommu-unmap 0x100000+32K
        9s    end
    """,
}


def comparable(violations: Iterable[Violation], exits: dict[int, int] | None = None) -> list[Any]:
    """Everything but the evidence, which each chooses for itself; of the codes that both judge.

    ``exits``: from when a call's callee returned to when the call did: either is its end.
    """
    judged = [v for v in violations if v.code in (*CHECKS, *ABOUT_THE_TRACE)]
    # The oracle has one TK111 a page at a time; a map that only may be another adds nothing to it.
    judged = [v for v in judged if v[:2] != ("TK111", "warning") or not overlapped(v, judged)]
    ends = exits or {}
    return sorted(((*v[:7], ends.get(v.until_ns or -1, v.until_ns)) for v in judged), key=str)


def overlapped(v: Violation, others: list[Violation]) -> bool:
    """Another one of the same code is about some of the pages."""
    first, size = v[4], v[5]
    return any(
        o[0] == v[0] and o is not v and o[4] < first + size and first < o[4] + o[5] for o in others
    )


def exits_of(rows: list[dict[str, Any]]) -> dict[int, int]:
    """By the time of a callee's return that of its system call's, on the same thread."""
    exits, callee = {}, {}
    for row in rows:
        if row["event"] in CALLEE_RETURNS:
            callee[row["tid"]] = row["ts_ns"]
        elif row["event"] == "ioctl.returned" and row["tid"] in callee:
            exits[callee.pop(row["tid"])] = row["ts_ns"]
    return exits


def assert_agreement(
    rows: list[dict[str, Any]], grace_ns: int = MS, *, in_place: bool = False
) -> None:
    """Both say the same of the trace."""
    exits = exits_of(rows)
    ours = comparable(engine_violations(rows, grace_ns, in_place=in_place), exits)
    theirs = comparable(replay(rows, grace_ns, in_place=in_place).violations, exits)
    assert [v for v in ours if v not in theirs] == [], "the engine alone says so"
    assert [v for v in theirs if v not in ours] == [], "the reference alone says so"
    assert ours == theirs


@pytest.mark.parametrize(
    ("probes", "grace_ms"),
    [(False, 1), (True, 1), (False, 100), pytest.param(False, 0, marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize(
    "recording",
    SHORT or [pytest.param(None, marks=pytest.mark.skip(reason=f"no recordings in {FOLDER.name}"))],
    ids=lambda r: r.name if r else "none",
)
def test_they_agree_on_recordings(recording: Recording, probes: bool, grace_ms: int) -> None:
    stream = recording.stream(probes=probes)
    ours = comparable(judged_by_engine(stream, grace_ms * MS))
    assert ours == comparable(judged_by_reference(stream, grace_ms * MS))


@pytest.mark.parametrize("example", list(EXAMPLES))
def test_they_agree_on_examples(example: str) -> None:
    rows = trace_of(SETUP + EXAMPLES[example])
    assert_agreement(rows)
    for events in range(len(rows)):
        assert_agreement(rows[:events])


def counted_by_engine(rows: list[dict[str, Any]], example: Example) -> dict[str, tuple[int, int]]:
    """Decided and undecided of each code that the example is about."""
    schema = arrow_schema()
    arrays = [
        pa.array([row.get(name) for row in rows], schema.field(name).type) for name in COLUMNS
    ]
    judgement = judge(
        [pa.RecordBatch.from_arrays(arrays, names=COLUMNS)],
        events=Counter(row["event"] for row in rows),
        grace_ns=example.grace_ns,
        in_place=example.in_place,
    )
    counters = Violations.of(judgement, host=None, lost_events=0).counters
    told = {f"TK{kind}": (c.decided, c.undecided) for kind, c in counters.items()}
    # What nobody asked for is not counted by the check, whatever the engine counts for others.
    asked = told if example.in_place else told | {"TK111": (0, 0)}
    return {code: asked[code] for code in example.judged}


@pytest.mark.parametrize("name", list(further_examples.EXAMPLES))
def test_the_engine_says_what_was_worked_out_by_hand(name: str) -> None:
    example = further_examples.EXAMPLES[name]
    rows = trace_of(example.text)
    found = engine_violations(rows, example.grace_ns, in_place=example.in_place)
    assert sorted((v[:3] + v[4:8] for v in found), key=str) == sorted(example.expected, key=str)
    assert counted_by_engine(rows, example) == example.judged


RANGES = st.builds(
    lambda first, pages: f"{0x100000 + first * 0x1000:#x}+{pages * 4}K",
    st.integers(0, 5),
    st.integers(1, 4),
)
TAKES = st.sampled_from(["1us", "1us", "8us", "30us", "2ms"])
GAPS = st.sampled_from([0, 1, 1, 2, 5, 20, 1500])
CALLS = st.one_of(
    st.tuples(st.sampled_from(["map", "map", "unmap", "private", "private", "shared"]), RANGES),
    st.tuples(st.sampled_from(["punch", "madvise", "populate", "punch-private"]), RANGES),
    st.tuples(st.sampled_from(["run", "log", "enter"]), st.just("")),
    st.tuples(st.sampled_from(["iommu-unmap"]), RANGES),
)
OPTIONS = {
    "map": ["", "", "each=4K", "ret=-17", "no-exit", "no-callee"],
    "unmap": ["", "", "", "ret=-22", "no-exit", "no-callee"],
    "private": ["", "", "ret=-22", "no-op"],
    "shared": ["", "", "ret=-22", "no-op"],
    "punch": ["", "ret=-4", "no-exit"],
}

FURTHER_SETUPS = [
    SETUP
    + """
    3us   vmm   create-gmem 0x0+16M
    4us   vmm   slot 0 0x0+16M gmem
""",
    SETUP
    + """
    3us   vmm   create-gmem 0x100000+64K
    4us   vmm   slot 0 0x100000+64K gmem untold
    5us   vmm   private 0x100000+64K
""",
    """
    0us   vmm   create-vm
    1us   vmm   memory
    2us   vmm   ioas-alloc
    3us   vmm   slot 0 0x100000+24K gmem
""",
    """
    1us   vmm   memory
    4us   vmm   slot 0 0x100000+24K gmem
""",
]
SECOND_VM = """
    6us   vmm   create-vm fd=16
    7us   vmm   slot 0 0x0+16M gmem=17 fd=16 at=0x7e0000000000
"""
FURTHER_CALLS = st.one_of(
    CALLS,
    st.tuples(st.sampled_from(["map", "unmap", "private", "shared", "shared"]), RANGES),
    st.tuples(st.sampled_from(["map", "unmap", "private", "shared", "shared"]), RANGES),
    st.tuples(st.sampled_from(["punch", "punch-private", "run"]), RANGES),
    st.sampled_from(
        [
            ("run", ""),
            ("run", ""),
            ("exit-thread", ""),
            ("slot", "0 0x100000+16K gmem"),
            ("slot", "1 0x104000+16K"),
            ("slot", "0 0x0+0"),
            ("create-gmem", "0x0+16M"),
            ("close", "7"),
        ]
    ),
)
RARE = st.sampled_from(
    [
        ("gmem-attributes", ""),
        ("map", "0x5000000+8K at=0x7f0000100000"),
        ("slot", "2 0x5000000+16K at=0x7f0000100000"),
    ]
)
FURTHER_OPTIONS = {
    "map": ["", "", "", "", "each=4K", "ret=-12", "ret=-28", "ret=-17", "no-callee", "silent"],
    "unmap": ["", "", "", "", "ret=-22", "ret=-12", "no-exit", "no-return"],
    "private": ["", "", "", "ret=-4", "ret=-12", "no-op"],
    "shared": ["", "", "", "ret=-4", "ret=-12", "no-op"],
    "punch": ["", "", "ret=-4"],
}


@st.composite
def further_traces(draw: st.DrawFn, *, threads: int = 1) -> str:
    """The same with slots, guest_memfds, failing calls, and rarely what upsets it all."""
    setup = draw(st.sampled_from(FURTHER_SETUPS))
    lines = [setup]
    several = setup == FURTHER_SETUPS[0] and draw(st.integers(0, 4)) == 0
    if several:
        lines.append(SECOND_VM)
    prefix = "ioas-" if "ioas-alloc" in setup else ""
    free = dict.fromkeys(range(1, threads + 1), 10_000)
    now = 10_000
    until = {"map": 0, "unmap": 0}
    rare = draw(st.integers(0, 5)) == 0
    for _ in range(draw(st.integers(1, 16))):
        verb, where = draw(RARE if rare and draw(st.integers(0, 9)) == 0 else FURTHER_CALLS)
        thread = draw(st.integers(1, threads))
        now += draw(GAPS) * 1000
        start = max(now, free[thread])
        # One lock of the container's: no map while another thread unmaps, and the other way round.
        if verb in until:
            start = max(start, until["unmap" if verb == "map" else "map"])
        takes = draw(TAKES) if threads > 1 else "1us"
        option = draw(st.sampled_from(FURTHER_OPTIONS.get(verb, [""])))
        over = start + {"1us": 1_100, "8us": 8_100, "30us": 30_100, "2ms": 2_000_100}[takes]
        if verb in until:
            until[verb] = max(until[verb], over)
        if several and verb in ("private", "shared") and draw(st.booleans()):
            option += " fd=16"
        if several and verb == "map" and draw(st.booleans()):
            option += f" at={0x7E00_0000_0000 + int(where.split('+')[0], 0):#x}"
        if prefix and verb in ("map", "unmap"):
            verb, option = prefix + verb, f"{option} ioas=3"
        actor = "vmm" if thread == 1 else f"vmm{thread}"
        lines.append(f"{start + thread}ns {actor} {verb} {where} {option} for={takes}")
        free[thread] = over
        if threads == 1:
            now = free[thread]
    if draw(st.booleans()):
        lines.append(f"{max(free.values()) + draw(GAPS) * 1000}ns end")
    return "\n".join(lines)


@st.composite
def traces(draw: st.DrawFn, *, threads: int = 1, loss: bool = False) -> str:
    """Calls in any order over a few pages; those of different threads overlap."""
    lines = [] if draw(st.booleans()) else [SETUP]
    if not lines:
        lines = ["1us vmm memory"]
    free = dict.fromkeys(range(1, threads + 1), 10_000)
    now = 10_000
    until = {"map": 0, "unmap": 0}
    for _ in range(draw(st.integers(1, 14))):
        verb, where = draw(CALLS)
        thread = draw(st.integers(1, threads))
        now += draw(GAPS) * 1000
        start = max(now, free[thread])
        # One lock of the container's: no map while another thread unmaps, and the other way round.
        if verb in until:
            start = max(start, until["unmap" if verb == "map" else "map"])
        takes = draw(TAKES) if threads > 1 else "1us"
        option = draw(st.sampled_from(OPTIONS.get(verb, [""])))
        actor = "vmm" if thread == 1 else f"vmm{thread}"
        # No two events at one time: those of different threads have no order then.
        lines.append(f"{start + thread}ns {actor} {verb} {where} {option} for={takes}")
        free[thread] = start + {"1us": 1_100, "8us": 8_100, "30us": 30_100, "2ms": 2_000_100}[takes]
        if verb in until:
            until[verb] = max(until[verb], free[thread])
        if threads == 1:
            now = free[thread]
        if loss and draw(st.integers(0, 5)) == 0:
            lines.append(f"lost cpu0 {now}ns..{now + draw(st.integers(1, 20_000))}ns")
    if draw(st.booleans()):
        lines.append(f"{max(free.values()) + draw(GAPS) * 1000}ns end")
    return "\n".join(lines)


ENDS = st.one_of(
    st.tuples(st.sampled_from(["exit-thread", "exit-thread", "exit", "free-domain"]), st.just("")),
    st.tuples(st.just("iommu-unmap"), RANGES),
    st.tuples(st.just("iommu-unmap"), st.just("0x100000+64K")),
)


@st.composite
def endings(draw: st.DrawFn) -> str:
    """One or two processes map and convert; then they, and who is neither, end and tidy up."""
    lines = [SETUP, "6us vmm3 exec", "7us other set-iommu"]
    now, users = 10, draw(st.sampled_from([["vmm"], ["vmm"], ["vmm", "other"]]))
    for actor in users:
        lines.append(f"{now}us {actor} map 0x100000+64K {draw(st.sampled_from(['domain', '']))}")
        now += 2
    for _ in range(draw(st.integers(0, 3))):
        verb, where = draw(st.tuples(st.sampled_from(["private", "punch", "unmap"]), RANGES))
        lines.append(f"{now}us vmm {verb} {where}")
        now += 2
    for _ in range(draw(st.integers(1, 8))):
        verb, where = draw(ENDS)
        lines.append(f"{now}us {draw(st.sampled_from(['vmm', 'vmm3', 'other']))} {verb} {where}")
        now += draw(st.sampled_from([1, 5, 1500]))
    return "\n".join([*lines, f"{now}us end"])


def check(text: str, cut: int, grace_ns: int, *, in_place: bool = False) -> None:
    note(text)
    rows = trace_of(text)[:-cut] if cut else trace_of(text)
    # No kernel lets a map succeed where one is already: nobody can say what the pages are then.
    told = replay(rows, grace_ns).violations
    assume(not any(v.code == "TK106" and v.severity == "error" for v in told))
    assert_agreement(rows, grace_ns, in_place=in_place)


CUTS = st.integers(0, 9)
GRACES = st.sampled_from([0, MS, 100 * MS])
many = hunted(250)


@many
@given(traces(), CUTS, GRACES)
def test_they_agree_on_one_thread_doing_anything(text: str, cut: int, grace_ns: int) -> None:
    check(text, cut, grace_ns)


@many
@given(traces(threads=3), CUTS, GRACES)
def test_they_agree_on_three_threads_at_once(text: str, cut: int, grace_ns: int) -> None:
    check(text, cut, grace_ns)


@many
@given(traces(threads=2, loss=True), CUTS, GRACES)
def test_they_agree_where_events_were_lost(text: str, cut: int, grace_ns: int) -> None:
    check(text, cut, grace_ns)


@many
@given(further_traces(), CUTS, GRACES, st.booleans())
def test_they_agree_on_slots_and_failing_calls(
    text: str, cut: int, grace_ns: int, in_place: bool
) -> None:
    check(text, cut, grace_ns, in_place=in_place)


@many
@given(further_traces(threads=3), CUTS, GRACES, st.booleans())
def test_they_agree_on_slots_and_failing_calls_at_once(
    text: str, cut: int, grace_ns: int, in_place: bool
) -> None:
    check(text, cut, grace_ns, in_place=in_place)


@pytest.mark.parametrize("grace_ns", [0, MS])
@pytest.mark.parametrize(
    "calls",
    [
        """
        10us  vmm3  private 0x100000+4K
        18us  vmm   map 0x100000+4K for=2us
        19us  vmm2  private 0x100000+4K for=2us
        """,
        """
        10us  vmm   private 0x100000+64K
        20us  vmm2  map 0x100000+8K
        22us  vmm   unmap 0x100000+8K
        24us  vmm2  map 0x100000+8K
        """,
        """
        10us  vmm   ioas-alloc
        20us  vmm3  private 0x100000+8K for=2ms
        1.5ms vmm   ioas-map 0x101000+4K ioas=3
        2.2ms vmm   run
        """,
        """
        3us   vmm   create-gmem 0x0+16M
        4us   vmm   slot 0 0x0+16M gmem
        6us   vmm   create-vm fd=16
        7us   vmm   slot 0 0x0+16M gmem=17 fd=16 at=0x7e0000000000
        10us  vmm   map 0x100000+4K
        12us  vmm   private 0x100000+4K fd=16
        14us  vmm   madvise 0x200000+4K
        16us  vmm   run
        """,
        """
        10us  vmm   map 0x100000+4K
        14us  vmm2  punch 0x100000+4K
        15.5us vmm  gmem-attributes
        """,
        """
        10us    vmm   map 0x100000+64K
        20us    vmm2  punch 0x100000+8K for=30us
        30us    vmm   map 0x300000+4K
        35us    vmm   unmap 0x101000+4K
        37us    vmm   map 0x101000+4K
        60us    vmm2  run
        """,
        """
        10us    vmm   private 0x101000+4K for=2ms
        1010us  vmm2  map 0x101000+4K for=2ms silent
        2011us  vmm   private 0x104000+4K
        """,
        """
        10us    vmm3  private 0x100000+4K for=30us
        11us    vmm   map 0x100000+4K for=30us
        40100ns vmm3  shared 0x100000+4K
        """,
        """
        10us    vmm2  private 0x100000+4K for=30us
        10us    vmm   map 0x101000+4K
        12us    vmm   map 0x100000+4K for=30us
        """,
        """
        3us   vmm   create-gmem 0x0+16M
        4us   vmm   slot 0 0x0+16M gmem
        6us   vmm   create-vm fd=16
        7us   vmm   slot 0 0x0+16M gmem=17 fd=16 at=0x7e0000000000
        8us   vmm   private 0x0+64K fd=16
        9us   vmm   map 0x0+4K
        10us  vmm   shared 0x0+8K fd=16
        14us  vmm   map 0x1000+4K at=0x7e0000001000 ret=-12
        18us  vmm   private 0x0+8K fd=16
        30us  vmm   run
        """,
        """
        5us   vmm   private 0x100000+64K
        10us  vmm   map 0x100000+8K
        12us  vmm2  unmap 0x100000+4K
        14us  vmm   map 0x100000+4K
        """,
        """
        10us  vmm   map 0x100000+8K
        12us  vmm   unmap 0x100000+8K
        14us  vmm   private 0x100000+8K ret=-12
        16us  vmm   private 0x100000+8K ret=-12
        18us  vmm   private 0x101000+4K
        20us  vmm   run
        """,
        """
        10us  vmm   map 0x100000+16K
        12us  vmm   unmap 0x101000+4K
        14us  vmm   unmap 0x100000+4K
        16us  vmm   punch 0x100000+16K
        20us  vmm   run
        """,
    ],
    ids=[
        "private-once-more",
        "mapped-twice-in-a-run",
        "container-after-the-commit",
        "two-vms",
        "idle-then-in-place",
        "mapped-during-the-discard",
        "two-changes-during-a-map",
        "rolled-back-during-a-map",
        "cut-in-a-map",
        "left-of-another-vm",
        "broken-twice-in-a-run",
        "refused-and-tried-again",
        "unmapped-in-pieces",
    ],
)
def test_they_agree_on_what_was_found_by_hunting(calls: str, grace_ns: int) -> None:
    rows = trace_of(SETUP + calls)
    for cut in range(4):
        for in_place in (False, True):
            assert_agreement(rows[: len(rows) - cut], grace_ns, in_place=in_place)


@many
@given(endings(), st.just(0), GRACES)
def test_they_agree_on_who_ends_and_who_tidies_up(text: str, cut: int, grace_ns: int) -> None:
    check(text, cut, grace_ns)


def made(case: Case, folder: Path) -> tuple[list[dict[str, Any]], bool]:
    """Rows of a made trace, and whether it converts in place."""
    truth = make(case, folder / "x.parquet")
    trace = open_trace(folder / "x.parquet")
    return [row for batch in trace.batches() for row in batch.to_pylist()], truth.in_place


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(cases.broken(4)[::20] + cases.recalled(2)[3::16] + cases.lossy(30), id="some"),
        pytest.param(
            cases.broken(4) + cases.recalled(4) + cases.lossy(400) + cases.correct(8),
            id="many", marks=pytest.mark.nightly,
        ),
    ],
)  # fmt: skip
def test_they_agree_on_made_traces_broken_or_with_events_lost(
    cases: list[Case], tmp_path: Path
) -> None:
    for case in cases:
        rows, in_place = made(case, tmp_path)
        if len(rows) < 4000:
            assert_agreement(rows, MS, in_place=in_place)
