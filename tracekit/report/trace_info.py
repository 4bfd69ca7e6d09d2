"""What is in a trace, for people and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replay.linger.statistics import WAITED_BELOW_MS
from tracekit.report.decidable import Decidable, Needs, decidable, limits
from tracekit.report.escape import visible
from tracekit.report.units import length_of_time, moment, plural
from tracekit.report.vmms import Vmm, find_vmms
from tracekit.store import Manifest, Trace

__all__ = ("import_summary", "info_json", "info_text")

_WIDTH = 80
_MOST = 12
"""Lines of a list before it is cut; JSON has all."""
_FEW = 3
"""Alternatives that are named one by one."""


def import_summary(out: Path, manifest: Manifest) -> str:
    """What an import wrote, what it left out, and how to go on."""
    left_out = sum(r.count for r in manifest.unrecognised)
    lines = [f"{visible(str(out))}: {plural(manifest.rows, 'event')}, {_span(manifest)}"]
    if left_out:
        names = plural(len(manifest.unrecognised), "name")
        lines.append(f"  left out: {plural(left_out, 'record')} of {names} that no check uses")
    lines.append(f"  lost: {_loss(manifest)}")
    for source in manifest.sources:
        if source.get("salvaged"):
            lines.append(f"  salvaged: {visible(str(source['salvaged']), 200)}")
    for prefix in manifest.incomparable:
        lines.append(f"  clock: that of the {visible(prefix, 20)} events is not the trace's;")
        lines.append("    --clock-offset states how far apart they are")
    lines.append(f"  next: tracekit replay {visible(str(out))}")
    return "\n".join(lines) + "\n"


def info_json(
    trace: Trace,
    names: Mapping[str, str],
    needs: Mapping[str, Needs],
    sockets: Sequence[Mapping[str, Any]] = (),
) -> str:
    """All of the manifest, who acted, and what each check can decide."""
    vmms = find_vmms(trace)
    document = {
        "schema": 1,
        "path": str(trace.path),
        "manifest": asdict(trace.manifest),
        "vmms": [asdict(v) for v in vmms],
        "sockets": [dict(s) for s in sockets],
        "limits": limits(trace.manifest, vmms),
        "checks": [
            {
                "code": d.code,
                "name": d.name,
                "can_decide": d.possible,
                "missing": [list(n) for n in d.missing],
                "idle": [list(n) for n in d.idle],
            }
            for d in decidable(trace.manifest, names, needs)
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def info_text(
    trace: Trace,
    names: Mapping[str, str],
    needs: Mapping[str, Needs],
    sockets: Sequence[Mapping[str, Any]] = (),
) -> str:
    """One screen or two, at most 80 columns."""
    vmms = find_vmms(trace)
    lines = [
        *_origin(trace),
        *_events(trace.manifest),
        *_left_out(trace.manifest),
        *_doubts(trace.manifest),
        *_vmms(vmms),
        *_sockets(sockets),
        "",
        "what this trace can decide",
        *_decisions(decidable(trace.manifest, names, needs)),
    ]
    for said in limits(trace.manifest, vmms):
        lines += textwrap.wrap(
            f"  but: {visible(said)}", _WIDTH, subsequent_indent=" " * 7, break_on_hyphens=False
        )
    return "\n".join(lines) + "\n"


def _origin(trace: Trace) -> Iterator[str]:
    m = trace.manifest
    yield visible(str(trace.path), _WIDTH)
    facts = [
        ("kernel", " ".join(visible(x, 40) for x in (m.kernel, m.machine) if x) or "not said"),
        ("host", visible(m.host, 60) if m.host else "not said"),
        ("clock", visible(m.clock, 60) + ("" if m.clock_comparable else ", not one for all CPUs")),
        ("cpus", str(m.cpus)),
        ("span", _span(m)),
        ("events", f"{m.rows:,}"),
        ("lost", _loss(m)),
    ]
    for source in m.sources:
        said = ", ".join(
            visible(str(source[k]), 40)
            for k in ("file", "format", "compression", "recorder")
            if source.get(k)
        )
        facts.append(("source", said + _offset(source)))
        if source.get("salvaged"):
            facts.append(("", f"salvaged: {visible(str(source['salvaged']), 200)}"))
    for name, text in facts:
        yield from textwrap.wrap(
            f"  {name:<8} {text}", _WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False
        )


def _offset(source: Mapping[str, str | int | None]) -> str:
    """How the times of a merged recording were brought to the trace's clock."""
    found, error = source.get("clock_offset_ns"), source.get("clock_error_ns")
    how = source.get("clock_offset_from")
    if not isinstance(found, int):
        return f", on a clock of its own ({visible(str(how), 60)})" if how else ""
    within = f" within {error / 1000:,.1f} us" if isinstance(error, int) else ""
    return f", {found / 1e9:+.9f} s{within} (from {visible(str(how), 60)})"


def _span(m: Manifest) -> str:
    if m.span_ns is None:
        return "no time span"
    first, last = m.span_ns
    return f"{length_of_time(last - first)}, from {moment(first)} to {moment(last)}"


