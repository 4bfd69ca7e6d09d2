"""The numbers behind the HTML page's charts, as the page's script takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracekit.findings import ReplayResult, Severity
from tracekit.report.escape import visible
from tracekit.report.gathered import Gathered
from tracekit.report.memory_picture import Cell, MemoryPicture
from tracekit.report.survey import STEPS
from tracekit.report.telling import in_reading_order
from tracekit.report.units import length_of_time, plural

__all__ = (
    "chart_data",
    "entries_summary",
    "marks_summary",
    "memory_summary",
    "rate_charts",
    "rates_summary",
)

_MOST_MARKS = 500
_CONVERSIONS = ("to private", "to shared")
_CALLS = ("map", "unmap")


def chart_data(result: ReplayResult, found: Gathered) -> dict[str, Any]:
    """Times in seconds of the trace's clock; addresses as text, which no reader rounds."""
    scale = found.survey
    processes = _names(found)
    centres = [(scale.start_ns + (i + 0.5) * scale.step_ns) / 1e9 for i in range(STEPS)]
    return {
        "span": [scale.start_ns / 1e9, scale.end_ns / 1e9],
        "losses": [[loss.from_ns / 1e9, loss.until_ns / 1e9, loss.count] for loss in scale.losses],
        "marks": _marks(result),
        "rates": [
            {
                "x": centres,
                "series": [
                    {
                        "name": n,
                        "values": (scale.rates[n] / (scale.step_ns / 1e9)).round(3).tolist(),
                    }
                    for n in names
                ],
            }
            for _, names in rate_charts(found)
        ],
        "memory": [_memory(p, result, found, processes) for p in found.sampled.pictures],
        "entries": {
            "x": [ns / 1e9 for ns in found.sampled.at_ns],
            "limit": found.sampled.limit if any(e.limited for e in found.sampled.entries) else None,
            "series": [
                {
                    "name": f"{_who(e.pid, processes)}, {e.name}",
                    "values": e.entries,
                    "peak": e.peak,
                }
                for e in found.sampled.entries
            ],
        },
    }


def memory_summary(picture: MemoryPicture, found: Gathered) -> str:
    """What the picture shows, for who does not see it."""
    names = _names(found)
    moments = len(picture.cells)
    both = int((picture.cells == Cell.BOTH).any(axis=1).sum())
    mapped = int((picture.cells >= Cell.MAPPED).any(axis=1).sum())
    return (
        f"{_who(picture.pid, names)}: {plural(len(picture.rows), 'row')} of addresses from "
        f"{picture.rows[0][0]:#x} to {picture.rows[-1][1]:#x}, at {plural(moments, 'moment')}. "
        f"Memory is mapped for a device at {mapped} of them, and private and mapped at {both}."
    )


def entries_summary(found: Gathered) -> str:
    """The highest count, against the limit where there is one."""
    said = []
    for limited, of, limit in (
        (True, "a VFIO type1 container", f"; its limit is {found.sampled.limit:,}"),
        (False, "an IO address space of iommufd", ", which has no limit"),
    ):
        peaks = [e.peak for e in found.sampled.entries if e.limited is limited]
        if peaks:
            said.append(f"At most {max(peaks):,} DMA entries of {of}{limit}.")
    return " ".join(said)


def rate_charts(found: Gathered) -> list[tuple[str, tuple[str, ...]]]:
    """What there is to say of rates: a title, and the names of its series."""
    have = found.survey.rates
    charts = [
        ("Conversions a second", tuple(n for n in _CONVERSIONS if n in have)),
        ("Maps and unmaps a second", tuple(n for n in _CALLS if n in have)),
        ("Events a second", ("events",) if "events" in have else ()),
    ]
    return [(title, names) for title, names in charts if names]


def rates_summary(found: Gathered, names: tuple[str, ...]) -> str:
    """How much happened in all, and at most in one step."""
    said = [
        f"{int(found.survey.rates[n].sum()):,} {n} (at most {int(found.survey.rates[n].max()):,}"
        " in a step)"
        for n in names
    ]
    return f"{', '.join(said)}. A step is {length_of_time(int(found.survey.step_ns))}."


def marks_summary(result: ReplayResult) -> str:
    """What the triangles are, and how many errors and warnings of a long trace have none."""
    drawn = sum(mark[1] != Severity.NOTE.value for mark in _marks(result))
    count = sum(f.count for f in result.findings if f.severity is not Severity.NOTE)
    if not drawn:
        return ""
    some = f" {drawn:,} of {count:,} are drawn, of each finding the first." if drawn < count else ""
    return f"A triangle above a chart is where an error or a warning begins.{some}"


def _marks(result: ReplayResult) -> list[list[Any]]:
    """When findings began: time, severity, code, id."""
    marks = [
        [one.from_ns / 1e9, finding.severity.value, finding.code, finding.id]
        for finding in in_reading_order(result.findings)
        for one in finding.occurrences
    ]
    return marks[:_MOST_MARKS][::-1]  # the worst are drawn last


def _memory(
    picture: MemoryPicture, result: ReplayResult, found: Gathered, names: dict[int, str]
) -> dict[str, Any]:
    rows = picture.rows
    breaks = [0] + [i for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][1]]
    return {
        "label": _who(picture.pid, names),
        "x": [ns / 1e9 for ns in found.sampled.at_ns],
        "rows": [[f"{lo:#x}", f"{hi:#x}"] for lo, hi in rows],
        "breaks": breaks,
        "cells": ["".join(map(str, column)) for column in picture.cells.tolist()],
        "overlays": _overlays(picture, result, alone=len(found.sampled.pictures) == 1),
    }


def _overlays(picture: MemoryPicture, result: ReplayResult, *, alone: bool) -> list[list[Any]]:
    """Findings where and when they were: from, until, first and last row, code, id."""
    lows = np.array([lo for lo, _ in picture.rows])
    highs = np.array([hi for _, hi in picture.rows])
    end = result.trace.span_ns[1]
    shown: list[list[Any]] = []
    for finding in in_reading_order(result.findings):
        if finding.severity.value == "note" or not (alone or finding.vm.pid == picture.pid):
            continue
        for one in finding.occurrences:
            at = one.gpa if one.gpa is not None else one.iova
            if at is None or not one.size:
                continue
            rows = np.flatnonzero((lows < at + one.size) & (highs > at))
            if len(rows):
                until = end if one.until_ns is None else max(one.until_ns, one.from_ns)
                place = [int(rows[0]), int(rows[-1])]
                shown.append(
                    [one.from_ns / 1e9, until / 1e9, *place, finding.code, finding.severity.value]
                )
    return shown[:_MOST_MARKS][::-1]


def _names(found: Gathered) -> dict[int, str]:
    """By process id; where the recording shows threads only, a leader's is the process's."""
    ids = [(v.tid if v.pid is None else v.pid, v.name) for v in found.vmms]
    return {number: visible(name, 24) for number, name in ids if number is not None and name}


def _who(pid: int, names: dict[int, str]) -> str:
    return f"{names.get(pid, 'process')} {pid}"
