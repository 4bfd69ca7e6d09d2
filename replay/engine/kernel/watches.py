"""Watches: pages that a rule waits for, and the records that come out of them.

A *candidate* row says: these pages (those of its range with its kind's bit) were live when they
became private (TK101) or when their backing was discarded (TK102), and the conversion or request
is not over. A *flagged* row is a violation whose end is not known yet.  Rows of one kind and
container never overlap.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .identity import process_of
from .layout import *
from .planes import apply_map, sane
from .searches import next_with, next_without


@jit
def bit_of(kind: int) -> int:
    """The page bit that marks the kind's members."""
    if kind == 101:
        return M_W101
    if kind == 102:
        return M_W102
    if kind == 104:
        return M_W104
    return M_W103


@jit
def live_mask(k: Any) -> int:
    """The bit that makes a page reachable: translated, or entered where the IOMMU was not
    recorded."""
    return M_I if k.g[C_HAS_MAP] else M_E


@jit
def known_mask(k: Any) -> int:
    """The bit that says that liveness is known."""
    return M_KI if k.g[C_HAS_MAP] else M_KE


@jit
def new_row(k: Any) -> int:
    """A fresh watch row, in the list of active ones."""
    if k.g[G_WFREE] < 0 and k.g[G_WTOP] >= k.W.shape[0] - 1:
        k.g[G_FULL] = 1
        row = k.W.shape[0] - 1
        k.W[row, :W_COLS] = 0
        return row
    if k.g[G_WFREE] >= 0:
        row = k.g[G_WFREE]
        k.g[G_WFREE] = k.W[row, W_P0]
    else:
        row = k.g[G_WTOP]
        k.g[G_WTOP] += 1
    k.W[row, :W_COLS] = 0
    k.W[k.g[G_ACTIVE], ACTIVE] = row
    k.g[G_ACTIVE] += 1
    return row


@jit
def rows_for(pages: int) -> int:
    """How many violations the pages of a candidate may become."""
    return min(pages, ROWS_A_CALL)


@jit
def set_remaining(k: Any, row: int, pages: int) -> None:
    """Say how many pages a candidate row still has."""
    k.g[G_REMAINING] += rows_for(pages) - rows_for(k.W[row, W_REM])
    k.W[row, W_REM] = pages


@jit
def copy_row(k: Any, to: int, row: int) -> None:
    """Copy a watch row onto another."""
    for c in range(W_COLS):
        k.W[to, c] = k.W[row, c]


@jit
def drop_row(k: Any, at: int) -> None:
    """Take the ``at``-th active row out; the last one takes its place."""
    row = k.W[at, ACTIVE]
    if k.W[row, W_STATE] == W_CANDIDATE:
        t = k.W[row, W_THREAD]
        k.T[t, T_OPEN_WATCHES] -= 1
        set_remaining(k, row, 0)
    k.g[G_ACTIVE] -= 1
    k.W[at, ACTIVE] = k.W[k.g[G_ACTIVE], ACTIVE]
    k.W[row, W_STATE] = -1
    k.W[row, W_P0] = k.g[G_WFREE]
    k.g[G_WFREE] = row


@jit
def candidate(
    k: Any, kind: int, proc: int, space: int, thread: int, p0: int, p1: int, remaining: int
) -> int:
    """Open a candidate row; the caller fills times and sequence numbers."""
    row = new_row(k)
    w = k.W[row]
    w[W_KIND] = kind
    w[W_STATE] = W_CANDIDATE
    w[W_PROC] = proc
    w[W_SPACE] = space
    w[W_THREAD] = thread
    w[W_P0] = p0
    w[W_P1] = p1
    set_remaining(k, row, remaining)
    w[W_UNTIL] = NULL
    w[W_SEQ2] = -1
    w[W_SEQ3] = -1
    k.T[thread, T_OPEN_WATCHES] += 1
    return row


@jit
def one_more(k: Any) -> None:
    """A record was written; the last row is for those that there is no room for."""
    if k.g[G_OUT] < k.W.shape[0] - 1:
        k.g[G_OUT] += 1
    else:
        k.g[G_FULL] = 1


@jit
def put_out(k: Any, row: int, p0: int, p1: int) -> None:
    """Copy a watch row into the records, for the pages [p0, p1)."""
    o = k.g[G_OUT]
    for c in range(W_COLS):
        k.W[o, OUT0 + c] = k.W[row, c]
    k.W[o, OUT0 + W_P0] = p0
    k.W[o, OUT0 + W_P1] = p1
    one_more(k)


