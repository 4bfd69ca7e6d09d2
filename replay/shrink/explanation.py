"""One page about a shrunk trace, for whoever gets it: what it shows, call by call, and how to see
it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replay.checks.violations import size_text
from replay.shrink.shrink import Options, Shrunk
from tracekit.findings import EvidenceRow

__all__ = ("explanation", "option_words", "timeline")

_IOCTLS = {
    0xAE01: "KVM_CREATE_VM",
    0xAE03: "KVM_CHECK_EXTENSION",
    0xAE80: "KVM_RUN",
    0x4020AE46: "KVM_SET_USER_MEMORY_REGION",
    0x40A0AE49: "KVM_SET_USER_MEMORY_REGION2",
    0x4020AED2: "KVM_SET_MEMORY_ATTRIBUTES",
    0xC040AED4: "KVM_CREATE_GUEST_MEMFD",
    0x3B66: "VFIO_SET_IOMMU",
    0x3B68: "VFIO_GROUP_SET_CONTAINER",
    0x3B6A: "VFIO_GROUP_GET_DEVICE_FD",
    0x3B71: "VFIO_IOMMU_MAP_DMA",
    0x3B72: "VFIO_IOMMU_UNMAP_DMA",
    0x3B81: "IOMMU_IOAS_ALLOC",
    0x3B85: "IOMMU_IOAS_MAP",
    0x3B86: "IOMMU_IOAS_UNMAP",
    0x3B8F: "IOMMU_IOAS_MAP_FILE",
}
_ATTRIBUTES = 0x4020AED2
_SHOWN = 40
"""Frames of the timeline that are shown, so that it stays a page."""


def explanation(shrunk: Shrunk, report: str, path: Path) -> str:
    """The page, as Markdown.

    ``report``: the finding as a report shows it; ``path``: where the small trace is.
    """
    finding, trace = shrunk.finding, shrunk.trace
    again = ["tracekit", "replay", path.name, "--only", finding.code, *option_words(shrunk.options)]
    frames = len(set(shrunk.frames))
    lines = [
        f"# {finding.id}: {_plain(finding.title)}",
        "",
        f"`{_plain(path.name)}` holds {trace.manifest.rows:,} events in {frames:,} frames (calls,"
        f" with all that happened in them) of the {shrunk.of_events:,} events in"
        f" {shrunk.of_frames:,} frames of `{_plain(trace.path.name)}`. Replaying it shows"
        f" {finding.id} again: the same check, {finding.name}, by the same cause"
        f" ({_plain(finding.cause) or 'it has one only'}). Without any one of its frames it does"
        " not.",
        "",
        *_count(shrunk),
        "## What happened",
        "",
        "```",
        *timeline(shrunk),
        "```",
        "",
        "In brackets: the events' numbers in the trace that this was cut from. What other frames"
        " did between these is left out; times are as they were recorded.",
        "",
        "## The finding",
        "",
        "```",
        report.rstrip("\n").replace("```", "'''"),
        "```",
        "",
        "## See it again",
        "",
        "```",
        "".join(c if c.isprintable() else "?" for c in shlex.join(again)),
        f"tracekit explain {finding.code}",
        "```",
    ]
    if shrunk.others:
        lines += ["", "The same frames show besides:", ""]
        lines += [f"- {f.severity.value}: {f.id} {_plain(f.title)}" for f in shrunk.others[:8]]
    return "\n".join(lines) + "\n"


def option_words(options: Options) -> list[str]:
    """The options of ``tracekit replay`` that repeat a replay, those that differ from the
    default."""
    words = []
    if options.grace_ns != Options().grace_ns:
        words += ["--grace", f"{options.grace_ns}ns"]
    if options.linger_model is not None:
        words += ["--linger-model", options.linger_model]
    if options.slack_ns is not None:
        words += ["--slack", f"{options.slack_ns}ns"]
    if options.generation != Options().generation:
        words += ["--generation", options.generation]
    return [*words, "--in-place"] if options.in_place else words


def timeline(shrunk: Shrunk) -> list[str]:
    """One line a frame, in order; below it what the finding says of it."""
    rows: list[dict[str, Any]] = shrunk.trace.table.to_pylist()
    told = shrunk.finding.occurrences[0].chain if shrunk.finding.occurrences else ()
    groups: dict[int, list[int]] = {}
    for i, frame in enumerate(shrunk.frames):
        groups.setdefault(frame, []).append(i)
    start = rows[0]["ts_ns"] if rows else 0
    lines: list[str] = []
    for places in list(groups.values())[:_SHOWN]:
        of = [rows[i] for i in places]
        first, last = shrunk.seqs[places[0]], shrunk.seqs[places[-1]]
        numbers = f"#{places[0]}" if len(places) == 1 else f"#{places[0]}-{places[-1]}"
        was = f"{first}" if first == last else f"{first}-{last}"
        at = (of[0]["ts_ns"] - start) / 1e3
        who = _code(of[0]["comm"] or "?")
        lines.append(f"+{at:.1f} us  {who} {of[0]['tid']}  {_text(of)}  {numbers} (were {was})")
        lines += [f"             {line}" for line in _said(told, set(places))]
    if len(groups) > _SHOWN:
        lines.append(f"... and {len(groups) - _SHOWN:,} frames more")
    lines += [f"             {_code(row.text)}" for row in told if row.seq is None]
    return lines


def _count(shrunk: Shrunk) -> Iterator[str]:
    """How the small trace differs from the large one, where a reader would wonder."""
    told = []
    if shrunk.original.count > 1:
        told.append(
            f"The large trace shows it {shrunk.original.count:,} times; this is the smallest."
        )
    large, small = shrunk.occurrence, shrunk.finding.occurrences[0]
    if large.size and small.size and small.size < large.size:
        told.append(
            f"There it was {size_text(large.size)} at once, of which {size_text(small.size)} are"
            " enough to show it."
        )
    if large.size and small.size and small.size > large.size:
        told.append(
            f"There it was {size_text(large.size)} of these {size_text(small.size)}: calls that"
            " took care of the rest are not needed to show it, and so are not here."
        )
    if large.until_ns is not None and small.until_ns is None and large.size:
        late = (large.until_ns - large.from_ns) / 1e6
        told.append(
            f"There it ended after {late:.3f} ms; the call that ended it is not needed to show it,"
            " and so is not here."
        )
    if shrunk.options != shrunk.asked:
        told.append(
            f"So few calls cannot tell which QEMU it was, so here it is named:"
            f" {shrunk.options.generation}. Where the large trace is judged with all checks and"
            " without that name, the finding is a note if an error of another check is about the"
            " same conversion."
        )
    if told:
        yield " ".join(told)
        yield ""


def _said(told: tuple[EvidenceRow, ...], places: set[int]) -> list[str]:
    return [f"^ {_code(row.text)}" for row in told if row.seq in places and row.what != "end"]


def _text(rows: list[dict[str, Any]]) -> str:
    """A frame in words: the call, where, how much, the result."""

    def known(name: str) -> Any:
        return next((r[name] for r in rows if r[name] is not None), None)

    event, cmd = rows[0]["event"], known("cmd")
    name = event.partition(".")[0] if event.endswith(".entered") else event
    if name == "ioctl" or cmd in _IOCTLS:
        name = _IOCTLS.get(cmd, f"{name} {cmd:#x}" if cmd is not None else name)
    words = [name]
    if cmd == _ATTRIBUTES and known("attributes") is not None:
        words.append("private" if known("attributes") & 8 else "shared")
    if known("local") is not None and known("peer") is not None:
        ends = [f"{known(c) >> 32}:{known(c) & 0xFFFFFFFF}" for c in ("local", "peer")]
        words.append(" -> ".join(ends))
    for column in ("iova", "gpa", "offset", "vaddr"):
        if known(column) is not None and known("size"):
            words.append(f"{column} {known(column):#x}+{known('size'):#x}")
            break
    results = [r["ret"] for r in rows if r["ret"] is not None]
    if results:
        address = name == "mmap" and results[-1] > 0
        words.append(f"= {results[-1]:#x}" if address else f"= {results[-1]}")
    return " ".join(words)


def _plain(text: str) -> str:
    """Without what Markdown or a terminal would take for its own."""
    return "".join(c if c not in "<>|" else "?" for c in _code(text))


def _code(text: str) -> str:
    """The same inside of a block of code."""
    return "".join(c if c.isprintable() and c != "`" else "?" for c in text)[:200]
