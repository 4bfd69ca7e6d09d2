"""Markdown, JSON, JUnit and SARIF of every code: golden files, and the formats' own rules.

What a format's rules are comes from others: SARIF from the published schema as pydantic models,
JUnit from a parser of it, Markdown from a renderer.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import pytest
from junitparser import JUnitXml
from markdown_it import MarkdownIt
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Sarif

from tracekit.cli.pages import all_pages
from tracekit.findings import Confidence, Finding, ReplayResult, Severity
from tracekit.report.json import render_json
from tracekit.report.junit import render_junit
from tracekit.report.markdown import escaped, render_markdown
from tracekit.report.page import CheckPage
from tracekit.report.sarif import render_sarif

MakeFinding = Callable[[str, str, Severity], Finding]
MakeResult = Callable[..., ReplayResult]
Pages = dict[str, CheckPage]
FORMATS: dict[str, Callable[[ReplayResult, Pages], str]] = {
    "md": render_markdown,
    "json": lambda result, pages: render_json(result),
    "xml": render_junit,
    "sarif": render_sarif,
}


_SUITE = {"name", "time", "tests", "failures", "errors"}
JUNIT = {
    "testsuites": _SUITE,
    "testsuite": {*_SUITE, "skipped"},
    "testcase": {"name", "time", "classname"},
    "failure": {"type", "message"},
    "skipped": {"type", "message"},
    "system-out": set(),
}
"""Elements and attributes that Jenkins' junit-10.xsd knows, as far as they are used here."""


def checked(suffix: str, text: str) -> None:
    """What the format's own rules say."""
    if suffix == "sarif":
        Sarif.model_validate(json.loads(text))
    elif suffix == "xml":
        suites = JUnitXml.fromstring(text.encode())
        cases = [case for suite in suites for case in suite]
        assert suites.tests == len(cases) == len(ET.fromstring(text).findall(".//testcase"))
        assert suites.failures == sum(c.is_failure for c in cases)
        assert sum(s.skipped for s in suites) == sum(c.is_skipped for c in cases)
        for element in ET.fromstring(text).iter():
            assert set(element.attrib) <= JUNIT[element.tag]
    elif suffix == "json":
        assert json.loads(text)["schema"] == 1
    else:
        kinds = {t.type for t in MarkdownIt("gfm-like", {"linkify": False}).parse(text)}
        assert "html_block" not in kinds


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("code", sorted(all_pages()))
def test_each_code_reads_as_its_golden_file(
    code: str,
    suffix: str,
    example: MakeResult,
    pages: Pages,
    golden: Callable[[str, str], None],
) -> None:
    result = example(code, alone=True)
    text = FORMATS[suffix](result, pages)
    checked(suffix, text)
    golden(f"{code}.{suffix}", text)


def test_the_checks_on_sarif_can_fail(make_result: MakeResult, pages: Pages) -> None:
    document = json.loads(render_sarif(make_result(), pages))
    document["runs"][0]["tool"]["driver"]["nmae"] = document["runs"][0]["tool"]["driver"].pop(
        "name"
    )
    with pytest.raises(ValueError, match="name"):
        Sarif.model_validate(document)


def test_sarif_says_what_was_not_checked(make_result: MakeResult, pages: Pages) -> None:
    (run,) = json.loads(render_sarif(make_result(), pages))["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    said = run["invocations"][0]["toolExecutionNotifications"]
    assert [n["associatedRule"]["id"] for n in said] == [f"TK30{i}" for i in range(1, 7)]
    assert all(rules[n["associatedRule"]["index"]] == n["associatedRule"]["id"] for n in said)
    assert run["results"] == []


def test_sarif_puts_a_relative_path_and_an_absolute_one_as_uris(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    one = make_finding("TK101", "stale-iommu-mapping", Severity.ERROR)
    for path, uri in (("a b/c:d.parquet", "a%20b/c%3Ad.parquet"), ("/x/y", "file:///x/y")):
        (run,) = json.loads(render_sarif(make_result(one, path=path), pages))["runs"]
        (place,) = run["results"][0]["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_junit_fails_where_the_exit_status_does(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    doubt = replace(
        make_finding("TK105", "bisected-unmap", Severity.WARNING), confidence=Confidence.LIKELY
    )
    result = make_result(doubt)
    assert JUnitXml.fromstring(render_junit(result, pages).encode()).failures == 0
    strict = render_junit(result, pages, fail_on=Severity.WARNING)
    assert JUnitXml.fromstring(strict.encode()).failures == 1
    unsure = render_junit(result, pages, undecided={"TK301": "too much"})
    failed = [c.name for s in JUnitXml.fromstring(unsure.encode()) for c in s if c.is_failure]
    assert failed == ["TK301 early-linger-return"]


def test_junit_skips_what_was_not_checked_and_says_why(
    make_result: MakeResult, pages: Pages
) -> None:
    suites = JUnitXml.fromstring(render_junit(make_result(), pages).encode())
    skipped = {c.name: c.result[0].message for s in suites for c in s if c.is_skipped}
    assert skipped["TK301 early-linger-return"] == "no vsock events"
    assert len(skipped) == 6


def test_a_limit_shows_the_worst_and_counts_the_rest(
    make_finding: MakeFinding, make_result: MakeResult, pages: Pages
) -> None:
    found = [
        make_finding("TK202", "invalid-conversion", Severity.ERROR),
        make_finding("TK101", "stale-iommu-mapping", Severity.ERROR),
        make_finding("TK105", "bisected-unmap", Severity.WARNING),
    ]
    text = render_markdown(make_result(*found), pages, limit=1)
    assert "### error TK101" in text
    assert "### error TK202" not in text
    assert "not shown because of --limit 1: 1 error, 1 warning" in text
    assert "not shown" not in render_markdown(make_result(*found), pages, limit=3)


@pytest.mark.parametrize(
    "text",
    [
        "<b>x</b> &lt; <!-- x -->",
        "[a](http://x) ![b](y) https://x.y www.x.y",
        "*a* _b_ __c__ ~~d~~ `e` ``f``",
        "# a", "- a", "+ a", "1. a", "> a", "| a | b |", "a\\*b", "@somebody #12",
    ],
)  # fmt: skip
def test_escaped_text_shows_as_it_was(text: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(escaped(text))
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {c.type for c in children} <= {"text", "text_special"}
    assert "".join(c.content for c in children) == text
