"""An audit as JUnit XML: a host is a suite, a stream is a test case.

It has a failure exactly where the command's exit status is 1.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import groupby

from tracekit.audit.compare import Compared
from tracekit.audit.results import Status
from tracekit.audit.run import Audited
from tracekit.audit.summary import Stream, headline, streams
from tracekit.report.escape import visible
from tracekit.report.units import plural

__all__ = ("render_junit",)

_MOST = 100
"""Findings whose text a test case has."""


def render_junit(made: Audited) -> str:
    """The document."""
    root = ET.Element("testsuites", name=visible(made.config.name))
    failing: dict[tuple[str, str], list[Compared]] = {}
    for row in made.failing:
        failing.setdefault((row.host, row.stream), []).append(row)
    limits = made.config.thresholds
    bad_fails = len(made.bad) > limits.max_bad_traces
    missing_fails = len(made.missing) > limits.max_missing
    every = sorted(streams(made), key=lambda s: (s.host, s.stream))
    for host, here in groupby(every, key=lambda s: s.host):
        suite = ET.SubElement(root, "testsuite", name=visible(host))
        for stream in here:
            case = ET.SubElement(
                suite, "testcase", classname=visible(host), name=visible(stream.stream), time="0"
            )
            _case(case, stream, failing.get((stream.host, stream.stream), []),
                  bad_fails=bad_fails, missing_fails=missing_fails)  # fmt: skip
    suite = ET.SubElement(root, "testsuite", name="audit")
    case = ET.SubElement(suite, "testcase", classname="audit", name=made.night, time="0")
    if made.reasons:
        failure = ET.SubElement(case, "failure", type="audit", message=visible(headline(made)))
        failure.text = visible_lines(made.reasons)
    else:
        ET.SubElement(case, "system-out").text = visible(headline(made))
    for suite in root:
        _counted(suite, list(suite))
    _counted(root, [case for suite in root for case in suite])
    del root.attrib["skipped"]  # Jenkins' schema has it for a suite only
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def visible_lines(lines: tuple[str, ...] | list[str]) -> str:
    """Lines of text in which nothing is markup or control."""
    return "\n".join(visible(line) for line in lines)


def _case(
    case: ET.Element,
    stream: Stream,
    failing: list[Compared],
    *,
    bad_fails: bool,
    missing_fails: bool,
) -> None:
    bad = [t for t in stream.traces if t.status is not Status.JUDGED]
    if failing:
        more = f" (and {plural(len(failing) - 1, 'other finding')})" if len(failing) > 1 else ""
        first = failing[0].finding
        said = visible(first.title) + more
        failure = ET.SubElement(case, "failure", type=first.code, message=said)
        failure.text = visible_lines([_line(row) for row in failing[:_MOST]])
    said = visible_lines([f"{t.trace}: {t.error}" for t in bad])
    if bad and bad_fails:
        ET.SubElement(case, "error", type=bad[0].status.value, message=said)
    elif bad and not failing:
        ET.SubElement(case, "skipped", message=said)
    elif stream.verdict == "missing":
        kind = "error" if missing_fails else "skipped"
        ET.SubElement(case, kind, message="no trace, and the night before had one")
    elif stream.verdict == "not_checked":
        ET.SubElement(case, "skipped", message="nothing could be judged")
    milder = [_line(row) for row in stream.findings if row not in failing]
    if milder:
        ET.SubElement(case, "system-out").text = visible_lines(milder[:_MOST])


def _line(row: Compared) -> str:
    f = row.finding
    times = plural(f.count, "time")
    return f"{row.state.value} {f.severity.value}[{f.code}] {f.id}: {f.title}, {times}"


def _counted(suite: ET.Element, cases: list[ET.Element]) -> None:
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suite.set("time", "0")