@jit
def in_place(k: Any, row: int, p0: int, p1: int, until: int, seq: int) -> None:
    """TK111: the pages were reachable when they became private, or before they became shared."""
    w = k.W[row]
    if not k.g[C_IN_PLACE] or (w[W_KIND] != 101 and w[W_KIND] != 103):
        return
    doubtful = w[W_ERRNO] if w[W_KIND] == 101 else w[W_SEV] == WARNING
    o = k.g[G_OUT]
    put_out(k, row, p0, p1)
    k.W[o, OUT0 + W_ERRNO] = w[W_KIND]
    k.W[o, OUT0 + W_KIND] = 111
    k.W[o, OUT0 + W_SEV] = WARNING if doubtful else ERROR
    k.W[o, OUT0 + W_CONF] = POSSIBLE if doubtful else CERTAIN
    k.W[o, OUT0 + W_UNTIL] = until
    k.W[o, OUT0 + W_SEQ3] = seq


@jit
def in_place_runs(k: Any, row: int) -> None:
    """The same for all that is left of a candidate, whose end is not known."""
    w = k.W[row]
    if not k.g[C_IN_PLACE] or w[W_KIND] != 101:
        return
    p = next_with(k, w[W_SPACE], w[W_P0], w[W_P1], M_W101, M_W101)
    while p < w[W_P1]:
        q = next_without(k, w[W_SPACE], p, w[W_P1], M_W101, M_W101)
        in_place(k, row, p, q, NULL, -1)
        p = next_with(k, w[W_SPACE], q, w[W_P1], M_W101, M_W101)


@jit
def record(
    k: Any,
    kind: int,
    severity: int,
    confidence: int,
    proc: int,
    space: int,
    thread: int,
    addr: int,
    size: int,
    since: int,
    until: int,
    seq0: int,
    seq1: int,
    errno: int,
) -> None:
    """A record that needs no watching: a refused call, a double map, a leak."""
    o = k.g[G_OUT]
    out = k.W[o, OUT0 : OUT0 + W_COLS]
    out[:] = 0
    out[W_KIND] = kind
    out[W_SEV] = severity
    out[W_CONF] = confidence
    out[W_PROC] = proc
    out[W_SPACE] = space
    out[W_THREAD] = thread
    out[W_P0] = addr >> 12 if addr != NULL else NULL
    out[W_P1] = (addr + size) >> 12 if sane(addr, size) else NULL
    out[W_ADDR] = addr
    out[W_SIZE] = size
    out[W_FROM] = since
    out[W_UNTIL] = until
    out[W_SEQ0] = seq0
    out[W_SEQ1] = seq1
    out[W_SEQ2] = -1
    out[W_SEQ3] = -1
    out[W_ERRNO] = errno
    out[W_VM] = -1
    out[W_GROUP] = k.T[thread, T_RUN]
    out[W_RULE] = R_CALL
    one_more(k)


@jit
def split_candidate(k: Any, row: int, a: int, b: int) -> None:
    """Cut [a, b) out of a candidate row whose pages there have already lost their bit.

    The row keeps what lies before ``a``; what lies from ``b`` on becomes a row of its own.
    """
    w = k.W[row]
    p0, p1 = w[W_P0], w[W_P1]
    if a <= p0 and b >= p1:
        return
    if a <= p0:
        w[W_P0] = b
    elif b >= p1:
        w[W_P1] = a
    else:
        bit = bit_of(w[W_KIND])
        count = 0
        p = next_with(k, w[W_SPACE], b, p1, bit, bit)
        while p < p1:
            q = next_without(k, w[W_SPACE], p, p1, bit, bit)
            count += q - p
            p = next_with(k, w[W_SPACE], q, p1, bit, bit)
        other = new_row(k)
        copy_row(k, other, row)
        k.W[other, W_P0] = b
        k.W[other, W_REM] = 0
        set_remaining(k, other, count)
        k.T[w[W_THREAD], T_OPEN_WATCHES] += 1
        w[W_P1] = a
        set_remaining(k, row, w[W_REM] - count)


@jit
def make_way(k: Any, kind: int, space: int, a: int, b: int) -> None:
    """Before pages of [a, b) are watched: no older candidate spans any that are not its own."""
    bit = bit_of(kind)
    i = 0
    while i < k.g[G_ACTIVE]:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        lo, hi = max(a, w[W_P0]), min(b, w[W_P1])
        if (
            w[W_STATE] == W_CANDIDATE
            and w[W_KIND] == kind
            and w[W_SPACE] == space
            and lo < hi
            and not k.g[G_FULL]
        ):
            p = next_without(k, space, lo, hi, bit, bit)
            q = next_with(k, space, p, hi, bit, bit)
            if p < hi and (w[W_P0] < p or q < w[W_P1]):
                split_candidate(k, row, p, q)
                continue
        i += 1


