"""A VFIO listener is registered, and maps all that is shared; or it is unregistered.

A container that has just begun, or whose listener of a section may be gone, is expected to map each
run of shared pages once, ascending, before the next conversion.  Upstream answers a map that fails
with one unmap of the run; then 10.1 to 11.0 exit, and the others go on without the rest.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .conclude import report_call
from .containers import add_container, doubt, in_doubt, is_foreign, note_foreign, place_of
from .layout import *
from .memory import find_memory, memory_end
from .pages import find, value_at
from .spans import end_of, end_page, first_page, plus
from .state import *

__all__ = (
    "are_open",
    "begin_container",
    "check_registrations",
    "hear_map",
    "hear_unmap",
    "refused_for_limit",
    "take",
    "tell_dirty",
    "unregister_runs",
)

NO_PAGE, UNKNOWN_PAGE = -1, -2
LAST_PAGE = TOP >> 12
UNKNOWN_BIT, PRIVATE_BIT, SHARED_BITS = 1, 1 << PRIVATE, 1 << SHARED | 1 << UNMAPPED
MOST_MAPPINGS, MEMSLOTS = 65535, 32764
"""Linux' dma_entry_limit, and the memory slots of KVM on x86, by which QEMU reckons."""
AT_ONCE_NS = 100_000_000
"""A container that is closed so soon after its registration was refused."""
MOST_RUNS = 4096


@jit
def begin_container(k: Any, proc: int, space: int) -> None:
    """A container begins: its listeners will be registered."""
    if add_container(k.p, proc, space):
        i = place_of(k.p, proc, space)
        if i >= 0 and k.p[proc, P_SLOTS_KNOWN] == 1:
            _begin(k, proc, i, 0, LAST_PAGE)


@jit
def _begin(k: Any, proc: int, i: int, lo: int, hi: int) -> None:
    r = P_REPLAY + R_COLS * i
    k.p[proc, r + R_STATE], k.p[proc, r + R_NEXT], k.p[proc, r + R_UNTIL] = R_OPEN, lo, hi
    k.p[proc, r + R_RUN], k.p[proc, r + R_LAST] = NO_PAGE, 0


