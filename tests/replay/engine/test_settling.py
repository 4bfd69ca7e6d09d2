"""Of a cause that occurs often the first occurrences are kept, and the others are counted."""

from __future__ import annotations

import gc
import inspect
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from further_examples import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import events_of, judge
from shards import chained, cuts_of, differences, shards, together

from replay import run
from replay.checks import CHECKS, StaleIommuMapping
from replay.checks.violations import Violation, Violations
from replay.engine.engine import FEW, Engine
from replay.engine.kernel import layout as L
from replay.engine.runs import runs
from replay.engine.settling import LISTED, MORE, MORE_OPEN, MORE_PAGES, settle
from tracekit.errors import TraceFormatError
from tracekit.findings import Outcome
from tracekit.store import Trace, open_trace, write_events

PAGES, CALL, LEAK = 101, 105, 109
MADE = st.lists(
    st.tuples(
        st.sampled_from([PAGES, CALL, LEAK]), st.integers(0, 4), st.integers(0, 3),
        st.integers(0, 12), st.integers(0, 30), st.sampled_from([L.NULL, 60, 70]),
    ),
    max_size=60,
)  # fmt: skip


def record(kind: int, group: int, page: int, since: int, until: int) -> Any:
    """Of one page, as the kernel makes it."""
    row = np.zeros(L.W_COLS, np.int64)
    row[L.W_KIND], row[L.W_GROUP], row[L.W_P0], row[L.W_P1] = kind, group, page, page + 1
    row[L.W_FROM], row[L.W_UNTIL], row[L.W_SEQ0], row[L.W_SEQ3] = since, until, since, until
    row[L.W_CREATED] = row[L.W_LO] = row[L.W_HI] = 7
    if kind != PAGES:
        row[L.W_RULE], row[L.W_ADDR], row[L.W_SIZE] = L.R_CALL, page << 12, 1 << 12
        row[[L.W_SEQ2, L.W_SEQ3]] = -1
    row[L.W_ERRNO] = 22 if kind == CALL else 0
    return row


def records(made: list[tuple[int, ...]]) -> Any:
    """In the order in which they come; no page of a group twice.  One in four is undecided."""
    pages = {(kind, group, page) for kind, group, _, page, _, _ in made}
    out = []
    for kind, group, sort, page, since, until in made:
        if (kind, group, page) not in pages:
            continue
        pages.remove((kind, group, page))
        row = record(kind, group, page, since, until)
        if kind == PAGES and sort == 0:
            row[L.W_SEV], row[L.W_RULE] = L.UNDECIDED, L.Y_LOSS + page % 2
        out.append(row)
    return np.array(out, np.int64).reshape(-1, L.W_COLS)


def told(rows: Any, undecided: Counter[tuple[int, int]], most: int) -> tuple[Any, ...]:
    """By kind how many, of how many pages, without an end; the first of them; and the undecided."""
    out = []
    for kind in (PAGES, CALL, LEAK):
        mine = rows[rows[:, L.W_KIND] == kind]
        by_time = (L.W_GROUP, L.W_P0, L.W_SEQ0, L.W_FROM)
        mine = mine[np.lexsort([mine[:, column] for column in by_time])]
        columns = [L.W_FROM, L.W_UNTIL, L.W_SEQ0, L.W_SEQ1, L.W_SEQ3, L.W_P0]
        sums = [int(len(mine) + mine[:, MORE].sum()), int(mine[:, MORE_PAGES].sum())]
        out.append((sums, int(mine[:, MORE_OPEN].sum()), mine[:most, columns].tolist()))
    return (*out, +undecided)


def counted(rows: Any) -> Any:
    """Each with its own pages and end among the counts."""
    rows = rows.copy()
    rows[:, MORE_PAGES] += np.where(rows[:, L.W_KIND] == CALL, 0, rows[:, L.W_P1] - rows[:, L.W_P0])
    rows[:, MORE_OPEN] += rows[:, L.W_UNTIL] == L.NULL
    return rows


@settings(deadline=None, max_examples=300)
@given(MADE, st.lists(st.integers(0, 60), max_size=4), st.integers(1, 5))
def test_settled_in_pieces_is_settled_at_once_and_nothing_is_lost(
    made: list[tuple[int, ...]], cuts: list[int], most: int
) -> None:
    every = records(made)
    undecided: Counter[tuple[int, int]] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replay.engine.settling.LISTED", most)
        kept = every[:0]
        places = sorted(min(cut, len(every)) for cut in cuts)
        for a, b in zip([0, *places], [*places, len(every)], strict=True):
            live = np.unique(every[b:, L.W_GROUP]) if b < len(every) else None
            kept, more = settle(np.concatenate([kept, every[a:b]]), live)
            undecided.update(more)
    assert all(n <= most for n in Counter(kept[:, L.W_KIND].tolist()).values())
    whole = runs(every)
    left = whole[whole[:, L.W_SEV] == L.UNDECIDED]
    whole = whole[whole[:, L.W_SEV] != L.UNDECIDED]
    whole[:, [MORE, MORE_PAGES, MORE_OPEN]] = 0
    groups = set(whole[whole[:, L.W_KIND] == PAGES, L.W_GROUP].tolist())
    alone = Counter((PAGES, int(r[L.W_RULE])) for r in left if int(r[L.W_GROUP]) not in groups)
    assert told(counted(kept), undecided, most) == told(counted(whole), alone, most)


def example_of(code: str) -> str:
    page = inspect.cleandoc(CHECKS[code].__doc__ or "")
    return inspect.cleandoc("\n" + page.split("\nExample\n")[1].split("\nWhat to look at\n")[0])


