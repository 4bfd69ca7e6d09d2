"""Threads and processes coming and going: whose frames are whose."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = ("ProcessExec", "ProcessExit", "ProcessExitCalled", "ProcessFork")


@event
class ProcessFork(Event):
    """A thread or process was created.  Source: sched:sched_process_fork, which does not say
    which."""

    name_: ClassVar[str] = "process.fork"

    id: int = column("Thread id of the child")
    name: str | None = column("Child's name", default=None)


@event
class ProcessExec(Event):
    """A process runs another program.  Source: sched:sched_process_exec."""

    name_: ClassVar[str] = "process.exec"

    name: str | None = column("Path of the program", default=None)


@event
class ProcessExit(Event):
    """A thread ended.  Source: sched:sched_process_exit, emitted before its files are closed."""

    name_: ClassVar[str] = "process.exit"

    flags: int | None = column("1 if the whole process is gone; null before 6.16", default=None)


@event
class ProcessExitCalled(Event):
    """A process ends itself.  Source: syscalls:sys_enter_exit_group."""

    name_: ClassVar[str] = "process.exit_called"

    ret: int | None = column("Exit status", default=None)
