"""VFIO type1 and iommufd: what the VMM asked for, as their own functions saw it."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "IommufdIoasMap",
    "IommufdIoctl",
    "IommufdIoctlReturned",
    "IoptMapFile",
    "IoptMapReturned",
    "IoptMapUser",
    "IoptUnmap",
    "IoptUnmapReturned",
    "VfioContainerIoctl",
    "VfioPinPages",
    "VfioRemoveDma",
    "VfioType1Ioctl",
    "VfioType1IoctlReturned",
)


@event
class VfioContainerIoctl(Event):
    """An ioctl on a VFIO container's file.  Source: a probe on vfio_fops_unl_ioctl()."""

    name_: ClassVar[str] = "vfio.container_ioctl"

    object: int | None = column("struct file of the container", default=None)
    cmd: int = column("Command")
    vaddr: int | None = column("Third argument", default=None)


@event
class VfioType1Ioctl(Event):
    """VFIO type1 handles an ioctl, with its structure.

    Source: a probe on vfio_iommu_type1_ioctl().  Other commands than map and unmap carry ``cmd``
    only.
    """

    name_: ClassVar[str] = "vfio.type1_ioctl"

    object: int | None = column("struct vfio_iommu: the container", default=None)
    cmd: int = column("0x3b71 map, 0x3b72 unmap")
    argsz: int | None = column("The structure's size as the caller gives it", default=None)
    flags: int | None = column(
        "Map: 1 read, 2 write, 4 vaddr. Unmap: 1 dirty, 2 all, 4 vaddr", default=None
    )
    vaddr: int | None = column("Map: first user address", default=None)
    iova: int | None = column("First IOVA", default=None)
    size: int | None = column("Bytes", default=None)


@event
class VfioType1IoctlReturned(Event):
    """Source: a return probe on vfio_iommu_type1_ioctl()."""

    name_: ClassVar[str] = "vfio.type1_ioctl_returned"

    ret: int = column("Result")


@event
class VfioPinPages(Event):
    """Pages are pinned for a DMA map.  Source: a probe on vfio_pin_pages_remote()."""

    name_: ClassVar[str] = "vfio.pin_pages"

    vaddr: int | None = column("First user address", default=None)
    count: int | None = column("Pages asked for", default=None)


@event
class VfioRemoveDma(Event):
    """A DMA entry is removed, by an unmap or at teardown.  Source: a probe on vfio_remove_dma()."""

    name_: ClassVar[str] = "vfio.remove_dma"

    object: int | None = column("struct vfio_iommu: the container", default=None)
    iova: int | None = column("First IOVA", default=None)
    size: int | None = column("Bytes", default=None)
    vaddr: int | None = column("First user address", default=None)


@event
class IommufdIoctl(Event):
    """An ioctl on an iommufd.  Source: a probe on iommufd_fops_ioctl()."""

    name_: ClassVar[str] = "iommufd.ioctl"

    object: int | None = column("struct file of the iommufd", default=None)
    cmd: int = column("0x3b85 map, 0x3b8f map file, 0x3b86 unmap, 0x3b80 destroy")
    argsz: int | None = column("The structure's size as the caller gives it", default=None)
    flags: int | None = column("Map: 1 fixed iova, 2 writeable, 4 readable", default=None)
    id: int | None = column("ioas, or the object destroyed", default=None)
    iova: int | None = column("First IOVA", default=None)
    vaddr: int | None = column("Map: first user address", default=None)
    offset: int | None = column("Map file: offset in the file", default=None)
    size: int | None = column("Bytes", default=None)
    file_fd: int | None = column("Map file: the file", default=None)


@event
class IommufdIoctlReturned(Event):
    """Source: a return probe on iommufd_fops_ioctl()."""

    name_: ClassVar[str] = "iommufd.ioctl_returned"

    ret: int = column("Result")


@event
class IommufdIoasMap(Event):
    """Source: a probe on iommufd_ioas_map()."""

    name_: ClassVar[str] = "iommufd.ioas_map"

    flags: int | None = column("1 fixed iova, 2 writeable, 4 readable", default=None)


@event
class IoptMapUser(Event):
    """User pages are put into an IO address space.  Source: a probe on iopt_map_user_pages()."""

    name_: ClassVar[str] = "iommufd.iopt_map_user"

    object: int | None = column("struct io_pagetable: the IO address space", default=None)
    iova: int | None = column("First IOVA", default=None)
    vaddr: int | None = column("First user address", default=None)
    size: int | None = column("Bytes", default=None)
    flags: int | None = column("IOMMU_ protection: 1 read, 2 write", default=None)


@event
class IoptMapFile(Event):
    """Pages of a file are put into an IO address space.  Source: a probe on
    iopt_map_file_pages()."""

    name_: ClassVar[str] = "iommufd.iopt_map_file"

    object: int | None = column("struct io_pagetable: the IO address space", default=None)
    iova: int | None = column("First IOVA", default=None)
    file_fd: int | None = column("The file", default=None)
    offset: int | None = column("First byte in the file", default=None)
    size: int | None = column("Bytes", default=None)


@event
class IoptMapReturned(Event):
    """Source: a return probe on iopt_map_user_pages() or iopt_map_file_pages()."""

    name_: ClassVar[str] = "iommufd.iopt_map_returned"

    ret: int = column("Result")


@event
class IoptUnmap(Event):
    """Areas are taken out of an IO address space.  Source: a probe on iopt_unmap_iova()."""

    name_: ClassVar[str] = "iommufd.iopt_unmap"

    object: int | None = column("struct io_pagetable: the IO address space", default=None)
    iova: int | None = column("First IOVA", default=None)
    size: int | None = column("Bytes", default=None)


@event
class IoptUnmapReturned(Event):
    """Source: a return probe on iopt_unmap_iova()."""

    name_: ClassVar[str] = "iommufd.iopt_unmap_returned"

    ret: int = column("Result")
