"""One record of the socket engine, in words: a close, a shutdown, or a packet out of place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from replay.engine.kept import Kept
from replay.linger.kernel import layout as L

__all__ = ("Closing", "Kind", "Timing", "check_records", "closings_of", "hz_of")

Row = Sequence[int | None]
"""A record's fields; ``None`` for what nobody told."""

MS = 1_000_000
SOCK_LINGER = 1 << 4
_ENDLESS = 1 << 31
_EXITING = (True, False, None)
"""Whether the process goes on: it does, it exits, its exit may have been lost."""
_REASONS = {
    L.Y_LATE: "late_start",
    L.Y_LOSS: "loss",
    L.Y_ONE_SIDED: "one_sided",
    L.Y_CONTRADICTION: "unsure_socket",
    L.Y_SAME_ADDRESS: "same_addresses",
    L.Y_ARGUMENTS: "unknown_linger",
}


class Kind(Enum):
    """What a record is about; BARE is a release without a transport's."""

    CLOSE = L.CLOSE
    SHUTDOWN = L.SHUTDOWN
    BARE = L.BARE
    DATA_AFTER = L.DATA_AFTER
    RST_FOR_RST = L.RST_FOR_RST
    CREDIT = L.CREDIT


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How late a thing may be: the slack, and the kernel's own timers.

    ``own_slack_ns``: what the user wants instead of max(50 ms, 2 jiffies, 5 % of the timeout).
    """

    hz: int | None = None
    own_slack_ns: int | None = None

    @property
    def jiffy(self) -> int:
        """One tick, of the slowest kernel where it is not known."""
        return 1_000_000_000 // (self.hz or 100)

    def slack(self, timeout_ns: int | None) -> int:
        """How long after its time a thing may still come."""
        if self.own_slack_ns is not None:
            return self.own_slack_ns
        return max(50 * MS, 2 * self.jiffy, (timeout_ns or 0) // 20)

    def grain(self, timeout_ns: int) -> int:
        """How late the timer wheel may fire: it is coarser by 8 with each level."""
        if self.hz is None:
            return timeout_ns // 8 + self.jiffy
        ticks, grain = timeout_ns * self.hz // 1_000_000_000, 1
        while ticks >= 63 * grain and grain < 1 << 24:
            grain *= 8
        return grain * self.jiffy


@dataclass(kw_only=True, eq=False)
class Closing:
    """One close, shutdown or packet.  Times in ns; ``None``: not known, or it never came.

    ``begun`` and ``ended`` bracket the wait; ``ended`` of one that still waits is the trace's end.
    ``doubt``: why nothing of it can be judged.
    """

    kind: Kind
    local: tuple[int, int] | None
    peer: tuple[int, int] | None
    tid: int
    pid: int | None
    begun: int
    ended: int
    bracket_end: int
    is_open: bool
    doubt: str | None
    may_linger: bool | None
    why_not: str
    why_unknown: str
    timeout_ns: int | None
    endless: bool
    transport: str
    established: bool | None
    peer_full: bool | None
    local_full: bool | None
    unsent_before: int | None
    unsent_after: int | None
    unsent_why: str | None
    unsent_at_end: int | None
    sent_ns: int | None
    done_ns: int | None
    maybe_done_ns: int | None
    signal: int
    reset: bool
    packet_ns: int | None
    """When the last packet that close() sends was made."""
    shutdowns: int
    resets: int
    shutdown_flags: int
    reset_in: int | None
    reset_out: int | None
    thrown_away: int
    bytes: int
    lost_after: bool
    end_ns: int
    detail: int
    row: Row
    hz: int | None
    """Ticks a second, and the time that the trace was read to, as they were known here."""
    read_ns: int

    @cached_property
    def moments(self) -> dict[str, tuple[int, int]]:
        """What happened to it: by name, time and event number."""
        return _moments(self.row)

    @property
    def waited_ns(self) -> int:
        """Length of the bracket."""
        return self.ended - self.begun

    @property
    def died_ns(self) -> int | None:
        """When the connection was over."""
        known = [t for t in (self.done_ns, self.reset_in, self.reset_out) if t is not None]
        return min(known, default=None)

    @property
    def died_before_end(self) -> bool:
        """The connection was over, or may have been, before the wait was."""
        return self.maybe_done_ns is not None and self.maybe_done_ns <= self.ended

    def sent_soon(self, slack: int) -> bool:
        """Everything was seen sent at most ``slack`` after the wait, or the trace ended first."""
        until = self.end_ns if self.sent_ns is None else self.sent_ns
        return until - self.ended <= slack


def hz_of(records: Any, told: int | None) -> int | None:
    """Ticks a second: as the manifest says, or from a socket whose time is known both ways."""
    if told:
        return told
    both = records[
        (records[:, L.R_ON_WHY] == L.KNOWN)
        & (records[:, L.R_SECS] > 0)
        & (records[:, L.R_ON] == 1)
        & (records[:, L.R_LTIME] > 0)
        & (records[:, L.R_LOST] == 0)
    ]
    ratios = np.unique(both[:, L.R_LTIME] // np.maximum(both[:, L.R_SECS], 1))
    return next((r for r in ratios.tolist() if r in (100, 250, 300, 1000)), None)


def closings_of(records: Any, *, hz: int | None, last_ns: int) -> Iterator[Closing]:
    """The engine's records in words, in their order.  ``last_ns``: so far the trace was read."""
    for values in records.tolist():
        yield _closing([None if v == L.NULL else v for v in values], hz, last_ns)


