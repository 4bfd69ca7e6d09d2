"""Names that a traced process or guest chose, made harmless before they reach a terminal."""

from __future__ import annotations

__all__ = ("visible",)


def visible(text: str, width: int | None = None) -> str:
    r"""The text with every control, format and bidirectional character spelled out (``\x1b``).

    ``width`` shortens what is longer, in the middle, where file names differ least.
    """
    shown = "".join(c if c.isprintable() else _spelled(c) for c in text)
    if width is not None and len(shown) > width:
        head = (width - 3) // 2
        shown = shown[:head] + "..." + shown[len(shown) - (width - 3 - head) :]
    return shown


def _spelled(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
