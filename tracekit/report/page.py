"""A check's page: its docstring, taken apart into the sections that reports and docs show."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass

from tracekit.findings import Severity

__all__ = ("SECTIONS", "CheckPage", "markdown", "parse_page", "plain")

SECTIONS = (
    "What it finds",
    "Why it matters",
    "Example",
    "What to look at",
    "Known limits",
)
"""In this order, in every check's docstring."""


@dataclass(frozen=True, kw_only=True)
class CheckPage:
    """What a reader may want to know about a check."""

    code: str
    name: str
    severity: Severity
    summary: str
    sections: dict[str, str]

    @property
    def file_name(self) -> str:
        """``TK101-stale-iommu-mapping.md``."""
        return f"{self.code}-{self.name}.md"


def parse_page(*, code: str, name: str, severity: Severity, docstring: str) -> CheckPage:
    """The page in a docstring: a summary, then headings with an indented body each.

    :raises ValueError: a section is missing, empty, unknown or out of order
    """
    summary: list[str] = []
    bodies: dict[str, list[str]] = {}
    current = summary
    for line in inspect.cleandoc(docstring).splitlines():
        if line.strip() in SECTIONS and not line.startswith(" "):
            current = bodies.setdefault(line.strip(), [])
        else:
            current.append(line)
    sections = {h: inspect.cleandoc("\n" + "\n".join(body)) for h, body in bodies.items()}
    if tuple(sections) != SECTIONS or not all(sections.values()):
        raise ValueError(
            f"{code}: sections are {list(sections)}, not {list(SECTIONS)}, each filled"
        )
    return CheckPage(
        code=code,
        name=name,
        severity=severity,
        summary="\n".join(summary).strip(),
        sections=sections,
    )


def plain(page: CheckPage) -> str:
    """The page for a terminal: 80 columns, sections indented."""
    parts = [
        f"{page.code} {page.name} ({page.severity.value})",
        textwrap.fill(" ".join(page.summary.split()), 80),
    ]
    for heading, body in page.sections.items():
        if heading != "Example":
            body = "\n\n".join(
                textwrap.fill(" ".join(p.split()), 76, break_on_hyphens=False)
                for p in body.split("\n\n")
            )
        parts.append(f"{heading}\n{textwrap.indent(body, '    ')}")
    return "\n\n".join(parts) + "\n"


def markdown(page: CheckPage) -> str:
    """The page as docs/checks/ keeps it."""
    parts = [
        f"# {page.code} {page.name}",
        page.summary,
        f"Severity: {page.severity.value} at worst.",
    ]
    for heading, body in page.sections.items():
        code = heading == "Example"
        parts += [f"## {heading}", f"```\n{body}\n```" if code else body]
    return "\n\n".join(parts) + "\n"
