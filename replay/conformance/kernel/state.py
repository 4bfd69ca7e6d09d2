"""What is remembered while calls are followed: the walk, the processes, the threads."""

from __future__ import annotations

from typing import Any, NamedTuple

# --- the walk along one conversion: s[...] --------------------------------------------------------
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

# --- a process, or one of its VMs: p[proc, ...] ---------------------------------------------------
# A delta: an address in another space less the guest's, and whether it is known.  P_VM: all since
# the VM was made is known.
P_VM, P_NC, P_SLOTS_KNOWN, P_NSLOTS, P_OWED_AT = range(5)
P_DELTA, P_FILE_DELTA, P_PUNCH_DELTA = 5, 7, 9
P_CONTAINERS = 11
MOST_CONTAINERS = 8
P_DOUBT = P_CONTAINERS + MOST_CONTAINERS  # (space, lo, hi): a section that may be unregistered
MOST_DOUBTS = 16
P_SLOTS = P_DOUBT + 3 * MOST_DOUBTS  # (id, gpa, size, vaddr, flags), then A_*
SLOT_COLS = 8
MOST_SLOTS = 32
P_OWED = P_SLOTS + SLOT_COLS * MOST_SLOTS  # (lo, hi)
MOST_OWED = 32
P_REPLAY = P_OWED + 2 * MOST_OWED  # of each container: R_*
R_STATE, R_NEXT, R_UNTIL, R_RUN, R_LAST = range(5)
R_COLS = 5
# R_NEXT, R_UNTIL: pages whose shared ones are still to be mapped; R_RUN: where the run begins that
# is being mapped; R_LAST: the time of the last map.
R_DONE, R_OPEN, R_UNDO, R_EXIT = range(4)
P_FOREIGN = P_REPLAY + R_COLS * MOST_CONTAINERS  # (space + 1, lo, hi): bytes that others mapped
MOST_FOREIGN = 16
P_ANYWHERE = P_FOREIGN + 3 * MOST_FOREIGN  # A_*, of memory whose slot is not known
# What a slot's memory is made of, its number, and how many of its conversions may lack a discard.
A_PAGES, A_NUMBER, A_KEPT = 5, 6, 7
P_COLS = P_ANYWHERE + SLOT_COLS

# --- a thread: t[thread, ...] ---------------------------------------------------------------------
T_HEAD, T_TAIL, T_COUNT, T_ATTR, T_SLOT, T_NEW_CONTAINER = range(6)
T_ASKED, T_ASKED_ADDR, T_ASKED_SIZE = 6, 7, 8  # what QEMU said it was asked: 1 to shared, 2 private
T_SPACE = 9  # 1 + the container that the conversion in hand told last
T_LO, T_HI, T_PRIVATE = 10, 11, 12  # its last attribute change
T_COLS = 13


class Walk(NamedTuple):
    """What the innermost functions share: few arrays, because each call hands all of them over."""

    calls: Any
    group: Any
    """The calls of one thread that are looked at."""
    s: Any


class State(NamedTuple):
    """Everything that the functions of this kernel share; arrays of int64 but for two."""

    w: Walk
    gen: int
    discards: Any
    p: Any
    t: Any
    follower: Any
    """Of each pending call, the next one of its thread."""
    table: Any
    data: Any
    counts: Any
    totals: Any
    out: Any
    n_out: Any
    rows: Any
    snap: Any
    used: Any
    """Of each call: 1 of a conversion, 2 one that a conversion left out and that came later, 3 the
    attribute of a slot that was just made."""
