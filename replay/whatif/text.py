"""What a what-if says to people: a table, what failed first, a plot.  80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from replay.checks.violations import size_text
from replay.whatif.counts import Counts, Failure
from replay.whatif.requests import Kind, Requests
from replay.whatif.what_if import Answer, enough_text

__all__ = ("failure_text", "plot", "text_of")

_WIDTH = 80
_COLUMNS, _ROWS = 64, 8
_PLOTS = 3


def text_of(requests: Requests, answers: Sequence[Answer]) -> str:
    """One process's requests in each world."""
    return "\n".join([*_head(requests), "", *_table(answers), *_notes(answers), *_plots(answers)])


def _head(requests: Requests) -> Iterator[str]:
    kinds = {kind: sum(r.kind is kind for r in requests.requests) for kind in Kind}
    counted = ", ".join(f"{n:,} {kind.value}" for kind, n in kinds.items() if n)
    yield f"process {requests.process}: {len(requests.requests):,} requests"
    yield f"  {counted}"
    memory = size_text(sum(size for _, size in requests.regions)) if requests.regions else "none"
    several = "" if requests.containers == 1 else f", {requests.containers} containers"
    yield f"  memory that is converted: {memory}{several}"
    if requests.unknown:
        yield f"  {requests.unknown:,} more calls have arguments that nobody recorded"
    if requests.lost:
        yield f"  {requests.lost:,} losses: requests may be missing"


def _table(answers: Sequence[Answer]) -> Iterator[str]:
    names = ("peak", "live", "maps", "unmaps", "flushes", "doubled")
    yield f"{'world':<27}" + "".join(f" {name:>{7 if name == 'peak' else 8}}" for name in names)
    for answer in answers:
        c = answer.counts
        numbers = "".join(f" {n:>8,}" for n in (c.entries, c.maps, c.unmaps, c.flushes))
        doubled = size_text(c.doubled) if c.doubled else "-"
        yield f"{answer.world.name:<27} {c.peak:>7,}{numbers} {doubled:>8}"
    yield ""
    yield "peak, live: DMA entries; flushes: of the IOTLB, at least; doubled: memory with"
    yield "two backings between conversion and discard, at most"


def _notes(answers: Sequence[Answer]) -> Iterator[str]:
    for answer in answers:
        counts = answer.counts
        yield ""
        yield answer.world.name
        yield from _wrapped("first failure", _failure(counts))
        if counts.failures > 1:
            yield from _wrapped("in all", f"{counts.failures:,} refused calls")
        if counts.rejected:
            yield from _wrapped(
                "in place", f"{counts.rejected:,} of {counts.conversions:,} conversions rejected"
            )
        if counts.doubled_left:
            yield from _wrapped("never discarded", size_text(counts.doubled_left))
        yield from _wrapped("enough", enough_text(answer.world, answer.needed, answer.enough))


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"  {label:<16}", subsequent_indent=" " * 18
    )  # fmt: skip


def _failure(counts: Counts) -> str:
    return "none" if counts.failure is None else failure_text(counts.failure)


def failure_text(failure: Failure) -> str:
    """Which call of which request was refused, and what that broke."""
    if failure.call == "device":
        return failure.broken
    where = f"[{failure.address:#x}, +{size_text(failure.size)})"
    at = f"request {failure.request}, {failure.ts_ns / 1e9:.6f} s"
    broken = f"; {failure.broken}" if failure.broken else ""
    return f"{failure.call} {where} = {failure.errno} ({at}){broken}"


def _plots(answers: Sequence[Answer]) -> Iterator[str]:
    """Of worlds that differ; those that do not are one plot."""
    shown: list[list[tuple[int, int]]] = []
    for answer in answers:
        series = answer.counts.series
        if series in shown or len(shown) == _PLOTS or not any(n for _, n in series):
            continue
        shown.append(series)
        yield ""
        yield f"DMA entries live over time: {answer.world.name}"
        yield from plot(series)


def plot(
    series: Sequence[tuple[int, int]], columns: int = _COLUMNS, rows: int = _ROWS
) -> list[str]:  # fmt: skip
    """``series`` (ts_ns, number) as a plot of columns of ``#``; each shows the most in its time."""
    first, last = series[0][0], series[-1][0]
    most = max(n for _, n in series)
    bins: list[int | None] = [None] * columns
    before = 0
    for ts, n in series:
        at = (ts - first) * (columns - 1) // max(last - first, 1)
        bins[at] = max(bins[at] or 0, n)
    heights = []
    for value in bins:
        before = before if value is None else value
        heights.append(-(-before * rows // max(most, 1)))
    lines = []
    for row in range(rows, 0, -1):
        label = f"{most * row // rows:,}" if row in (rows, rows // 2) else ""
        lines.append(f"{label:>12} |" + "".join("#" if h >= row else " " for h in heights).rstrip())
    lines.append(" " * 13 + "+" + "-" * columns)
    lines.append(" " * 14 + f"{first / 1e9:.3f} s" + f"{last / 1e9:.3f} s".rjust(columns - 12))
    return lines