def in_short(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """All but the occurrences beyond the third."""
    return {
        code: (o.judged, [(f.id, f.title, f.count, f.notes, f.occurrences[:3]) for f in o.findings])
        for code, o in outcomes.items()
    }


def keep_few(patch: pytest.MonkeyPatch, most: int = 3) -> None:
    """Settle what is over at every record, and keep hardly anything."""
    patch.setattr("replay.engine.engine.MOST_WAITING", 2)
    patch.setattr("replay.engine.engine.FEW", 0)
    patch.setattr("replay.engine.settling.LISTED", most)


STORIES = {code: example_of(code) for code in CHECKS} | {n: e.text for n, e in EXAMPLES.items()}


def test_a_replay_that_keeps_few_says_the_same(tmp_path: Path) -> None:
    found = 0
    for name, text in STORIES.items():
        options: dict[str, Any] = {"in_place": name == "TK111"}
        whole = in_short(judge(text, tmp_path, **options))
        with pytest.MonkeyPatch.context() as patch:
            keep_few(patch)
            assert in_short(judge(text, tmp_path, **options)) == whole, name
        found += sum(len(findings) for _, findings in whole.values())
    assert found > 50


OFTEN = "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n" + "".join(
    f"{at}us vmm shared {0x100000 + 0x2000 * (i % 9):#x}+4K\n"
    f"{at + 1}us vmm map {0x100000 + 0x2000 * (i % 9):#x}+4K\n"
    f"{at + 2}us vmm map {0x100000 + 0x2000 * (i % 9):#x}+4K ret=-17\n"
    f"{at + 3}us vmm run\n"
    f"{at + 10}us vmm private {0x100000 + 0x2000 * (i % 9):#x}+4K\n"
    f"{at + 14}us vmm run\n"
    f"{at + 16}us vmm unmap {0x100000 + 0x2000 * (i % 9):#x}+4K\n"
    f"{at + 18}us vmm run\n"
    for i, at in enumerate(range(10, 10 + 20 * 30, 20))
)


@pytest.fixture
def often(tmp_path: Path) -> Trace:
    path = tmp_path / "often.parquet"
    write_events(path, events_of(OFTEN))
    return open_trace(path)


def test_a_cause_that_occurs_often_is_counted_and_its_first_are_listed(often: Trace) -> None:
    whole = {o.code: o for o in run(often, compiled=False).outcomes}
    with pytest.MonkeyPatch.context() as patch:
        keep_few(patch, most=5)
        few = {o.code: o for o in run(often, compiled=False).outcomes}
    for code in ("TK101", "TK106"):
        (finding,) = whole[code].findings
        (counted,) = few[code].findings
        assert (counted.count, counted.title, counted.id) == (30, finding.title, finding.id)
        assert counted.occurrences == finding.occurrences[:5]
    assert {c: o.judged for c, o in few.items()} == {c: o.judged for c, o in whole.items()}


def test_pages_that_one_run_of_calls_maps_twice_are_one_occurrence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n5us vmm map 0x0+64K each=4K\n"
    text += "100us vmm run\n"
    text += "".join(f"{200 + 10 * i}us vmm map {i * 0x1000:#x}+4K\n" for i in range(16))
    path = tmp_path / "t.parquet"
    write_events(path, events_of(text + "900us vmm run"))
    trace = open_trace(path)
    keep_few(monkeypatch)
    every = range(1, len(trace))  # cut at each event, so that records are taken at each
    for result in (together(trace, every), chained(trace, list(every)[::7])):
        (finding,) = (f for f in result.findings if f.code == "TK106")
        assert (finding.count, [o.size for o in finding.occurrences]) == (1, [1 << 16])


def test_what_was_settled_before_a_checkpoint_is_counted_after_it(
    often: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_few(monkeypatch, most=5)
    cuts = cuts_of(often, 3, "settled")
    assert differences(together(often, cuts), chained(often, cuts)) == []
    states: list[Any] = []
    run(often, checkpoint=states.append, compiled=False)
    kept = states[0].parts["engine"]["records"]
    assert 0 < len(kept) < 30
    assert kept[:, MORE].sum() > 40


def test_forged_counts_in_a_checkpoint_are_refused(
    often: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_few(monkeypatch, most=5)
    first, second = shards(often, [len(often) // 2])
    for column in (MORE, MORE_PAGES, MORE_OPEN):
        states: list[Any] = []
        run(first, checkpoint=states.append, compiled=False)
        run(second, since=states[0], compiled=False)
        states[0].parts["engine"]["records"][:, column] = -1
        with pytest.raises(TraceFormatError, match="records is missing or malformed"):
            run(second, since=states[0], compiled=False)


def violations_alive() -> int:
    return sum(type(o) is Violation for o in gc.get_objects())  # an isinstance asks dead proxies


def test_memory_does_not_grow_with_how_often_a_cause_occurs() -> None:
    few, many = 20_000, 60_000
    peaks = {}
    for count in (few, many):
        engine = Engine(events={}, compiled=False)
        gc.collect()
        others = violations_alive()
        tracemalloc.start()
        for first in range(0, count, 100):
            for i in range(first, first + 100):
                engine._k.W[i - first, L.OUT0 : L.OUT0 + L.W_COLS] = record(
                    PAGES, i + 1, 2 * i, i, i + 1
                )
            engine._k.g[L.G_OUT], engine._k.g[L.G_GROUP] = 100, first + 100
            engine._drain()
        found = Violations.of(engine.finish(), host=None, lost_events=0)
        (finding,) = StaleIommuMapping().findings(found)
        objects = violations_alive() - others
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (finding.count, len(finding.occurrences)) == (count, LISTED)
        assert finding.title.startswith(f"{count * 4 / 1024:.1f} MiB")
        assert objects <= FEW
    assert peaks[many] < 1.1 * peaks[few]
    assert peaks[many] < 12 << 20
