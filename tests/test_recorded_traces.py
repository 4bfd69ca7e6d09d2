"""Recordings of real kernels: what was planted is found, nothing else is, no loss invents.

Each question is put to the engine, and to the oracle where that is fast enough.  The engine is
asked of every cut (of a large recording in the nightly run; else of some, and of all around what is
wrong in it); losses of a large one are sampled likewise.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container, Iterator

import numpy as np
import pytest
from recorded.cuts import Error, errors_after_events
from recorded.judges import JUDGES, error_pages, judged_by_reference, replayed_json
from recorded.recordings import FOLDER, Planted, Recording, Stream, recordings
from reference_engine import Violation, pages_of

MS = 1_000_000
GRACE = 1 * MS
CUT_EVENTS = 150_000
"""Events that all cuts of one recording may hold together for the oracle, before it gets a part."""
RANDOM_LOSSES = {"engine": 15, "reference": 2}
BURST_SEEDS = {"engine": 200, "reference": 20}
SMALL = 20_000

ALL = [r for r in recordings() if r.expected is not None or r.group == "qemu"]
SHORT = [r for r in ALL if not r.is_long]


def each(chosen: list[Recording]) -> pytest.MarkDecorator:
    """The test, for each recording; one skip with the reason if there is none."""
    reason = f"no such recordings in {FOLDER.name}: TRACEKIT_TRACES names a folder of them"
    none = [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return pytest.mark.parametrize(
        "recording", chosen or none, ids=lambda r: r.name if r else "none"
    )


probes = pytest.mark.parametrize("probes", [False, True], ids=["as-found", "with-definitions"])
judges = pytest.mark.parametrize("judge", list(JUDGES))
damaged_judges = pytest.mark.parametrize(
    "judge", ["engine", pytest.param("reference", marks=pytest.mark.nightly)]
)


def told(recording: Recording, judge: str, grace_ns: int, *, probes: bool) -> list[Violation]:
    """All violations of the recording, by the JSON of ``replay`` or by the oracle."""
    if judge == "engine":
        return replayed_json(recording.imported(probes=probes), grace_ns)
    if recording.is_long:
        pytest.skip("2.6 million events take the oracle too long")
    return judged_by_reference(recording.stream(probes=probes), grace_ns)


def matches(v: Violation, planted: Planted, pid: int | None) -> bool:
    """The finding that was planted: its code, pages, process and times."""
    low, high = planted.from_ns
    return (
        (v.code, v.iova, v.size, v.pid) == (planted.code, planted.iova, planted.size, pid)
        and v.severity in planted.severities
        and low <= v.from_ns <= high
        and (
            planted.until_ns is None
            or (v.until_ns is not None and planted.until_ns[0] <= v.until_ns <= planted.until_ns[1])
        )
    )


def beyond(violations: list[Violation], recording: Recording, severity: str) -> list[Violation]:
    """Violations that nobody planted; a discard under a stale mapping is planted."""
    stale = [p for p in recording.planted if p.code != "TK103"]
    return [
        v
        for v in violations
        if v.severity == severity
        and not any(matches(v, p, recording.pid) for p in recording.planted)
        and not (v.code == "TK102" and any((p.iova, p.size) == (v.iova, v.size) for p in stale))
    ]


@judges
@probes
@each([r for r in ALL if r.expected is not None])
def test_everything_planted_is_found_and_no_other_error(
    recording: Recording, judge: str, probes: bool
) -> None:
    found = told(recording, judge, GRACE, probes=probes)
    for planted in recording.planted:
        assert len([v for v in found if matches(v, planted, recording.pid)]) == 1, planted
    assert beyond(found, recording, "error") == []


@judges
@probes
@each([r for r in ALL if r.expected is not None])
def test_each_refused_call_is_one_warning(recording: Recording, judge: str, probes: bool) -> None:
    found = told(recording, judge, GRACE, probes=probes)
    refused = [v for v in found if v.code in ("TK105", "TK106", "TK202")]
    assert Counter(v.code for v in refused) == recording.refused
    assert {v.severity for v in refused} <= {"warning"}


@judges
@probes
@each([r for r in ALL if r.group in ("kvm", "long")])
def test_a_grace_of_100_ms_leaves_the_errors_and_no_warning_but_refused_calls(
    recording: Recording, judge: str, probes: bool
) -> None:
    short = told(recording, judge, GRACE, probes=probes)
    patient = told(recording, judge, 100 * MS, probes=probes)

    def errors(violations: list[Violation]) -> set[tuple[object, ...]]:
        return {v[:8] for v in violations if v.severity == "error" and v.code != "TK102"}

    assert errors(short) == errors(patient)
    warnings = Counter(v.code for v in patient if v.severity == "warning")
    assert warnings == recording.refused


@pytest.mark.parametrize(
    ("judge", "grace_ms"),
    [
        *(("engine", grace) for grace in (0, 1, 10, 100)),
        ("reference", 100),
        *(pytest.param("reference", grace, marks=pytest.mark.nightly) for grace in (0, 1, 10)),
    ],
)
@probes
@each([r for r in ALL if r.group == "qemu"])
def test_a_correct_qemu_has_no_error_at_any_grace(
    recording: Recording, judge: str, probes: bool, grace_ms: int
) -> None:
    found = told(recording, judge, grace_ms * MS, probes=probes)
    assert [v for v in found if v.severity == "error"] == []
    if grace_ms == 100:
        warnings = [v for v in found if v.severity == "warning"]
        assert {v.code for v in warnings} <= {"TK105", "TK106", "TK202"}


@each(SHORT)
def test_cut_after_any_event_there_is_no_error_that_the_whole_has_not(recording: Recording) -> None:
    stream = recording.stream()
    if len(stream) <= SMALL:
        no_cut_invents_an_error(stream, range(len(stream) + 1))
        return
    told = JUDGES["engine"](stream, GRACE)
    moments = {t for v in told if v.severity == "error" for t in (v.from_ns, v.until_ns)} - {None}
    around = {
        int(at) + i for at in np.searchsorted(stream.ts_ns, sorted(moments)) for i in range(-50, 50)
    }
    no_cut_invents_an_error(stream, around | set(range(0, len(stream), len(stream) // 2000)))


@pytest.mark.nightly
@each([r for r in ALL if r.path.stat().st_size > 300_000])
def test_a_large_recording_cut_after_any_event_has_no_error_of_its_own(
    recording: Recording,
) -> None:
    stream = recording.stream()
    no_cut_invents_an_error(stream, range(len(stream) + 1))


def no_cut_invents_an_error(stream: Stream, cuts: Container[int]) -> None:
    """The engine is asked after each of these cuts what it would say if the trace ended there."""
    whole = error_pages(JUDGES["engine"](stream, GRACE))
    chosen = [n for n in range(1, len(stream) + 1) if n in cuts]
    anew = set(random.Random(len(stream)).sample(chosen, min(3, len(chosen))))
    seen: set[Error] = set()
    asked = 0
    for events, errors in errors_after_events(stream, cuts, GRACE):
        asked += 1
        for code, first, end in errors - seen:
            pages = set(range(first, end)) or {-1}
            assert pages <= whole.get(code, set()), f"cut after {events}: {code} at {first:#x}"
        seen |= errors
        if events in anew:
            assert pages_in(errors) == error_pages(JUDGES["engine"](stream.cut(events), GRACE))
    assert asked == len(chosen)


def pages_in(errors: set[Error]) -> dict[str, set[int]]:
    """The pages of each code's errors; -1 for an error without pages."""
    pages: dict[str, set[int]] = {}
    for code, first, end in errors:
        pages.setdefault(code, set()).update(range(first, end) or (-1,))
    return pages


