"""A replay's result as JUnit XML, for CI systems: a check is a test case.

A check fails exactly where the command's exit status says so; what could not be judged is
skipped, with the reason.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping

from tracekit.findings import Outcome, ReplayResult, Severity, Verdict
from tracekit.report.escape import visible
from tracekit.report.footer import reason_text
from tracekit.report.page import CheckPage
from tracekit.report.terminal import finding_text
from tracekit.report.units import plural

__all__ = ("render_junit",)


def render_junit(
    result: ReplayResult,
    explained: Mapping[str, CheckPage],
    *,
    fail_on: Severity = Severity.ERROR,
    undecided: Mapping[str, str] | None = None,
) -> str:
    """One suite, a case each check.  ``fail_on``: findings of this severity or worse fail.

    ``undecided``: of ``--strict``, by code why a check that could not judge is a failure.
    """
    suite = ET.Element("testsuite", name=visible(result.trace.path), errors="0", time="0")
    failures = skipped = 0
    for outcome in result.outcomes:
        name = f"{outcome.code} {outcome.name}"
        case = ET.SubElement(suite, "testcase", classname="tracekit", name=name, time="0")
        failing = [f for f in outcome.findings if f.severity.rank <= fail_on.rank]
        if failing:
            failures += 1
            _failure(case, outcome, failing[0].title, len(failing))
            case[-1].text = "\n\n".join(
                finding_text(f, result, explained.get(f.code)) for f in failing
            )
        elif undecided and outcome.code in undecided:
            failures += 1
            _failure(case, outcome, undecided[outcome.code], 1)
        elif outcome.verdict is Verdict.NOT_CHECKED:
            skipped += 1
            reasons = ", ".join(reason_text(r) for r in sorted(outcome.judged.reasons))
            ET.SubElement(case, "skipped", message=reasons or "nothing to judge")
        milder = [f for f in outcome.findings if f not in failing]
        if milder:
            out = ET.SubElement(case, "system-out")
            out.text = "\n\n".join(finding_text(f, result, None) for f in milder)
    counts = {
        "tests": str(len(result.outcomes)),
        "failures": str(failures),
        "skipped": str(skipped),
    }
    for key, value in counts.items():
        suite.set(key, value)
    del counts["skipped"]  # Jenkins' schema has it for a suite only
    root = ET.Element("testsuites", {"name": "tracekit", "errors": "0", "time": "0", **counts})
    root.append(suite)
    ET.indent(root, " ")
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _failure(case: ET.Element, outcome: Outcome, said: str, count: int) -> None:
    more = f" (and {plural(count - 1, 'other finding')})" if count > 1 else ""
    ET.SubElement(case, "failure", type=outcome.code, message=visible(said) + more)