@jit
def _next_shared(k: Any, proc: int, page: int, until: int) -> int:
    """The next shared page of memory with a guest_memfd, NO_PAGE, or UNKNOWN_PAGE before one."""
    p, at = k.p, page
    for _ in range(p[proc, P_NSLOTS]):
        best = -1
        for i in range(p[proc, P_NSLOTS]):
            slot = P_SLOTS + SLOT_COLS * i
            end = plus(p[proc, slot + 1], p[proc, slot + 2]) // PAGE
            if p[proc, slot + 4] & 4 and end > at and p[proc, slot + 1] // PAGE < until:
                if best < 0 or p[proc, slot + 1] < p[proc, best + 1]:
                    best = slot
        if best < 0:
            return NO_PAGE
        lo = max(at, p[proc, best + 1] // PAGE)
        hi = min(plus(p[proc, best + 1], p[proc, best + 2]) // PAGE, until)
        found = find(k.table, k.data, proc, lo, hi, UNKNOWN_BIT | SHARED_BITS)
        if found < hi:
            return found if value_at(k.table, k.data, proc, found) else UNKNOWN_PAGE
        at = hi
        if at >= until:
            return NO_PAGE
    return NO_PAGE


@jit
def _run_end(k: Any, proc: int, page: int) -> int:
    """Where the run of shared pages ends, or the memory that it is in."""
    slot = find_memory(k.p, proc, page * PAGE, (page + 1) * PAGE)
    if slot < 0:
        return page + 1
    end = memory_end(k.p, proc, slot) // PAGE
    return find(k.table, k.data, proc, page, end, UNKNOWN_BIT | PRIVATE_BIT)


@jit
def _tell(k: Any, proc: int, row: int, i: int, kind: int, lo: int, hi: int) -> None:
    """The registration differs at this call; it is not followed any further."""
    k.p[proc, P_REPLAY + R_COLS * i + R_STATE] = R_DONE
    first = k.n_out[0]
    report_call(k, W_REPLAY, proc, row)
    if k.n_out[0] == first:
        return
    k.out[first, D_SPACE] = k.p[proc, P_CONTAINERS + i]
    k.out[first, D_EXPECTED] = kind
    k.out[first, D_EXPECTED_ADDR], k.out[first, D_EXPECTED_SIZE] = lo * PAGE, (hi - lo) * PAGE
    k.out[first, D_ADDR], k.out[first, D_SIZE] = lo * PAGE, (hi - lo) * PAGE
    k.out[first, D_GOT] = row


@jit
def take(k: Any, row: int) -> None:
    """A call that a registration explains."""
    if k.used[row] == 0:
        k.used[row] = 1
        k.totals[N_REPLAYED] += k.w.calls[row, C_COUNT]


@jit
def _is_converting(k: Any, proc: int) -> bool:
    """A conversion of the process is not over, so its pages are not settled."""
    for th in range(k.t.shape[0]):
        if k.t[th, T_ATTR] >= 0 and k.w.calls[k.t[th, T_ATTR], C_PROC] == proc:
            return True
    return False


@jit
def hear_map(k: Any, proc: int, row: int) -> bool:
    """A map outside conversions: whether a listener's registration makes it."""
    p, calls = k.p, k.w.calls
    space, lo, hi = calls[row, C_SPACE], calls[row, C_ADDR], end_of(calls, row)
    i = place_of(p, proc, space)
    if i < 0 or lo < 0 or hi <= lo or hi == TOP:
        return False
    slot = find_memory(p, proc, lo, hi)
    if slot < 0 or p[proc, slot + 4] & 4 == 0:
        return False  # memory that no manager has
    place = in_doubt(p, proc, space, lo, hi)
    if place >= 0 and p[proc, P_VM]:
        first, last = p[proc, place + 1] // PAGE, p[proc, place + 2] // PAGE
        p[proc, place] = 0
        _begin(k, proc, i, first, last)
    r = P_REPLAY + R_COLS * i
    if p[proc, r + R_STATE] == R_OPEN and _is_converting(k, proc):
        p[proc, r + R_STATE] = R_DONE
    state = p[proc, r + R_STATE]
    if state == R_DONE:
        note_foreign(k, proc, row)
        return False
    if state == R_UNDO or state == R_EXIT:
        first = p[proc, r + R_RUN]
        kind = K_UNMAP if state == R_UNDO else K_EXIT
        _tell(k, proc, row, i, kind, first, _run_end(k, proc, first))
        return True
    expected = _next_shared(k, proc, p[proc, r + R_NEXT], p[proc, r + R_UNTIL])
    page = lo // PAGE
    is_shared = value_at(k.table, k.data, proc, page) != PRIVATE
    if expected == UNKNOWN_PAGE or calls[row, C_SIZE] != calls[row, C_COUNT] * PAGE:
        p[proc, r + R_STATE] = R_DONE
        return False
    if expected == NO_PAGE or not is_shared:
        note_foreign(k, proc, row)
        return False
    run_end = _run_end(k, proc, expected)
    if page != expected or hi // PAGE > run_end:
        _tell(k, proc, row, i, K_MAP, expected, run_end)
        return True
    if p[proc, r + R_RUN] < 0 or expected != p[proc, r + R_NEXT]:
        p[proc, r + R_RUN] = expected
    p[proc, r + R_LAST] = calls[row, C_TS1]
    if calls[row, C_RET] < 0:
        p[proc, r + R_STATE] = R_UNDO
    else:
        p[proc, r + R_NEXT] = hi // PAGE
    return True


@jit
def hear_unmap(k: Any, proc: int, row: int) -> bool:
    """An unmap outside conversions: whether it undoes a registration.

    One of a whole slot unregisters its listener, if no conversion turns out to have made it.
    """
    p, calls = k.p, k.w.calls
    space, lo, hi = calls[row, C_SPACE], calls[row, C_ADDR], end_of(calls, row)
    i = place_of(p, proc, space)
    if i < 0 or lo < 0 or hi <= lo:
        return False
    r = P_REPLAY + R_COLS * i
    if p[proc, r + R_STATE] == R_UNDO:
        first = p[proc, r + R_RUN]
        last = _run_end(k, proc, first)
        if lo != first * PAGE or hi != last * PAGE:
            _tell(k, proc, row, i, K_UNMAP, first, last)
            return True
        if k.gen == MERGED:
            p[proc, r + R_STATE] = R_EXIT
            report_call(k, W_REPLAY_ENDS_QEMU, proc, row)
        else:
            p[proc, r + R_STATE] = R_DONE
            report_call(k, W_REPLAY_SHORT, proc, row)
        return True
    if k.gen == V4 or calls[row, C_RET] < 0:
        return False
    for n in range(p[proc, P_NSLOTS]):
        slot = P_SLOTS + SLOT_COLS * n
        if p[proc, slot + 1] == lo and plus(p[proc, slot + 1], p[proc, slot + 2]) == hi:
            if is_foreign(k.p, k.w.calls, proc, row):
                report_call(k, W_UNREGISTERED_OTHERS, proc, row)
            p[proc, r + R_STATE] = R_DONE
            if p[proc, slot + 4] & 4 and in_doubt(p, proc, space, lo, hi) < 0:
                take(k, row)
            doubt(p, proc, space, lo, hi)
            return False
    if p[proc, P_VM] == 0:
        doubt(p, proc, space, 0, TOP)  # there may be a slot there that is not known
    is_foreign(k.p, k.w.calls, proc, row)
    return False


@jit
def unregister_runs(k: Any, proc: int, n: int) -> None:
    """v4's listener, when it goes, unmaps each shared run: the group's first ``n`` calls."""
    p, calls = k.p, k.w.calls
    for at in range(n):
        row = k.w.group[at]
        lo, hi = first_page(calls, row), end_page(calls, row)
        if calls[row, C_KIND] != K_UNMAP or calls[row, C_RET] < 0 or hi <= lo or lo < 0:
            continue
        slot = find_memory(p, proc, lo * PAGE, hi * PAGE)
        if slot < 0 and p[proc, P_VM] == 0:
            doubt(p, proc, calls[row, C_SPACE], 0, TOP)
        if slot < 0 or p[proc, slot + 4] & 4 == 0:
            continue
        first, last = p[proc, slot + 1], plus(p[proc, slot + 1], p[proc, slot + 2])
        starts = lo * PAGE == first or value_at(k.table, k.data, proc, lo - 1) == PRIVATE
        shared = value_at(k.table, k.data, proc, lo) >= SHARED
        if starts and shared and _run_end(k, proc, lo) == hi:
            doubt(p, proc, calls[row, C_SPACE], first, last)
            take(k, row)


@jit
def are_open(p: Any, proc: int) -> bool:
    """Whether a container of the process may have something to map yet."""
    for i in range(p[proc, P_NC]):
        if p[proc, P_REPLAY + R_COLS * i + R_STATE] != R_DONE:
            return True
    return False


@jit
def check_registrations(k: Any, proc: int, row: int) -> None:
    """A conversion begins: what was to be mapped by a registration has to be."""
    p = k.p
    for i in range(p[proc, P_NC]):
        r = P_REPLAY + R_COLS * i
        state = p[proc, r + R_STATE]
        if state == R_DONE:
            continue
        first = p[proc, r + R_RUN]
        if state == R_UNDO or state == R_EXIT:
            kind = K_UNMAP if state == R_UNDO else K_EXIT
            _tell(k, proc, row, i, kind, first, _run_end(k, proc, first))
        elif _is_converting(k, proc):
            p[proc, r + R_STATE] = R_DONE
        else:
            expected = _next_shared(k, proc, p[proc, r + R_NEXT], p[proc, r + R_UNTIL])
            if expected >= 0:
                _tell(k, proc, row, i, K_MAP, expected, _run_end(k, proc, expected))
        p[proc, r + R_STATE] = R_DONE


@jit
def refused_for_limit(k: Any, proc: int, row: int, fd: int) -> None:
    """A container ends (with ``fd`` -1 all) as soon as it was registered, and as it is mapped.

    From 10.1 on that is what becomes of one for which there could be too few DMA mappings.
    """
    p = k.p
    if k.gen == V4:
        return
    needed = MEMSLOTS - 1
    for n in range(p[proc, P_NSLOTS]):
        if p[proc, P_SLOTS + SLOT_COLS * n + 4] & 4:
            needed = plus(needed, p[proc, P_SLOTS + SLOT_COLS * n + 2] // PAGE)
    if needed <= MOST_MAPPINGS:
        return
    for i in range(p[proc, P_NC]):
        r = P_REPLAY + R_COLS * i
        space = p[proc, P_CONTAINERS + i]
        if p[proc, r + R_STATE] != R_OPEN or p[proc, r + R_LAST] == 0 or space >= 1 << 20:
            continue
        soon = k.w.calls[row, C_TS0] <= plus(p[proc, r + R_LAST], AT_ONCE_NS)
        rest = _next_shared(k, proc, p[proc, r + R_NEXT], p[proc, r + R_UNTIL])
        if soon and rest == NO_PAGE and (fd < 0 or space == fd):
            p[proc, r + R_STATE] = R_DONE
            report_call(k, W_LIMIT_LEFT, proc, row)


@jit
def tell_dirty(k: Any, row: int) -> None:
    """11.1 replays a run without its address: the query of which pages are dirty goes to 0."""
    if k.gen != SOURCES or k.w.calls[row, C_ADDR] != 0:
        return
    proc = k.w.calls[row, C_PROC]
    if k.p[proc, P_NSLOTS] == 0:
        for other in range(k.p.shape[0]):
            if k.p[other, P_NSLOTS]:
                proc = other
                break
    pages = end_page(k.w.calls, row)
    page = _next_shared(k, proc, 0, LAST_PAGE)
    if page == 0 and _run_end(k, proc, 0) == pages:
        return
    for _ in range(MOST_RUNS):
        if page < 0:
            return
        end = _run_end(k, proc, page)
        if page and end - page == pages:
            report_call(k, W_DIRTY_AT_ZERO, proc, row)
            return
        page = _next_shared(k, proc, end, LAST_PAGE)
