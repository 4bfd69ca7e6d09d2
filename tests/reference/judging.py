"""What every rule does: count what is judged, and say a violation (J4, J5)."""

from __future__ import annotations

from collections.abc import Iterator

from reference.state import (
    Arguments,
    Conversion,
    Frame,
    Key,
    PageViolation,
    Process,
    Request,
    Sharing,
    Thread,
)
from reference.verdicts import JudgedCounts, Violation
from reference.words import CODES, Row


class Judging:
    """The trace, its threads and processes, and what is found."""

    def __init__(self, rows: list[Row], grace_ns: int, *, in_place: bool) -> None:
        self.rows = rows
        self.grace_ns = grace_ns
        self.in_place = in_place
        # Three rules ask what the whole trace holds (J3 live, J4 candidates, TK105 and TK109).
        held = {row["event"] for row in rows}
        self.has_map = "iommu.map" in held
        self.has_unmap = "iommu.unmap" in held
        self.has_entered = "ioctl.entered" in held
        self.has_post = "kvm.attributes_post" in held
        self.has_notify = "qemu.iommu_notify" in held
        self.has_discard = bool(held & {"fallocate.entered", "madvise.entered"})
        self.threads: dict[int, Thread] = {}
        self.processes: list[Process] = []
        self.by_pid: dict[int, Process] = {}
        self.users: dict[tuple[str, int], Process] = {}
        self.pages: list[PageViolation] = []
        self.calls: list[tuple[object, Violation]] = []
        self.judged = {code: JudgedCounts() for code in CODES}
        self.blind_until: int | None = None
        self.after_loss = False

    @property
    def blind(self) -> bool:
        return self.blind_until is not None

    def judge(self, code: str, undecided: str | None = None) -> None:
        if code == "TK111" and not self.in_place:
            return
        if self.blind:
            undecided = "loss"
        counts = self.judged[code]
        if undecided is None:
            counts.decided += 1
        else:
            counts.undecided += 1
            counts.reasons[undecided] += 1

    def settle(
        self, work: Conversion | Request | Sharing, key: Key, undecided: str | None = None
    ) -> None:
        """One page of a conversion or request is decided, or never will be."""
        work.open_pages.discard(key)
        work.undecided = work.undecided or undecided
        if work.open_pages:
            return
        if isinstance(work, Conversion):
            work.process.conversions.remove(work)
            self.judge("TK101", work.undecided)
        elif isinstance(work, Sharing):
            work.process.sharings.remove(work)
            self.judge("TK104", work.undecided)
        else:
            work.process.requests.remove(work)
            self.judge("TK102", work.undecided)

    def violate(
        self,
        code: str,
        severity: str,
        confidence: str,
        process: Process,
        key: Key,
        from_ns: int,
        cause: object,
        events: set[int] | None = None,
    ) -> list[PageViolation]:
        """One page's violation, in a list; none while nothing is judged (J5)."""
        if self.blind:
            return []
        if events is None:
            assert isinstance(cause, Conversion | Request | Sharing)
            events = cause.events
        made = PageViolation(code, severity, confidence, process, key, from_ns, cause, set(events))
        entry = key[0].look(key[1]).entry
        if entry is not None:
            made.events.add(entry.seq)
        self.pages.append(made)
        return [made]

    def call_violation(
        self,
        code: str,
        severity: str,
        frame: Frame,
        args: Arguments | None,
        when: int,
        confidence: str = "certain",
    ) -> None:
        if self.blind:
            return
        process = frame.thread.process
        iova, size = (args.iova, args.size) if args is not None else (None, None)
        # IF: each change of attributes is a conversion; maps and unmaps make runs of calls.
        cause = (code, severity, frame.thread, frame if frame.operation == "ATTR" else frame.run)
        self.calls.append(
            (
                cause,
                Violation(
                    code,
                    severity,
                    confidence,
                    process.pid,
                    iova,
                    size,
                    frame.entry_ns,
                    when,
                    tuple(sorted(frame.events)),
                ),
            )
        )

    def frames_of(self, process: Process) -> Iterator[Frame]:
        for tid in process.tids:
            frame = self.threads[tid].frame
            if frame is not None:
                yield frame