@jit
def unwatched(k: Any, kind: int, space: int, p: int, b: int) -> tuple[int, int]:
    """The first stretch of [p, b) that no open row watches; (b, b) if there is none."""
    if not k.g[G_ACTIVE]:
        return p, b
    bit = bit_of(kind)
    p = next_without(k, space, p, b, bit, bit)
    return p, next_with(k, space, p, b, bit, bit)


@jit
def in_flight(
    k: Any, by: int, proc: int, kind: int, p: int, q: int, before: int
) -> tuple[bool, int]:
    """Is a call under way that may have put page ``p`` right by now, but for those of ``by``?

    An unmap, or for TK104 a map; entered before event ``before``.  And up to which page, at most
    ``q``, the answer is the same.
    """
    doubtful = False
    for other in range(k.g[G_THREADS]):
        t = k.T[other]
        if other == by or t[T_STATE] != STATE_FRAME or t[T_ENTER_SEQ] >= before:
            continue
        if kind == 104:
            if t[T_OP] != OP_MAP and t[T_OP] != OP_MAP_FILE:
                continue
        elif t[T_OP] != OP_UNMAP:
            continue
        if process_of(k, other) != proc:
            continue
        if t[T_RET] != NULL and t[T_RET] < 0:
            continue
        if not sane(t[T_ADDR], t[T_SIZE]):
            return True, q  # its range is not known yet: it may be this one
        lo, hi = t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE] + 4095) >> 12
        if lo <= p < hi:
            doubtful = True
            q = min(q, hi)
        elif p < lo:
            q = min(q, lo)
    return doubtful, q


@jit
def next_under_way(k: Any, by: int, proc: int, space: int, op: int, after: int) -> int:
    """The next thread but ``by`` that has an unmap (or map) of the container open; -1: none."""
    for other in range(after + 1, k.g[G_THREADS]):
        t = k.T[other]
        if other == by or t[T_STATE] != STATE_FRAME:
            continue
        if t[T_OP] != op and (op != OP_MAP or t[T_OP] != OP_MAP_FILE):
            continue
        if t[T_SPACE] != space or t[T_RET] != NULL or process_of(k, other) != proc:
            continue
        if sane(t[T_ADDR], t[T_SIZE]):
            return other
    return -1


@jit
def take_out(k: Any, row: int, a: int, b: int, flag: bool, by: int, rule: int, seq: int) -> int:
    """Take the candidate's pages in [a, b) out; with ``flag`` each run of them becomes a violation.

    Returns how many pages were taken.  Pages that are live stay marked when flagged.
    """
    w = k.W[row]
    kind, space = w[W_KIND], w[W_SPACE]
    bit = bit_of(kind)
    lo, hi = max(a, w[W_P0]), min(b, w[W_P1])
    taken = 0
    p = next_with(k, space, lo, hi, bit, bit)
    while p < hi:
        q = next_without(k, space, p, hi, bit, bit)
        if flag and k.g[G_WFREE] < 0 and k.g[G_WTOP] + 8 >= k.W.shape[0]:
            apply_map(k, space, p, hi, X_CLEAR, bit)  # more runs than one call is reported with
            if k.W.shape[0] >= MOST_WATCHES:
                k.g[G_FULL] = 1
        elif flag:
            doubtful, q = in_flight(k, by, w[W_PROC], kind, p, q, 1 << 62)
            other = new_row(k)
            copy_row(k, other, row)
            x = k.W[other]
            x[W_STATE] = W_FLAGGED
            x[W_P0] = p
            x[W_P1] = q
            x[W_LO] = p
            x[W_HI] = q
            x[W_CONF] = POSSIBLE if doubtful else CERTAIN
            x[W_SEV] = WARNING if doubtful else ERROR
            x[W_RULE] = rule
            x[W_SEQ2] = seq
        else:
            apply_map(k, space, p, q, X_CLEAR, bit)
        taken += q - p
        p = next_with(k, space, q, hi, bit, bit)
    set_remaining(k, row, w[W_REM] - taken)
    return taken


