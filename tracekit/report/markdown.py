"""A replay's result as Markdown: for a pull request, an issue or a mailing list.

Names that a traced process chose stand in code spans and fences only, where no renderer looks
for links, mentions or markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from tracekit.findings import Finding, Outcome, ReplayResult, Severity
from tracekit.report.drawing import draw
from tracekit.report.escape import visible
from tracekit.report.footer import footer, reason_text
from tracekit.report.page import CheckPage
from tracekit.report.telling import (
    again,
    chain_lines,
    event_at,
    facts,
    in_reading_order,
    place,
    sureness,
)
from tracekit.report.terminal import left_out
from tracekit.report.units import moment, plural

__all__ = ("code_span", "escaped", "fenced", "render_markdown")

_WIDTH = 80
_MORE_SHOWN = 10


def render_markdown(
    result: ReplayResult, explained: Mapping[str, CheckPage], *, limit: int | None = None
) -> str:
    """The whole report.  ``explained``: each check's page, by code; ``limit``: findings shown."""
    parts = [
        f"## tracekit: {code_span(visible(result.trace.path))}",
        escaped(" ".join(footer(result))),
        "\n".join(_checks(result.outcomes)),
    ]
    said: set[str] = set()
    for finding in islice(in_reading_order(result.findings), limit):
        first_time = finding.code not in said
        said.add(finding.code)
        page = explained.get(finding.code) if first_time else None
        parts += _finding(finding, result, page, first_time)
    parts += left_out(result, limit)
    return "\n\n".join(p for p in parts if p) + "\n"


def escaped(text: str) -> str:
    """Plain text as Markdown that shows it: nothing in it is a link, markup or a mention."""
    text = re.sub(r"([\\`*\[\]<>|~$#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", visible(text))
    text = re.sub(r"^([+-])|^(\d+)(?=[.)])", lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\", text)
    text = text.replace("&", "&amp;").replace("@", "&#64;").replace("://", "&#58;//")
    return re.sub(r"(?i)\bwww\.", "www&#46;", text)


def code_span(text: str) -> str:
    """Text as a code span that its own backticks cannot close."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    padded = f" {text} " if text.startswith("`") or text.endswith("`") else text
    # A table is cut at bars before its cells are read.
    return f"{ticks}{padded or ' '}{ticks}".replace("|", "\\|")


def fenced(lines: str) -> str:
    """Lines in a fence that they cannot close."""
    longest = max(map(len, re.findall("`+", lines)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}\n{lines}\n{ticks}"


def _checks(outcomes: tuple[Outcome, ...]) -> Iterator[str]:
    yield "| check | verdict | judged | not judged |"
    yield "|---|---|---:|---|"
    for o in outcomes:
        counted = bool(o.judged.undecided)
        why = ", ".join(
            reason_text(r) + (f": {n:,}" if counted else "")
            for r, n in sorted(o.judged.reasons.items())
            if n
        )
        left = f"{o.judged.undecided:,}" + (f" ({escaped(why)})" if why else "")
        counts = [(s, sum(f.severity is s for f in o.findings)) for s in Severity]
        found = ", ".join(plural(n, s.value) for s, n in counts if n)
        verdict = o.verdict.value.replace("_", " ") + (f": {found}" if found else "")
        bold = f"**{verdict}**" if o.findings else verdict
        yield f"| {o.code} {o.name} | {bold} | {o.judged.decided:,} | {left} |"


def _finding(
    finding: Finding, result: ReplayResult, page: CheckPage | None, first_time: bool
) -> Iterator[str]:
    one = finding.occurrences[0] if finding.occurrences else None
    yield f"### {finding.severity.value} {finding.code}: {escaped(finding.title)}"
    known = [(n, code_span(" ".join(t.split()))) for n, t in facts(finding, one)]
    if one is not None:
        number = event_at(one)
        where = moment(one.from_ns) + ("" if number is None else f", event #{number}")
        known.insert(0, ("from", code_span(where)))
    yield "\n".join(f"- {name}: {text}" for name, text in known)
    if one is not None and one.chain:
        lines = [line for line, _ in chain_lines(one, _WIDTH)]
        picture = draw(finding, one)
        yield "What happened:"
        yield fenced("\n".join([*lines, *([""] if picture else []), *picture]))
    if len(finding.occurrences) > 1:
        yield "\n".join(_others(finding))
    if page is not None:
        yield "**Why it matters.** " + escaped(" ".join(page.sections["Why it matters"].split()))
    yield "**How sure.** " + "; ".join(map(escaped, sureness(finding, result))) + "."
    if page is not None:
        yield "**Look at.** " + escaped(" ".join(page.sections["What to look at"].split()))
    if first_time:
        chosen, trace = again(finding, result)
        yield fenced(f"tracekit explain {finding.code}\ntracekit replay {trace} {chosen}")


def _others(finding: Finding) -> Iterator[str]:
    shown = finding.occurrences[1 : 1 + _MORE_SHOWN]
    yield "Also:"
    yield ""
    for one in shown:
        where, time = place(finding, one)
        yield f"- {code_span(' '.join([moment(one.from_ns), where, time]).strip())}"
    left = finding.count - 1 - len(shown)
    if left > 0:
        yield f"- and {left:,} more"
