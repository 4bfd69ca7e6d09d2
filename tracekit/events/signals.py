"""Signals: what ends a wait before its time."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = ("SignalDelivered", "SignalGenerated")


@event
class SignalGenerated(Event):
    """A signal was sent.  Source: signal:signal_generate, on the sender's thread."""

    name_: ClassVar[str] = "signal.generated"

    cmd: int = column("Signal number")
    id: int = column("Thread that it is for, or whose process it is for")
    flags: int | None = column("1 for the whole process, 0 for the thread", default=None)
    ret: int | None = column("0 sent, 1 ignored, 2 already pending", default=None)


@event
class SignalDelivered(Event):
    """The running thread takes a signal.  Source: signal:signal_deliver, on the way to user
    space."""

    name_: ClassVar[str] = "signal.delivered"

    cmd: int = column("Signal number")
