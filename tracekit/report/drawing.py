"""The memory around a finding, one character a cell, as the events of its chain left it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tracekit.findings import Finding, Occurrence
from tracekit.report.units import extent, length_of_time, moment

__all__ = ("REFUSED", "draw", "window")

_CELLS = 16
_PAGE = 4096
_WIDTH = 78


@dataclass(frozen=True)
class _Row:
    """One plane: what each kind of event leaves in a cell, and what the letters mean."""

    label: str
    leaves: dict[str, str]
    legend: dict[str, str]


_GUEST = _Row("guest", {"private": "P", "shared": "S"}, {"P": "private", "S": "shared"})
_BACKING = _Row("host", {"discard": "D", "populate": "B"}, {"D": "discarded", "B": "backed"})
_IOMMU = _Row("iommu", {"map": "M", "unmap": "."}, {"M": "mapped", ".": "not mapped"})

# Per code: the planes to draw, what the finding's own pages are in each, and the words below them.
_DRAWN: dict[str, tuple[tuple[tuple[_Row, str | None], ...], str]] = {
    "TK101": (((_GUEST, "P"), (_IOMMU, "M")), "private and mapped"),
    "TK102": (((_BACKING, "D"), (_IOMMU, "M")), "discarded and mapped"),
    "TK103": (((_GUEST, "P"), (_IOMMU, "M")), "private and mapped"),
    "TK104": (((_GUEST, "S"), (_IOMMU, ".")), "shared and not mapped"),
    "TK105": (((_IOMMU, None),), "asked to unmap"),
    "TK106": (((_IOMMU, None),), "asked to map"),
    "TK109": (((_IOMMU, "M"),), "still mapped"),
    "TK202": (((_GUEST, None),), "asked to convert"),
}


REFUSED = frozenset(("TK105", "TK106", "TK107", "TK202"))
"""Codes whose call, where it has an error number, changed nothing."""


def draw(finding: Finding, one: Occurrence) -> list[str]:
    """The lines of the picture, or none for a code or an occurrence that has no place in memory."""
    if one.waited_ns is not None:
        return _timeline(one)
    first = one.gpa if one.gpa is not None else one.iova
    if finding.code not in _DRAWN or first is None or not one.size:
        return []
    planes, below = _DRAWN[finding.code]
    start, cell, count = window(one, first, one.size)
    marked = [_overlaps(start + i * cell, cell, first, one.size) for i in range(count)]
    seen: dict[str, str] = {}
    rows = []
    for plane, own in planes:
        cells = ["?"] * count
        for what, address, size in _applied(finding, one):
            letter = plane.leaves.get(what)
            if letter is None:
                continue
            for i in range(count):
                if _overlaps(start + i * cell, cell, address, size):
                    cells[i] = letter
        if own is not None:
            cells = [own if hit else c for c, hit in zip(cells, marked, strict=True)]
        seen.update({c: plane.legend.get(c, "unknown") for c in sorted({*cells})})
        rows.append(f"  {plane.label:<6} {start:#x}  {' '.join(cells)}")
    if set(seen) <= {"?"}:
        return []
    when = "when the trace ends" if one.until_ns is None else f"at {moment(one.from_ns)}"
    title = f"state {when}"
    scale = f"one cell is {extent(cell)}"
    indent = len(f"  {planes[0][0].label:<6} {start:#x}  ")
    left, right = marked.index(True), count - 1 - marked[::-1].index(True)
    at, carets = indent + 2 * left, "^" * (2 * (right - left) + 1)
    marks = " " * at + f"{carets} {below}"
    if len(marks) > _WIDTH:
        marks = f"{below} {carets}".rjust(at + len(carets))
    gap = max(2, _WIDTH - 2 - len(title) - len(scale))
    legend = "  " + "   ".join(f"{letter} {name}" for letter, name in sorted(seen.items()))
    return [title + " " * gap + scale, *rows, marks, legend]


def window(one: Occurrence, first: int, size: int) -> tuple[int, int, int]:
    """First address, cell size and number of cells: the finding's pages, and what lies around."""
    ranges = [(r.address, r.size) for r in one.chain if r.address is not None and r.size]
    low = min([first, *(a for a, _ in ranges)])
    high = max([first + size, *(a + s for a, s in ranges)])
    cell = _PAGE
    while cell * _CELLS < size:
        cell *= 2
    while cell * _CELLS < high - low and cell * 2 <= size:
        cell *= 2
    start = first - first % cell
    stop = first + size + (-(first + size)) % cell
    spare = max(0, _CELLS - (stop - start) // cell)
    before = min(spare, -(-(start - low) // cell)) if low < start else 0
    after = min(spare, -(-(high - stop) // cell)) if high > stop else 0
    if before + after > spare:
        before = min(before, max(spare // 2, spare - after))
        after = spare - before
    start = max(0, start - before * cell)
    return start, cell, (stop + after * cell - start) // cell


def _applied(finding: Finding, one: Occurrence) -> Iterator[tuple[str, int, int]]:
    """The chain's events up to the moment that is drawn, without a call that was refused."""
    refused = finding.code in REFUSED and one.errno is not None
    for row in one.chain:
        if row.ts_ns is None or row.address is None or not row.size:
            continue
        if refused and row.ts_ns >= one.from_ns:
            continue
        if one.until_ns is None or row.ts_ns <= one.from_ns:
            yield row.what, row.address, row.size


def _overlaps(one: int, one_size: int, two: int, two_size: int) -> bool:
    return one < two + two_size and two < one + one_size


_COLUMNS = 60
_LANES = (
    ("close", "enter", "leave", "#", "in close()"),
    ("unsent", "data", "sent", "u", "bytes not handed over"),
    ("peer", "begin", "done", "-", "connected"),
)
"""Per lane of a socket's timeline: what begins it, what ends it, its letter, what that means."""


def _timeline(one: Occurrence) -> list[str]:
    """A socket's life: from its last data, or its close(), until all of it was over."""
    at = {row.what: row.ts_ns for row in one.chain if row.ts_ns is not None}
    enter = at.get("enter", one.from_ns)
    start = min(enter, max(at.get("data", enter), enter - (one.waited_ns or 0)))
    last = max([*at.values(), one.until_ns or enter])
    end = min(last, enter + 3 * max(one.waited_ns or 0, 1_000_000))
    if end <= start:
        return []
    cell = -(-(end - start) // _COLUMNS)
    lines = []
    legend = []
    for label, begins, ends, letter, meaning in _LANES:
        first = at.get(begins)
        if first is None:
            continue
        if label == "unsent" and "sent" not in at:
            continue
        until = at.get(ends, end + cell)
        cells = [
            letter if first < start + (i + 1) * cell and until > start + i * cell else "."
            for i in range(_COLUMNS)
        ]
        lines.append(f"  {label:<7} {''.join(cells)}")
        legend.append(f"{letter} {meaning}")
    if not lines:
        return []
    scale = f"one cell is {length_of_time(cell)}"
    title = f"the socket from {moment(start)}"
    gap = max(2, _WIDTH - 2 - len(title) - len(scale))
    return [title + " " * gap + scale, *lines, "  " + "   ".join(legend)]
