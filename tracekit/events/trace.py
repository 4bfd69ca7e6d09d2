"""The recording itself: where it has holes and where its clock cannot be trusted."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = ("ClockBack", "EventsLost", "Marker")


@event
class EventsLost(Event):
    """The recorder dropped events on one CPU between ``ts_ns`` and ``until_ns``.

    Source: bit 31 (and the count behind bit 30) of a ring-buffer page's commit word.  ``ts_ns`` is
    the last event before the hole on that CPU, ``until_ns`` the first one after it.
    """

    name_: ClassVar[str] = "trace.lost"

    until_ns: int = column("First moment after the hole")
    count: int | None = column("Events lost; null where the kernel did not count", default=None)


@event
class ClockBack(Event):
    """Time ran back on one CPU of the recording; ``ts_ns`` was held at the last good time.

    Source: the importer, from timestamps that fall inside one ring buffer.
    """

    name_: ClassVar[str] = "trace.clock_back"

    until_ns: int = column("The time that the record itself carried")


@event
class Marker(Event):
    """Text that a process wrote into the trace (QEMU's ``ftrace`` trace back end does).

    Source: ftrace:print.  The text is whatever user space wrote.
    """

    name_: ClassVar[str] = "trace.marker"

    detail: str | None = column("The text, as written", default=None)
