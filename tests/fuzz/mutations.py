"""Damage: bytes and text made worse in ways that parsers are known to trip over."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from random import Random

__all__ = ("EDGES", "MAX_INPUT", "edge", "mutated", "mutated_numbers", "mutated_text")

MAX_INPUT = 1 << 19
"""No input is larger: what is slow or large must be so because of what it says."""

EDGES = (
    0, 1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 63, 64, 100, 127, 128, 255, 256, 511, 512,
    1000, 4080, 4095, 4096, 4097, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x1FFFFF, 0x200000, 0x7FFFFFF,
    0x8000000, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xC0000000,
    0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 40, (1 << 48) - 4096, 1 << 52, 1 << 56,
    (1 << 62) - 1, 1 << 62, (1 << 63) - 4096, (1 << 63) - 1, 1 << 63, (1 << 63) + 1,
    (1 << 64) - 4096, (1 << 64) - 2, (1 << 64) - 1,
)  # fmt: skip
"""Numbers at which something ends: a type, a page, a sign, a limit of ours."""

_TOKENS = (
    b"\0", b"\n", b"\r\n", b" ", b":", b"=", b"-", b"(", b")", b"[", b"]", b"+0x", b"0x", b"\xff",
    b"\xc3\x28", b"\xed\xa0\x80", b"\x1b[2J", b"\xe2\x80\xae", b"%s", b"#", b"...", b"/", b"<",
    b"-1", b"1e400", b"NaN", b"0x" + b"f" * 16, b"9" * 19, b"9" * 20, b"9" * 5000, b"A" * 300,
    b"((((((((", b"+0(+0(+0(", "\N{ARABIC-INDIC DIGIT THREE}".encode(),
    "\N{SUPERSCRIPT TWO}".encode(), b"\x85", b"\xe2\x80\xa8", b"\x0b", b"\x1c", b"\t", b"\x7f",
)  # fmt: skip
_NUMBER = re.compile(rb"0x[0-9a-f]+|[0-9]+")


def edge(rng: Random, bits: int = 64) -> int:
    """A number of that many bits: an edge, one beside it, or any."""
    kind = rng.random()
    if kind < 0.7:
        value = rng.choice(EDGES)
    elif kind < 0.85:
        value = rng.choice(EDGES) + rng.randint(-8, 8)
    else:
        value = rng.getrandbits(rng.randint(1, bits))
    return value & ((1 << bits) - 1)


# -- bytes -----------------------------------------------------------------------------------------


def _flip(rng: Random, data: bytearray, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(rng: Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_number(rng: Random, data: bytearray, other: bytes) -> None:
    size = rng.choice((2, 4, 4, 8, 8))
    at = rng.randrange(len(data))
    if rng.random() < 0.7:
        at -= at % rng.choice((2, 4, 8))
    data[at : at + size] = edge(rng, 8 * size).to_bytes(size, "little")


def _add_to_number(rng: Random, data: bytearray, other: bytes) -> None:
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(data))
    value = int.from_bytes(data[at : at + size], "little") + rng.choice((-16, -8, -4, -1, 1, 4, 8))
    data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _cut(rng: Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(rng: Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    del data[at : at + _length(rng)]


def _repeat(rng: Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    piece = bytes(data[at : at + _length(rng)])
    to = rng.randrange(len(data) + 1)
    data[to:to] = piece * rng.choice((1, 1, 2, 50))


def _copy_within(rng: Random, data: bytearray, other: bytes) -> None:
    at, to, size = rng.randrange(len(data)), rng.randrange(len(data)), _length(rng)
    piece = bytes(data[at : at + size])
    data[to : to + len(piece)] = piece


def _insert(rng: Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(
        (rng.randbytes(_length(rng)), bytes(_length(rng)), rng.choice(_TOKENS))
    )


def _splice(rng: Random, data: bytearray, other: bytes) -> None:
    if other:
        at = rng.randrange(len(other))
        piece = other[at : at + _length(rng) * rng.choice((1, 16))]
        to = rng.randrange(len(data) + 1)
        data[to : to + rng.choice((0, len(piece)))] = piece


def _behind(rng: Random, data: bytearray, other: bytes) -> None:
    """The start of one file with the end of another."""
    if other:
        del data[rng.randrange(len(data)) :]
        data += other[rng.randrange(len(other)) :]


def _blank(rng: Random, data: bytearray, other: bytes) -> None:
    at, size = rng.randrange(len(data)), _length(rng) * 8
    size = min(size, len(data) - at)
    data[at : at + size] = bytes([rng.choice((0, 0xFF))]) * size


Mutation = Callable[[Random, bytearray, bytes], None]
_OF_BYTES: tuple[Mutation, ...] = (
    _flip, _flip, _flip, _set_byte, _set_number, _set_number, _set_number, _add_to_number,
    _add_to_number, _cut, _remove, _repeat, _copy_within, _insert, _splice, _behind, _blank,
)  # fmt: skip


def _length(rng: Random) -> int:
    return rng.choice((1, 2, 4, 8, 16, 24, 64, 256, 4096)) + rng.choice((0, 0, 0, 1, 3))


def mutated(
    rng: Random, data: bytes, others: Sequence[bytes] = (), *, within: tuple[int, int] | None = None
) -> bytes:
    """``data`` with some of its bytes damaged; ``within``: only there, and of the same length."""
    if within is not None:
        begin, end = within
        piece = bytearray(mutated(rng, data[begin:end], others))
        piece[end - begin :] = b""
        piece += data[begin + len(piece) : end]
        return data[:begin] + bytes(piece) + data[end:]
    worse = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not worse:
            worse += rng.randbytes(_length(rng))
        rng.choice(_OF_BYTES)(rng, worse, rng.choice(others) if others else b"")
        del worse[MAX_INPUT:]
    return bytes(worse)


def mutated_numbers(rng: Random, form: str, values: Sequence[int], share: float = 0.3) -> bytes:
    """Numbers packed as ``form``, one letter each, some of them replaced by edges."""
    sizes = [struct.calcsize(f"<{c}") for c in form]
    return b"".join(
        (edge(rng, 8 * s) if rng.random() < share else v & ((1 << 8 * s) - 1)).to_bytes(s, "little")
        for s, v in zip(sizes, values, strict=True)
    )


# -- text ------------------------------------------------------------------------------------------


def _another_number(rng: Random, text: bytes, other: bytes) -> bytes:
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    one = rng.choice(found)
    value = rng.choice((edge(rng), -edge(rng), 10**30, 10 ** rng.randint(1, 5)))
    shown = rng.choice((f"{value:#x}", f"{value}", f"{value}", f"0{value}"))
    return text[: one.start()] + shown.encode() + text[one.end() :]


def _token(rng: Random, text: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(_TOKENS) + text[at + rng.choice((0, 0, 1, 5)) :]


def _lines(rng: Random, text: bytes, other: bytes) -> bytes:
    lines = text.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at : at + rng.choice((1, 1, 5, 50))]
    elif kind == 1:
        lines[to:to] = lines[at : at + rng.choice((1, 2, 20))] * rng.choice((1, 1, 40))
    elif kind == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif kind == 3:
        words = lines[at].split(b" ")
        rng.shuffle(words)
        lines[at] = b" ".join(words)
    elif kind == 4 and other:
        lines.insert(at, rng.choice(other.split(b"\n")))
    else:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    return b"\n".join(lines)


def _words(rng: Random, text: bytes, other: bytes) -> bytes:
    """A word of the text in place of another, or many times."""
    words = re.split(rb"([ \n:,=()]+)", text)
    at, to = rng.randrange(len(words)), rng.randrange(len(words))
    words[to] = words[at] * rng.choice((1, 1, 1, 100))
    return b"".join(words)


def _nest(rng: Random, text: bytes, other: bytes) -> bytes:
    """A word in brackets, deeply."""
    words = re.split(rb"([ \n:,=]+)", text)
    at, depth = rng.randrange(len(words)), rng.choice((5, 60, 1500))
    before, after = rng.choice(
        ((b"+0(", b")"), (b"(", b")"), (b"[", b"]"), (b"a[", b""), (b"{", b"}"))
    )
    words[at] = before * depth + words[at] + after * depth
    return b"".join(words)


def _many(rng: Random, text: bytes, other: bytes) -> bytes:
    """One character so often that a pattern that tries again and again does not get done."""
    at, size = rng.randrange(len(text) + 1), rng.choice((1000, 30_000, 200_000))
    return (
        text[:at]
        + rng.choice((b" ", b"0", b"a", b"\t", b"=", b"-", b"a ", b"0\n")) * size
        + text[at:]
    )


_OF_TEXT: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    _another_number, _another_number, _another_number, _token, _token, _lines, _lines, _lines,
    _words, _words, _nest, _many,
)  # fmt: skip


def mutated_text(rng: Random, text: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A text with some numbers, words or lines changed, or now and then any bytes."""
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if rng.random() < 0.15:
            text = mutated(rng, text, others)
        else:
            text = rng.choice(_OF_TEXT)(rng, text, rng.choice(others) if others else b"")
        text = text[:MAX_INPUT]
    return text