@jit
def end_candidates(
    k: Any,
    kind: int,
    proc: int,
    space: int,
    thread: int,
    vm: int,
    a: int,
    b: int,
    before: int,
    flag: bool,
    by: int,
    rule: int,
    seq: int,
) -> int:
    """End the candidate rows of ``kind`` in [a, b) whose call was entered before event ``before``;
    TK102's (kind 102): had returned by then.

    ``space`` -1: any container of the process; ``thread``, ``vm`` -1: any.  ``flag``: what is left
    of them is a violation, by thread ``by``'s doing.  How many pages.
    """
    total = 0
    i = 0
    top = k.g[G_ACTIVE]
    while i < top:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if (
            w[W_STATE] == W_CANDIDATE
            and w[W_KIND] == kind
            and w[W_PROC] == proc
            and (space < 0 or w[W_SPACE] == space)
            and (thread < 0 or w[W_THREAD] == thread)
            and (vm < 0 or w[W_VM] == vm)
            and w[W_P0] < b
            and a < w[W_P1]
            and (w[W_SEQ1] <= before if kind == 102 else w[W_SEQ0] < before)
        ):
            lo, hi = max(a, w[W_P0]), min(b, w[W_P1])
            taken = take_out(k, row, lo, hi, flag, by, rule, seq)
            total += taken
            if k.W[row, W_REM] == 0:
                # rows added meanwhile lie behind the old top: refill the gap from below it
                drop_at(k, i, top)
                top -= 1
                continue
            split_candidate(k, row, lo, hi)
        i += 1
    return total


@jit
def drop_at(k: Any, i: int, top: int) -> None:
    """Drop active row ``i`` although rows were appended behind ``top``: keeps both parts in
    place."""
    row = k.W[i, ACTIVE]
    k.W[i, ACTIVE] = k.W[top - 1, ACTIVE]
    k.W[top - 1, ACTIVE] = k.W[k.g[G_ACTIVE] - 1, ACTIVE]
    k.W[k.g[G_ACTIVE] - 1, ACTIVE] = row
    drop_row(k, k.g[G_ACTIVE] - 1)


@jit
def last_gap(k: Any, thread: int) -> int:
    """When rule 4 last held before the thread's open call was over (its callee had returned)."""
    t = k.T[thread]
    return t[T_RET_GAP] if t[T_RET] != NULL else k.T[process_of(k, thread), P_LAST_GAP]


@jit
def unmapped(k: Any, gap: int, space: int, a: int, b: int, ts: int, seq: int) -> None:
    """Pages of [a, b) may have ceased to be live at ``ts`` (an unmap's return): settle their
    watches.

    ``gap``: when rule 4 last held before.
    """
    live = live_mask(k)
    i = 0
    top = k.g[G_ACTIVE]
    while i < top:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        kind = w[W_KIND]
        if kind == 104 or w[W_SPACE] != space or w[W_P0] >= b or a >= w[W_P1]:
            i += 1
            continue
        bit = bit_of(kind)
        lo, hi = max(a, w[W_P0]), min(b, w[W_P1])
        if w[W_STATE] == W_CANDIDATE:
            over = w[W_CREATED] <= gap
            p = next_with(k, space, lo, hi, bit | live, bit)
            while p < hi:
                q = next_without(k, space, p, hi, bit | live, bit)
                apply_map(k, space, p, q, X_CLEAR, bit)
                set_remaining(k, row, w[W_REM] - (q - p))
                in_place(k, row, p, q, ts, seq)
                if over or kind == 102:
                    o = k.g[G_OUT]
                    put_out(k, row, p, q)
                    k.W[o, OUT0 + W_CONF] = LIKELY if over else CERTAIN
                    k.W[o, OUT0 + W_SEV] = WARNING if over else NOTE
                    k.W[o, OUT0 + W_RULE] = R_GRACE if over else R_NONE
                    k.W[o, OUT0 + W_UNTIL] = ts
                    k.W[o, OUT0 + W_SEQ3] = seq
                p = next_with(k, space, q, hi, bit | live, bit)
            if w[W_REM] == 0:
                drop_at(k, i, top)
                top -= 1
                continue
            i += 1
            continue
        # a violation: its live part shrinks from either end, or falls in two
        gone = False
        p = next_with(k, space, max(lo, w[W_LO]), min(hi, w[W_HI]), bit | live, bit)
        while p < min(hi, w[W_HI]):
            q = next_without(k, space, p, min(hi, w[W_HI]), bit | live, bit)
            gone = close_part(k, row, p, q, ts, seq)
            if gone:
                break
            p = next_with(k, space, q, min(hi, w[W_HI]), bit | live, bit)
        if gone:
            drop_at(k, i, top)
            top -= 1
            continue
        i += 1


