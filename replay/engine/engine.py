"""Drives the kernel over a trace and keeps its state; grows what the kernel says is full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.keeping import kept_arrays, restored_arrays
from replay.engine.kept import Kept, State, told_apart
from replay.engine.kernel import layout as L
from replay.engine.runs import SETTLED, runs
from replay.engine.settling import MORE, MORE_OPEN, MORE_PAGES, settle
from replay.engine.stream import EventStream, load_kernel
from tracekit.compiled.kernels import compiled_before

__all__ = (
    "JUDGED",
    "LOAD_FROM",
    "PLAIN_BELOW",
    "Engine",
    "Judgement",
    "judge",
    "worth_compiling",
)

PLAIN_BELOW = 20_000
"""Events below which the kernel runs as plain Python rather than be compiled first."""
LOAD_FROM = 2_500
"""Events from which a kernel that an earlier run compiled is loaded."""
PLAIN_WORK = 1 << 20
"""Pages from which the plain kernel's walks over all pages have the kernel compiled after all."""
MOST_STATE = 256 << 20
"""Bytes that the planes may take; a trace that asks for more has them forgotten."""
MOST_WAITING = 1 << 13
"""Records from which those of adjacent pages are joined, and those that are over settled, before
there are more."""
FEW = 1 << 12
"""Records of which all are kept when the trace ends."""
MOST_MORE = 1 << 56
"""Occurrences, or pages of them, that a trace cannot have."""

JUDGED = {
    101: L.J_101,
    102: L.J_102,
    103: L.J_103,
    104: L.J_104,
    105: L.J_105,
    106: L.J_106,
    107: L.J_107,
    108: L.J_108,
    109: L.J_109,
    110: L.J_110,
    111: L.J_111,
    202: L.J_202,
}
"""The kinds of records, and the row of ``Judgement.judged`` that counts each."""
_TOLD = (
    (L.C_HAS_MAP, "iommu.map"),
    (L.C_HAS_UNMAP, "iommu.unmap"),
    (L.C_HAS_POST, "kvm.attributes_post"),
    (L.C_HAS_IOCTL, "ioctl.entered"),
    (L.C_HAS_DISCARD, "fallocate.entered or madvise.entered"),
    (L.C_VIOMMU, "qemu.iommu_notify"),
)
"""What the engine concludes from that nothing was said of it."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the kernel found.

    ``records``: int64 array (n, W_COLS), columns as in kernel/layout.py, those that are settled
    (settling.py) with the counts of others; ``judged``: (codes, reasons); ``spaces``: (n, S_COLS);
    ``leader``: process number -> thread id.
    """

    records: Any
    judged: Any
    disagreements: Any
    spaces: Any
    stream: EventStream
    leader: dict[int, int]


