"""What a what-if says to people: a table, what failed first, a plot.  80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from replay.checks.violations import size_text
from replay.models.type1_iommu import DMA_ENTRY_LIMIT
from replay.whatif.counts import Counts, Failure
from replay.whatif.requests import Kind, Requests
from replay.whatif.what_if import Answer, enough_text
from replay.whatif.world import Granularity

__all__ = ("PLOTTED", "failure_text", "plot", "text_of")

PLOTTED = {
    "entries": "DMA entries live",
    "maps": "map calls so far",
    "unmaps": "unmap calls so far",
    "flushes": "IOTLB flushes so far",
    "doubled": "MiB with two backings after a request",
}
"""What can be drawn over time: columns of ``Point``."""

_WIDTH = 80
_COLUMNS, _ROWS = 64, 8
_PLOTS = 3
_NAME = 27
_PAGE = 4096


def text_of(requests: Requests, answers: Sequence[Answer], plotted: str = "entries") -> str:
    """One process's requests in each world; ``plotted``: one of ``PLOTTED``."""
    parts = (_head(requests), [""], _table(answers), _saved(answers), _notes(answers))
    return "\n".join([line for part in parts for line in part] + [*_plots(answers, plotted)])


def _head(requests: Requests) -> Iterator[str]:
    kinds = {kind: sum(r.kind is kind for r in requests.requests) for kind in Kind}
    counted = ", ".join(f"{n:,} {kind.value}" for kind, n in kinds.items() if n)
    yield f"process {requests.process}: {len(requests.requests):,} requests"
    yield f"  {counted}"
    converted = sum(size for _, size in requests.regions)
    several = "" if requests.containers == 1 else f", {requests.containers} containers"
    yield f"  memory that is converted: {size_text(converted) if converted else 'none'}{several}"
    if converted:
        yield f"  all of it shared would take {converted // _PAGE:,} DMA entries of 4 KiB"
        yield f"  type1's limit is {DMA_ENTRY_LIMIT:,} unless dma_entry_limit is set"
    if requests.unknown:
        yield f"  {requests.unknown:,} more calls have arguments that nobody recorded"
    if requests.lost:
        yield f"  {requests.lost:,} losses: requests may be missing"


def _table(answers: Sequence[Answer]) -> Iterator[str]:
    names = ("peak", "live", "maps", "unmaps", "flushes", "doubled")
    yield f"{'world':<{_NAME}}" + "".join(
        f" {name:>{7 if name == 'peak' else 8}}" for name in names
    )
    for answer in answers:
        c = answer.counts
        numbers = "".join(f" {n:>8,}" for n in (c.entries, c.maps, c.unmaps, c.flushes))
        doubled = size_text(c.doubled) if c.doubled else "-"
        name = answer.world.name
        if len(name) > _NAME:
            yield name
            name = ""
        yield f"{name:<{_NAME}} {c.peak:>7,}{numbers} {doubled:>8}"
    yield ""
    yield "peak, live: DMA entries; flushes: of the IOTLB, at least; doubled: memory with"
    yield "two backings between conversion and discard, at most"


def _saved(answers: Sequence[Answer]) -> Iterator[str]:
    """What cut-mapping saves, where a world was played with it and without."""
    by_world = {answer.world: answer for answer in answers}
    for world, pages in by_world.items():
        cut = by_world.get(replace(world, granularity=Granularity.CUT))
        if cut is None or world.granularity is not Granularity.PAGE:
            continue
        c, p = cut.counts, pages.counts
        if (cut.needed, c.maps, c.splits) == (pages.needed, p.maps, 0):
            return  # nothing is converted, or a page at a time
        yield ""
        yield from textwrap.wrap(
            f"cut-mapping ({world.generation}, {world.iommu.value}) takes {cut.needed:,} entries"
            f" in place of {pages.needed:,}, {c.maps:,} map calls in place of {p.maps:,},"
            f" {c.flushes:,} flushes in place of {p.flushes:,}, and {c.splits:,} splits",
            _WIDTH,
        )
        return


def _notes(answers: Sequence[Answer]) -> Iterator[str]:
    """What went wrong and what is enough; worlds of which the same is said stand together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for answer in answers:
        alike.setdefault(tuple(_note(answer)), []).append(answer.world.name)
    for lines, names in alike.items():
        yield ""
        yield from names
        yield from lines


def _note(answer: Answer) -> Iterator[str]:
    counts = answer.counts
    yield from _wrapped("first failure", _failure(counts))
    if counts.failures > 1:
        yield from _wrapped("in all", f"{counts.failures:,} refused calls")
    if counts.rejected:
        yield from _wrapped(
            "in place", f"{counts.rejected:,} of {counts.conversions:,} conversions rejected"
        )
    if counts.premature:
        yield from _wrapped("too early", f"{counts.premature:,} maps of private memory (TK103)")
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


def _plots(answers: Sequence[Answer], plotted: str) -> Iterator[str]:
    """Of worlds that differ; those that do not are one plot."""
    scale = 1 << 20 if plotted == "doubled" else 1
    shown: dict[tuple[tuple[int, int], ...], list[Answer]] = {}
    for answer in answers:
        points = answer.counts.series
        series = tuple((p.ts_ns, -(-int(getattr(p, plotted)) // scale)) for p in points)
        if any(n for _, n in series):
            shown.setdefault(series, []).append(answer)
    for series, alike in list(shown.items())[:_PLOTS]:
        failure = alike[0].counts.failure
        others = f", and {len(alike) - 1} more" if len(alike) > 1 else ""
        yield ""
        yield f"{PLOTTED[plotted]}, over time: {alike[0].world.name}{others}"
        yield from plot(series, mark=None if failure is None else failure.ts_ns)
        if failure is not None:
            yield " " * 13 + "x first failure"
    if not shown:
        yield ""
        yield f"{PLOTTED[plotted]}, over time: none in any world"
    left = "; ".join(alike[0].world.name for alike in list(shown.values())[_PLOTS:])
    if left:
        yield ""
        yield from textwrap.wrap(f"different again, and not drawn: {left}", _WIDTH)


def plot(
    series: Sequence[tuple[int, int]],
    columns: int = _COLUMNS,
    rows: int = _ROWS,
    *,
    mark: int | None = None,
) -> list[str]:
    """``series`` (ts_ns, number) as a plot of columns of ``#``; each shows the most in its time.

    ``mark``: a time that gets an ``x`` on the axis.
    """
    first, last = series[0][0], series[-1][0]
    most = max(n for _, n in series)

    def column(ts: int) -> int:
        return min(max((ts - first) * (columns - 1) // max(last - first, 1), 0), columns - 1)

    bins: list[int | None] = [None] * columns
    before = 0
    for ts, n in series:
        bins[column(ts)] = max(bins[column(ts)] or 0, n)
    heights = []
    for value in bins:
        before = before if value is None else value
        heights.append(-(-before * rows // max(most, 1)))
    lines = []
    for row in range(rows, 0, -1):
        label = f"{most * row // rows:,}" if row in (rows, rows // 2) else ""
        lines.append(f"{label:>12} |" + "".join("#" if h >= row else " " for h in heights).rstrip())
    axis = ["-"] * columns
    if mark is not None:
        axis[column(mark)] = "x"
    lines.append(" " * 13 + "+" + "".join(axis))
    lines.append(" " * 14 + f"{first / 1e9:.3f} s" + f"{last / 1e9:.3f} s".rjust(columns - 12))
    return lines
