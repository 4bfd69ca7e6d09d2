"""One thread's calls against what one generation of QEMU would have called.

The models in replay/models are the definition: tests/replay/conformance/ drives both with the same
requests.  A prediction is a walk along the observed calls, each of whose results is what the
model's call would have returned; the walk stops at the first call that differs.
"""

from __future__ import annotations

from typing import Any

from ._jit import entry, jit
from .layout import (
    C_ADDR,
    C_COUNT,
    C_FLAG,
    C_KIND,
    C_KNOWN,
    C_PROC,
    C_RET,
    C_SIZE,
    C_SPACE,
    C_THREAD,
    C_VADDR,
    D_ADDR,
    D_COUNT,
    D_EXPECTED,
    D_EXPECTED_ADDR,
    D_EXPECTED_SIZE,
    D_FIRST,
    D_GEN,
    D_GOT,
    D_PRIVATE,
    D_PROC,
    D_REASON,
    D_SIZE,
    D_SPACE,
    D_THREAD,
    D_WHAT,
    K_ATTR,
    K_CLOSE,
    K_CONTAINER,
    K_CREATE_VM,
    K_DISCARD,
    K_EXIT,
    K_LOST,
    K_MAP,
    K_NONE,
    K_PUNCH,
    K_RUN,
    K_SLOT,
    K_UNMAP,
    N_CONFORM,
    N_DIVERGE,
    N_OWED,
    N_REASON,
    N_SLOTS,
    N_TELLING,
    NULL,
    PAGE,
    PRIVATE,
    SHARED,
    SOURCES,
    UNMAPPED,
    V4,
    W_ABSENT_UNMAP,
    W_ATTRIBUTE_KEPT,
    W_DIVERGES,
    W_ENDS_QEMU,
    W_FOREIGN_ROLLBACK,
    W_LISTENERS_APART,
    W_PAST_END,
    W_RETRY,
    W_ROLLED_BACK,
    W_SHIFTED,
    W_SLOT_AGAIN,
    W_UNMAP_IGNORED,
    Y_ARGUMENTS,
    Y_CONCURRENT,
    Y_CONTAINERS,
    Y_END,
    Y_LATE,
    Y_LOSS,
    Y_REQUEST,
)
from .pages import assign, classify, value_at

__all__ = ("match",)

# --- the walk: s[...] -----------------------------------------------------------------------------
(
    S_STATUS,
    S_AT,  # place in the group
    S_USED,  # bytes of the map row at that place that were taken
    S_N,  # rows in the group
    S_OPEN,  # 1: the thread may go on with this conversion
    S_EXPECTED,
    S_EXPECTED_ADDR,
    S_EXPECTED_SIZE,
    S_HAZARDS,
    S_REASON,
    S_FAILED_LO,  # pages from here on to S_FAILED_HI: shared in the bitmap, and not mapped
    S_FAILED_HI,
    S_DONE_HI,  # mixture: pages of the range below this one were done
    S_SPACE,
    S_TELLING,
    S_REQUEST,  # bytes of the request
    S_APPLIED,  # where the range begins that is converted, bytes
) = range(17)
S_SIZE = 17
GOING, DIVERGED, WAITING, UNDECIDED, FAILED = range(5)

# --- a process: p[proc, ...] ----------------------------------------------------------------------
# A delta: an address in another space less the guest's, and whether it is known.
P_VM, P_NC, P_SLOTS_KNOWN, P_NSLOTS, P_OWED_AT = range(5)
P_DELTA, P_FILE_DELTA, P_PUNCH_DELTA = 5, 7, 9
P_CONTAINERS = 11
MOST_CONTAINERS = 8
P_DOUBT = P_CONTAINERS + MOST_CONTAINERS  # (space, lo, hi): a section that may be unregistered
MOST_DOUBTS = 16
P_SLOTS = P_DOUBT + 3 * MOST_DOUBTS  # (id, gpa, size, vaddr, flags)
MOST_SLOTS = 32
P_OWED = P_SLOTS + 5 * MOST_SLOTS  # (lo, hi)
MOST_OWED = 32
P_COLS = P_OWED + 2 * MOST_OWED

# --- a thread: t[thread, ...] ---------------------------------------------------------------------
T_HEAD, T_TAIL, T_COUNT, T_ATTR, T_SLOT, T_NEW_CONTAINER = range(6)
T_COLS = 6
MOST_SHOWN_PAGES = 1 << 18
"""Pages of a conversion whose states are remembered when it diverges: 1 GiB."""
MOST_BEFORE = 64
"""Calls of a thread that are remembered while it has no conversion open."""


@jit
def _next(s: Any, group: Any, calls: Any) -> int:
    """The thread's next call that can be one of the conversion's, or -1."""
    while s[S_AT] < s[S_N]:
        row = group[s[S_AT]]
        if (
            calls[row, C_KIND] == K_DISCARD
            and calls[row, C_FLAG] == 2
            and calls[row, C_SIZE] != s[S_REQUEST]
        ):
            s[S_AT] += 1  # the C library gives memory back
            continue
        return row
    return -1


@jit
def _differs(s: Any, kind: int, addr: int, size: int, space: int) -> None:
    s[S_STATUS] = DIVERGED
    s[S_EXPECTED], s[S_EXPECTED_ADDR], s[S_EXPECTED_SIZE] = kind, addr, size
    s[S_SPACE] = space


