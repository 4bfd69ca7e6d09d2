"""What is counted of a world, and what can go wrong in it first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ("Counts", "Failure", "Point")


class Point(NamedTuple):
    """How things stand after a request: ``entries`` live, calls and flushes so far, and bytes with
    two backings."""

    ts_ns: int
    entries: int
    maps: int
    unmaps: int
    flushes: int
    doubled: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The first call that a world refused: ``call`` is map, unmap, attribute or device.

    ``request``: its place among the requests, -1 before the first one; ``errno``: its name.
    ``broken``: what that leaves behind.
    """

    request: int
    ts_ns: int
    call: str
    address: int
    size: int
    errno: str
    broken: str = ""


@dataclass(kw_only=True)
class Counts:
    """Counted over all requests, or up to ``ended``: after that QEMU is gone.

    ``flushes``: of the IOTLB, at least: one for each entry (type1) or area (iommufd) that an unmap
    removes; type1 makes one more for every 512 pieces that are not adjacent in host memory.
    ``entries``, ``peak``: DMA entries live in the end, and most at any time, of the container that
    has most.  ``doubled``: bytes that had both a private and a shared backing at the same time,
    most; ``doubled_left``: still so in the end, because a discard never came.  ``premature``: maps
    of memory that was private at that moment (TK103).  ``rejected``: conversions that in-place
    memory refused.  ``series``: one point for each request.
    """

    maps: int = 0
    unmaps: int = 0
    flushes: int = 0
    splits: int = 0
    entries: int = 0
    peak: int = 0
    conversions: int = 0
    refused: int = 0
    rejected: int = 0
    premature: int = 0
    doubled: int = 0
    doubled_left: int = 0
    failure: Failure | None = None
    failures: int = 0
    first_rejected: Failure | None = None
    ended: str = ""
    series: list[Point] = field(default_factory=list)

    def tick(self, ts_ns: int) -> None:
        """A request is over."""
        self.series.append(
            Point(ts_ns, self.entries, self.maps, self.unmaps, self.flushes, self.doubled_left)
        )
