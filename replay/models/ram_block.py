# SPDX-License-Identifier: Apache-2.0
"""The two backings of guest memory, and how each is thrown away."""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from replay.models.errors import DiscardError
from replay.models.memory_region_section import check_u64

__all__ = ("Discard", "DiscardSide", "RamBlock", "StateChanger")

EPERM = 1  # upstream returns a bare -1 here


class DiscardSide(Enum):
    """Which of the two backings."""

    SHARED = "shared"
    GUEST_MEMFD = "gmem"


class Discard(NamedTuple):
    """One range of one backing thrown away, by which system calls."""

    side: DiscardSide
    offset: int
    size: int
    fallocate: bool
    madvise: bool


class StateChanger(Protocol):
    """``RamBlockAttribute`` or ``RamBlockAttributes``, of whichever generation."""

    def state_change(self, offset: int, size: int, to_private: bool) -> None:
        """C: ``ram_block_attributes_state_change()``, system/ram-block-attributes.c."""


class RamBlock:
    """A named piece of host memory; with ``guest_memfd`` it has a private backing as well.

    ``page_size`` is the one of the shared backing: 2 MiB for hugetlbfs.  ``on_discard``, where
    set, sees every successful discard.

    C: ``RAMBlock``, include/exec/ramblock.h.
    """

    def __init__(
        self,
        idstr: str,
        max_length: int,
        *,
        guest_memfd: bool = True,
        page_size: int = 4096,
        fd_backed: bool = False,
        on_discard: Callable[[Discard], None] | None = None,
    ) -> None:
        check_u64("max_length", max_length)
        if page_size <= 0 or page_size & (page_size - 1):
            raise ValueError(f"page_size is a power of two, {page_size} is not")
        self.idstr = idstr
        self.max_length = max_length
        self.guest_memfd = guest_memfd
        self.page_size = page_size
        self.fd_backed = fd_backed
        self.on_discard = on_discard
        #: ``RamBlockAttribute`` or ``RamBlockAttributes``, which sets it when it is created.
        self.attributes: StateChanger | None = None

    def discard_shared_range(self, offset: int, size: int) -> None:
        """Throw the shared backing of ``[offset, offset + size)`` away.

        A file-backed block punches a hole and then calls madvise(); an anonymous one only the
        latter.  Renamed from ``ram_block_discard_range()`` in v11.1.

        C: ``ram_block_discard_range()``, system/physmem.c.

        :raises DiscardError: unaligned to ``page_size`` (upstream: -1), or past the end
        """
        self._check(offset, size, self.page_size)
        self._tell(Discard(DiscardSide.SHARED, offset, size, self.fd_backed, True))

    def discard_guest_memfd_range(self, offset: int, size: int) -> None:
        """Punch a hole into the private backing.

        C: ``ram_block_discard_guest_memfd_range()``, system/physmem.c.

        :raises DiscardError: past the end
        """
        self._check(offset, size, 1)
        self._tell(Discard(DiscardSide.GUEST_MEMFD, offset, size, True, False))

    def _check(self, offset: int, size: int, alignment: int) -> None:
        check_u64("offset", offset)
        check_u64("size", size)
        if offset % alignment or size % alignment:
            raise DiscardError(f"{self.idstr}: [{offset:#x}, +{size:#x}) is not aligned", EPERM)
        if offset + size > self.max_length:
            raise DiscardError(f"{self.idstr}: [{offset:#x}, +{size:#x}) ends past it", EPERM)

    def _tell(self, discard: Discard) -> None:
        if self.on_discard is not None:
            self.on_discard(discard)

    def __repr__(self) -> str:
        private = "with guest_memfd" if self.guest_memfd else "shared only"
        return f"RamBlock({self.idstr!r}, {self.max_length:#x} bytes, {private})"