@jit
def _expect(
    s: Any, group: Any, calls: Any, kind: int, space: int, addr: int, size: int, flag: int
) -> int:
    """The next call has to be this one; returns its result."""
    row = _next(s, group, calls)
    if row < 0:
        _differs(s, kind, addr, size, space)
        if s[S_OPEN]:
            s[S_STATUS] = WAITING
        return 0
    if calls[row, C_KIND] == kind and calls[row, C_KNOWN] == 0:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_ARGUMENTS
        return 0
    same = calls[row, C_KIND] == kind and calls[row, C_SIZE] == size and s[S_USED] == 0
    if kind == K_MAP or kind == K_UNMAP:
        same = same and calls[row, C_SPACE] == space
    if kind != K_PUNCH and kind != K_DISCARD:
        same = same and calls[row, C_ADDR] == addr
    if kind == K_ATTR:
        same = same and calls[row, C_FLAG] == flag
    if not same:
        _differs(s, kind, addr, size, space)
        return 0
    s[S_AT] += 1
    s[S_TELLING] += kind != K_ATTR
    return calls[row, C_RET]


@jit
def _expect_pieces(s: Any, group: Any, calls: Any, space: int, lo: int, hi: int) -> int:
    """One map for each block of [lo, hi), up to one that fails; returns that one's result."""
    at = lo
    while at < hi:
        row = _next(s, group, calls)
        if row < 0:
            _differs(s, K_MAP, at, PAGE, space)
            if s[S_OPEN]:
                s[S_STATUS] = WAITING
            return 0
        if calls[row, C_KIND] == K_MAP and calls[row, C_KNOWN] == 0:
            s[S_STATUS], s[S_REASON] = UNDECIDED, Y_ARGUMENTS
            return 0
        if (
            calls[row, C_KIND] != K_MAP
            or calls[row, C_SPACE] != space
            or calls[row, C_ADDR] + s[S_USED] != at
            or calls[row, C_SIZE] != calls[row, C_COUNT] * PAGE
        ):
            _differs(s, K_MAP, at, PAGE, space)
            return 0
        s[S_TELLING] += 1
        if calls[row, C_RET] < 0:
            s[S_AT] += 1
            return calls[row, C_RET]
        left = calls[row, C_SIZE] - s[S_USED]
        taken = min(left, hi - at)
        at += taken
        if taken == left:
            s[S_AT] += 1
            s[S_USED] = 0
        else:
            s[S_USED] += taken
    return 0


@jit
def _in_doubt(p: Any, proc: int, space: int, lo: int, hi: int) -> int:
    """The place of a doubt about the container's listener there, or -1."""
    for i in range(MOST_DOUBTS):
        at = P_DOUBT + 3 * i
        if p[proc, at] == space + 1 and p[proc, at + 1] < hi and lo < p[proc, at + 2]:
            return at
    return -1


@jit
def _hears(
    s: Any, group: Any, calls: Any, p: Any, proc: int, space: int, kind: int, lo: int, hi: int
) -> bool:
    """Whether the container's listener is registered there; seen to act, it is."""
    doubt = _in_doubt(p, proc, space, lo, hi)
    if doubt < 0:
        return True
    row = _next(s, group, calls)
    acts = row >= 0 and calls[row, C_KIND] == kind and calls[row, C_SPACE] == space
    if acts:
        p[proc, doubt] = 0
    return acts


@jit
def _populate(
    s: Any, group: Any, calls: Any, p: Any, proc: int, gen: int, lo: int, hi: int
) -> None:
    """One notification to shared; v4 tells the oldest container first, the others the newest."""
    count = p[proc, P_NC]
    for i in range(count):
        space = p[proc, P_CONTAINERS + (i if gen == V4 else count - 1 - i)]
        if not _hears(s, group, calls, p, proc, space, K_MAP, lo, hi):
            continue
        result = _expect_pieces(s, group, calls, space, lo, hi)
        if s[S_STATUS] != GOING:
            return
        if result >= 0:
            continue
        undone = _expect(s, group, calls, K_UNMAP, space, lo, hi - lo, 0)
        if s[S_STATUS] != GOING:
            return
        if result == -17 and undone >= 0:
            s[S_HAZARDS] |= 1 << W_FOREIGN_ROLLBACK
        if gen == V4:
            _undo_notification(s, group, calls, p, proc, i, lo, hi)
        elif gen == SOURCES:
            for k in range(i + 1):
                told = p[proc, P_CONTAINERS + count - 1 - k]
                _expect(s, group, calls, K_UNMAP, told, lo, hi - lo, 0)
                if s[S_STATUS] != GOING:
                    return
        elif i > 0:
            s[S_HAZARDS] |= 1 << W_LISTENERS_APART
        if s[S_STATUS] == GOING:
            s[S_STATUS] = FAILED
        return


@jit
def _undo_notification(
    s: Any, group: Any, calls: Any, p: Any, proc: int, told: int, lo: int, hi: int
) -> None:
    """v4: those that were told before the one that refused go back, in the same order."""
    s[S_HAZARDS] |= 1 << W_ROLLED_BACK
    result = _expect(s, group, calls, K_ATTR, 0, lo, hi - lo, 1)
    if s[S_STATUS] != GOING:
        return
    if result < 0:
        s[S_HAZARDS] |= 1 << W_ENDS_QEMU
        s[S_STATUS] = FAILED
        return
    for k in range(told):
        space = p[proc, P_CONTAINERS + k]
        result = _expect(s, group, calls, K_UNMAP, space, lo, hi - lo, 0)
        if s[S_STATUS] != GOING:
            return
        if result < 0:
            s[S_HAZARDS] |= 1 << W_ENDS_QEMU
            s[S_STATUS] = FAILED
            return


