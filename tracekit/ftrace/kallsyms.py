"""The recording kernel's own symbol table, asked for the few addresses that were probed."""

from __future__ import annotations

__all__ = ("Kallsyms",)

PROBE_REACH = 16
"""A probe on a function's entry may lie behind its endbr64 and its call to the tracer."""
MAX_LINES, MAX_LINE = 4096, 512
"""Lines looked at for sixteen neighbouring addresses, and bytes of each: the text is hostile."""


class Kallsyms:
    """The text of /proc/kallsyms at recording time: ``ADDRESS TYPE NAME [MODULE]`` lines.

    Ten megabytes, of which a handful of lines are wanted: searched, never parsed.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text

    def functions_at(self, address: int) -> list[str]:
        """Names of the function that begins at ``address``, or last before it within 16 bytes.

        Aliases of one address are all returned; empty if there is none.
        """
        first = max(address - PROBE_REACH, 0)
        found: dict[int, list[str]] = {}
        # All addresses that share all but the last hexadecimal digit are one search.
        for block in range(first >> 4, (address >> 4) + 1):
            for start, name in self._block(block):
                if first <= start <= address:
                    found.setdefault(start, []).append(name)
        return found[max(found)] if found else []

    def _block(self, block: int) -> list[tuple[int, str]]:
        key = b"%015x" % block
        lines = []
        at = 0 if self._text.startswith(key) else self._line_with(key, 0)
        looked = 0
        while at >= 0 and looked < MAX_LINES:
            end = self._text.find(b"\n", at, at + MAX_LINE)
            words = self._text[at : end if end >= 0 else at + MAX_LINE].split()
            if (
                len(words) >= 3
                and len(words[0]) == 16
                and words[1] in (b"t", b"T", b"w", b"W")
                and words[0][15:] in b"0123456789abcdef"
            ):
                lines.append((int(words[0], 16), words[2].decode("utf-8", "replace")))
            at = self._line_with(key, at)
            looked += 1
        return lines

    def _line_with(self, key: bytes, after: int) -> int:
        """Where the next line begins that begins so; -1: there is none."""
        at = self._text.find(b"\n" + key, after)
        return at + 1 if at >= 0 else -1
