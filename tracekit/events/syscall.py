"""System calls of a VMM that change what a device, the guest or the host can reach.

Each call is two events, entry and return; the pair on one thread is a *frame*.  Many recordings
hold returns of failed calls only, or none.
"""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "CloseEntered",
    "CloseReturned",
    "FallocateEntered",
    "FallocateReturned",
    "IoctlArguments",
    "IoctlEntered",
    "IoctlReturned",
    "MadviseEntered",
    "MadviseReturned",
    "MmapEntered",
    "MmapReturned",
    "MunmapEntered",
    "MunmapReturned",
    "OpenEntered",
    "OpenReturned",
)


@event
class IoctlEntered(Event):
    """ioctl() entered.  Source: syscalls:sys_enter_ioctl."""

    name_: ClassVar[str] = "ioctl.entered"

    fd: int = column("File the call is made on")
    cmd: int = column("Command")
    vaddr: int | None = column("The third argument, usually an address", default=None)


@event
class IoctlReturned(Event):
    """ioctl() returned.  Source: syscalls:sys_exit_ioctl; often recorded for non-zero results
    only."""

    name_: ClassVar[str] = "ioctl.returned"

    ret: int = column("Result")


@event
class IoctlArguments(Event):
    """The structure behind ioctl()'s third argument, read from user memory at system call entry.

    Source: an eprobe on syscalls.sys_enter_ioctl.  It reads memory that may not be present, and
    then leaves zeros or old bytes, so it is believed only if its frame confirms it.  Which
    columns are filled depends on ``cmd`` (see tracekit/ftrace/uapi.py).
    """

    name_: ClassVar[str] = "ioctl.arguments"

    fd: int | None = column("File the call is made on", default=None)
    cmd: int = column("Command")
    argsz: int | None = column("The structure's size as the caller gives it", default=None)
    flags: int | None = column("The structure's flags", default=None)
    iova: int | None = column("DMA map, unmap: first IOVA", default=None)
    gpa: int | None = column("Memory slot, attributes: first guest physical address", default=None)
    vaddr: int | None = column("DMA map, memory slot: first user address", default=None)
    offset: int | None = column("File map: offset in the file", default=None)
    size: int | None = column("Bytes", default=None)
    attributes: int | None = column("KVM_SET_MEMORY_ATTRIBUTES: the attributes", default=None)
    file_fd: int | None = column("File mapped, or guest_memfd of the slot", default=None)
    id: int | None = column("Memory slot or ioas", default=None)


@event
class FallocateEntered(Event):
    """fallocate() entered; mode 3 punches a hole.  Source: syscalls:sys_enter_fallocate."""

    name_: ClassVar[str] = "fallocate.entered"

    fd: int = column("File (memfd, guest_memfd)")
    flags: int = column("Mode: 1 keep size, 2 punch hole, 3 both")
    offset: int = column("First byte in the file")
    size: int = column("Bytes")


@event
class FallocateReturned(Event):
    """fallocate() returned.  Source: syscalls:sys_exit_fallocate."""

    name_: ClassVar[str] = "fallocate.returned"

    ret: int = column("Result")


@event
class MadviseEntered(Event):
    """madvise() entered; 4 DONTNEED and 9 REMOVE discard.  Source: syscalls:sys_enter_madvise."""

    name_: ClassVar[str] = "madvise.entered"

    vaddr: int = column("First byte")
    size: int = column("Bytes")
    flags: int = column("Behaviour: 4 DONTNEED, 9 REMOVE, 23 POPULATE_WRITE, ...")


@event
class MadviseReturned(Event):
    """madvise() returned.  Source: syscalls:sys_exit_madvise."""

    name_: ClassVar[str] = "madvise.returned"

    ret: int = column("Result")


@event
class MmapEntered(Event):
    """mmap() entered.  Source: syscalls:sys_enter_mmap."""

    name_: ClassVar[str] = "mmap.entered"

    vaddr: int = column("Address asked for; 0 leaves it to the kernel")
    size: int = column("Bytes")
    flags: int = column("MAP_ flags: 0x1 shared, 0x2 private, 0x10 fixed, 0x20 anonymous")
    file_fd: int | None = column("File; null for anonymous memory", default=None)
    offset: int = column("First byte in the file")


@event
class MmapReturned(Event):
    """mmap() returned the address.  Source: syscalls:sys_exit_mmap."""

    name_: ClassVar[str] = "mmap.returned"

    ret: int = column("Address, or -errno")


@event
class MunmapEntered(Event):
    """munmap() entered.  Source: syscalls:sys_enter_munmap."""

    name_: ClassVar[str] = "munmap.entered"

    vaddr: int = column("First byte")
    size: int = column("Bytes")


@event
class MunmapReturned(Event):
    """munmap() returned.  Source: syscalls:sys_exit_munmap."""

    name_: ClassVar[str] = "munmap.returned"

    ret: int = column("Result")


@event
class OpenEntered(Event):
    """openat() entered.  Source: syscalls:sys_enter_openat; the path only where the kernel shows
    it."""

    name_: ClassVar[str] = "open.entered"

    name: str | None = column("Path, as the caller wrote it", default=None)
    flags: int | None = column("O_ flags", default=None)


@event
class OpenReturned(Event):
    """openat() returned the file descriptor.  Source: syscalls:sys_exit_openat."""

    name_: ClassVar[str] = "open.returned"

    ret: int = column("File descriptor, or -errno")


@event
class CloseEntered(Event):
    """close() entered.  Source: syscalls:sys_enter_close."""

    name_: ClassVar[str] = "close.entered"

    fd: int = column("File descriptor")


@event
class CloseReturned(Event):
    """close() returned.  Source: syscalls:sys_exit_close."""

    name_: ClassVar[str] = "close.returned"

    ret: int = column("Result")
