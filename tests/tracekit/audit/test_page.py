"""The front page: nothing that a trace or a folder is called does anything, at two widths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracekit.audit.compare import compare, shares
from tracekit.audit.config import (
    AuditConfig,
    Checks,
    Execution,
    Ignore,
    Outputs,
    State,
    Thresholds,
)
from tracekit.audit.formats import render_json, render_markdown, render_metrics, render_text
from tracekit.audit.junit import render_junit
from tracekit.audit.page import render_html
from tracekit.audit.results import CheckRow, FindingRow, Status, TraceResult
from tracekit.audit.run import Audited
from tracekit.findings import Confidence, Severity, Verdict

if TYPE_CHECKING:
    from playwright.sync_api import Page

EVIL = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e|`*@all"
CHROMIUM = next(
    (c for n in ("chromium", "chromium-browser", "google-chrome") if (c := shutil.which(n))), None
)
NIGHT = "2026-11-20"


def audited(traces: int, evil: str = EVIL) -> Audited:
    """An audit of so many traces in which every name is hostile."""
    results = [result(number, evil) for number in range(traces)]
    config = AuditConfig(
        name=evil, sources=(), checks=Checks(), thresholds=Thresholds(), ignore=(),
        execution=Execution(), outputs=Outputs(folder="x"),
    )  # fmt: skip
    rule = Ignore(reason=evil, until=date(2020, 1, 1), host=evil)
    return Audited(
        config=config,
        night=NIGHT,
        results=tuple(results),
        findings=tuple(compare(results, {}, night=NIGHT, window=7, ignore=())),
        missing=((evil, evil),),
        shares=tuple(shares(results)),
        nights=(),
        expired=((rule, 3),),
        unused=(rule,),
        reasons=(f"it fails: {evil}",),
        redone=traces,
        is_newest=True,
    )


def result(number: int, evil: str) -> TraceResult:
    finding = FindingRow(
        id=f"TK101-{number:08x}", code="TK101", name="stale-iommu-mapping",
        severity=Severity.ERROR, confidence=Confidence.CERTAIN, title=f"a fact {evil}", vm=evil,
        device=evil, cause=evil, count=1_000_000, from_ns=1, until_ns=None,
    )  # fmt: skip
    check = CheckRow(
        code="TK101", name="stale-iommu-mapping", verdict=Verdict.VIOLATED, decided=5,
        undecided=1, reasons=((evil, 1),),
    )  # fmt: skip
    bad = number % 3 == 2
    return TraceResult(
        host=f"{evil}{number // 4}",
        stream=f"{evil}{number}",
        night=NIGHT,
        trace=f"/x/{evil}{number}",
        size=1,
        status=Status.BAD if bad else Status.JUDGED,
        error=evil if bad else None,
        kernel=evil,
        qemu=evil,
        checks=() if bad else (check,),
        findings=() if bad else (finding,),
        report=None if bad else f"reports/{evil}.html",
    )


def test_every_output_takes_hostile_names() -> None:
    made = audited(6)
    for text in (render_html(made), render_markdown(made), render_text(made), render_junit(made)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    page = render_html(made)
    assert "<img src=x" not in page
    assert page.count("</script>") == 4
    assert "<img src=x" not in render_junit(made)
    assert "\x1b" not in render_metrics(made)
    assert "\\u001b" in render_json(made)
    for line in render_metrics(made).splitlines():
        assert line.startswith(("#", "tracekit_audit_"))


def test_ten_thousand_streams_fit_on_a_small_page() -> None:
    made = audited(10_000, evil="vm")
    page = render_html(made)
    assert len(page) < 3_000_000
    assert "8,001 streams in which less is wrong are left out" in page
    assert len(render_markdown(made)) < 100_000
    assert len(render_text(made).splitlines()) < 60


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "hostile.html").write_text(render_html(audited(40)), encoding="utf-8")
    return folder


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide-light", "narrow-dark"])
def opened(pages: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    width, scheme = request.param
    complaints: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text))
        page.on("dialog", lambda d: complaints.append(d.message))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("request", lambda r: requests.append(r.url))
        url = (pages / "hostile.html").as_uri()
        page.goto(url)
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        yield page
        browser.close()
    assert complaints == []
    assert requests == [url]


def test_it_opens_fits_and_can_be_sorted(opened: Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.locator("img").count() == 0
    assert opened.locator("[onerror]").count() == 0
    assert "</script><img" in opened.locator("#fleet").inner_text()
    assert opened.locator("#trend svg").count() == 2
    before = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.locator("#theme").click()
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") != before
    fleet = opened.locator("#fleet")
    fleet.locator("select").first.select_option("bad")
    verdicts = set(fleet.locator("tbody tr td:nth-child(3)").all_inner_texts())
    assert verdicts == {"bad"}


def test_states_have_an_order_on_the_page() -> None:
    page = render_html(audited(3))
    assert [state for state in State if f">{state.value}<" in page] == [State.NEW]