@jit
def _discard(s: Any, group: Any, calls: Any, p: Any, proc: int, gen: int, lo: int, hi: int) -> None:
    """One notification to private, the newest container first."""
    count = p[proc, P_NC]
    for i in range(count):
        space = p[proc, P_CONTAINERS + count - 1 - i]
        if not _hears(s, group, calls, p, proc, space, K_UNMAP, lo, hi):
            continue
        result = _expect(s, group, calls, K_UNMAP, space, lo, hi - lo, 0)
        if s[S_STATUS] != GOING:
            return
        if result >= 0:
            continue
        if gen == V4:
            if result == -2 and space >= 1 << 20:
                continue  # iommufd: nothing there is a success
            s[S_HAZARDS] |= 1 << W_ENDS_QEMU
            s[S_STATUS] = FAILED
            return
        if result == -2 and space >= 1 << 20:
            s[S_HAZARDS] |= 1 << W_ABSENT_UNMAP
        else:
            s[S_HAZARDS] |= 1 << W_UNMAP_IGNORED


@jit
def _notify(
    s: Any, group: Any, calls: Any, p: Any, proc: int, gen: int, private: int, lo: int, hi: int
) -> None:
    """All listeners hear of one range: in v4 KVM's attributes are one of them."""
    if private:
        _discard(s, group, calls, p, proc, gen, lo, hi)
        if gen == V4 and s[S_STATUS] == GOING:
            result = _expect(s, group, calls, K_ATTR, 0, lo, hi - lo, 1)
            if s[S_STATUS] == GOING and result < 0:
                s[S_HAZARDS] |= 1 << W_ENDS_QEMU
                s[S_STATUS] = FAILED
        return
    if gen == V4:
        result = _expect(s, group, calls, K_ATTR, 0, lo, hi - lo, 0)
        if s[S_STATUS] == GOING and result < 0:
            s[S_STATUS] = FAILED
    if s[S_STATUS] == GOING:
        _populate(s, group, calls, p, proc, gen, lo, hi)


@jit
def _change(
    s: Any, group: Any, calls: Any, p: Any, table: Any, data: Any, proc: int, gen: int,
    private: int, lo: int, hi: int, states: int,
) -> None:  # fmt: skip
    """The state change: the whole range if it is uniform, else block by block."""
    has_private = states >> PRIVATE & 1
    has_shared = states >> SHARED
    s[S_DONE_HI] = hi
    if (private and not has_shared) or (not private and not has_private):
        if not private and states >> UNMAPPED & 1:
            s[S_HAZARDS] |= 1 << W_RETRY
        return
    if not has_private or not has_shared:
        _notify(s, group, calls, p, proc, gen, private, lo * PAGE, hi * PAGE)
        if s[S_STATUS] == FAILED:
            s[S_FAILED_LO], s[S_FAILED_HI] = lo, hi
        return
    for page in range(lo, hi):
        if (value_at(table, data, proc, page) == PRIVATE) == (private == 1):
            continue
        _notify(s, group, calls, p, proc, gen, private, page * PAGE, (page + 1) * PAGE)
        if s[S_STATUS] != GOING:
            s[S_FAILED_LO], s[S_FAILED_HI] = page, page + 1
            s[S_DONE_HI] = page
            break
    ends = s[S_HAZARDS] >> W_ENDS_QEMU & 1
    if gen == V4 and s[S_STATUS] == FAILED and not private and not ends:
        s[S_HAZARDS] |= 1 << W_ROLLED_BACK
        s[S_STATUS] = GOING
        for page in range(lo, s[S_DONE_HI]):
            if value_at(table, data, proc, page) != PRIVATE:
                continue
            _notify(s, group, calls, p, proc, gen, 1, page * PAGE, (page + 1) * PAGE)
            if s[S_STATUS] != GOING:
                return
        s[S_STATUS] = FAILED


@jit
def _find_memory(p: Any, proc: int, lo: int, hi: int) -> int:
    """The place of the lowest slot that meets [lo, hi), or -1."""
    best = -1
    for i in range(p[proc, P_NSLOTS]):
        at = P_SLOTS + 5 * i
        start, end = p[proc, at + 1], p[proc, at + 1] + p[proc, at + 2]
        if start < hi and lo < end and (best < 0 or start < p[proc, best + 1]):
            best = at
    return best


@jit
def _memory_end(p: Any, proc: int, at: int) -> int:
    """Where the memory that begins with a slot ends: slots that go on in both spaces are one."""
    end, vaddr = p[proc, at + 1] + p[proc, at + 2], p[proc, at + 3] + p[proc, at + 2]
    for _ in range(p[proc, P_NSLOTS]):
        grown = False
        for i in range(p[proc, P_NSLOTS]):
            other = P_SLOTS + 5 * i
            if p[proc, other + 1] == end and p[proc, other + 3] == vaddr:
                end, vaddr = end + p[proc, other + 2], vaddr + p[proc, other + 2]
                grown = True
        if not grown:
            break
    return end


