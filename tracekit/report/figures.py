"""Small pictures as SVG: a finding's memory step by step, and a socket's life.

Every colour comes with a letter, so that nothing is lost without it.  The text is escaped by the
XML writer.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from tracekit.findings import EvidenceRow, Finding, Occurrence
from tracekit.report.drawing import REFUSED, window
from tracekit.report.escape import visible
from tracekit.report.units import address_range, extent, length_of_time, moment

__all__ = ("memory_figure", "socket_figure", "timeline_figure")

_STEP, _CELL, _LEFT, _TOP = 84, 14, 96, 34
_GUEST = {"private": "P", "shared": "S"}
_BACKING = {"discard": "D", "populate": "B"}
_IOMMU = {"map": "M", "unmap": ""}
_OWN = {"TK101": "PM", "TK102": "DM", "TK103": "PM"}
_ENDS = ("unmap", "shared")
"""What ends a state of :data:`_OWN`; a call begins before its effect."""
_CLASS = (("PM", "both"), ("DM", "both"), ("M", "mapped"), ("P", "private"), ("D", "discarded"))
_WORDS = {
    "P": "private",
    "S": "shared",
    "M": "mapped",
    "D": "discarded",
    "B": "backed",
}
_LANES = (
    ("close", "enter", "leave", "in close()"),
    ("unsent", "data", "sent", "bytes not handed over"),
    ("peer", "begin", "done", "connected"),
)


def memory_figure(finding: Finding, one: Occurrence) -> str:
    """The finding's pages and what lies around them, after each event of the chain.

    Nothing for an occurrence without a place in memory or without a chain.
    """
    first = one.gpa if one.gpa is not None else one.iova
    told = [r for r in one.chain if r.what in {*_GUEST, *_BACKING, *_IOMMU}]
    if first is None or not one.size or not told:
        return ""
    start, cell, count = window(one, first, one.size)
    states = _states(finding, one, told, (start, cell, count), (first, one.size))
    width, height = _LEFT + _STEP * len(told) + 8, _TOP + _CELL * count + 20
    svg = _svg(width, height, f"{finding.code}: memory after each event")
    for i, row in enumerate(told):
        x = _LEFT + _STEP * i
        when = "never" if row.ts_ns is None else moment(row.ts_ns)
        _text(svg, x + _STEP / 2, 13, visible(row.what, 12), "middle")
        _text(svg, x + _STEP / 2, 27, when, "middle", "small")
        for lo, hi, letters in _runs(states[i]):
            box = (x + 1, _TOP + _CELL * (count - hi), _STEP - 2, _CELL * (hi - lo) - 1)
            where = address_range(start + lo * cell, (hi - lo) * cell)
            what = " and ".join(_WORDS[c] for c in letters) or "unknown or not mapped"
            kind = next((k for has, k in _CLASS if set(has) <= set(letters)), None)
            kind = kind or ("shared" if letters else "unknown")
            _box(svg, box, f"c-{kind}", f"{where} {what}", "+".join(letters) or "?")
    for at in (0, count) if count > 1 else (0,):
        y = _TOP + _CELL * (count - at) + (0 if at == 0 else _CELL / 2 + 4)
        _text(svg, _LEFT - 6, y, f"{start + at * cell:#x}", "end", "mono")
    _text(svg, _LEFT, height - 4, f"one row is {extent(cell)}", "start", "small")
    low, high = (first - start) // cell, -(-(first + one.size - start) // cell)
    bar = (_LEFT - 4, _TOP + _CELL * (count - high), 3, _CELL * (high - low) - 1)
    _box(svg, bar, "c-mark", "the finding's own pages", "")
    return _done(svg)


def timeline_figure(one: Occurrence) -> str:
    """A socket's life in true time: what it waited for, and until when."""
    at = {row.what: row.ts_ns for row in one.chain if row.ts_ns is not None}
    if one.waited_ns is None or not at:
        return ""
    enter = at.get("enter", one.from_ns)
    start = min(enter, max(at.get("data", enter), enter - one.waited_ns))
    limit = enter + one.timeout_ns if one.timeout_ns is not None else None
    last = max([*at.values(), one.until_ns or enter])
    end = min(last, enter + 3 * max(one.waited_ns, 1_000_000))
    if end <= start:
        return ""
    width, left = 640, 84
    lanes = [
        lane for lane in _LANES if lane[1] in at and not (lane[0] == "unsent" and "sent" not in at)
    ]
    svg = _svg(width, 22 * len(lanes) + 52, "the socket's life")

    def x(ts: int) -> float:
        return left + (width - left - 12) * (min(max(ts, start), end) - start) / (end - start)

    for i, (name, begins, ends, means) in enumerate(lanes):
        lo, hi = at[begins], at.get(ends, end)
        _text(svg, left - 6, 22 * i + 18, name, "end")
        box = (x(lo), 22 * i + 6, max(2.0, x(hi) - x(lo)), 16)
        _box(svg, box, f"c-{name}", f"{means}: {length_of_time(max(0, hi - lo))}", means)
    bottom = 22 * len(lanes) + 8
    taken = -100.0
    for ts, said in ((enter, "close()"), (limit, "timeout"), (one.until_ns, "returned")):
        if ts is not None and start <= ts <= end:
            ends_at = {"x1": _n(x(ts)), "x2": _n(x(ts)), "y1": "2", "y2": _n(bottom)}
            ET.SubElement(svg, "line", ends_at | {"class": "tick"})
            lower = 12 if abs(x(ts) - taken) < 60 else 0
            anchor = "middle" if x(ts) < width - 40 else "end"
            _text(svg, x(ts), bottom + 12 + lower, said, anchor, "small")
            taken = x(ts)
    scale = f"from {moment(start)}, {length_of_time(end - start)}"
    _text(svg, left, bottom + 40, scale, "start", "small")
    return _done(svg)


