"""A replay's result as SARIF 2.1.0, for code scanning and other viewers of findings.

Checks are rules, findings are results, the chain of events is a code flow.  The artifact is the
trace.  Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tracekit import __version__
from tracekit.findings import Finding, Occurrence, Outcome, ReplayResult, Verdict
from tracekit.report.escape import visible
from tracekit.report.footer import reason_text
from tracekit.report.page import CheckPage
from tracekit.report.telling import facts, in_reading_order, steps, sureness

__all__ = ("render_sarif",)

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def render_sarif(result: ReplayResult, explained: Mapping[str, CheckPage]) -> str:
    """The document of ``replay --format sarif``."""
    place = {o.code: i for i, o in enumerate(result.outcomes)}
    # A viewer shows rows in the file's order.
    results = [_result(f, place[f.code], result) for f in in_reading_order(result.findings)]
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "tracekit",
                        "version": __version__,
                        "rules": [_rule(o, explained.get(o.code)) for o in result.outcomes],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [
                            _not_checked(o, i)
                            for i, o in enumerate(result.outcomes)
                            if o.verdict is Verdict.NOT_CHECKED
                        ],
                    }
                ],
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _rule(outcome: Outcome, page: CheckPage | None) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": outcome.code, "name": outcome.name}
    if page is not None:
        rule["shortDescription"] = {"text": " ".join(page.summary.split())}
        rule["help"] = {"text": " ".join(page.sections["Why it matters"].split())}
        rule["defaultConfiguration"] = {"level": page.severity.value}
    return rule


def _not_checked(outcome: Outcome, at: int) -> dict[str, Any]:
    why = ", ".join(reason_text(r) for r in sorted(outcome.judged.reasons)) or "nothing to judge"
    return {
        "level": "note",
        "message": _message(f"not checked: {why}"),
        "associatedRule": {"id": outcome.code, "index": at},
    }


def _result(finding: Finding, rule: int, result: ReplayResult) -> dict[str, Any]:
    one = finding.occurrences[0] if finding.occurrences else None
    known = "; ".join(f"{name}: {text}" for name, text in facts(finding, one))
    sure = "; ".join(sureness(finding, result))
    where = {"artifactLocation": {"uri": _uri(result.trace.path)}}
    told: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity.value,
        "message": _message(f"{visible(finding.title)}. {known}. {sure}."),
        "locations": [{"physicalLocation": where, "logicalLocations": _logical(finding)}],
        "partialFingerprints": {"tracekitFindingId/v1": finding.id},
        "occurrenceCount": max(finding.count, 1),
        "properties": {"confidence": finding.confidence.value, "related": list(finding.related)},
    }
    if one is not None:
        told["properties"] |= {"from_ns": one.from_ns, "until_ns": one.until_ns}
        if one.chain:
            told["codeFlows"] = [{"threadFlows": [{"locations": _flow(one, where)}]}]
    return told


def _logical(finding: Finding) -> list[dict[str, Any]]:
    vm = visible(finding.vm.name, 64) if finding.vm.name else "not named"
    found = [{"name": vm, "kind": "process"}]
    if finding.device is not None:
        found.append({"name": visible(finding.device, 64), "kind": "device"})
    return found


def _flow(one: Occurrence, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "location": {
                "physicalLocation": where,
                "message": _message(f"{s.time} {s.number} {s.text}"),
            },
            "importance": "essential" if s.never else "important",
        }
        for s in steps(one)
    ]


def _message(text: str) -> dict[str, str]:
    """Plain text: a bracket right before a parenthesis would be a link (SARIF 3.11.6)."""
    return {"text": " ".join(text.split()).replace("](", "] (")}


def _uri(path: str) -> str:
    """A relative path as a relative reference; an absolute one as a file URI."""
    quoted = quote(path.encode("utf-8", "surrogateescape"), safe="/")
    if path.startswith("/"):
        return f"file://{quoted}"
    # A colon in the first part would read as a scheme; quote() has escaped it already.
    return quoted