@jit
def _walk(
    s: Any, group: Any, calls: Any, p: Any, table: Any, data: Any, proc: int, gen: int,
    private: int, start: int, size: int, discards: Any,
) -> None:  # fmt: skip
    """A whole conversion of the request, from the group's place on."""
    applied, end = start, start + size
    s[S_APPLIED] = 0
    states = 0
    unaligned = start % PAGE != 0 or size % PAGE != 0
    wrong = unaligned or size <= 0 or start < 0 or end < start
    if wrong:
        _differs(s, K_NONE, start, size, -1)  # refused before anything is called
        return
    if p[proc, P_SLOTS_KNOWN] == 1 and p[proc, P_NSLOTS] > 0:
        memory = _find_memory(p, proc, start, end)
        if memory < 0 or p[proc, memory + 4] & 4 == 0:
            _differs(s, K_NONE, start, size, -1)
            return
        applied = max(start, p[proc, memory + 1])
        if applied != start:
            s[S_HAZARDS] |= 1 << W_SHIFTED
        if applied + size > _memory_end(p, proc, memory):
            if gen == V4:
                return
            s[S_HAZARDS] |= 1 << W_PAST_END
            _expect(s, group, calls, K_ATTR, 0, start, size, private)
            s[S_FAILED_LO], s[S_FAILED_HI] = 0, 0
            if s[S_STATUS] == GOING:
                s[S_STATUS] = FAILED
            return
    s[S_APPLIED] = applied
    lo, hi = applied // PAGE, (applied + size) // PAGE
    states = classify(table, data, proc, lo, hi)
    if gen != V4:
        result = _expect(s, group, calls, K_ATTR, 0, start, size, private)
        if s[S_STATUS] != GOING:
            return
        if result < 0:
            s[S_STATUS] = FAILED
            s[S_DONE_HI] = lo
            return
    if states & 1:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_LATE
        return
    _change(s, group, calls, p, table, data, proc, gen, private, lo, hi, states)
    if s[S_STATUS] == FAILED and gen != V4:
        s[S_HAZARDS] |= 1 << W_ATTRIBUTE_KEPT
    if s[S_STATUS] != GOING:
        return
    if private:
        if discards[1]:
            _expect(s, group, calls, K_DISCARD, -1, applied, size, 0)
    elif discards[0]:
        _expect(s, group, calls, K_PUNCH, -1, applied, size, 0)


@jit
def _settle(
    s: Any, table: Any, data: Any, counts: Any, proc: int, gen: int, private: int, lo: int, hi: int
) -> None:
    """What the bitmap holds after a conversion that went as predicted."""
    value = PRIVATE if private else SHARED
    if s[S_STATUS] == GOING:
        if not private and s[S_HAZARDS] >> W_RETRY & 1:
            return
        assign(table, data, counts, proc, lo, hi, value, 0)
        return
    if gen == V4 or private or s[S_FAILED_HI] <= s[S_FAILED_LO]:
        return  # undone, refused, or the end of QEMU
    if s[S_DONE_HI] > lo and s[S_DONE_HI] < hi:
        assign(table, data, counts, proc, lo, s[S_DONE_HI], value, 0)
    assign(table, data, counts, proc, s[S_FAILED_LO], s[S_FAILED_HI], UNMAPPED, 0)


@jit
def _report(
    out: Any, n_out: Any, what: int, gen: int, proc: int, th: int, s: Any, start: int, size: int,
    private: int, group: Any, rows: Any,
) -> None:  # fmt: skip
    """One row of what is told, with the first rows of its group."""
    n, first = n_out[0], n_out[1]
    if n >= out.shape[0]:
        return
    out[n, D_WHAT], out[n, D_GEN], out[n, D_PROC], out[n, D_THREAD] = what, gen, proc, th
    out[n, D_SPACE] = s[S_SPACE]
    out[n, D_ADDR], out[n, D_SIZE], out[n, D_PRIVATE] = start, size, private
    out[n, D_EXPECTED] = s[S_EXPECTED]
    out[n, D_EXPECTED_ADDR], out[n, D_EXPECTED_SIZE] = s[S_EXPECTED_ADDR], s[S_EXPECTED_SIZE]
    out[n, D_GOT] = group[s[S_AT]] if s[S_AT] < s[S_N] else -1
    out[n, D_REASON] = s[S_REASON]
    count = min(s[S_N], rows.shape[0] - first)
    out[n, D_FIRST], out[n, D_COUNT] = first, count
    for i in range(count):
        rows[first + i] = group[i]
    n_out[0], n_out[1] = n + 1, first + count


@jit
def _remember(
    table: Any, data: Any, n_out: Any, snap: Any, proc: int, start: int, size: int
) -> None:
    """The states that the pages of the conversion just reported had before it, run by run."""
    at = n_out[2]
    page, end = start // PAGE, (start + size) // PAGE
    if start < 0 or end - page > MOST_SHOWN_PAGES:
        return
    while page < end and at < snap.shape[0]:
        value = value_at(table, data, proc, page)
        first = page
        while page < end and value_at(table, data, proc, page) == value:
            page += 1
        snap[at, 0], snap[at, 1], snap[at, 2], snap[at, 3] = n_out[0] - 1, first, page, value
        at += 1
    n_out[2] = at


