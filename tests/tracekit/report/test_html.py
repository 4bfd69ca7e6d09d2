"""The page, as a file: whole by itself, small, and saying what the replay said."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from judging import events_of

from replay import run
from tracekit.cli.pages import all_pages
from tracekit.findings import EvidenceRow, Finding, ReplayResult, Severity
from tracekit.report.chart_data import marks_summary
from tracekit.report.figures import memory_figure, timeline_figure
from tracekit.report.gathered import gather
from tracekit.report.html import render_html
from tracekit.store import open_trace, write_events

MakeFinding = Callable[[str, str, Severity], Finding]
STORY = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  map 0x100000+2M each=4K
    9us   vmm  private 0x100000+2M
    12us  vmm  punch 0x100000+2M
    20us  vmm  run
    lost cpu0 44us..50us
    60us  vmm  run
    90us  end
"""


def page_of(folder: Path, story: str = STORY) -> tuple[str, ReplayResult]:
    write_events(folder / "t.parquet", events_of(story))
    trace = open_trace(folder / "t.parquet")
    result = run(trace)
    return render_html(result, all_pages(), gather(trace, result)), result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ReplayResult]:
    return page_of(tmp_path_factory.mktemp("page"))


def test_nothing_is_fetched(made: tuple[str, ReplayResult]) -> None:
    text, _ = made
    markup = re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.S)
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b", markup)
    assert not re.search(r"\b(src|srcset|action|poster)=", markup)
    assert not re.search(r'href="(?!#)', markup)
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "url(" not in styles
    assert "@import" not in styles


def test_only_its_own_scripts_may_run(made: tuple[str, ReplayResult]) -> None:
    text, _ = made
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    rules = {name: rest.split() for name, *rest in (r.split(" ", 1) for r in policy.split("; "))
             for rest in [rest[0]]}  # fmt: skip
    assert rules["default-src"] == ["'none'"]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 4
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert rules["script-src"] == [f"'sha256-{h}'" for h in hashes]


def test_every_check_and_finding_is_there_with_its_verdict(
    made: tuple[str, ReplayResult],
) -> None:
    text, result = made
    for outcome in result.outcomes:
        row = re.search(rf"<tr><td[^>]*><b>{outcome.code}</b>.*?</tr>", text, re.S)
        assert row is not None
        assert f'class="pill {outcome.verdict.value}"' in row[0]
    assert result.findings
    for finding in result.findings:
        assert f'<article id="{finding.id}" class="{finding.severity.value}"' in text


def test_the_charts_have_the_trace_s_own_numbers(made: tuple[str, ReplayResult]) -> None:
    text, result = made
    (raw,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(raw)
    assert data["losses"] == [[44e-6, 50e-6, None]]
    (memory,) = data["memory"]
    assert memory["rows"][0][0] == "0x100000"
    assert any("5" in column for column in memory["cells"])
    assert len(memory["x"]) == len(memory["cells"])
    stale = [o for o in memory["overlays"] if o[4] == "TK101"]
    (one,) = [o for f in result.findings if f.code == "TK101" for o in f.occurrences]
    assert [o[0] for o in stale] == [one.from_ns / 1e9]
    assert {s["name"] for r in data["rates"] for s in r["series"]} == {
        "to private", "map", "events",
    }  # fmt: skip


def test_the_page_says_how_many_beginnings_are_drawn(
    make_finding: MakeFinding, make_result: Callable[..., ReplayResult]
) -> None:
    one = make_finding("TK101", "stale-iommu-mapping", Severity.ERROR)
    said = marks_summary(make_result(one))
    assert said == "A triangle above a chart is where an error or a warning begins."
    often = replace(one, occurrences=one.occurrences * 100, count=25_684)
    assert "100 of 25,684 are drawn" in marks_summary(make_result(often))
    assert marks_summary(make_result()) == ""
    note = make_finding("TK901", "lost-events", Severity.NOTE)
    assert marks_summary(make_result(note)) == ""


def test_it_is_small(made: tuple[str, ReplayResult]) -> None:
    assert len(made[0].encode()) < 1 << 20


def test_the_same_trace_gives_the_same_page(tmp_path: Path) -> None:
    assert page_of(tmp_path)[0] == page_of(tmp_path)[0]


def test_a_trace_without_memory_has_no_memory_picture(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, "0us other run\n5us end")
    assert 'data-chart="memory"' not in text
    assert 'data-chart="entries"' not in text
    assert "nothing found" in text


def steps_of(finding: Finding, *rows: tuple[int, str, int | None], **more: int) -> list[str]:
    """The letters of a one-page finding's picture, by event."""
    chain = tuple(
        EvidenceRow(ts_ns=ts, seq=ts, what=what, text=what, address=at, size=at and 4096)
        for ts, what, at in rows
    )
    one = replace(finding.occurrences[0], gpa=0x1000, iova=0x1000, size=4096, chain=chain)
    svg = memory_figure(finding, replace(one, **more))
    return re.findall(r'class="on c-\w+">([^<]*)<', svg)


def test_a_state_ends_with_the_event_that_ends_it(make_finding: MakeFinding) -> None:
    stale = make_finding("TK101", "stale-iommu-mapping", Severity.ERROR)
    rows = ((1, "map", 0x1000), (2, "private", 0x1000), (9, "unmap", None))
    assert steps_of(stale, *rows, from_ns=2, until_ns=10) == ["M", "P+M", "P"]
    early = make_finding("TK103", "premature-map", Severity.ERROR)
    rows = ((1, "private", 0x1000), (2, "map", 0x1000), (9, "shared", None))
    assert steps_of(early, *rows, from_ns=2, until_ns=10) == ["P", "P+M", "S+M"]


def test_a_refused_call_changes_nothing_in_the_picture(make_finding: MakeFinding) -> None:
    cut = make_finding("TK105", "bisected-unmap", Severity.WARNING)
    rows = ((1, "map", 0x1000), (2, "unmap", 0x1000))
    assert steps_of(cut, *rows, from_ns=2, until_ns=3, errno=22) == ["M", "M"]
    assert steps_of(cut, *rows, from_ns=2, until_ns=3) == ["M", "?"]


def test_a_finding_s_picture_shows_the_state_after_every_event(
    made: tuple[str, ReplayResult],
) -> None:
    _, result = made
    finding = next(f for f in result.findings if f.code == "TK101")
    svg = memory_figure(finding, finding.occurrences[0])
    shown = re.findall(r'class="on c-\w+">([^<]*)<', svg)
    assert {"M", "P+M"} <= {*shown}
    assert timeline_figure(finding.occurrences[0]) == ""
