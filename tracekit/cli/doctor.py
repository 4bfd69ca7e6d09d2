"""``tracekit doctor``."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracekit.cli.console import write_output

if TYPE_CHECKING:
    from collectors.doctor import Diagnosis, Purpose

__all__ = ("doctor",)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what a killed recording left in the kernel")
    ] = False,
) -> None:
    """Say what this host can record for which purpose, by which mechanism, and what would help.

    Example: tracekit doctor
    """
    from collectors.doctor import clean as remove
    from collectors.doctor import examine

    removed = remove() if clean else []
    found = examine()
    if as_json:
        document = _document(found)
        document["removed"] = [asdict(left) for left in removed]
        write_output(json.dumps(document, indent=1) + "\n", None)
        return
    for left in removed:
        what = [*(["the instance"] if left.instance else []), *left.probes]
        print(f"removed {left.name}: {', '.join(what)}", file=sys.stderr)
    if clean and not removed:
        print("nothing was left in the kernel", file=sys.stderr)
    write_output("\n".join(_lines(found)) + "\n", None)


def _lines(found: Diagnosis) -> list[str]:
    lines = [f"kernel {found.kernel}"]
    if found.problem:
        lines += [f"  nothing can be recorded: {found.problem}", f"  fix: {found.fix}"]
    for purpose in found.purposes:
        there = [item for item in purpose.items if item.how]
        lines += ["", f"{purpose.purpose}: {purpose.title}"]
        lines.append(f"  {len(there)} of {len(purpose.items)} can be recorded")
        width = max(len(item.what) for item in purpose.items)
        for item in there:
            lines.append(f"    {item.what:{width}}  {item.how}")
        lines += _not_there(purpose)
        lines += _checks(purpose)
    if found.notes or found.sources:
        lines.append("")
    said = [f"note: {note}" for note in found.notes]
    said += [f"{name}: {what}" for name, what in found.sources.items()]
    lines += [row for text in said for row in textwrap.wrap(text, 98, subsequent_indent="  ")]
    for left in found.leftovers:
        lines.append(f"left by a killed recording: {left.name}; fix: tracekit doctor --clean")
    return lines


def _not_there(purpose: Purpose) -> list[str]:
    """What cannot be recorded, by reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in purpose.items:
        if not item.how:
            reasons.setdefault((item.why, item.fix), []).append(item.what)
    lines = []
    for (why, fix), names in reasons.items():
        text = f"not {', '.join(names)}"
        lines += textwrap.wrap(text, 98, initial_indent="  ", subsequent_indent="      ")
        lines.append(f"    {why}")
        if fix:
            lines.append(f"    fix: {fix}")
    return lines


def _undecided(purpose: Purpose) -> dict[str, list[str]]:
    """By check of this purpose: the needs, each a choice of events, that nothing here meets."""
    from collectors.plans import PLANS
    from tracekit.cli.pages import needs_of

    own = {item.event for item in PLANS[purpose.purpose].items if item.event}
    found: dict[str, list[str]] = {}
    for code, needs in sorted(needs_of().items()):
        if needs and all(own.intersection(need) for need in needs):
            found[code] = [" or ".join(n) for n in needs if not purpose.events.intersection(n)]
    return found


def _checks(purpose: Purpose) -> list[str]:
    checks = _undecided(purpose)
    lines = []
    able = [code for code, lacks in checks.items() if not lacks]
    if able:
        lines.append(f"  can be judged: {' '.join(able)}")
    unable = [code for code, lacks in checks.items() if lacks]
    if unable:
        lines.append(f"  cannot be judged: {' '.join(unable)}")
    return lines


def _document(found: Diagnosis) -> dict[str, Any]:
    document = asdict(found)
    for purpose, said in zip(found.purposes, document["purposes"], strict=True):
        checks = _undecided(purpose)
        said["checks"] = {
            code: {"can_be_judged": not lacks, "lacks": lacks} for code, lacks in checks.items()
        }
    return document
