"""The recording kernel's own symbol table, asked for the few addresses that were probed."""

from __future__ import annotations

__all__ = ("Kallsyms",)

PROBE_REACH = 16
"""A probe on a function's entry may lie behind its endbr64 and its call to the tracer."""


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
        at = self._text.find(key)
        while at >= 0:
            end = self._text.find(b"\n", at)
            line = self._text[at : end if end >= 0 else len(self._text)][:512]
            words = line.split()
            if (
                (at == 0 or self._text[at - 1 : at] == b"\n")
                and len(words) >= 3
                and len(words[0]) == 16
                and words[1] in (b"t", b"T", b"w", b"W")
                and words[0][15:] in b"0123456789abcdef"
            ):
                lines.append((int(words[0], 16), words[2].decode("utf-8", "replace")))
            at = self._text.find(key, at + 1)
        return lines
