"""What backs which addresses: mappings of files, and the backing of DMA entries."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *


@jit
def backing(k: Any, proc: int, kind: int, fd: int, delta: int) -> int:
    """Number of the backing relation (vaddr or file offset = iova + delta); 0 if there is no
    room."""
    for d in range(1, k.g[G_D]):
        row = k.S[d]
        if (
            row[D_PROC] == proc
            and row[D_KIND] == kind
            and row[D_FD] == fd
            and row[D_DELTA] == delta
        ):
            return d
    if k.g[G_D] >= min(k.S.shape[0], MOST_BACKINGS):
        return 0
    d = k.g[G_D]
    k.g[G_D] += 1
    k.S[d, D_PROC] = proc
    k.S[d, D_KIND] = kind
    k.S[d, D_FD] = fd
    k.S[d, D_DELTA] = delta
    return d


@jit
def address_backing(k: Any, proc: int, delta: int) -> int:
    """Number of the relation vaddr = iova + delta; -1 if there is none yet."""
    for d in range(1, k.g[G_D]):
        row = k.S[d]
        if row[D_PROC] == proc and row[D_KIND] == 0 and row[D_DELTA] == delta:
            return d
    return -1


@jit
def backing_known(k: Any, proc: int, fd: int, offset: int, size: int) -> bool:
    """True if it is known where the process maps this part of the file."""
    for r in range(k.g[G_R]):
        row = k.S[r]
        if row[R_PROC] == proc and row[R_FD] == fd and row[R_OFFSET] <= offset:
            if offset + size <= row[R_OFFSET] + row[R_SIZE]:
                return True
    return False


@jit
def unrelate(k: Any, proc: int, vaddr: int, size: int) -> None:
    """The process's addresses no longer are what mmap made them; a part left over stays."""
    end = vaddr + size
    r = 0
    while r < k.g[G_R]:
        row = k.S[r]
        lo, hi = row[R_VADDR], row[R_VADDR] + row[R_SIZE]
        if row[R_PROC] != proc or lo >= end or vaddr >= hi:
            r += 1
            continue
        if lo < vaddr:
            if hi > end and k.g[G_R] < k.S.shape[0]:
                other = k.g[G_R]
                k.g[G_R] += 1
                for c in range(R_PROC, R_END):
                    k.S[other, c] = row[c]
                k.S[other, R_VADDR] = end
                k.S[other, R_SIZE] = hi - end
                k.S[other, R_OFFSET] = row[R_OFFSET] + (end - lo)
            row[R_SIZE] = vaddr - lo
            r += 1
        elif hi > end:
            row[R_OFFSET] += end - lo
            row[R_VADDR] = end
            row[R_SIZE] = hi - end
            r += 1
        else:
            k.g[G_R] -= 1
            for c in range(R_PROC, R_END):
                k.S[r, c] = k.S[k.g[G_R], c]


@jit
def relate(k: Any, proc: int, fd: int, vaddr: int, size: int, offset: int, flags: int) -> None:
    """The process's addresses show a file from ``offset`` on."""
    unrelate(k, proc, vaddr, size)
    if k.g[G_R] < k.S.shape[0]:
        r = k.g[G_R]
        k.g[G_R] += 1
        k.S[r, R_PROC] = proc
        k.S[r, R_FD] = fd
        k.S[r, R_VADDR] = vaddr
        k.S[r, R_SIZE] = size
        k.S[r, R_OFFSET] = offset
        k.S[r, R_FLAGS] = flags


@jit
def in_shared_file(k: Any, proc: int, vaddr: int) -> bool:
    """True if the address lies in a shared mapping of a file."""
    for r in range(k.g[G_R]):
        row = k.S[r]
        if row[R_PROC] == proc and row[R_VADDR] <= vaddr < row[R_VADDR] + row[R_SIZE]:
            return (row[R_FLAGS] & 0x3) == 1
    return False
