"""What a confidential guest asks for while it boots, for guests of any size.

How sure: the bounce buffer's size and the pieces of 2 MiB are Linux's; how many buffers drivers
take, and that a page of some is given back alone, is an assumption, made to have conversions that
cut earlier ones.
"""

from __future__ import annotations

from replay.models.tdx_map_gpa import TDX_MAP_GPA_MAX_LEN
from replay.whatif.requests import Kind, Request

__all__ = ("all_shared", "boot", "bounce_buffer")

PAGE = 4096
LOW = 2 << 30
BUFFERS = 512
BUFFER = 16 << 10


def bounce_buffer(size: int) -> int:
    """Bytes that Linux shares for its bounce buffers (swiotlb) in a guest of ``size`` bytes: 6 %,
    from 64 MiB to 1 GiB (arch/x86/mm/mem_encrypt.c), here in whole 2 MiB."""
    wanted = min(max(size * 6 // 100, 64 << 20), 1 << 30)
    return wanted // TDX_MAP_GPA_MAX_LEN * TDX_MAP_GPA_MAX_LEN


def boot(size: int) -> list[Request]:
    """A boot: the bounce buffer below 2 GiB, then ``BUFFERS`` buffers of drivers, spread over the
    rest; half of those go back, and of every fourth that stays one page.

    All memory is private before it.  ``size`` is at least 256 MiB, in whole 2 MiB.
    """
    shared = bounce_buffer(size)
    first = min(size, LOW) - shared
    asked = [(Kind.TO_SHARED, first, shared, TDX_MAP_GPA_MAX_LEN)]
    above = size - LOW if size > LOW + (1 << 30) else first
    start = LOW if above != first else 0
    stride = above // BUFFERS // TDX_MAP_GPA_MAX_LEN * TDX_MAP_GPA_MAX_LEN or 4 * BUFFER
    places = [start + i * stride for i in range(min(BUFFERS, above // stride))]
    asked += [(Kind.TO_SHARED, at, BUFFER, 0) for at in places]
    asked += [(Kind.TO_PRIVATE, at, BUFFER, 0) for at in places[::2]]
    asked += [(Kind.TO_PRIVATE, at + PAGE, PAGE, 0) for at in places[1::8]]
    return [
        Request(kind, at, bytes_, number * 1_000_000, each)
        for number, (kind, at, bytes_, each) in enumerate(asked)
    ]


def all_shared(size: int) -> list[Request]:
    """All of the memory becomes shared, in pieces of 2 MiB, and private again: the most there can
    be, and what the series' cover letter sets ``dma_entry_limit`` for."""
    return [
        Request(Kind.TO_SHARED, 0, size, 0, TDX_MAP_GPA_MAX_LEN),
        Request(Kind.TO_PRIVATE, 0, size, 1_000_000, TDX_MAP_GPA_MAX_LEN),
    ]
