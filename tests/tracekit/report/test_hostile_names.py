"""Names with markup, terminal escapes and formulas do no harm in any output."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from judging import events_of
from markdown_it import MarkdownIt
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as PerfettoTrace

from replay import run
from tracekit.cli import main
from tracekit.cli.pages import all_pages
from tracekit.escape import visible
from tracekit.findings import ReplayResult
from tracekit.report.gathered import gather
from tracekit.report.html import render_html
from tracekit.report.json import render_json
from tracekit.report.junit import render_junit
from tracekit.report.markdown import render_markdown
from tracekit.report.memory_picture import sample_memory
from tracekit.report.page import CheckPage
from tracekit.report.perfetto import write_perfetto
from tracekit.report.sarif import render_sarif
from tracekit.report.survey import survey
from tracekit.report.tables import write_arrow, write_csv
from tracekit.report.terminal import render_terminal
from tracekit.report.trace_info import info_text
from tracekit.store import Manifest, Trace, open_trace, write_events

Pages = dict[str, CheckPage]
STORED = "<img src=x onerror=alert(1)>\x1b]0;owned\x07\u202e`|[x](javascript:y)\n]]>&"
"""As far as a thread's or file's name in a trace goes."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """A stale mapping by a process with such a name, and a spreadsheet's formula for another."""
    path = tmp_path_factory.mktemp("hostile") / "<b>t.parquet"
    events = events_of("""
        0us   vmm  create-vm
        1us   vmm  memory
        2us   vmm  set-iommu
        3us   vmm  map 0x100000+2M
        9us   vmm  private 0x100000+2M
        12us  vmm  punch 0x100000+2M
        20us  vmm  run
        60us  vmm  run
        90us  end
    """)
    named = [
        replace(e, comm=STORED if i % 2 else "=cmd()", source=STORED) for i, e in enumerate(events)
    ]
    write_events(path, named, Manifest(host=STORED, kernel=STORED, clock="mono"))
    return open_trace(path)


class Elements(HTMLParser):
    """Names of elements, and attributes that load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.loads: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.loads += [
            (k, v) for k, v in attrs
            if k.startswith("on") or k == "src" or (k == "href" and not (v or "").startswith("#"))
        ]  # fmt: skip


def harmless_html(text: str) -> None:
    elements = Elements()
    elements.feed(text)
    assert "img" not in elements.names
    assert "<b>t.parquet" not in text
    assert not elements.loads
    for character in "\x1b\x07\u202e":
        assert character not in text


def harmless_terminal(text: str) -> None:
    assert all(line.isprintable() for line in text.splitlines())


def test_the_page(trace: Trace) -> None:
    result = run(trace)
    assert result.findings
    text = render_html(result, all_pages(), gather(trace, result))
    assert visible(STORED)[:10].replace("<", "&lt;") in text
    harmless_html(text)
    text.encode("utf-8")


def test_the_page_of_a_result_with_hostile_texts_everywhere(
    trace: Trace, evil_result: ReplayResult, pages: Pages
) -> None:
    text = render_html(evil_result, pages, gather(trace, evil_result))
    harmless_html(text)
    text.encode("utf-8")


def test_the_terminal(evil_result: ReplayResult, pages: Pages, trace: Trace) -> None:
    harmless_terminal(render_terminal(evil_result, pages))
    names = {code: page.name for code, page in pages.items()}
    harmless_terminal(info_text(trace, names, dict.fromkeys(names, ())))


def test_markdown(evil_result: ReplayResult, pages: Pages) -> None:
    text = render_markdown(evil_result, pages)
    harmless_terminal(text)
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text)
    kinds = {t.type for t in tokens} | {c.type for t in tokens for c in t.children or []}
    assert not kinds & {"html_block", "html_inline", "link_open", "image"}
    spelled = 0
    for token in tokens:
        prose = token.content if token.type == "inline" else ""
        for child in token.children or []:
            if child.type == "code_inline":
                prose = prose.replace(child.content, "")
        assert "@" not in prose  # who reads mentions reads the source
        spelled += "&#64;all" in prose
    assert spelled == 2


def test_json(evil_result: ReplayResult, evil_text: str) -> None:
    text = render_json(evil_result)
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["findings"][0]["device"] == evil_text


def test_junit(evil_result: ReplayResult, pages: Pages) -> None:
    text = render_junit(evil_result, pages)
    root = ET.fromstring(text.encode("utf-8"))
    assert {e.tag for e in root.iter()} == {
        "testsuites", "testsuite", "testcase", "failure", "skipped",
    }  # fmt: skip
    harmless_terminal(text)


def test_sarif(evil_result: ReplayResult, pages: Pages) -> None:
    text = render_sarif(evil_result, pages)
    assert text.isascii()
    (run,) = json.loads(text)["runs"]
    for result in run["results"]:
        assert result["message"]["text"].isprintable()
        assert "](" not in result["message"]["text"]


def test_perfetto(trace: Trace, evil_result: ReplayResult, tmp_path: Path) -> None:
    out, scale = tmp_path / "t.pftrace", survey(trace)
    write_perfetto(trace, evil_result, scale, sample_memory(trace, scale), out, lambda done: None)
    parsed = PerfettoTrace()
    parsed.ParseFromString(out.read_bytes())
    said = [
        text
        for p in parsed.packet
        for text in (
            p.track_event.name,
            p.track_descriptor.name,
            p.track_descriptor.thread.thread_name,
            p.track_descriptor.process.process_name,
            *(note.string_value for note in p.track_event.debug_annotations),
        )
    ]
    assert all(text.isprintable() for text in said)
    assert visible(STORED) in said


def test_csv_and_arrow(trace: Trace, tmp_path: Path) -> None:
    write_csv(trace, tmp_path / "t.csv", lambda done: None)
    raw = (tmp_path / "t.csv").read_text(encoding="utf-8")
    harmless_terminal(raw)
    rows = list(csv.DictReader(raw.splitlines()))
    assert {row["comm"] for row in rows} == {visible(STORED), "'=cmd()"}
    write_arrow(trace, tmp_path / "t.arrow", lambda done: None)
    with pa.ipc.open_file(tmp_path / "t.arrow") as file:
        table = file.read_all()
    assert set(table.column("comm").to_pylist()) == {STORED, "=cmd()"}


def test_the_commands_about_one_finding(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "\x1b]0;owned\x07\u202et.parquet"
    shutil.copy(trace.path, path)
    finding = next(f for f in run(trace).findings if f.code == "TK101")
    small = tmp_path / "\x1b[31msmall.parquet"
    assert main(["whatif", str(path)]) == 0
    assert main(["shrink", str(path), "--finding", finding.id, "-o", str(small)]) == 0
    harmless_terminal(capsys.readouterr().out)
    page = small.with_name(small.name + ".md").read_text(encoding="utf-8")
    harmless_terminal(page)
    kinds = {t.type for t in MarkdownIt("gfm-like", {"linkify": False}).parse(page)}
    assert "html_block" not in kinds


def test_notebooks(trace: Trace, evil_result: ReplayResult) -> None:
    shown: list[Callable[[], str]] = [
        trace._repr_html_,
        evil_result._repr_html_,
        evil_result.outcomes[0]._repr_html_,
        evil_result.findings[0]._repr_html_,
    ]
    for html in shown:
        harmless_html(html())
        assert "&lt;img" in html() or "TK101" in html()
        html().encode("utf-8")