@jit
def _conclude(
    s: Any, group: Any, calls: Any, p: Any, table: Any, data: Any, counts: Any, totals: Any,
    out: Any, n_out: Any, rows: Any, snap: Any, used: Any, gen: int, proc: int, th: int,
    private: int, start: int, size: int,
) -> None:  # fmt: skip
    """Count a conversion, tell what is to tell of it, and bring the state up to what was seen."""
    lo, hi = start // PAGE, (start + size) // PAGE
    value = PRIVATE if private else SHARED
    if s[S_STATUS] == GOING or s[S_STATUS] == FAILED:
        totals[N_CONFORM] += 1
        if s[S_TELLING]:
            totals[N_TELLING] += 1
        if s[S_HAZARDS] >> W_SHIFTED & 1:
            lo, hi = s[S_APPLIED] // PAGE, (s[S_APPLIED] + size) // PAGE
        if s[S_APPLIED] or not s[S_HAZARDS] >> W_SHIFTED & 1:
            _settle(s, table, data, counts, proc, gen, private, lo, hi)
        for what in range(W_RETRY, W_ABSENT_UNMAP + 1):
            if s[S_HAZARDS] >> what & 1:
                _report(
                    out, n_out, what, gen, proc, th, s, start, size, private, group, rows
                )  # fmt: skip
        for i in range(s[S_AT]):
            used[group[i]] = 1
        return
    if s[S_STATUS] == DIVERGED:
        totals[N_DIVERGE] += 1
        _report(out, n_out, W_DIVERGES, gen, proc, th, s, start, size, private, group, rows)
        _remember(table, data, n_out, snap, proc, start, size)
        owed = P_OWED + 2 * (p[proc, P_OWED_AT] % MOST_OWED)
        p[proc, owed], p[proc, owed + 1] = start, start + size
        p[proc, P_OWED_AT] += 1
    else:
        totals[N_REASON + s[S_REASON]] += 1
    done = False
    for i in range(s[S_N]):
        row = group[i]
        used[row] = 1
        if calls[row, C_KIND] == K_ATTR and calls[row, C_RET] >= 0 and calls[row, C_KNOWN]:
            now = PRIVATE if calls[row, C_FLAG] else SHARED
            first = calls[row, C_ADDR] // PAGE
            if calls[row, C_SIZE] > 0 and first >= 0:
                assign(
                    table, data, counts, proc, first, first + calls[row, C_SIZE] // PAGE, now, 0
                )  # fmt: skip
            done = True
    if not done and size > 0 and start >= 0 and s[S_STATUS] == UNDECIDED:
        assign(table, data, counts, proc, lo, hi, value, 0)


@jit
def _reset(s: Any, n: int, opened: int, request: int) -> None:
    for i in range(S_SIZE):
        s[i] = 0
    s[S_N], s[S_OPEN], s[S_REQUEST] = n, opened, request


@jit
def _load(t: Any, th: int, follower: Any, group: Any) -> int:
    n = 0
    row = t[th, T_HEAD]
    while row >= 0:
        group[n] = row
        n += 1
        row = follower[row]
    return n


@jit
def _keep(t: Any, th: int, follower: Any, group: Any, first: int, n: int) -> None:
    """The thread's pending rows are group[first:n] from now on."""
    t[th, T_HEAD] = t[th, T_TAIL] = -1
    t[th, T_COUNT] = 0
    t[th, T_ATTR] = -1
    for i in range(first, n):
        _append(t, th, follower, group[i])


@jit
def _append(t: Any, th: int, follower: Any, row: int) -> None:
    follower[row] = -1
    if t[th, T_HEAD] < 0:
        t[th, T_HEAD] = row
    else:
        follower[t[th, T_TAIL]] = row
    t[th, T_TAIL] = row
    t[th, T_COUNT] += 1


@jit
def _finish_merged(
    s: Any, group: Any, calls: Any, p: Any, t: Any, follower: Any, table: Any, data: Any,
    counts: Any, totals: Any, out: Any, n_out: Any, rows: Any, snap: Any, used: Any,
    gen: int, th: int,
    discards: Any, opened: int, reason: int,
) -> None:  # fmt: skip
    """From G2 on: the thread's pending calls, of which the attribute change tells the request.

    ``opened``: judge only what is complete.  ``reason``: why what is not complete was cut
    off; -1: it was not.
    """
    n = _own_calls(calls, group, _load(t, th, follower, group))
    attr = -1
    for i in range(n):
        if calls[group[i], C_KIND] == K_ATTR:
            attr = i
            break
    if attr < 0:
        return
    row = group[attr]
    proc, start, size = calls[row, C_PROC], calls[row, C_ADDR], calls[row, C_SIZE]
    private = calls[row, C_FLAG]
    if calls[row, C_KNOWN] == 0:
        if opened:
            return
        _reset(s, n, 0, 0)
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_ARGUMENTS
        totals[N_REASON + Y_ARGUMENTS] += 1
        _forget(table, data, counts, proc)
        for i in range(n):
            used[group[i]] = 1
        _keep(t, th, follower, group, n, n)
        return
    early = -1
    for i in range(attr):
        wanted = K_UNMAP if private else K_MAP
        at, end = calls[group[i], C_ADDR], calls[group[i], C_ADDR] + calls[group[i], C_SIZE]
        if calls[group[i], C_KIND] == wanted and at >= start and end <= start + size:
            early = i
            break
    _reset(s, n, opened, size)
    if early >= 0:
        s[S_AT] = early
        _differs(s, K_ATTR, start, size, -1)
        if opened:
            return
    elif t[th, T_NEW_CONTAINER]:
        if opened:
            return
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_CONTAINERS
    else:
        s[S_AT] = attr
        _walk(
            s, group, calls, p, table, data, proc, gen, private, start, size, discards
        )  # fmt: skip
    if opened and s[S_STATUS] != GOING:
        return
    if s[S_STATUS] == DIVERGED and s[S_AT] >= n and reason >= 0:
        s[S_STATUS], s[S_REASON] = UNDECIDED, reason
    t[th, T_NEW_CONTAINER] = 0
    if s[S_USED] and (s[S_STATUS] == GOING or s[S_STATUS] == FAILED):
        _differs(s, K_NONE, start, size, -1)  # a run of maps that goes on past the range
    _conclude(
        s, group, calls, p, table, data, counts, totals, out, n_out, rows, snap, used, gen, proc,
        th, private, start, size,
    )  # fmt: skip
    rest = s[S_AT] if s[S_STATUS] == GOING or s[S_STATUS] == FAILED else n
    while rest < n and calls[group[rest], C_KIND] == K_DISCARD:
        used[group[rest]] = 1  # a file's hole, then madvise()
        rest += 1
    _keep(t, th, follower, group, rest, n)