@pytest.mark.nightly
@each(SHORT)
def test_the_oracle_finds_no_error_in_a_cut_that_the_whole_has_not(recording: Recording) -> None:
    stream = recording.stream()
    if len(stream) > SMALL:
        pytest.skip("the oracle takes too long; the engine is asked")
    whole_told = judged_by_reference(stream, GRACE)
    whole = error_pages(whole_told)
    for events in cuts(stream, whole_told, CUT_EVENTS):
        assert_nothing_new(
            judged_by_reference(stream.cut(events), GRACE), whole, f"cut after {events}"
        )


def cuts(stream: Stream, violations: list[Violation], budget: int) -> Iterator[int]:
    """Every cut if that is not too much; else those around violations, and a sample of the rest."""
    n = len(stream)
    if n * n // 2 <= budget:
        yield from range(n)
        return
    moments = {t for v in violations if v.severity == "error" for t in (v.from_ns, v.until_ns)}
    wanted: set[int] = set()
    each_side = max(2, budget // 4 // max(n * len(moments), 1))
    for moment in moments - {None}:
        at = int(np.searchsorted(stream.ts_ns, moment))
        wanted.update(range(max(at - each_side, 0), min(at + each_side, n)))
    wanted.update(random.Random(n).sample(range(n), min(n, max(budget // n, 8))))
    yield from sorted(wanted)


@damaged_judges
@each(SHORT)
def test_one_percent_lost_at_random_invents_no_error(recording: Recording, judge: str) -> None:
    stream = recording.stream()
    if judge == "reference" and len(stream) > SMALL:
        pytest.skip("the oracle takes too long; the engine is asked")
    whole = error_pages(JUDGES[judge](stream, GRACE))
    for seed in range(RANDOM_LOSSES[judge]):
        random_ = np.random.default_rng(seed)
        n = len(stream)
        removed = random_.choice(n, max(n // 100, 1), replace=False)
        damaged = stream.without(removed)
        assert_nothing_new(JUDGES[judge](damaged, GRACE), whole, f"1 % lost, seed {seed}")


@damaged_judges
@each([r for r in SHORT if r.planted])
def test_what_a_loss_did_not_hit_is_still_found(recording: Recording, judge: str) -> None:
    survives_bursts(recording, judge, BURST_SEEDS[judge])


@pytest.mark.nightly
@each([r for r in ALL if r.is_long])
def test_what_a_loss_did_not_hit_is_still_found_in_a_long_recording(recording: Recording) -> None:
    survives_bursts(recording, "engine", 200)


def survives_bursts(recording: Recording, judge: str, seeds: int) -> None:
    """1 % lost in one to three bursts on one CPU: 95 % of what qualifies is still found."""
    stream = recording.stream()
    whole_told = JUDGES[judge](stream, GRACE)
    whole = error_pages(whole_told)
    spans = [(p, known_from(stream, p), known_until(whole_told, p)) for p in recording.planted]
    qualified = found = 0
    missed = []
    for seed in range(seeds):
        damaged = stream.without(bursts(stream, random.Random(seed)))
        violations = JUDGES[judge](damaged, GRACE)
        assert_nothing_new(violations, whole, f"bursts, seed {seed}")
        for planted, since, until in spans:
            if any(t0 <= until and since < t1 for t0, t1, _ in damaged.lost):
                continue
            qualified += 1
            if is_told(violations, planted):
                found += 1
            else:
                missed.append((seed, planted))
    print(f"{recording.name}: {found} of {qualified} qualified violations told, {seeds} seeds")
    assert qualified, "no planted violation qualified"
    assert found >= 0.95 * qualified, missed[:5]


def bursts(stream: Stream, random_: random.Random) -> np.ndarray:
    """1 % of the events, in one to three runs of neighbours on one CPU."""
    cpus, counts = np.unique(stream.cpu, return_counts=True)
    n = max(len(stream) // 100, 3)
    able = [c for c, k in zip(cpus.tolist(), counts.tolist(), strict=True) if k >= 3 * n]
    here = np.flatnonzero(stream.cpu == random_.choice(able))
    runs = random_.randint(1, 3)
    out = []
    for run in range(runs):
        size = n // runs + (run < n % runs)
        start = random_.randrange(len(here) - size)
        out.append(here[start : start + size])
    return np.unique(np.concatenate(out))


def known_from(stream: Stream, planted: Planted) -> int:
    """When the state of its pages became known: the map (TK101, TK102), the change to private."""
    wanted = "kvm.attributes" if planted.code == "TK103" else "iommu.map"
    pages = pages_of(planted.iova, planted.size)
    since: dict[int, int] = {}
    calls: dict[int, int] = {}
    for row in stream.rows():
        if row["event"] in ("ioctl.entered", "ioctl.arguments"):
            calls[row["tid"]] = row["ts_ns"]
        if row["ts_ns"] >= planted.from_ns[0]:
            break
        if row["event"] != wanted or (wanted == "kvm.attributes" and row["attributes"] != 8):
            continue
        first = row["gpa"] if wanted == "kvm.attributes" else row["iova"]
        for page in pages_of(first, row["size"]):
            if page in pages:
                since[page] = calls.get(row["tid"], row["ts_ns"])
    assert len(since) == len(pages)
    return min(since.values())


def known_until(violations: list[Violation], planted: Planted) -> int:
    """The end of the violation, as the whole recording has it."""
    ends = [
        v.until_ns
        for v in violations
        if (v.code, v.iova, v.size) == (planted.code, planted.iova, planted.size)
        and v.severity in planted.severities
        and planted.from_ns[0] <= v.from_ns <= planted.from_ns[1]
    ]
    assert len(ends) == 1
    assert ends[0] is not None
    return ends[0]


def is_told(violations: list[Violation], planted: Planted) -> bool:
    """All of its pages stand in violations of its code that are as bad as that."""
    pages = set(pages_of(planted.iova, planted.size))
    for v in violations:
        if v.code == planted.code and v.severity in planted.severities and v.iova is not None:
            pages -= set(pages_of(v.iova, v.size or 0))
    return not pages


def assert_nothing_new(violations: list[Violation], whole: dict[str, set[int]], what: str) -> None:
    """Every page of every error stands in an error of that code in the whole recording."""
    for code, pages in error_pages(violations).items():
        new = sorted(pages - whole.get(code, set()))
        assert not new, f"{what}: {code} at pages {[hex(p) for p in new[:4]]}"
