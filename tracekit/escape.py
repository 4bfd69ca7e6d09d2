"""Text that a traced process or guest chose, made harmless before a reader's machine sees it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ("html_table", "visible")


def visible(text: str, width: int | None = None) -> str:
    r"""The text with every control, format and bidirectional character spelled out (``\x1b``).

    ``width`` shortens what is longer, in the middle, where file names differ least.
    """
    shown = "".join(c if c.isprintable() else _spelled(c) for c in text)
    if width is not None and len(shown) > width:
        head = (width - 3) // 2
        shown = shown[:head] + "..." + shown[len(shown) - (width - 3 - head) :]
    return shown


def html_table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A small HTML table for notebooks; every cell is plain text and is escaped here."""
    top = f"<thead>{_html_row(head, 'th')}</thead>" if head else ""
    return f"<table>{top}<tbody>{''.join(_html_row(row, 'td') for row in rows)}</tbody></table>"


def _html_row(cells: Sequence[str], kind: str) -> str:
    inner = "".join(f"<{kind}>{html.escape(visible(cell))}</{kind}>" for cell in cells)
    return f"<tr>{inner}</tr>"


def _spelled(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