@jit
def _forget(table: Any, data: Any, counts: Any, proc: int) -> None:
    """Nothing is known of the process's pages; of all processes' with -1."""
    for i in range(table.shape[0]):
        if table[i, 0] != -1 and (proc < 0 or table[i, 0] >> 40 == proc):
            if table[i, 2] >= 0:
                data[table[i, 2], :] = 0
            else:
                table[i, 1] = 0


@jit
def _own_calls(calls: Any, group: Any, n: int) -> int:
    """Leave out what came before the conversion and is none of it; returns how many are left."""
    attr = 0
    while attr < n and calls[group[attr], C_KIND] != K_ATTR:
        attr += 1
    if attr == n:
        return n
    row = group[attr]
    wanted = K_UNMAP if calls[row, C_FLAG] else K_MAP
    begin = 0
    while begin < attr:
        early = group[begin]
        inside = calls[early, C_ADDR] >= calls[row, C_ADDR]
        end = calls[early, C_ADDR] + calls[early, C_SIZE]
        inside = inside and end <= calls[row, C_ADDR] + calls[row, C_SIZE]
        if calls[early, C_KIND] == wanted and inside:
            break
        begin += 1
    for i in range(begin, n):
        group[i - begin] = group[i]
    return n - begin


@jit
def _request_start(p: Any, proc: int, calls: Any, row: int, lo: int, hi: int) -> int:
    """Where the request begins whose discard this is, and that holds [lo, hi); -1: not known."""
    size = calls[row, C_SIZE]
    private = calls[row, C_KIND] == K_DISCARD
    learned = P_DELTA if private and calls[row, C_FLAG] == 2 else P_FILE_DELTA
    learned = P_PUNCH_DELTA if not private else learned
    at = calls[row, C_VADDR] if learned == P_DELTA else calls[row, C_ADDR]
    if size == hi - lo:
        if learned != P_DELTA:
            p[proc, learned], p[proc, learned + 1] = at - lo, 1
        return lo
    start = at - p[proc, learned]
    if p[proc, learned + 1] and start <= lo and start + size >= hi:
        return start
    for i in range(p[proc, P_NSLOTS]):
        slot = P_SLOTS + 5 * i
        start = p[proc, slot + 1] + at
        if learned == P_DELTA:
            start -= p[proc, slot + 3]
        if start <= lo and start + size >= hi:
            return start
    if learned != P_DELTA and at <= lo and at + size >= hi:
        return at
    return -1


