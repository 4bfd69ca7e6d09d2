"""Which closes have nothing to them: at once, with all sent, and with the packets that are due.

Most closes are such, and judging them one by one is most of the work on a trace of short
connections.  What is said here of many at once is what :class:`replay.linger.judge.Judge` says of
each; tests/replay/linger/test_quiet.py holds one against the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.linger.closing import SOCK_LINGER, Timing
from replay.linger.judge import CLOSE_TIMEOUT, Recorded
from replay.linger.kernel import layout as L

__all__ = ("OFF_CODES", "SENT_CODES", "quiet")

OFF_CODES = ("TK303", "TK305")
"""What a quiet close that does not linger was judged for, and kept."""
DATAGRAM = 12
"""In a record; packets have other numbers of types."""
SENT_CODES = ("TK301", "TK302", "TK303", "TK304", "TK305")
"""The same of one that lingers until all is sent."""


def quiet(records: Any, timing: Timing, recorded: Recorded) -> tuple[Any, Any]:
    """For each record (n, R_COLS) whether it is a close that certainly breaks no rule.

    Two masks: those that do not linger; and those that do, for a model that waits for what is sent.
    """

    def of(column: int) -> Any:
        return records[:, column]

    def told(column: int) -> Any:
        return records[:, column] != L.NULL

    def count(column: int) -> Any:
        return of(column) * told(column)

    slack = timing.slack(None)
    lingered = told(L.R_L0) & told(L.R_L1)
    begun = np.where(lingered, of(L.R_L0), of(L.R_T0))
    ended = np.where(lingered, of(L.R_L1), of(L.R_T1))
    plain = (of(L.R_KIND) == L.CLOSE) & (of(L.R_TRANSPORT) == L.VIRTIO)
    plain &= (count(L.R_LOST) == 0) & (count(L.R_AMBIGUOUS) == 0)
    plain &= told(L.R_T0) & told(L.R_T1) & (begun >= 0) & (of(L.R_T1) < 1 << 62)
    plain &= (ended < 1 << 62) & (ended - begun <= slack)
    # the handshake: what the ends' states ask for, and nothing that overtook it
    state, sent = of(L.R_STATE), (count(L.R_NSHUT), count(L.R_NRST))
    shut = sent[0] != 0
    plain &= (told(L.R_STATE) & ((state == 1) | (state == 11))) | (
        ~told(L.R_STATE) & (shut | (of(L.R_EST) == 1))
    )
    peer_told = told(L.R_PSHUT) | shut | told(L.R_PSHUT_SEEN)
    peer_full = (told(L.R_PSHUT) & (of(L.R_PSHUT) & 3 == 3)) | (
        ~told(L.R_PSHUT) & ~shut & told(L.R_PSHUT_SEEN) & (of(L.R_PSHUT_SEEN) & 3 == 3)
    )
    own_told = told(L.R_SHUT) | told(L.R_LSHUT)
    own_full = (told(L.R_SHUT) & (of(L.R_SHUT) & 3 == 3)) | (
        ~told(L.R_SHUT) & told(L.R_LSHUT) & (of(L.R_LSHUT) & 3 == 3)
    )
    plain &= peer_told & own_told & (sent[1] == peer_full) & (sent[0] == ~(peer_full | own_full))
    plain &= ~shut | (count(L.R_SHUTFLAGS) == 3)
    # the timer: the connection was over already, or a reset came or went in time
    over = told(L.R_MAYBE) & (of(L.R_MAYBE) <= ended)
    due = of(L.R_T1) + CLOSE_TIMEOUT
    late = due + timing.slack(CLOSE_TIMEOUT) + timing.grain(CLOSE_TIMEOUT)
    went, came, done = told(L.R_RST_OUT), told(L.R_RST_IN), told(L.R_DONE)
    answered = went & came & (of(L.R_RST_IN) <= of(L.R_RST_OUT))
    in_time = went & (of(L.R_RST_OUT) >= due - slack) & (of(L.R_RST_OUT) <= late)
    died = ~went & ((came & (of(L.R_RST_IN) <= late)) | (done & (of(L.R_DONE) <= late)))
    plain &= peer_full | over | answered | in_time | died
    plain &= recorded.allocated
    # SO_LINGER: the call's value, else the kernel's own field
    known, flags = of(L.R_ON_WHY) == L.KNOWN, told(L.R_SKFLAGS)
    off = (known & (of(L.R_ON) != 1)) | (~known & flags & (of(L.R_SKFLAGS) & SOCK_LINGER == 0))
    sent_all = known & (of(L.R_ON) == 1) & (count(L.R_SECS) > 0) & (count(L.R_EXITING) == 0)
    sent_all &= (of(L.R_TYPE) != DATAGRAM) & ~peer_full & recorded.signals
    sent_all &= (count(L.R_U_WHY) == L.KNOWN) & told(L.R_U1) & (of(L.R_U1) <= 0)
    sent_all &= (count(L.R_LOST_AFTER) == 0) & (count(L.R_DROPPED) == 0) & (count(L.R_UEND) == 0)
    return plain & off, plain & sent_all
