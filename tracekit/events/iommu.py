"""What the IOMMU translates.  These tracepoints name no domain, device, container or VM."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "IommuAttach",
    "IommuDomainFreed",
    "IommuFault",
    "IommuGroupAttached",
    "IommuGroupDevice",
    "IommuMap",
    "IommuMapCalled",
    "IommuMapReturned",
    "IommuUnmap",
    "IommuUnmapCalled",
    "IommuUnmapReturned",
)


@event
class IommuMap(Event):
    """Pages became reachable for a device.

    Source: iommu:map.  Up to 6.12 only for full success; newer kernels always, with the bytes
    really mapped, 0 included.
    """

    name_: ClassVar[str] = "iommu.map"

    iova: int = column("First byte")
    paddr: int | None = column("Host physical address", default=None)
    size: int = column("Bytes mapped")


@event
class IommuUnmap(Event):
    """Pages are being taken from a device; the translation cache is flushed later, in the same
    call.

    Source: iommu:unmap.
    """

    name_: ClassVar[str] = "iommu.unmap"

    iova: int = column("First byte")
    size: int = column("Bytes asked for")
    unmapped: int = column("Bytes removed, more than asked for where a superpage was hit")


@event
class IommuMapCalled(Event):
    """Source: a probe on iommu_map() or iommu_map_nosync(); the domain is its first argument."""

    name_: ClassVar[str] = "iommu.map_called"

    object: int | None = column("struct iommu_domain", default=None)
    iova: int | None = column("First byte", default=None)
    paddr: int | None = column("Host physical address", default=None)
    size: int | None = column("Bytes", default=None)
    flags: int | None = column("IOMMU_ protection: 1 read, 2 write", default=None)


@event
class IommuMapReturned(Event):
    """Source: a return probe on iommu_map()."""

    name_: ClassVar[str] = "iommu.map_returned"

    ret: int = column("Result")


@event
class IommuUnmapCalled(Event):
    """Source: a probe on iommu_unmap() or iommu_unmap_fast()."""

    name_: ClassVar[str] = "iommu.unmap_called"

    object: int | None = column("struct iommu_domain", default=None)
    iova: int | None = column("First byte", default=None)
    size: int | None = column("Bytes", default=None)


@event
class IommuUnmapReturned(Event):
    """Source: a return probe on iommu_unmap()."""

    name_: ClassVar[str] = "iommu.unmap_returned"

    ret: int = column("Bytes removed")


@event
class IommuAttach(Event):
    """A device is attached to a domain, which is not named.  Source:
    iommu:attach_device_to_domain."""

    name_: ClassVar[str] = "iommu.attach"

    name: str | None = column("Device", default=None)


@event
class IommuGroupDevice(Event):
    """A device joins or leaves an IOMMU group.

    Source: iommu:add_device_to_group, iommu:remove_device_from_group.
    """

    name_: ClassVar[str] = "iommu.group_device"

    id: int | None = column("Group", default=None)
    name: str | None = column("Device", default=None)
    flags: int | None = column("1 added, 0 removed", default=None)


@event
class IommuGroupAttached(Event):
    """A group or device is attached to a domain.

    Source: a probe on iommu_attach_group(), or on the driver's attach function.
    """

    name_: ClassVar[str] = "iommu.group_attached"

    object: int | None = column("struct iommu_domain", default=None)


@event
class IommuDomainFreed(Event):
    """A domain ends.  Source: a probe on iommu_domain_free()."""

    name_: ClassVar[str] = "iommu.domain_freed"

    object: int | None = column("struct iommu_domain", default=None)


@event
class IommuFault(Event):
    """A device touched what it may not.  Source: iommu:io_page_fault; VT-d and SMMUv3 never emit
    it."""

    name_: ClassVar[str] = "iommu.fault"

    iova: int = column("Address")
    name: str | None = column("Device", default=None)
    flags: int | None = column("1 write", default=None)
