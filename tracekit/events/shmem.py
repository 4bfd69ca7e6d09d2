"""The shared side's own memory: memfd and other shmem files."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = ("ShmemFallocate",)


@event
class ShmemFallocate(Event):
    """A shmem file is allocated or punched.  Source: a probe on shmem_fallocate()."""

    name_: ClassVar[str] = "shmem.fallocate"

    object: int | None = column("struct file", default=None)
    flags: int | None = column("Mode: 3 punches a hole", default=None)
    offset: int | None = column("First byte", default=None)
    size: int | None = column("Bytes", default=None)
    inode: int | None = column("The file", default=None)