@jit
def _finish_v4(
    s: Any, group: Any, calls: Any, p: Any, t: Any, follower: Any, table: Any, data: Any,
    counts: Any, totals: Any, out: Any, n_out: Any, rows: Any, snap: Any, used: Any, th: int,
    discards: Any, opened: int, reason: int,
) -> None:  # fmt: skip
    """v4: pending calls up to the discard that ends a conversion, which tells the request."""
    n = _own_calls(calls, group, _load(t, th, follower, group))
    attr, failed, last = -1, False, -1
    lo, hi = 0, 0
    proc = -1
    for i in range(n):
        row = group[i]
        kind = calls[row, C_KIND]
        proc = calls[row, C_PROC]
        if kind == K_ATTR or kind == K_MAP or kind == K_UNMAP:
            if calls[row, C_KNOWN] == 0 or calls[row, C_SIZE] < 0:
                if opened:
                    return
                totals[N_REASON + Y_ARGUMENTS] += 1
                _forget(table, data, counts, proc)
                _keep(t, th, follower, group, n, n)
                return
            at, end = calls[row, C_ADDR], calls[row, C_ADDR] + calls[row, C_SIZE]
            if hi == lo:
                lo, hi = at, end
            lo, hi = min(lo, at), max(hi, end)
            failed = failed or calls[row, C_RET] < 0
        if kind == K_ATTR and attr < 0:
            attr = i
        if kind == K_PUNCH or kind == K_DISCARD:
            last = i
    if opened and last < 0:
        return
    if attr < 0:
        if not opened:
            row = group[n - 1]
            if calls[row, C_KIND] == K_UNMAP and calls[row, C_RET] < 0 and reason == Y_END:
                _reset(s, n, 0, 0)  # a conversion to private that QEMU did not survive
                _report(
                    out, n_out, W_ENDS_QEMU, V4, proc, th, s, calls[row, C_ADDR],
                    calls[row, C_SIZE], 1, group, rows,
                )  # fmt: skip
            _keep(t, th, follower, group, n, n)
        return
    private = calls[group[attr], C_FLAG]
    if last >= 0:
        row = group[last]
        start = _request_start(p, proc, calls, row, lo, hi)
        if start >= 0:
            lo, hi = start, start + calls[row, C_SIZE]
        elif calls[row, C_KIND] == K_DISCARD and calls[row, C_FLAG] == 2:
            if opened:
                return  # the C library gives memory back
            last = -1
    _reset(s, n, 0, hi - lo)
    if last >= 0 and calls[group[last], C_SIZE] != hi - lo:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_REQUEST
    elif t[th, T_NEW_CONTAINER]:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_CONTAINERS
    else:
        states = classify(table, data, proc, lo // PAGE, hi // PAGE)
        if states & 1:
            s[S_STATUS], s[S_REASON] = UNDECIDED, Y_LATE
        else:
            _walk(
                s, group, calls, p, table, data, proc, V4, private, lo, hi - lo, discards
            )  # fmt: skip
    if s[S_STATUS] == DIVERGED and s[S_AT] >= n and reason >= 0:
        s[S_STATUS], s[S_REASON] = UNDECIDED, reason
    if s[S_STATUS] == GOING and s[S_AT] < n:
        row = group[s[S_AT]]
        if calls[row, C_KIND] != K_DISCARD:
            _differs(s, K_NONE, lo, hi - lo, -1)
    if s[S_STATUS] == DIVERGED and last < 0 and failed:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_REQUEST  # no discard says how large it was
    t[th, T_NEW_CONTAINER] = 0
    _conclude(
        s, group, calls, p, table, data, counts, totals, out, n_out, rows, snap, used, V4, proc, th,
        private, lo, hi - lo,
    )  # fmt: skip
    _keep(t, th, follower, group, n, n)


@jit
def _remove_container(p: Any, proc: int, fd: int) -> None:
    kept = 0
    for i in range(p[proc, P_NC]):
        space = p[proc, P_CONTAINERS + i]
        if space & 0xFFFFF != fd:
            p[proc, P_CONTAINERS + kept] = space
            kept += 1
    p[proc, P_NC] = kept


@jit
def _add_container(p: Any, proc: int, space: int) -> bool:
    """Whether it is new."""
    for i in range(p[proc, P_NC]):
        if p[proc, P_CONTAINERS + i] == space:
            return False
    if p[proc, P_NC] < MOST_CONTAINERS:
        p[proc, P_CONTAINERS + p[proc, P_NC]] = space
        p[proc, P_NC] += 1
    return True


@jit
def _hear_of_section(p: Any, proc: int, calls: Any, row: int) -> None:
    """An unmap of a whole slot's range unregisters its listener; a map there registers it again."""
    space, lo = calls[row, C_SPACE], calls[row, C_ADDR]
    hi = lo + calls[row, C_SIZE]
    doubt = _in_doubt(p, proc, space, lo, hi)
    if calls[row, C_KIND] == K_MAP:
        if doubt >= 0:
            p[proc, doubt] = 0
        return
    if doubt >= 0 or calls[row, C_RET] < 0:
        return
    for i in range(p[proc, P_NSLOTS]):
        slot = P_SLOTS + 5 * i
        if p[proc, slot + 1] == lo and p[proc, slot + 1] + p[proc, slot + 2] == hi:
            for k in range(MOST_DOUBTS):
                at = P_DOUBT + 3 * k
                if p[proc, at] == 0:
                    p[proc, at], p[proc, at + 1], p[proc, at + 2] = space + 1, lo, hi
                    return


@jit
def _set_slot(p: Any, proc: int, calls: Any, row: int) -> None:
    if calls[row, C_KNOWN] == 0:
        p[proc, P_SLOTS_KNOWN] = 0
        return
    at = -1
    for i in range(p[proc, P_NSLOTS]):
        if p[proc, P_SLOTS + 5 * i] == calls[row, C_SPACE]:
            at = P_SLOTS + 5 * i
    if calls[row, C_SIZE] == 0:
        if at >= 0:
            last = P_SLOTS + 5 * (p[proc, P_NSLOTS] - 1)
            for c in range(5):
                p[proc, at + c] = p[proc, last + c]
            p[proc, P_NSLOTS] -= 1
        return
    if at < 0:
        if p[proc, P_NSLOTS] >= MOST_SLOTS:
            p[proc, P_SLOTS_KNOWN] = 0
            return
        at = P_SLOTS + 5 * p[proc, P_NSLOTS]
        p[proc, P_NSLOTS] += 1
    p[proc, at] = calls[row, C_SPACE]
    p[proc, at + 1], p[proc, at + 2] = calls[row, C_ADDR], calls[row, C_SIZE]
    p[proc, at + 3], p[proc, at + 4] = calls[row, C_VADDR], calls[row, C_FLAG]


@jit
def _is_owed(p: Any, proc: int, lo: int, hi: int) -> bool:
    """A call that a diverging conversion left out, made later: told already."""
    for i in range(MOST_OWED):
        at = P_OWED + 2 * i
        if p[proc, at] <= lo and hi <= p[proc, at + 1]:
            return True
    return False


@jit
def _finish(
    s: Any, group: Any, calls: Any, p: Any, t: Any, follower: Any, table: Any, data: Any,
    counts: Any, totals: Any, out: Any, n_out: Any, rows: Any, snap: Any, used: Any,
    gen: int, th: int,
    discards: Any, opened: int, reason: int,
) -> None:  # fmt: skip
    if t[th, T_HEAD] < 0:
        return
    if gen == V4:
        _finish_v4(
            s, group, calls, p, t, follower, table, data, counts, totals, out, n_out, rows, snap,
            used, th, discards, opened, reason,
        )  # fmt: skip
    else:
        _finish_merged(
            s, group, calls, p, t, follower, table, data, counts, totals, out, n_out, rows, snap,
            used, gen, th, discards, opened, reason,
        )  # fmt: skip


@entry
def match(
    calls: Any, first: int, gen: int, discards: Any, p: Any, t: Any, follower: Any, table: Any,
    data: Any, counts: Any, totals: Any, group: Any, s: Any, out: Any, n_out: Any, rows: Any,
    snap: Any, used: Any, last: int,
) -> None:  # fmt: skip
    """Take calls[first:]; those before are pending.  ``last``: the trace ends behind them.

    ``used``: 1 for calls of a conversion, 2 for those that one left out and that came later.
    """
    for i in range(first, calls.shape[0]):
        kind, th, proc = calls[i, C_KIND], calls[i, C_THREAD], calls[i, C_PROC]
        if kind == K_LOST:
            for other in range(t.shape[0]):
                _finish(
                    s, group, calls, p, t, follower, table, data, counts, totals, out, n_out,
                    rows, snap, used, gen, other, discards, 0, Y_LOSS,
                )  # fmt: skip
                t[other, T_HEAD], t[other, T_ATTR], t[other, T_SLOT] = -1, -1, 0
                t[other, T_COUNT] = 0
            _forget(table, data, counts, -1)
        elif kind == K_RUN or kind == K_EXIT:
            _finish(
                s, group, calls, p, t, follower, table, data, counts, totals, out, n_out, rows,
                snap, used, gen, th, discards, 0, -1 if kind == K_RUN else Y_END,
            )  # fmt: skip
            t[th, T_HEAD], t[th, T_SLOT], t[th, T_NEW_CONTAINER] = -1, 0, 0
            t[th, T_COUNT] = 0
            t[th, T_ATTR] = -1
        elif kind == K_SLOT:
            if calls[i, C_RET] >= 0:
                _set_slot(p, proc, calls, i)
                t[th, T_SLOT] = 1
        elif kind == K_CREATE_VM:
            p[proc, P_VM], p[proc, P_SLOTS_KNOWN] = 1, 1
        elif kind == K_CONTAINER:
            if calls[i, C_RET] >= 0:
                _add_container(p, proc, calls[i, C_SPACE])
        elif kind == K_CLOSE:
            _remove_container(p, proc, calls[i, C_SPACE])
        elif kind == K_ATTR and t[th, T_SLOT] and calls[i, C_FLAG] and calls[i, C_KNOWN]:
            t[th, T_SLOT] = 0
            totals[N_SLOTS] += 1
            used[i] = 1
            lo, hi = calls[i, C_ADDR] // PAGE, (calls[i, C_ADDR] + calls[i, C_SIZE]) // PAGE
            if calls[i, C_RET] >= 0 and lo >= 0 and hi > lo:
                states = classify(table, data, proc, lo, hi)
                if states >> SHARED:
                    _reset(s, 0, 0, 0)
                    s[S_N] = 1
                    group[0] = i
                    _report(
                        out, n_out, W_SLOT_AGAIN, gen, proc, th, s, calls[i, C_ADDR],
                        calls[i, C_SIZE], 1, group, rows,
                    )  # fmt: skip
                assign(table, data, counts, proc, lo, hi, PRIVATE, 1)
        else:
            t[th, T_SLOT] = 0
            if kind == K_ATTR:
                for other in range(t.shape[0]):
                    if other == th or t[other, T_HEAD] < 0 or t[other, T_ATTR] < 0:
                        continue
                    theirs = t[other, T_ATTR]
                    if (
                        calls[theirs, C_PROC] == proc
                        and calls[theirs, C_ADDR] < calls[i, C_ADDR] + calls[i, C_SIZE]
                        and calls[i, C_ADDR] < calls[theirs, C_ADDR] + calls[theirs, C_SIZE]
                    ):
                        _finish(
                            s, group, calls, p, t, follower, table, data, counts, totals, out,
                            n_out, rows, snap, used, gen, other, discards, 0, Y_CONCURRENT,
                        )  # fmt: skip
                if gen != V4:
                    _finish(
                        s, group, calls, p, t, follower, table, data, counts, totals, out, n_out,
                        rows, snap, used, gen, th, discards, 0, -1,
                    )  # fmt: skip
                if t[th, T_ATTR] < 0:
                    t[th, T_ATTR] = i
            if (kind == K_MAP or kind == K_UNMAP) and calls[i, C_KNOWN]:
                new = _add_container(p, proc, calls[i, C_SPACE])
                if new and t[th, T_ATTR] >= 0:
                    t[th, T_NEW_CONTAINER] = 1
                if t[th, T_ATTR] < 0:
                    _hear_of_section(p, proc, calls, i)
                if calls[i, C_VADDR] != NULL and kind == K_MAP:
                    p[proc, P_DELTA] = calls[i, C_VADDR] - calls[i, C_ADDR]
                    p[proc, P_DELTA + 1] = 1
                if t[th, T_ATTR] < 0 and gen != V4:
                    lo, hi = calls[i, C_ADDR], calls[i, C_ADDR] + calls[i, C_SIZE]
                    if _is_owed(p, proc, lo, hi) and kind == K_UNMAP:
                        used[i] = 2
                        totals[N_OWED] += 1
                        continue
            if t[th, T_ATTR] < 0:
                if kind == K_DISCARD and calls[i, C_FLAG] == 2:
                    continue
                if gen == V4 and (kind == K_PUNCH or kind == K_DISCARD):
                    t[th, T_HEAD], t[th, T_COUNT] = -1, 0  # nothing was to change
                    continue
                if t[th, T_COUNT] >= MOST_BEFORE:
                    t[th, T_HEAD] = follower[t[th, T_HEAD]]
                    t[th, T_COUNT] -= 1
            _append(t, th, follower, i)
            if t[th, T_ATTR] >= 0 and (kind == K_PUNCH or kind == K_DISCARD):
                _finish(
                    s, group, calls, p, t, follower, table, data, counts, totals, out, n_out,
                    rows, snap, used, gen, th, discards, 1, -1,
                )  # fmt: skip
    if last:
        for other in range(t.shape[0]):
            _finish(
                s, group, calls, p, t, follower, table, data, counts, totals, out, n_out, rows,
                snap, used, gen, other, discards, 0, Y_END,
            )  # fmt: skip
            t[other, T_HEAD] = -1
