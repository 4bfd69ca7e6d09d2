"""The engine's arrays to a state that can be kept, and back.

What comes back may be forged, and compiled code checks no index: so every number that is one is
checked here, and so is that no row of the planes is handed out twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.engine.kept import Kept, State
from replay.engine.kernel import layout as L

__all__ = ("kept_arrays", "restored_arrays")

MOST_THREADS = 1 << 22
MOST_WATCHES = 1 << 24
MOST_TABLE = 1 << 22
MOST_PAGES = 1 << 49
_KINDS = (101, 102, 103, 104)
_COUNTS = (
    (L.G_SPACES, "spaces"), (L.G_R, "relations"), (L.G_D, "backings"), (L.G_GMEM, "guest_memfds"),
    (L.G_SLOTS, "slots"), (L.G_U, "unmaps"), (L.G_N, "meanwhile"),
)  # fmt: skip
_PLANES = (("ct", L.G_CT, L.PARTS, np.int64), ("mm", L.G_MM, L.PART, np.uint32),
           ("am", L.G_AM, L.PART, np.uint8))  # fmt: skip


def kept_arrays(k: L.State) -> State:
    """The arrays, cut to what is used; copies."""
    g = k.g
    top = int(max(g[L.G_WTOP], g[L.G_ACTIVE]))
    used = np.flatnonzero(k.ck[:-1, L.CK_KEY] != -1)
    planes = {name: getattr(k, name)[: int(g[count])].copy() for name, count, _, _ in _PLANES}
    return {
        "g": g.copy(),
        "T": k.T[: int(g[L.G_THREADS])].copy(),
        "S": k.S.copy(),
        "W": k.W[:top, : L.OUT0].copy(),
        "chunks": k.ck[used].copy(),
        "places": used.astype(np.int64),
        "room": np.array([len(a) for a in (k.ck, k.ct, k.mm, k.am)], np.int64),
        **planes,
    }


def restored_arrays(kept: Kept, *, threads: int, most_bytes: int) -> L.State:
    """The arrays again, for ``threads`` threads; the planes may take ``most_bytes``.

    :raises TraceFormatError: no state that this engine has made
    """
    g = kept.array("g", L.G_SIZE)
    check = kept.check
    check(g[L.G_THREADS] == threads <= MOST_THREADS, "g")
    check(g[L.G_OUT] == 0 and g[L.G_FULL] == 0, "g")
    for column in (L.G_WORK, L.G_GROUP, L.G_NEED, L.G_ROWS, L.G_REMAINING, L.G_CONTAINERS):
        check(0 <= g[column] <= 1 << 48, "g")
    return L.State(
        g=g,
        T=_threads(kept, g),
        S=_tables(kept, g),
        W=_watches(kept, g),
        **_planes(kept, g, most_bytes),
    )


def _threads(kept: Kept, g: Any) -> Any:
    n, spaces = int(g[L.G_THREADS]), int(g[L.G_SPACES])
    T = kept.array("T", n, L.P_END)
    for column in (L.T_PROC, L.P_PARENT, L.P_LAST_MAP_THREAD):
        kept.indices("T", T[:, column], n)
    for column in (L.T_SPACE, L.T_CV_SPACE, L.T_EV_SPACE):
        kept.indices("T", T[:, column], max(spaces, 1), first=-1)
    kept.indices("T", T[:, L.T_CV_VM], max(spaces, 1), first=-1)
    parent = over = T[:, L.P_PARENT]
    for _ in range(n.bit_length()):
        over = over[over]
    kept.check((parent[over] == over).all(), "T")  # who leads to whom ends somewhere
    return T


def _tables(kept: Kept, g: Any) -> Any:
    S = kept.array("S", None, L.TABLE_COLS)
    kept.check(0 < len(S) <= MOST_TABLE, "S")
    for column, _ in _COUNTS:
        kept.check(0 <= g[column] <= len(S), "g")
    kept.check(g[L.G_D] >= 1, "g")
    threads, spaces = int(g[L.G_THREADS]), int(g[L.G_SPACES])
    for count, columns in (
        (L.G_SPACES, (L.S_PROC,)),
        (L.G_R, (L.R_PROC,)),
        (L.G_D, (L.D_PROC,)),
        (L.G_GMEM, (L.GM_PROC,)),
        (L.G_U, (L.U_THREAD,)),
        (L.G_N, (L.N_THREAD,)),
    ):
        for column in columns:
            kept.indices("S", S[: int(g[count]), column], max(threads, 1), first=-1)
    kept.indices("S", S[: int(g[L.G_SLOTS]), L.L_VM], spaces, first=-1)
    kept.indices("S", S[: int(g[L.G_U]), L.U_SPACE], spaces, first=-1)
    kept.indices("S", S[:spaces, L.S_KIND], 2)
    kept.indices("S", S[:spaces, L.S_DEFAULT], 1 << 32)
    vms = S[:spaces, L.S_KIND] == L.SPACE_VM
    kept.indices("S", S[:spaces][vms, L.S_DEFAULT], 256)
    return S


def _watches(kept: Kept, g: Any) -> Any:
    rows = kept.array("W", None, L.OUT0)
    top, active, free = (int(g[c]) for c in (L.G_WTOP, L.G_ACTIVE, L.G_WFREE))
    threads, spaces = int(g[L.G_THREADS]), int(g[L.G_SPACES])
    kept.check(0 <= active <= top == len(rows) <= MOST_WATCHES, "W")
    live = rows[:active, L.ACTIVE]
    kept.indices("W", live, top)
    taken = np.zeros(top, bool)
    taken[live] = True
    kept.check(int(taken.sum()) == active, "W")
    for _ in range(top - active):  # those that are free make one chain
        kept.check(0 <= free < top and not taken[free], "W")
        taken[free] = True
        free = int(rows[free, L.W_P0])
    kept.check(free == -1, "W")
    w = rows[live]
    for column in (L.W_PROC, L.W_THREAD):
        kept.indices("W", w[:, column], threads)
    kept.indices("W", w[:, L.W_SPACE], spaces)
    kept.indices("W", w[:, L.W_VM], max(spaces, 1), first=-1)
    kept.check(np.isin(w[:, L.W_KIND], _KINDS).all(), "W")
    for column in (L.W_P0, L.W_P1, L.W_LO, L.W_HI):
        kept.indices("W", w[:, column], MOST_PAGES)
    W = np.zeros((max(512, 2 * top), L.W_WIDTH), np.int64)
    W[:top, : L.OUT0] = rows
    return W


def _planes(kept: Kept, g: Any, most_bytes: int) -> dict[str, Any]:
    """Chunks, parts and pages: each row is of one owner, or free."""
    room = kept.array("room", 4).tolist()
    widths = (8 * L.CK_COLS, 8 * L.PARTS, 4 * L.PART, L.PART)
    kept.check(min(room) >= 2 and sum(map(_times, room, widths)) <= 2 * most_bytes, "room")
    chunks, places = kept.array("chunks", None, L.CK_COLS), kept.array("places", None)
    size, spaces = room[0] - 1, int(g[L.G_SPACES])
    kept.check(size & (size - 1) == 0 and len(chunks) == len(places) == g[L.G_CHUNKS], "chunks")
    kept.check(len(chunks) * 8 <= size * 7, "chunks")
    kept.indices("places", places, size)
    kept.check((np.diff(places) > 0).all(), "places")
    kept.indices("chunks", chunks[:, L.CK_KEY], spaces << 36)
    made = {"ck": np.zeros((room[0], L.CK_COLS), np.int64)}
    made["ck"][:, L.CK_KEY] = -1
    made["ck"][places] = chunks
    for (name, count, width, dtype), rows in zip(_PLANES, room[1:], strict=True):
        used = kept.array(name, int(g[count]), width, dtype=dtype)
        kept.check(len(used) < rows, name)
        made[name] = np.zeros((rows, width), dtype)
        made[name][: len(used)] = used
    kind = kept.array("S", None, L.TABLE_COLS)[chunks[:, L.CK_KEY] >> 36, L.S_KIND]
    parted = chunks[:, L.CK_PARTS] >= 0
    owned = chunks[parted, L.CK_PARTS]
    ct = made["ct"]
    _once(kept, "ct", owned, _chain(kept, g, L.G_CT_FREE, lambda d: int(ct[d, 0])), g[L.G_CT])
    for name, count, free, of in (
        ("mm", L.G_MM, L.G_MM_FREE, kind[parted] != L.SPACE_VM),
        ("am", L.G_AM, L.G_AM_FREE, kind[parted] == L.SPACE_VM),
    ):
        values = ct[owned[of]]
        single = ~values[values < 0]
        pages = made[name]
        _once(kept, name, single, _chain(kept, g, free, _linked(pages)), g[count])
    return made


def _times(rows: int, width: int) -> int:
    return rows * width


def _linked(pages: Any) -> Any:
    """How a free row of pages names the next one: in its first four bytes."""
    return lambda d: int.from_bytes(pages[d, : 4 // pages.itemsize].tobytes(), "little")


def _chain(kept: Kept, g: Any, first: int, after: Any) -> list[int]:
    """The free rows of a plane, first to last."""
    count = {L.G_CT_FREE: L.G_CT, L.G_MM_FREE: L.G_MM, L.G_AM_FREE: L.G_AM}[first]
    found: list[int] = []
    end, at = int(g[count]), int(g[first])
    while at:
        kept.check(0 < at <= end and len(found) < end, "free")
        found.append(at - 1)
        at = after(at - 1)
    return found


def _once(kept: Kept, name: str, owned: Any, free: list[int], end: int) -> None:
    """Every row has one owner or is free."""
    every = np.concatenate([owned, np.array(free, np.int64)])
    kept.indices(name, every, int(end))
    kept.check(len(np.unique(every)) == len(every), name)
