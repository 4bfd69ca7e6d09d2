"""A replay's result as JSON, for scripts: every field there, null where nothing is known."""

from __future__ import annotations

import json
from typing import Any

from tracekit.findings import Finding, Occurrence, Outcome, ReplayResult

__all__ = ("render_json",)

SCHEMA = 1


def render_json(result: ReplayResult) -> str:
    """The document of ``replay --format json``, one line a level."""
    trace = result.trace
    document = {
        "schema": SCHEMA,
        "trace": {
            "path": trace.path,
            "events": trace.events,
            "span_ns": list(trace.span_ns),
            "lost_events": trace.lost_events,
            "kernel": trace.kernel,
            "vms": trace.vms,
            "clock": trace.clock,
        },
        "checks": [_check(o) for o in result.outcomes],
        "findings": [_finding(f) for f in result.findings],
    }
    return json.dumps(document, indent=1) + "\n"


def _check(outcome: Outcome) -> dict[str, Any]:
    return {
        "code": outcome.code,
        "name": outcome.name,
        "verdict": outcome.verdict.value,
        "findings": len(outcome.findings),
        "judged": {
            "decided": outcome.judged.decided,
            "undecided": outcome.judged.undecided,
            "reasons": dict(sorted(outcome.judged.reasons.items())),
        },
    }


def _finding(finding: Finding) -> dict[str, Any]:
    vm = finding.vm
    return {
        "id": finding.id,
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "title": finding.title,
        "vm": {"name": vm.name, "pid": vm.pid, "kvm": _hex(vm.kvm)},
        "container": _hex(finding.container),
        "device": finding.device,
        "count": finding.count,
        "related": list(finding.related),
        "cause": finding.cause,
        "notes": list(finding.notes),
        "occurrences": [_occurrence(o) for o in finding.occurrences],
    }


def _occurrence(one: Occurrence) -> dict[str, Any]:
    return {
        "iova": one.iova,
        "gpa": one.gpa,
        "size": one.size,
        "iova_hex": _hex(one.iova),
        "gpa_hex": _hex(one.gpa),
        "size_hex": _hex(one.size),
        "from_ns": one.from_ns,
        "until_ns": one.until_ns,
        "confidence": one.confidence.value,
        "errno": one.errno,
        "local": None if one.local is None else list(one.local),
        "peer": None if one.peer is None else list(one.peer),
        "waited_ns": one.waited_ns,
        "timeout_ns": one.timeout_ns,
        "unsent_bytes": one.unsent_bytes,
        "events": list(one.events),
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
