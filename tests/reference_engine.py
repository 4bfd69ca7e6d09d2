"""The oracle of the replay engine: the same judgement, slowly, one dictionary entry a page.

Nothing here is shared with ``replay/engine``: no numba, no vectors, no code.  Where the two
disagree about a trace, one of them (or docs/judging.md) is wrong.  Comments name the rule that a
branch implements: *A4* and *A5* are sections of the architecture, *J1* to *J8* sections of
docs/judging.md, *D* rows are facts, *IF* is the table of finding codes.

The rules are a chain of classes in ``reference/``, each of which builds on those before it and
calls none after it: judging -> arguments (J2) -> vms (J6) -> containers and backing (J3) -> hands
(J8) -> sharings (J7) -> conversions (J4, A4) -> calls (J4) -> threads (J1) -> machine (J5).
"""

from __future__ import annotations

from collections.abc import Iterable

from reference.machine import Machine
from reference.verdicts import JudgedCounts, Replayed, Violation
from reference.words import Row, pages_of

__all__ = ("JudgedCounts", "Replayed", "Violation", "pages_of", "replay")


def replay(rows: Iterable[Row], grace_ns: int = 1_000_000, *, in_place: bool = False) -> Replayed:
    """Judge a trace.

    :param rows: every row of the trace, in order; columns as in ``tracekit.events``, None for null
    :param in_place: memory is converted where it is: TK111 is judged as well
    """
    return Machine(list(rows), grace_ns, in_place=in_place).run()
