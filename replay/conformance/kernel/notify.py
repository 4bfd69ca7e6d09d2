"""What the listeners of a generation do when a range changes hands."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .containers import hears
from .expect import expect, expect_pieces
from .layout import *
from .pages import find
from .state import *

__all__ = ("change",)


@jit
def _populate(w: Any, p: Any, gen: int, proc: int, lo: int, hi: int) -> None:
    """One notification to shared; v4 tells the oldest container first, the others the newest."""
    count = p[proc, P_NC]
    for i in range(count):
        space = p[proc, P_CONTAINERS + (i if gen == V4 else count - 1 - i)]
        if not hears(p, w, proc, space, K_MAP, lo, hi):
            continue
        result = expect_pieces(w, space, lo, hi)
        if w.s[S_STATUS] != GOING:
            return
        if result >= 0:
            continue
        undone = expect(w, K_UNMAP, space, lo, hi - lo, 0)
        if w.s[S_STATUS] != GOING:
            return
        if result == -17 and undone >= 0:
            w.s[S_HAZARDS] |= 1 << W_FOREIGN_ROLLBACK
        if gen == V4:
            _undo_notification(w, p, gen, proc, i, lo, hi)
        elif gen == SOURCES:
            for at in range(i + 1):
                told = p[proc, P_CONTAINERS + count - 1 - at]
                if not hears(p, w, proc, told, K_UNMAP, lo, hi):
                    continue
                expect(w, K_UNMAP, told, lo, hi - lo, 0)
                if w.s[S_STATUS] != GOING:
                    return
        elif i > 0:
            w.s[S_HAZARDS] |= 1 << W_LISTENERS_APART
        if w.s[S_STATUS] == GOING:
            w.s[S_STATUS] = FAILED
        return


@jit
def _undo_notification(w: Any, p: Any, gen: int, proc: int, told: int, lo: int, hi: int) -> None:
    """v4: those that were told before the one that refused go back, in the same order."""
    w.s[S_HAZARDS] |= 1 << W_ROLLED_BACK
    result = expect(w, K_ATTR, 0, lo, hi - lo, 1)
    if w.s[S_STATUS] != GOING:
        return
    if result < 0:
        w.s[S_HAZARDS] |= 1 << W_ENDS_QEMU
        w.s[S_STATUS] = FAILED
        return
    for at in range(told):
        space = p[proc, P_CONTAINERS + at]
        if not hears(p, w, proc, space, K_UNMAP, lo, hi):
            continue
        result = expect(w, K_UNMAP, space, lo, hi - lo, 0)
        if w.s[S_STATUS] != GOING:
            return
        if result < 0:
            w.s[S_HAZARDS] |= 1 << W_ENDS_QEMU
            w.s[S_STATUS] = FAILED
            return


@jit
def _discard(w: Any, p: Any, gen: int, proc: int, lo: int, hi: int) -> None:
    """One notification to private, the newest container first."""
    count = p[proc, P_NC]
    for i in range(count):
        space = p[proc, P_CONTAINERS + count - 1 - i]
        if not hears(p, w, proc, space, K_UNMAP, lo, hi):
            continue
        result = expect(w, K_UNMAP, space, lo, hi - lo, 0)
        if w.s[S_STATUS] != GOING:
            return
        if result >= 0:
            continue
        absent = result == -2 and space >= 1 << 20  # iommufd: nothing there is a success
        if absent:
            w.s[S_HAZARDS] |= 1 << W_ABSENT_UNMAP
        elif gen == V4:
            w.s[S_HAZARDS] |= 1 << W_ENDS_QEMU
            w.s[S_STATUS] = FAILED
            return
        else:
            w.s[S_HAZARDS] |= 1 << W_UNMAP_IGNORED


@jit
def _notify(w: Any, p: Any, gen: int, proc: int, private: int, lo: int, hi: int) -> None:
    """All listeners hear of one range: in v4 KVM's attributes are one of them."""
    if private:
        _discard(w, p, gen, proc, lo, hi)
        if gen == V4 and w.s[S_STATUS] == GOING:
            result = expect(w, K_ATTR, 0, lo, hi - lo, 1)
            if w.s[S_STATUS] == GOING and result < 0:
                w.s[S_HAZARDS] |= 1 << W_ENDS_QEMU
                w.s[S_STATUS] = FAILED
        return
    if gen == V4:
        result = expect(w, K_ATTR, 0, lo, hi - lo, 0)
        if w.s[S_STATUS] == GOING and result < 0:
            w.s[S_STATUS] = FAILED
    if w.s[S_STATUS] == GOING:
        _populate(w, p, gen, proc, lo, hi)


@jit
def change(
    w: Any, p: Any, table: Any, data: Any, gen: int, proc: int, private: int, lo: int, hi: int,
    states: int,
) -> None:  # fmt: skip
    """The state change of pages: the whole range if it is uniform, else block by block."""
    has_private = states >> PRIVATE & 1
    has_shared = states >> SHARED
    w.s[S_DONE_HI] = hi
    if (private and not has_shared) or (not private and not has_private):
        if not private and states >> UNMAPPED & 1:
            w.s[S_HAZARDS] |= 1 << W_RETRY
        return
    if not has_private or not has_shared:
        _notify(w, p, gen, proc, private, lo * PAGE, hi * PAGE)
        if w.s[S_STATUS] == FAILED:
            w.s[S_FAILED_LO], w.s[S_FAILED_HI] = lo, hi
        return
    changing = 15 & ~(1 << PRIVATE) if private else 1 << PRIVATE
    page = find(table, data, proc, lo, hi, changing)
    while page < hi:
        _notify(w, p, gen, proc, private, page * PAGE, (page + 1) * PAGE)
        if w.s[S_STATUS] != GOING:
            w.s[S_FAILED_LO], w.s[S_FAILED_HI] = page, page + 1
            w.s[S_DONE_HI] = page
            break
        page = find(table, data, proc, page + 1, hi, changing)
    ends = w.s[S_HAZARDS] >> W_ENDS_QEMU & 1
    if gen == V4 and w.s[S_STATUS] == FAILED and not private and not ends:
        w.s[S_HAZARDS] |= 1 << W_ROLLED_BACK
        w.s[S_STATUS] = GOING
        done = w.s[S_DONE_HI]
        page = find(table, data, proc, lo, done, changing)
        while page < done:
            _notify(w, p, gen, proc, 1, page * PAGE, (page + 1) * PAGE)
            if w.s[S_STATUS] != GOING:
                return
            page = find(table, data, proc, page + 1, done, changing)
        w.s[S_STATUS] = FAILED
