# SPDX-License-Identifier: Apache-2.0
"""Who may throw RAM away, and who cannot bear it: four counters.

A device that pins memory *disables* discards; one that follows them through a manager disables
only the *uncoordinated* ones.  A user of discards *requires* them, all or only the coordinated.
"""

from enum import Enum

from replay.models.errors import BusyError

__all__ = ("CoordinatedDiscard", "DiscardRequest", "DiscardUser")


class DiscardRequest(Enum):
    """The four things that can be taken and given back."""

    DISABLE = "ram_block_discard_disable"
    UNCOORDINATED_DISABLE = "ram_block_uncoordinated_discard_disable"
    REQUIRE = "ram_block_discard_require"
    COORDINATED_REQUIRE = "ram_block_coordinated_discard_require"


_EXCLUDED_BY = {
    DiscardRequest.DISABLE: (DiscardRequest.REQUIRE, DiscardRequest.COORDINATED_REQUIRE),
    DiscardRequest.UNCOORDINATED_DISABLE: (DiscardRequest.REQUIRE,),
    DiscardRequest.REQUIRE: (DiscardRequest.DISABLE, DiscardRequest.UNCOORDINATED_DISABLE),
    DiscardRequest.COORDINATED_REQUIRE: (DiscardRequest.DISABLE,),
}


class DiscardUser(Enum):
    """Who takes what; the value is (name, request).

    How sure: [D] for the list, read and not run; the counters themselves were run.
    """

    GUEST_MEMFD_UNTIL_10_0 = ("guest_memfd block until 10.0", DiscardRequest.REQUIRE)
    #: Patch 13 of v4 and everything since; it is what lets VFIO and guest_memfd coexist.
    GUEST_MEMFD = ("guest_memfd block", DiscardRequest.COORDINATED_REQUIRE)
    VFIO_TYPE1 = ("VFIO type1", DiscardRequest.UNCOORDINATED_DISABLE)
    VFIO_IOMMUFD = ("VFIO iommufd", DiscardRequest.UNCOORDINATED_DISABLE)
    VFIO_SPAPR = ("VFIO sPAPR", DiscardRequest.DISABLE)
    VIRTIO_MEM = ("virtio-mem", DiscardRequest.COORDINATED_REQUIRE)
    KVM_WITHOUT_SYNC_MMU = ("KVM without synchronous MMU", DiscardRequest.DISABLE)

    @property
    def request(self) -> DiscardRequest:
        """What this user takes."""
        return self.value[1]


class CoordinatedDiscard:
    """The counters, one set in a QEMU.

    C: ``ram_block_discard_disable_mutex`` and what it guards, system/physmem.c.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(DiscardRequest, 0)

    def discard_disable(self, state: bool) -> None:
        """C: ``ram_block_discard_disable()``, system/physmem.c."""
        self.take(DiscardRequest.DISABLE) if state else self.release(DiscardRequest.DISABLE)

    def uncoordinated_discard_disable(self, state: bool) -> None:
        """C: ``ram_block_uncoordinated_discard_disable()``, system/physmem.c."""
        request = DiscardRequest.UNCOORDINATED_DISABLE
        self.take(request) if state else self.release(request)

    def discard_require(self, state: bool) -> None:
        """C: ``ram_block_discard_require()``, system/physmem.c."""
        self.take(DiscardRequest.REQUIRE) if state else self.release(DiscardRequest.REQUIRE)

    def coordinated_discard_require(self, state: bool) -> None:
        """C: ``ram_block_coordinated_discard_require()``, system/physmem.c."""
        request = DiscardRequest.COORDINATED_REQUIRE
        self.take(request) if state else self.release(request)

    def take(self, request: DiscardRequest | DiscardUser) -> None:
        """Count one more, unless somebody holds what excludes it.

        :raises BusyError: the request is excluded
        """
        wanted = request.request if isinstance(request, DiscardUser) else request
        if not isinstance(wanted, DiscardRequest):
            raise TypeError(f"expected a DiscardRequest or a DiscardUser, not {request!r}")
        for other in _EXCLUDED_BY[wanted]:
            if self.counts[other]:
                raise BusyError(f"{wanted.value}() while {other.value}() is held")
        self.counts[wanted] += 1

    def release(self, request: DiscardRequest | DiscardUser) -> None:
        """Count one less.  Upstream never refuses this, not even below zero."""
        wanted = request.request if isinstance(request, DiscardUser) else request
        self.counts[wanted] -= 1

    @property
    def is_disabled(self) -> bool:
        """C: ``ram_block_discard_is_disabled()``, system/physmem.c."""
        counts = self.counts
        return bool(counts[DiscardRequest.DISABLE] or counts[DiscardRequest.UNCOORDINATED_DISABLE])

    @property
    def is_required(self) -> bool:
        """C: ``ram_block_discard_is_required()``, system/physmem.c."""
        counts = self.counts
        return bool(counts[DiscardRequest.REQUIRE] or counts[DiscardRequest.COORDINATED_REQUIRE])

    def __repr__(self) -> str:
        held = [f"{request.name.lower()}={n}" for request, n in self.counts.items() if n]
        return f"CoordinatedDiscard({', '.join(held) or 'nothing held'})"
