"""What is said of a trace: violations, made of pages and of calls, and what could be judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from reference.state import PageViolation
from reference.words import PAGE


class Violation(NamedTuple):
    """One occurrence (IF): adjacent pages of one conversion, request or run of calls."""

    code: str
    severity: str
    confidence: str
    pid: int | None
    iova: int | None
    size: int | None
    from_ns: int
    until_ns: int | None
    events: tuple[int, ...]


@dataclass
class JudgedCounts:
    decided: int = 0
    undecided: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class Replayed:
    violations: list[Violation]
    judged: dict[str, JudgedCounts]


def same_beginning(one: PageViolation, other: PageViolation) -> bool:
    return one.from_ns == other.from_ns


def same_end(one: PageViolation, other: PageViolation) -> bool:
    return one.until_ns == other.until_ns


def anything(one: PageViolation, other: PageViolation) -> bool:
    return True


def merge_pages(pages: Iterable[PageViolation]) -> list[Violation]:
    """IF: an occurrence is all adjacent pages of one conversion, request or run of calls."""
    groups: dict[tuple[Any, ...], list[PageViolation]] = {}
    for v in pages:
        cause = v.cause if isinstance(v.cause, tuple) else id(v.cause)
        groups.setdefault((v.code, v.severity, v.confidence, v.key[0], cause), []).append(v)
    out = []
    for (code, severity, confidence, _container, _cause), group in groups.items():
        group.sort(key=lambda v: v.key[1])
        parts: list[list[PageViolation]] = []
        before: list[list[PageViolation]] = []  # those that end before the page
        for number, on_page in groupby(group, key=lambda v: v.key[1]):
            before = [part for part in before if part[-1].key[1] == number - 1]
            # A page that one run's calls broke twice is in two occurrences.
            left, here = list(on_page), []
            for alike in (same_beginning, same_end, anything):
                for v in list(left):
                    part = next((p for p in before if alike(p[-1], v)), None)
                    if part is not None:
                        before.remove(part)
                        left.remove(v)
                        part.append(v)
                        here.append(part)
            here += [[v] for v in left]
            parts += [part for part in here if len(part) == 1]
            before = here
        for part in parts:
            first, last = part[0].key[1], part[-1].key[1]
            ends = [v.until_ns for v in part]
            until = None if None in ends else max(e for e in ends if e is not None)
            events = tuple(sorted(set().union(*(v.events for v in part))))
            out.append(
                Violation(
                    code,
                    severity,
                    confidence,
                    part[0].process.pid,
                    first * PAGE,
                    (last - first + 1) * PAGE,
                    min(v.from_ns for v in part),
                    until,
                    events,
                )
            )
    return out


def merge_calls(calls: Iterable[tuple[object, Violation]]) -> list[Violation]:
    """Refused calls of one uninterrupted run whose ranges touch are one occurrence (IF)."""
    out: list[Violation] = []
    last_cause: object = None
    for cause, v in calls:
        if out and cause == last_cause and v.iova is not None and out[-1].iova is not None:
            a = out[-1]
            assert a.iova is not None
            assert a.size is not None
            assert v.size is not None
            if v.iova == a.iova + a.size and a.confidence == v.confidence:
                out[-1] = a._replace(
                    size=a.size + v.size,
                    until_ns=v.until_ns,
                    events=tuple(sorted({*a.events, *v.events})),
                )
                continue
        out.append(v)
        last_cause = cause
    return out