def socket_figure(
    *,
    waited_ns: int,
    timeout_ns: int | None,
    sent_ns: int | None,
    over_ns: int | None,
    scale_ns: int,
) -> str:
    """One row of the sockets' table; times from the beginning of close(), all rows to one scale."""
    width = 200
    svg = _svg(width, 16, f"waited {length_of_time(waited_ns)}")

    def x(ns: int) -> float:
        return 2 + (width - 4) * min(max(ns, 0), scale_ns) / max(scale_ns, 1)

    if timeout_ns:
        _box(
            svg,
            (2, 6, x(timeout_ns) - 2, 4),
            "c-limit",
            f"timeout {length_of_time(timeout_ns)}",
            "",
        )
    _box(svg, (2, 3, max(2.0, x(waited_ns) - 2), 10), "c-close", "in close()", "")
    for ns, said, kind in (
        (sent_ns, "all handed over", "c-unsent"),
        (over_ns, "peer done", "c-peer"),
    ):
        if ns is not None:
            _box(svg, (x(ns) - 1, 0, 3, 16), kind, f"{said} after {length_of_time(max(0, ns))}", "")
    return _done(svg)


def _states(
    finding: Finding,
    one: Occurrence,
    told: Sequence[EvidenceRow],
    cells: tuple[int, int, int],
    own: tuple[int, int],
) -> list[list[str]]:
    """By event, the letters of every cell after it."""
    start, cell, count = cells
    planes = [dict[int, str]() for _ in range(3)]
    out = []
    for row in told:
        # The event that ends such a finding is said of the finding's own pages.
        nowhere = own if finding.code in _OWN else (None, None)
        address, size = (row.address, row.size) if row.address is not None else nowhere
        for plane, leaves in zip(planes, (_GUEST, _BACKING, _IOMMU), strict=True):
            if row.ts_ns is None or row.what not in leaves or address is None or not size:
                continue
            if finding.code in REFUSED and one.errno is not None and row.ts_ns >= one.from_ns:
                continue
            for i in range(count):
                at = start + i * cell
                if at < address + size and address < at + cell:
                    plane[i] = leaves[row.what]
        held = [{plane.get(i, "") for plane in planes} for i in range(count)]
        now = ["".join(c for c in _WORDS if c in letters) for letters in held]
        ts = row.ts_ns
        if (
            finding.code in _OWN
            and row.what not in _ENDS
            and ts is not None
            and ts >= one.from_ns
            and (one.until_ns is None or ts < one.until_ns)
        ):
            # What was found is certain even where the chain does not show how it came about.
            for i in range(count):
                at = start + i * cell
                if at < own[0] + own[1] and own[0] < at + cell:
                    certain = {*_OWN[finding.code], *now[i]} - {"S"}
                    now[i] = "".join(c for c in _WORDS if c in certain)
        out.append(now)
    return out


def _runs(cells: Sequence[str]) -> list[tuple[int, int, str]]:
    runs: list[tuple[int, int, str]] = []
    for i, letters in enumerate(cells):
        if runs and runs[-1][2] == letters:
            runs[-1] = (runs[-1][0], i + 1, letters)
        else:
            runs.append((i, i + 1, letters))
    return runs


def _svg(width: float, height: float, label: str) -> ET.Element:
    size = {"viewBox": f"0 0 {_n(width)} {_n(height)}", "width": _n(width), "height": _n(height)}
    return ET.Element("svg", {**size, "role": "img", "aria-label": visible(label)})


def _box(
    svg: ET.Element, box: tuple[float, float, float, float], kind: str, title: str, letters: str
) -> None:
    x, y, width, height = box
    group = ET.SubElement(svg, "g")
    ET.SubElement(group, "title").text = title
    shape = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height), "class": kind}
    ET.SubElement(group, "rect", shape)
    if letters and height >= 11 and width >= 7 * len(letters):
        _text(group, x + width / 2, y + height / 2 + 4, letters, "middle", f"on {kind}")


def _text(
    svg: ET.Element, x: float, y: float, said: str, anchor: str, kind: str | None = None
) -> None:
    at = {"x": _n(x), "y": _n(y), "text-anchor": anchor}
    ET.SubElement(svg, "text", at | ({"class": kind} if kind else {})).text = said


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _done(svg: ET.Element) -> str:
    return ET.tostring(svg, encoding="unicode")