def check_records(kept: Kept, name: str, records: Any) -> None:
    """Records of unknown origin have what the words for them are looked up by.

    :raises TraceFormatError: they have not
    """
    unset = L.NULL
    for column, least, most in (
        (L.R_KIND, L.CLOSE, L.CREDIT),
        (L.R_TRANSPORT, L.VIRTIO, L.VMCI),
        (L.R_EXITING, 0, len(_EXITING) - 1),
    ):
        values = records[:, column]
        given = values[values != unset] if column != L.R_KIND else values
        kept.indices(name, given, most + 1, first=least)
    credit = records[records[:, L.R_KIND] == L.CREDIT, L.R_DETAIL]
    kept.indices(name, credit, 5, first=1)


def _closing(row: Row, hz: int | None, last_ns: int) -> Closing:
    kind = Kind(_count(row, L.R_KIND))
    lingered = row[L.R_L0] is not None and row[L.R_L1] is not None
    is_open = row[L.R_T1] is None
    begun = _count(row, L.R_L0 if lingered or (is_open and row[L.R_L0] is not None) else L.R_T0)
    ended = _count(row, L.R_L1) if lingered else row[L.R_T1]
    bracket_end = row[L.R_T1]
    tid = _count(row, L.R_TID)
    may, why_not, why_unknown = _may_linger(row, kind)
    timeout, endless = _timeout(row, hz)
    established, peer_full = _established(row), _peer_full(row)
    doubt = (
        "loss"
        if _count(row, L.R_LOST)
        else "same_addresses"
        if _count(row, L.R_AMBIGUOUS)
        else None
    )
    why = _count(row, L.R_U_WHY)
    mask = row[L.R_SHUT] if row[L.R_SHUT] is not None else row[L.R_LSHUT]
    return Closing(
        kind=kind,
        local=_address(row, L.R_LCID, L.R_LPORT),
        peer=_address(row, L.R_RCID, L.R_RPORT),
        tid=tid,
        pid=row[L.R_PID],
        begun=begun,
        ended=last_ns if ended is None else ended,
        bracket_end=last_ns if bracket_end is None else bracket_end,
        is_open=is_open,
        doubt=doubt,
        may_linger=may,
        why_not=why_not,
        why_unknown=why_unknown,
        timeout_ns=timeout,
        endless=endless,
        transport=("virtio", "hyperv", "vmci")[_count(row, L.R_TRANSPORT)],
        established=established,
        peer_full=peer_full,
        local_full=None if mask is None else mask & 3 == 3,
        unsent_before=row[L.R_U0],
        unsent_after=row[L.R_U1],
        unsent_why=_REASONS.get(why) if why != L.KNOWN else None,
        unsent_at_end=row[L.R_UEND],
        sent_ns=row[L.R_SENT],
        done_ns=row[L.R_DONE],
        maybe_done_ns=row[L.R_MAYBE],
        signal=_count(row, L.R_SIGNAL),
        reset=bool(_count(row, L.R_RESET)),
        packet_ns=row[L.R_SHUT_TS],
        shutdowns=_count(row, L.R_NSHUT),
        resets=_count(row, L.R_NRST),
        shutdown_flags=_count(row, L.R_SHUTFLAGS),
        reset_in=row[L.R_RST_IN],
        reset_out=row[L.R_RST_OUT],
        thrown_away=_count(row, L.R_DROPPED),
        bytes=_count(row, L.R_BYTES),
        lost_after=bool(_count(row, L.R_LOST_AFTER)),
        end_ns=last_ns if row[L.R_END] is None else _count(row, L.R_END),
        detail=_count(row, L.R_DETAIL),
        row=row,
        hz=hz,
        read_ns=last_ns,
    )