def _loss(m: Manifest) -> str:
    if not m.lost_events and not m.loss_marks and not m.lost_unknown:
        return "nothing, as far as the recorder says"
    least = "at least " if m.lost_unknown else ""
    if not m.lost_events:
        return f"nobody knows how many events, in {plural(m.loss_marks, 'place')}"
    places = plural(m.loss_marks, "place")
    return f"{least}{plural(m.lost_events, 'event')} in {places}"


def _events(m: Manifest) -> Iterator[str]:
    yield ""
    yield "events by type"
    for name, count in sorted(m.events.items(), key=lambda e: (-e[1], e[0])):
        sources = [r for r in m.recorded if r.event == name]
        said = ", ".join(
            visible(r.name, 34) + (f" on {visible(r.function, 30)}()" if r.function else "")
            for r in sources
        )
        yield from textwrap.wrap(
            f"  {count:>11,}  {visible(name, 30):<30} {said}",
            _WIDTH,
            subsequent_indent=" " * 17,
            break_on_hyphens=False,
        )


def _left_out(m: Manifest) -> Iterator[str]:
    if not m.unrecognised:
        return
    yield ""
    yield "recorded, and left out because no event type covers it"
    for r in m.unrecognised[:_MOST]:
        where = f"  on {visible(r.function, 30)}()" if r.function else ""
        yield f"  {r.count:>11,}  {visible(r.name, 34)}{where}"
    rest = m.unrecognised[_MOST:]
    if rest:
        count = sum(r.count for r in rest)
        yield f"  {count:>11,}  of {plural(len(rest), 'other name')} (--json lists all)"


def _doubts(m: Manifest) -> Iterator[str]:
    if not m.disagreements:
        return
    yield ""
    yield "sources that disagreed; the better one was believed"
    for name, count in sorted(m.disagreements.items(), key=lambda d: (-d[1], d[0]))[:_MOST]:
        yield f"  {count:>11,}  {visible(name, 64)}"


def _vmms(found: list[Vmm]) -> Iterator[str]:
    yield ""
    yield "who made KVM, VFIO and iommufd calls"
    if not found:
        yield "  nobody, as far as system calls were recorded"
    for v in found[:_MOST]:
        number = f"pid {v.pid}" if v.pid is not None else f"thread {v.tid}"
        did = ", ".join(f"{n:,} {act}" for act, n in sorted(v.acts.items()))
        who = visible(v.name, 24) if v.name else "not named"
        yield from textwrap.wrap(
            f"  {who} ({number}): {did}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False
        )
    if len(found) > _MOST:
        yield f"  and {len(found) - _MOST:,} more (--json lists all)"


def _sockets(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How long vsock sockets waited in close(), by process and port; the worst first."""
    if not found:
        return
    yield ""
    yield "vsock sockets that closed, by process and port"
    yield (
        f"  {'pid':>8} {'port':>10} {'closes':>7} {'linger':>7}"
        f" {'median wait':>11} {'longest':>10} {'sent':>9} {'dropped':>9}"
    )
    for one in sorted(found, key=lambda s: (-s["dropped"], -s["waited_max_ns"]))[:_MOST]:
        port = "unknown" if one["port"] is None else one["port"]
        yield (
            f"  {one['pid']:>8} {port:>10} {one['closes']:>7,} {one['lingering']:>7,}"
            f" {length_of_time(one['waited_median_ns']):>11}"
            f" {length_of_time(one['waited_max_ns']):>10}"
            f" {_short(one['bytes']):>9} {_short(one['dropped']):>9}"
        )
    if len(found) > _MOST:
        yield f"  and {len(found) - _MOST:,} more (--json lists all)"
    counts = [sum(column) for column in zip(*(s["waited"] for s in found), strict=True)]
    labels = [f"below {length_of_time(ms * 1_000_000)}" for ms in WAITED_BELOW_MS]
    labels.append("longer")
    waits = ", ".join(
        f"{n:,} {label.replace('.000', '')}" for n, label in zip(counts, labels, strict=True) if n
    )
    yield from textwrap.wrap(f"  waits: {waits}", _WIDTH, subsequent_indent="    ")


def _short(size: int) -> str:
    """A size in few letters."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            return f"{size / (1 << shift):,.1f} {unit}".replace(".0 ", " ")
    return f"{size} B"


def _decisions(answers: list[Decidable]) -> Iterator[str]:
    for d in answers:
        start = f"  {d.code}  {d.name:<22} "
        if d.missing:
            text = "no: not recorded: " + ", and ".join(_one_of(n) for n in d.missing)
        elif d.idle:
            text = "nothing to judge: recorded, and never happened: " + ", ".join(
                _one_of(n) for n in d.idle
            )
        else:
            text = "yes"
        yield from textwrap.wrap(
            start + text, _WIDTH, subsequent_indent=" " * len(start), break_on_hyphens=False
        )


def _one_of(names: Sequence[str]) -> str:
    """Alternatives; many of one family go by its name, as in the report of a replay."""
    families = {name.partition(".")[0] for name in names}
    if len(names) > _FEW and len(families) == 1:
        return f"any {families.pop()} event"
    return " or ".join(names)