class Engine:
    """The machine's state at one moment of a trace.  Feed batches in order, then :meth:`finish`."""

    def __init__(
        self,
        *,
        events: Mapping[str, int],
        grace_ns: int = 1_000_000,
        in_place: bool = False,
        compiled: bool | None = None,
        rows: int | None = None,
    ) -> None:
        """``rows``: how many will be fed, if these are not all of ``events``."""
        switches = compiled is None
        if compiled is None:
            compiled = worth_compiling(sum(events.values()) if rows is None else rows)
        self._frames = load_kernel(compiled=compiled)
        self.stream = EventStream(compiled=compiled)
        self._records: list[Any] = []
        self._waiting, self._most_waiting = 0, MOST_WAITING
        g = np.zeros(L.G_SIZE, np.int64)
        g[L.G_WFREE] = -1
        g[L.G_D] = 1
        g[L.G_LOSS_UNTIL] = L.NULL
        g[L.C_GRACE] = grace_ns
        g[L.C_HAS_MAP] = events.get("iommu.map", 0) > 0
        g[L.C_HAS_UNMAP] = events.get("iommu.unmap", 0) > 0
        g[L.C_HAS_POST] = events.get("kvm.attributes_post", 0) > 0
        g[L.C_HAS_IOCTL] = events.get("ioctl.entered", 0) > 0
        g[L.C_HAS_DISCARD] = bool(events.get("fallocate.entered") or events.get("madvise.entered"))
        g[L.C_VIOMMU] = events.get("qemu.iommu_notify", 0) > 0
        g[L.C_IN_PLACE] = in_place
        g[L.C_SWITCH] = PLAIN_WORK if switches and not compiled else 1 << 62
        self._k = L.State(
            g=g,
            T=_threads(64),
            S=np.zeros((64, L.TABLE_COLS), np.int64),
            W=np.zeros((512, L.W_WIDTH), np.int64),
            **_planes(),
        )

    def feed(self, record_batch: pa.RecordBatch) -> None:
        """Take the next events (columns: ``replay.engine.stream.COLUMNS``)."""
        batch = self.stream.batch(record_batch)
        self._know_threads()
        at, end = 0, record_batch.num_rows
        while at < end:
            at, grow = self._frames.run(self._k, batch, at, end)
            if self._k.g[L.G_OUT]:
                self._drain()
            if grow:
                self._grow(grow)

    def finish(self) -> Judgement:
        """The trace ends."""
        self._grow(L.GROW_WATCHES)
        self._frames.finish(self._k, self.stream.last_ts)
        self._drain(ends=True)
        if self._waiting > FEW:
            self._settle(None)
        k = self._k
        records = self._all_records()
        leader = {p: int(tid) for p, tid in enumerate(self.stream.tids)}
        return Judgement(
            records=records,
            judged=k.g[L.J0 :].reshape(L.J_ROWS, L.Y_COLS).copy(),
            disagreements=k.g[L.N_EPROBE_OVERRULED : L.N_END].copy(),
            spaces=k.S[: int(k.g[L.G_SPACES]), : L.S_COLS].copy(),
            stream=self.stream,
            leader=leader,
        )

    def kept_state(self) -> State:
        """All that the engine knows so far, as copies; before :meth:`finish`."""
        if self._waiting > FEW:
            self._settle(self._live_groups())
        return {
            **kept_arrays(self._k),
            "records": runs(self._all_records()),
            "stream": self.stream.kept_state(),
        }

    def restore(self, kept: Kept) -> None:
        """Go on from a state that another engine was in, before the first batch.

        :raises TraceFormatError: no state of an engine
        :raises UsageError: of one that was told of other event types, or other options
        """
        self.stream.restore(kept.part("stream"))
        threads = len(self.stream.tids)
        made = restored_arrays(kept, threads=threads, most_bytes=MOST_STATE)
        g, own = made.g, self._k.g
        records = kept.array("records", None, L.W_COLS)
        apart = [name for column, name in _TOLD if bool(g[column]) != bool(own[column])]
        if apart and (len(records) or not _has_concluded_nothing(made)):
            raise told_apart(apart)
        g[L.C_GRACE : L.C_END] = own[L.C_GRACE : L.C_END]
        g[L.C_SWITCH] = min(1 << 62, int(own[L.C_SWITCH]) + int(g[L.G_WORK]))
        for column in (L.W_PROC, L.W_THREAD):
            kept.indices("records", records[:, column], max(threads, 1), first=-1)
        kept.check(np.isin(records[:, L.W_SEV], range(L.UNDECIDED + 1)).all(), "records")
        kept.check(np.isin(records[:, L.W_KIND], list(JUDGED)).all(), "records")
        settled = records[records[:, L.W_STATE] == SETTLED]
        more = settled[:, (MORE, MORE_PAGES, MORE_OPEN)]
        kept.check(more.size == 0 or (more.min() >= 0 and more.max() < MOST_MORE), "records")
        kept.check((settled[:, L.W_SEV] != L.UNDECIDED).all(), "records")
        unsure = records[:, L.W_SEV] == L.UNDECIDED
        kept.indices("records", records[unsure, L.W_RULE], L.Y_COLS, first=1)
        kept.indices("records", records[~unsure, L.W_CONF], L.POSSIBLE + 1)
        self._records = [records] if len(records) else []
        self._waiting = len(records)
        more = _threads(max(64, _power(max(threads, 1))))
        more[:threads] = made.T
        self._k = made._replace(T=more)

    def _know_threads(self) -> None:
        """Make room for the threads that the stream has met."""
        known = len(self.stream.tids)
        while known > self._k.T.shape[0]:
            have = self._k.T.shape[0]
            self._k = self._k._replace(T=np.concatenate([self._k.T, _threads(have, have)]))
        before = int(self._k.g[L.G_THREADS])
        self._k.T[before:known, L.T_TID] = self.stream.tids[before:]
        if self._k.g[L.G_LOST]:  # what they were doing may have been lost
            self._k.T[before:known, L.T_STATE] = L.STATE_UNKNOWN
        self._k.g[L.G_THREADS] = known

    def _drain(self, *, ends: bool = False) -> None:
        """Take the records that the kernel has made; ``ends``: at the end of the trace."""
        n = int(self._k.g[L.G_OUT])
        for first in range(0, n, MOST_WAITING):
            rows = self._k.W[first : min(n, first + MOST_WAITING), L.OUT0 : L.OUT0 + L.W_COLS]
            self._records.append(rows.copy())
            self._waiting += len(rows)
            if self._waiting > self._most_waiting:
                later = self._k.W[first + len(rows) : n, L.OUT0 + L.W_GROUP]
                live = later if ends else np.concatenate([later, self._live_groups()])
                self._settle(np.unique(live))
                self._most_waiting = max(MOST_WAITING, 2 * self._waiting)
        self._k.g[L.G_OUT] = 0

    def _live_groups(self) -> Any:
        """The groups to which the kernel may still add records: of what it watches, of the runs of
        calls, and the last one."""
        k = self._k
        watched = k.W[k.W[: int(k.g[L.G_ACTIVE]), L.ACTIVE], L.W_GROUP]
        called = k.T[: int(k.g[L.G_THREADS]), L.T_RUN]
        return np.concatenate([watched, called, k.g[[L.G_GROUP]]])

    def _settle(self, live: Any) -> None:
        """Keep fewer records: :func:`replay.engine.settling.settle`."""
        records, undecided = settle(self._all_records(), live)
        self._records, self._waiting = [records], len(records)
        judged = self._k.g[L.J0 :].reshape(L.J_ROWS, L.Y_COLS)
        for (kind, reason), count in undecided.items():
            judged[JUDGED[kind], reason] += count
            judged[JUDGED[kind], L.Y_DECIDED] -= count

    def _all_records(self) -> Any:
        return np.concatenate([np.zeros((0, L.W_COLS), np.int64), *self._records])

    def _too_large(self, more: int) -> bool:
        """Forget the planes rather than let them grow beyond MOST_STATE; True if that was done."""
        k = self._k
        if k.ck.nbytes + k.ct.nbytes + k.mm.nbytes + k.am.nbytes + more <= MOST_STATE:
            return False
        self._frames.give_up_planes(k)
        self._k = k._replace(**_planes())
        return True

    def _grow(self, what: int) -> None:
        k = self._k
        if what == L.GROW_CHUNKS:
            size = max(k.ck.shape[0] * 2 - 2, _power(4 * int(k.g[L.G_CHUNKS] + k.g[L.G_NEED] + 8)))
            if self._too_large(size * k.ck[0].nbytes - k.ck.nbytes):
                return
            ck = _chunks(size)
            for row in k.ck[:-1][k.ck[:-1, L.CK_KEY] != -1]:
                number = int(row[L.CK_KEY]) & ((1 << 36) - 1)
                space = int(row[L.CK_KEY]) >> 36
                at = (number * 31 + space * 0x9E37) & (size - 1)
                while ck[at, L.CK_KEY] != -1:
                    at = (at + 1) & (size - 1)
                ck[at] = row
            self._k = k._replace(ck=ck)
        elif what == L.GROW_DENSE:
            need = int(k.g[L.G_DENSE])
            dense = {"ct": int(k.g[L.G_CT]), "mm": int(k.g[L.G_MM]), "am": int(k.g[L.G_AM])}
            rows = {
                name: max(2 * len(getattr(k, name)), have + 2 * need)
                for name, have in dense.items()
                if have + need >= len(getattr(k, name))
            }
            if self._too_large(sum(n * getattr(k, name)[0].nbytes for name, n in rows.items())):
                return
            grown = {name: _more(getattr(k, name), dense[name], n) for name, n in rows.items()}
            self._k = k._replace(**grown)
        elif what == L.GROW_WATCHES:
            need = 2 * int(k.g[L.G_REMAINING] + k.g[L.G_ACTIVE] + k.g[L.G_ROWS]) + 128
            used = int(max(k.g[L.G_WTOP], k.g[L.G_ACTIVE], k.g[L.G_OUT]))
            rows = min(max(k.W.shape[0] * 2, used + need), L.MOST_WATCHES)
            if rows > k.W.shape[0]:
                self._k = k._replace(W=_more(k.W, used, rows))
        elif what == L.GROW_TABLES:
            self._k = k._replace(S=_more(k.S, k.S.shape[0], k.S.shape[0] * 2))
        elif what == L.GROW_SPEED:
            self._frames = load_kernel(compiled=True)
            k.g[L.C_SWITCH] = 1 << 62