def _count(row: Row, column: int) -> int:
    """A field that is 0 where nobody told it."""
    return row[column] or 0


def _address(row: Row, cid: int, port: int) -> tuple[int, int] | None:
    return None if row[port] is None else (_count(row, cid), _count(row, port))


def _timeout(row: Row, hz: int | None) -> tuple[int | None, bool]:
    """The wait's limit, and whether it has none."""
    seconds = row[L.R_SECS] if row[L.R_ON_WHY] == L.KNOWN else None
    if seconds is not None:
        return (None, True) if seconds >= _ENDLESS else (seconds * 1_000_000_000, False)
    ticks = row[L.R_LTIME]
    if ticks is not None and hz:
        return (None, True) if ticks >= _ENDLESS * hz else (ticks * 1_000_000_000 // hz, False)
    return None, False


def _established(row: Row) -> bool | None:
    if row[L.R_STATE] is not None:
        return row[L.R_STATE] in (1, 11)
    if _count(row, L.R_NSHUT):
        return True
    known = row[L.R_EST]
    return None if known is None else known == 1


def _peer_full(row: Row) -> bool | None:
    """Whether the peer had shut both directions; the probe's word before the packets'."""
    if row[L.R_PSHUT] is not None:
        return _count(row, L.R_PSHUT) & 3 == 3
    if _count(row, L.R_NSHUT):
        return False
    seen = row[L.R_PSHUT_SEEN]
    return None if seen is None else seen & 3 == 3


def _may_linger(row: Row, kind: Kind) -> tuple[bool | None, str, str]:
    """Whether it may wait; else why not; or why nobody knows."""
    if kind is Kind.SHUTDOWN:
        conditions: list[tuple[bool | None, str]] = []
    else:
        conditions = [
            (_EXITING[_count(row, L.R_EXITING)], "its process exits"),
            (_count(row, L.R_TRANSPORT) == L.VIRTIO, "its transport never lingers"),
            (kind is not Kind.BARE, "it is not connected"),
            (row[L.R_TYPE] != 12, "datagrams never linger"),
            (_established(row), "it is not connected"),
            (_not(_peer_full(row)), "its peer has shut down both directions"),
        ]
    on, time = _option(row)
    conditions += [(on, "SO_LINGER is off"), (time, "its linger time is 0")]
    for holds, why in conditions:
        if holds is False:
            return False, why, ""
    if on is None or time is None:
        return None, "", _REASONS.get(_count(row, L.R_ON_WHY), "unknown_linger")
    if any(holds is None for holds, _ in conditions):
        lost = kind is not Kind.SHUTDOWN and _count(row, L.R_EXITING) == 2
        return None, "", "loss" if lost else "late_start"
    return True, "", ""


def _option(row: Row) -> tuple[bool | None, bool | None]:
    """SO_LINGER is on, and its time is not 0: the call's value, else the kernel's own fields."""
    if row[L.R_ON_WHY] == L.KNOWN:
        return row[L.R_ON] == 1, bool(_count(row, L.R_SECS)) or row[L.R_ON] != 1
    ticks, flags = row[L.R_LTIME], row[L.R_SKFLAGS]
    on = None if flags is None else bool(flags & SOCK_LINGER)
    return on, None if ticks is None else ticks > 0


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _moments(row: Row) -> dict[str, tuple[int, int]]:
    """What is known of its life, by name."""
    found = {}
    for name, ts, seq in (
        ("begin", L.R_START, L.R_START_SEQ),
        ("option", L.R_OPT_TS, L.R_OPT_SEQ),
        ("data", L.R_RW_TS, L.R_RW_SEQ),
        ("enter", L.R_T0, L.R_SEQ0),
        ("shutdown", L.R_SHUT_TS, L.R_SHUT_SEQ),
        ("linger", L.R_L0, L.R_L0_SEQ),
        ("sent", L.R_SENT, L.R_SENT_SEQ),
        ("done", L.R_DONE, L.R_DONE_SEQ),
        ("lingered", L.R_L1, L.R_L1_SEQ),
        ("leave", L.R_T1, L.R_SEQ1),
        ("reset_in", L.R_RST_IN, L.R_RST_IN_SEQ),
        ("reset_out", L.R_RST_OUT, L.R_RST_OUT_SEQ),
    ):
        if row[ts] is not None and row[seq] is not None:
            found[name] = (_count(row, ts), _count(row, seq))
    return found
