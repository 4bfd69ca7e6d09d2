"""What a VMM does: calls, named by what they are for, with addresses of the guest.

A plan is a list of calls of one thread in their order.  Everything about memory is told by the
guest's address ``at``; file offsets and user addresses follow from the region that it lies in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ("PAGE", "Call", "Op")

PAGE = 4096


class Op(Enum):
    """A call's purpose.  ``value`` of :class:`Call` means what the comment says."""

    FORK = "fork"  # thread id of the child
    CREATE_VM = "create-vm"
    MMAP = "mmap"  # MAP_ flags
    CREATE_GMEM = "create-guest-memfd"
    SLOT = "slot"  # the slot's number; parts: ((flags, 0),)
    OPEN = "open"  # opens the container or iommufd `space`
    ATTACH = "attach"  # VFIO_SET_IOMMU, or IOAS_ALLOC and ATTACH_IOMMUFD_PT
    CLOSE = "close"
    LOOK_UP = "look-up"  # reads an attribute of the device in sysfs
    IOCTL = "ioctl"  # the command, of a call that moves no memory; space -1: on the VM
    ATTRIBUTE = "attribute"  # 8 private, 0 shared
    MAP = "map"
    UNMAP = "unmap"  # parts: the entries that go; 1: after a pause
    PUNCH_PRIVATE = "punch-private"
    FALLOCATE = "fallocate"  # a hole in the file behind the shared side
    MADVISE = "madvise"  # behaviour
    RUN = "run"  # KVM_RUN and back
    ENTER = "enter"  # into the guest
    LEAVE = "leave"  # back from it; value: KVM_EXIT_ reason
    WAIT = "wait"  # value: nanoseconds
    EXIT = "exit"


@dataclass(frozen=True, slots=True, eq=True)
class Call:
    """One call.  ``at``, ``size`` in bytes; ``ret`` negative: refused with that errno.

    ``space``: ordinal of the container.  ``parts``: (guest address, bytes) of the entries that an
    unmap removes, or of what an attribute call changes, once a memory slot.
    """

    op: Op
    at: int = 0
    size: int = 0
    value: int = 0
    space: int = 0
    ret: int = 0
    parts: tuple[tuple[int, int], ...] = ()