def worth_compiling(rows: int) -> bool:
    """Whether a trace of so many events is done sooner by the compiled kernel."""
    if rows >= PLAIN_BELOW:
        return True
    return rows >= LOAD_FROM and compiled_before("replay.engine.kernel", "frames.run")


def judge(
    batches: Iterable[pa.RecordBatch],
    *,
    events: Mapping[str, int],
    grace_ns: int = 1_000_000,
    in_place: bool = False,
    compiled: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> Judgement:
    """Run a whole trace through the engine.

    ``events``: how many events of each type the trace holds (its manifest's ``events``): a type
    that is absent was not recorded, and nothing is concluded from its silence.
    """
    engine = Engine(events=events, grace_ns=grace_ns, in_place=in_place, compiled=compiled)
    for record_batch in batches:
        engine.feed(record_batch)
        if progress is not None:
            progress(engine.stream.rows)
    return engine.finish()


def _has_concluded_nothing(k: L.State) -> bool:
    """Nothing was seen yet of a VM, a container or a call on one."""
    calls = (k.T[:, L.T_STATE] != L.STATE_NONE) & (k.T[:, L.T_CALL] == L.EV_IOCTL)
    return not (k.g[L.G_SPACES] or k.g[L.J0 :].any() or calls.any())


def _threads(rows: int, first: int = 0) -> Any:
    made = np.zeros((rows, L.P_END), np.int64)
    numbers = np.arange(first, first + rows)
    made[:, L.T_PROC] = numbers
    made[:, L.P_PARENT] = numbers
    made[:, L.T_TID] = L.NULL
    for column in (
        L.P_LAST_RETURN,
        L.P_LAST_GAP,
        L.P_EXIT,
        L.P_LAST_MAP_RETURN,
    ):
        made[:, column] = L.NULL
    return made


def _planes() -> dict[str, Any]:
    """No page of any space is known."""
    return {
        "ck": _chunks(1024),
        "ct": np.zeros((64, L.PARTS), np.int64),
        "mm": np.zeros((64, L.PART), np.uint32),
        "am": np.zeros((64, L.PART), np.uint8),
    }


def _chunks(size: int) -> Any:
    """``size``, a power of two, and the row that is never looked up."""
    made = np.zeros((size + 1, L.CK_COLS), np.int64)
    made[:, L.CK_KEY] = -1
    return made


def _more(array: Any, used: int, rows: int) -> Any:
    """A larger copy; rows beyond ``used`` are zero and not touched (so they cost no memory yet)."""
    made = np.zeros((max(rows, array.shape[0] + 1), *array.shape[1:]), array.dtype)
    made[:used] = array[:used]
    return made


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()
