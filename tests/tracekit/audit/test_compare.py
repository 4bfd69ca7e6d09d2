"""A finding over the nights: new, still, flapping, gone, or nobody can tell."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from tracekit.audit.compare import Key, Seen, compare, missing_streams, shares
from tracekit.audit.config import Ignore, State
from tracekit.audit.results import CheckRow, FindingRow, Status, TraceResult
from tracekit.findings import Confidence, Severity, Verdict

FIRST = date(2026, 11, 1)
FINDING = FindingRow(
    id="TK101-00000000",
    code="TK101",
    name="stale-iommu-mapping",
    severity=Severity.ERROR,
    confidence=Confidence.CERTAIN,
    title="4 KiB of private guest memory is still mapped for a device",
    vm="web",
    device=None,
    cause="",
    count=3,
    from_ns=1,
    until_ns=None,
)


def check(verdict: Verdict, decided: int = 0, undecided: int = 0, **reasons: int) -> CheckRow:
    return CheckRow(
        code="TK101",
        name="stale-iommu-mapping",
        verdict=verdict,
        decided=decided,
        undecided=undecided,
        reasons=tuple(sorted(reasons.items())),
    )


# What a night's trace was: F found, . looked and not found, ? could not judge, - nothing to judge,
# b bad, m missing.
RESULTS = {
    "F": (Status.JUDGED, (check(Verdict.VIOLATED, 9),), (FINDING,)),
    ".": (Status.JUDGED, (check(Verdict.HELD, 9),), ()),
    "?": (Status.JUDGED, (check(Verdict.NOT_CHECKED, 0, 9, loss=9),), ()),
    "-": (Status.JUDGED, (check(Verdict.NOT_CHECKED),), ()),
    "b": (Status.BAD, (), ()),
}


def nights(story: str, window: int = 7, ignore: tuple[Ignore, ...] = ()) -> list[str]:
    """What each night's audit says of the one finding; empty: nothing."""
    history: dict[Key, Seen] = {}
    said = []
    for number, kind in enumerate(story):
        night = (FIRST + timedelta(days=number)).isoformat()
        results = []
        if kind != "m":
            status, checks, findings = RESULTS[kind]
            results.append(
                TraceResult(
                    host="a", stream="web", night=night, trace="t", size=1, status=status,
                    checks=checks, findings=findings,
                )
            )  # fmt: skip
        rows = compare(results, history, night=night, window=window, ignore=ignore)
        assert len(rows) <= 1
        for row in rows:
            key = (row.host, row.stream, row.finding.id)
            states = history[key].states if key in history else []
            history[key] = Seen(
                states=[*states, (night, row.state)],
                first_seen=row.first_seen,
                last_seen=row.last_seen,
                finding=row.finding,
            )
            assert (row.finding.count > 0) == row.state.is_there
        said.append(rows[0].state.value if rows else "")
    return said


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("F", "new"),
        ("FF", "still"),
        ("FFF", "still"),
        (".F", "new"),
        ("F.", "gone"),
        ("F..", ""),
        ("F.F", "flapping"),
        ("F.FF", "flapping"),
        ("F.F.", "gone"),
        ("F?", "unjudged"),
        ("F??", "unjudged"),
        ("F?F", "still"),
        ("F?.", "gone"),
        ("Fb", "unjudged"),
        ("Fm", "unjudged"),
        ("FmF", "still"),
        ("F-", "gone"),
        ("F.?", ""),
        ("F.......F", "new"),
        ("F.F" + "F" * 7, "still"),
    ],
)
def test_the_last_night_of_a_story(story: str, expected: str) -> None:
    assert nights(story)[-1] == expected


def test_when_it_was_seen_first_and_last_is_kept() -> None:
    history = {
        ("a", "web", FINDING.id): Seen(
            states=[("2026-11-01", State.NEW), ("2026-11-02", State.UNJUDGED)],
            first_seen="2026-10-05",
            last_seen="2026-11-01",
            finding=FINDING,
        )
    }
    status, checks, findings = RESULTS["F"]
    one = TraceResult(
        host="a", stream="web", night="2026-11-03", trace="t", size=1, status=status,
        checks=checks, findings=findings, kernel="7.3", qemu="10.1",
    )  # fmt: skip
    (row,) = compare([one], history, night="2026-11-03", window=7, ignore=())
    assert (row.first_seen, row.last_seen, row.state) == ("2026-10-05", "2026-11-03", State.STILL)
    assert (row.kernel, row.qemu) == ("7.3", "10.1")
    (row,) = compare([], history, night="2026-11-03", window=7, ignore=())
    assert (row.first_seen, row.last_seen, row.state) == (
        "2026-10-05",
        "2026-11-01",
        State.UNJUDGED,
    )


def test_the_same_id_on_two_hosts_is_two_findings_and_in_two_parts_is_one() -> None:
    status, checks, findings = RESULTS["F"]
    results = [
        TraceResult(
            host=host, stream="web", night="2026-11-03", trace=trace, size=1, status=status,
            checks=checks, findings=findings,
        )
        for host, trace in (("a", "1"), ("a", "2"), ("b", "1"))
    ]  # fmt: skip
    rows = compare(results, {}, night="2026-11-03", window=7, ignore=())
    assert [(r.host, r.finding.count) for r in rows] == [("a", 6), ("b", 3)]


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        ({"check": "TK101"}, True),
        ({"check": "stale-*"}, True),
        ({"check": "TK102"}, False),
        ({"host": "a*"}, True),
        ({"host": "b"}, False),
        ({"finding": FINDING.id, "stream": "web"}, True),
        ({"finding": "TK101-1*"}, False),
    ],
)
def test_a_rule_covers_what_it_names_until_its_day(rule: dict[str, str], covered: bool) -> None:
    status, checks, findings = RESULTS["F"]
    one = TraceResult(
        host="a", stream="web", night="2026-11-03", trace="t", size=1, status=status,
        checks=checks, findings=findings,
    )  # fmt: skip
    for until, counts in ((date(2026, 11, 3), covered), (date(2026, 11, 2), False)):
        ignore = Ignore(reason="known", until=until, **rule)
        (row,) = compare([one], {}, night="2026-11-03", window=7, ignore=(ignore,))
        assert row.ignored == ("known" if counts else None)


def test_a_stream_that_was_there_is_missing() -> None:
    status, checks, findings = RESULTS["."]
    one = TraceResult(
        host="a", stream="web", night="2026-11-03", trace="t", size=1, status=status,
        checks=checks, findings=findings,
    )  # fmt: skip
    assert missing_streams([one], [("a", "web"), ("b", "db")]) == [("b", "db")]


def test_shares_count_what_was_judged_in_all_traces() -> None:
    rows = [RESULTS[kind][1][0] for kind in "F.?"]
    results = [
        TraceResult(
            host="a", stream="web", night="2026-11-03", trace=str(i), size=1,
            status=Status.JUDGED, checks=(row,),
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip
    (share,) = shares(results)
    assert (share.decided, share.undecided, share.traces, share.not_checked) == (18, 9, 3, 1)
    assert share.undecided_share == 1 / 3
    assert share.reasons == {"loss": 9}
