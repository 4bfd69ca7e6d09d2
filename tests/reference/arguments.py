"""Operations and their arguments (J2)."""

from __future__ import annotations

from reference.judging import Judging
from reference.state import Arguments, Frame
from reference.words import ARGSZ_HOLDS, IOAS_UNMAP, TYPE1_UNMAP, U64, Row


def from_row(row: Row) -> Arguments:
    return Arguments(
        row["iova"],
        row["size"],
        flags=row.get("flags") or 0,
        vaddr=row.get("vaddr"),
        file_fd=row.get("file_fd"),
        offset=row.get("offset"),
    )


def sane(args: Arguments) -> bool:
    """Not empty, no wrap."""
    return args.size > 0 and args.iova + args.size <= U64


def refused(frame: Frame) -> bool:
    """Its callee has returned an error."""
    return frame.callee_return is not None and frame.callee_return[0] < 0


def unmaps_all(cmd: int | None, args: Arguments) -> bool:
    """J2: an unmap of all there is."""
    if cmd == TYPE1_UNMAP:
        return bool(args.flags & 2)
    return cmd == IOAS_UNMAP and args.iova == 0 and args.size == U64 - 1


class CallArguments(Judging):
    """What a call was asked for, from what of it is recorded."""

    def arguments(self, frame: Frame, *, failed: bool = False) -> Arguments | None:
        """The best that is known about the call's arguments; None: unknown."""
        if frame.operation == "ATTR":
            return self.attr_arguments(frame, failed=failed)
        best = self.callee_arguments(frame)
        if best is not None:
            return best
        eprobe = self.believed_eprobe(frame, None)
        return from_row(eprobe) if eprobe is not None else None

    def callee_arguments(self, frame: Frame) -> Arguments | None:
        for row in (frame.callee, frame.inner):
            if row is not None and row.get("iova") is not None and row.get("size") is not None:
                return from_row(row)
        return None

    def believed_eprobe(self, frame: Frame, better: Arguments | None) -> Row | None:
        """J2: believed if the frame confirms it."""
        row = frame.eprobe
        if row is None or row.get("iova") is None or row.get("size") is None:
            return None
        holds = ARGSZ_HOLDS.get(frame.cmd or 0)
        if holds is None or row.get("argsz") is None or not holds(row["argsz"]):
            return None
        if better is not None:
            return row if (better.iova, better.size) == (row["iova"], row["size"]) else None
        if unmaps_all(frame.cmd, from_row(row)):
            return row
        shown = frame.maps if frame.operation == "MAP" else frame.unmaps
        inside = all(
            row["iova"] <= iova and iova + size <= row["iova"] + row["size"] for iova, size in shown
        )
        return row if inside else None

    def attr_arguments(self, frame: Frame, *, failed: bool) -> Arguments | None:
        for row in (frame.callee, frame.attributes):
            if row is not None and row.get("gpa") is not None and row.get("size") is not None:
                return Arguments(row["gpa"], row["size"], attributes=row["attributes"] or 0)
        row = frame.eprobe
        if (
            failed
            and row is not None
            and row.get("gpa") is not None
            and row.get("size") is not None
        ):
            return Arguments(row["gpa"], row["size"], attributes=row["attributes"] or 0)
        return None
