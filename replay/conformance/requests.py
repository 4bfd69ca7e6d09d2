"""What QEMU's own trace says it was asked, against what was done.

QEMU's log has a clock and a thread of its own, or none: its lines are some hundred microseconds off
(up to 24 ms: the thread was not running).  So requests and calls are matched by their ranges and
not by their order; only what is inside the log's time is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from replay.conformance.kernel import layout as K
from replay.conformance.tallies import Departure, ListenerTally, Pair

__all__ = ("Requests",)

Rows = dict[Pair, list[list[int]]]

PLUG, UNPLUG, UNPLUG_ALL, RESPONSE, ALL_UNPLUGGED = 0, 1, 2, 16, 18
ACK = 0
ADDED, REMOVED = 1, 0
MOST = 1 << 20
"""Requests that are remembered; from there on nothing is compared."""
LATE_NS = 100_000_000
"""How far QEMU's line and the call may be apart."""
_WORDS = {PLUG: "plug", UNPLUG: "unplug"}


class Requests:
    """Feed it what QEMU says, and what was seen done; ``finish`` compares.

    ``events``: how many of each type were recorded.  What a trace never says is not asked for.
    """

    def __init__(self, events: Mapping[str, int]) -> None:
        self._conversions = bool(events.get("qemu.convert_memory"))
        self._plugs = bool(events.get("qemu.virtio_mem"))
        self._regions = bool(events.get("qemu.region"))
        self._asked: Rows = {}
        self._done: Rows = {}
        self._may: Rows = {}
        """Asked for while no container was seen to hear of it."""
        self._open: tuple[Pair, list[int], bool] | None = None
        self._span: dict[str, tuple[int, int]] = {}
        self._count = 0
        self._void = False

    @staticmethod
    def are_in(events: Mapping[str, int]) -> bool:
        """Whether a trace has any."""
        names = ("qemu.convert_memory", "qemu.virtio_mem", "qemu.region")
        return any(events.get(name) for name in names)

    def says(self, row: list[int], *, listening: bool) -> None:
        """A row of QEMU's own trace; ``listening``: a container hears of the device there."""
        kind, lo, size = row[K.C_KIND], row[K.C_ADDR], row[K.C_SIZE]
        word, flag = "region", row[K.C_FLAG]
        if kind == K.K_REQUEST:
            word = "convert"
            if size > 0 and not (lo | size) & (K.PAGE - 1):
                self._add(self._asked, ("private" if flag else "shared", lo, size), row)
        elif kind == K.K_VIRTIO_MEM:
            word = "plug"
            if flag in _WORDS:
                self._open = (_WORDS[flag], lo, size), row, listening
            elif flag == RESPONSE and self._open is not None:
                pair, asking, must = self._open
                if row[K.C_RET] == ACK:
                    self._add(self._asked if must else self._may, pair, asking)
                self._open = None
        elif kind == K.K_REGION and flag == ADDED and row[K.C_VADDR] != K.NULL:
            self._add(self._asked, ("region", lo, size), row)
        elif kind == K.K_REGION and flag == REMOVED:
            self._add(self._asked, ("region_del", lo, size), row)
        first, _ = self._span.get(word, (row[K.C_TS0], 0))
        self._span[word] = (first, row[K.C_TS0])

    def did(self, word: str, lo: int, size: int, row: list[int]) -> None:
        """Something was done: shared, private, plug, unplug, region, region_del; bytes."""
        wanted = {"shared": self._conversions, "private": self._conversions}
        if wanted.get(word, self._plugs if word in ("plug", "unplug") else self._regions):
            self._add(self._done, (word, lo, size), row)

    def lost(self) -> None:
        """Events were lost: nothing is compared."""
        self._void = True

    def _add(self, to: Rows, pair: Pair, row: list[int]) -> None:
        self._count += 1
        if self._count > MOST:
            self._void = True
            self._asked.clear()
            self._done.clear()
        if not self._void:
            to.setdefault(pair, []).append(row)

    def finish(self, tally: ListenerTally, block: int | None, *, conversions: bool) -> None:
        """Compare; ``block``: bytes of virtio-mem's blocks.

        ``conversions``: whether an attribute change is a request, as it is from 10.1 on.
        """
        if self._void:
            if self._count:
                tally.say("loss", 1)
            return
        must, may = _in_blocks(self._asked, block), _in_blocks(self._may, block)
        self._compare(tally, must, may, {"plug", "unplug"}, "plug")
        if conversions:
            self._compare(tally, self._asked, {}, {"shared", "private"}, "convert")
        self._answered(tally, "region")
        self._answered(tally, "region_del")

    def _compare(
        self,
        tally: ListenerTally,
        asked: Rows,
        may: Rows,
        words: set[str],
        of: str,
    ) -> None:
        """Each request was answered by calls, and nothing was done that nobody asked for."""
        if of not in self._span:
            return
        first, last = self._span[of]
        asking = Counter({p: len(rows) for p, rows in asked.items() if p[0] in words})
        doing = Counter({p: len(rows) for p, rows in self._done.items() if p[0] in words})
        could = asking + Counter({p: len(rows) for p, rows in may.items() if p[0] in words})
        tally.requests += sum(min(n, doing[p]) for p, n in could.items())
        for pair in asking - doing:
            row = asked[pair][-1]
            tally.depart(Departure.at("unanswered", row, pair, ("nothing", pair[1], pair[2])))
        for pair in doing - could:
            row = self._done[pair][-1]
            if first + LATE_NS <= row[K.C_TS0] <= last - LATE_NS:
                tally.depart(Departure.at("unrequested", row, None, pair))

    def _answered(self, tally: ListenerTally, word: str) -> None:
        """Each region that VFIO's listener maps was mapped, each that goes unmapped.

        Not all that is mapped is told: a region with a manager is not.
        """
        for pair, rows in self._asked.items():
            if pair[0] != word:
                continue
            done = len(self._done.get(pair, ()))
            tally.requests += min(done, len(rows))
            if done < len(rows):
                row = rows[-1]
                tally.depart(Departure.at("unanswered", row, pair, ("nothing", pair[1], pair[2])))


def _in_blocks(asked: Rows, block: int | None) -> Rows:
    """virtio-mem's requests, block by block."""
    out: Rows = {}
    for (word, lo, count), rows in asked.items():
        if word in ("plug", "unplug") and block and 0 < count <= 1 << 16 and len(out) < MOST:
            for i in range(count):
                out.setdefault((word, lo + i * block, block), []).extend(rows)
    return out
