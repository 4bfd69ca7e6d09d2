"""The report as people see it.  One golden file a code: `pytest --update-golden`, then read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tracekit.cli.pages import all_pages
from tracekit.findings import Confidence, EvidenceRow, Finding, ReplayResult, Severity, VmRef
from tracekit.report.page import CheckPage
from tracekit.report.terminal import render_terminal

MakeFinding = Callable[[str, str, Severity], Finding]
MakeResult = Callable[..., ReplayResult]
Pages = dict[str, CheckPage]


def columns(text: str) -> int:
    return max(len(line) for line in text.splitlines())


@pytest.mark.parametrize("code", sorted(all_pages()))
def test_each_code_reads_as_its_golden_file(
    code: str, example: MakeResult, pages: Pages, golden: Callable[[str, str], None]
) -> None:
    text = render_terminal(example(code), pages)
    assert columns(text) <= 80
    assert "\x1b" not in text
    golden(f"{code}.txt", text)


def test_a_clean_trace_says_what_held_and_what_was_not_checked(
    make_result: MakeResult, pages: Pages, golden: Callable[[str, str], None]
) -> None:
    text = render_terminal(make_result(), pages)
    assert text.startswith("nothing found, ")
    assert "TK301-TK306 (no vsock events)" in text
    golden("clean.txt", text)


def test_the_event_that_never_came_is_a_row_of_its_own(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    text = render_terminal(make_result(make_finding("TK101", "x", Severity.ERROR)), pages)
    assert re.search(r"^ +never +unmap +\[0x7ff00000, \+1 MiB\) +<-- never came$", text, re.M)


def test_the_picture_shows_the_half_that_is_still_mapped(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    text = render_terminal(make_result(make_finding("TK101", "x", Severity.ERROR)), pages)
    assert "guest  0x7fe00000  P P P P P P P P P P P P P P P P" in text
    assert "iommu  0x7fe00000  . . . . . . . . M M M M M M M M" in text
    assert "one cell is 128 KiB" in text


def test_worst_first_and_related_findings_below_theirs(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    stale = make_finding("TK101", "x", Severity.ERROR)
    early = make_finding("TK103", "x", Severity.ERROR)
    discard = replace(make_finding("TK102", "x", Severity.WARNING), related=(stale.id,))
    text = render_terminal(make_result(early, discard, stale), pages)
    assert re.findall(r"^\w+\[(TK\d+)\]", text, re.M) == ["TK101", "TK102", "TK103"]


def test_findings_related_in_a_circle_are_all_shown_once(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    one = make_finding("TK101", "x", Severity.ERROR)
    two = make_finding("TK102", "x", Severity.ERROR)
    one, two = replace(one, related=(two.id,)), replace(two, related=(one.id,))
    text = render_terminal(make_result(one, two), pages)
    assert re.findall(r"^\w+\[(TK\d+)\]", text, re.M) == ["TK101", "TK102"]


def test_many_occurrences_are_one_block(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    one = make_finding("TK101", "x", Severity.ERROR)
    many = replace(one, count=250, occurrences=one.occurrences * 100)
    text = render_terminal(make_result(many), pages)
    assert text.count("error[") == 1
    assert "250 times" in text
    assert "and 245 more; --format json lists the first 100" in text
    assert columns(text) <= 80


def test_doubt_is_said(make_finding: MakeFinding, make_result: MakeResult, pages: Pages) -> None:
    one = make_finding("TK101", "x", Severity.WARNING)
    one = replace(one, confidence=Confidence.POSSIBLE, notes=("equal timestamps",))
    text = render_terminal(make_result(one), pages)
    assert "possible: broken for some order" in text
    assert "704 events lost in the whole trace" in text
    assert "equal timestamps" in text


def test_losses_that_nobody_counted_are_not_called_none(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    made = make_result(make_finding("TK101", "x", Severity.ERROR))
    for lost, unknown, said in (
        (0, False, "no lost events are known in this trace"),
        (0, True, "events were lost in this trace, and nobody counted them"),
        (7, False, "7 events lost in the whole trace"),
        (7, True, "7 events or more lost in the whole trace"),
    ):
        trace = replace(made.trace, lost_events=lost, lost_unknown=unknown)
        text = render_terminal(replace(made, trace=trace), pages)
        assert f"    {said}\n" in text


def test_names_from_the_trace_cannot_reach_the_terminal(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    evil = "\x1b]0;owned\x07\n\u202eerror[TK999]"
    one = make_finding("TK101", "x", Severity.ERROR)
    (occurrence,) = one.occurrences
    chain = (EvidenceRow(ts_ns=1, seq=1, what="map", text=evil),)
    one = replace(
        one,
        vm=VmRef(name=evil, pid=1),
        device=evil,
        title=f"title {evil}",
        notes=(evil,),
        occurrences=(replace(occurrence, chain=chain),),
    )
    text = render_terminal(make_result(one, path=f"/tmp/{evil}.parquet"), pages, colour=False)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\\x1b" in text


def test_colour_changes_nothing_but_colour(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    made = make_result(make_finding("TK101", "x", Severity.ERROR))
    coloured = render_terminal(made, pages, colour=True)
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == render_terminal(made, pages)


def test_high_addresses_and_long_paths_stay_within_eighty_columns(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    one = make_finding("TK101", "x", Severity.ERROR)
    (occurrence,) = one.occurrences
    top = (1 << 64) - (1 << 21)
    one = replace(one, occurrences=(replace(occurrence, gpa=top, iova=top, size=3 << 12),))
    text = render_terminal(make_result(one, path="a/very/long/way" * 4), pages)
    assert columns(text) <= 80


def test_the_line_to_run_it_again_repeats_the_options_that_decided(
    make_finding: Callable[[str, str, Severity], Finding],
    make_result: Callable[..., ReplayResult],
    pages: dict[str, CheckPage],
) -> None:
    finding = make_finding("TK302", "overlong-linger", Severity.ERROR)
    result = replace(make_result(finding, path="t.parquet"), options=("--linger-model", "merged"))
    lines = render_terminal(result, pages, colour=False).splitlines()
    assert "  again: tracekit replay t.parquet --only TK302 --linger-model merged" in lines