@jit
def close_part(k: Any, row: int, p: int, q: int, ts: int, seq: int) -> bool:
    """The violation's pages [p, q) ended at ``ts``.  True if nothing of it is left (it was put
    out)."""
    w = k.W[row]
    apply_map(k, w[W_SPACE], p, q, X_CLEAR, bit_of(w[W_KIND]))
    ts = max(ts, w[W_FROM])
    w[W_UNTIL] = ts if w[W_UNTIL] == NULL else max(w[W_UNTIL], ts)
    w[W_SEQ3] = seq
    if p <= w[W_LO]:
        w[W_LO] = q
    elif q >= w[W_HI]:
        w[W_HI] = p
    else:
        other = new_row(k)
        copy_row(k, other, row)
        x = k.W[other]
        x[W_P0] = q
        x[W_LO] = q
        x[W_UNTIL] = NULL
        x[W_SEQ3] = -1
        w[W_P1] = q
        w[W_HI] = p
    if w[W_LO] >= w[W_HI]:
        put_out(k, row, w[W_P0], w[W_P1])
        in_place(k, row, w[W_P0], w[W_P1], w[W_UNTIL], w[W_SEQ3])
        return True
    return False


@jit
def end_premature(k: Any, proc: int, vm: int, a: int, b: int, ts: int, seq: int) -> None:
    """The pages [a, b) became shared at ``ts``: their premature maps end."""
    i = 0
    top = k.g[G_ACTIVE]
    while i < top:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if (
            w[W_KIND] == 103
            and w[W_PROC] == proc
            and (vm < 0 or w[W_VM] == vm)
            and w[W_LO] < b
            and a < w[W_HI]
        ):
            if close_part(k, row, max(a, w[W_LO]), min(b, w[W_HI]), ts, seq):
                drop_at(k, i, top)
                top -= 1
                continue
        i += 1


@jit
def give_up(k: Any, proc: int, space: int, reason: int) -> None:
    """Open conversions of the process (in a container, -1: any) can no longer be judged."""
    i = 0
    while i < k.g[G_ACTIVE]:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if (
            w[W_STATE] == W_CANDIDATE
            and w[W_PROC] == proc
            and (space < 0 or w[W_SPACE] == space)
            and (w[W_KIND] == 101 or w[W_KIND] == 104)
        ):
            apply_map(k, w[W_SPACE], w[W_P0], w[W_P1], X_CLEAR, bit_of(w[W_KIND]))
            w[W_SEV] = UNDECIDED
            w[W_RULE] = reason
            put_out(k, row, w[W_P0], w[W_P1])
            drop_row(k, i)
        else:
            i += 1


@jit
def forget_watches(k: Any, reason: int, final: bool) -> None:
    """A loss or the trace's end: open candidates cannot be judged, violations have no known end.

    At the trace's end (``final``) a candidate whose grace is over is a warning.
    """
    for i in range(k.g[G_ACTIVE]):
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if w[W_STATE] == W_FLAGGED:
            w[W_UNTIL] = NULL
            put_out(k, row, w[W_P0], w[W_P1])
            in_place(k, row, w[W_P0], w[W_P1], NULL, -1)
            continue
        in_place_runs(k, row)
        over = final and w[W_CREATED] <= k.T[w[W_PROC], P_LAST_GAP]
        if not over:
            w[W_SEV] = UNDECIDED
            w[W_RULE] = reason
            put_out(k, row, w[W_P0], w[W_P1])
            continue
        bit = bit_of(w[W_KIND])
        w[W_CONF] = LIKELY
        w[W_SEV] = WARNING
        w[W_RULE] = R_GRACE
        w[W_UNTIL] = NULL
        p = next_with(k, w[W_SPACE], w[W_P0], w[W_P1], bit, bit)
        while p < w[W_P1]:
            q = next_without(k, w[W_SPACE], p, w[W_P1], bit, bit)
            put_out(k, row, p, q)
            p = next_with(k, w[W_SPACE], q, w[W_P1], bit, bit)
    k.g[G_ACTIVE] = 0
    k.g[G_WFREE] = -1
    k.g[G_WTOP] = 0
    k.g[G_REMAINING] = 0
    for t in range(k.g[G_THREADS]):
        k.T[t, T_OPEN_WATCHES] = 0
        k.T[t, T_RUN_OP] = OP_NONE
