"""QEMU's own trace events: what it was asked to convert, map and plug.

Names and arguments as in the trace-events files of QEMU 10.1, 10.2 and 11.1.  Sizes and addresses
are bytes.  QEMU prints neither its KVM file nor, mostly, the RAM block.
"""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "QemuConvertMemory",
    "QemuDirtyBitmap",
    "QemuDirtyTracking",
    "QemuDiscardRange",
    "QemuIommuNotify",
    "QemuIommuRegion",
    "QemuIommufdConnection",
    "QemuIommufdIoas",
    "QemuIommufdMap",
    "QemuIommufdUnmap",
    "QemuMapGpaRange",
    "QemuMemoryFault",
    "QemuRamBlockStateChange",
    "QemuRegion",
    "QemuSetUserMemory",
    "QemuVirtioMem",
    "QemuVirtioMemResized",
)


@event
class QemuConvertMemory(Event):
    """A conversion begins; emitted before every test.  Source: kvm_convert_memory()."""

    name_: ClassVar[str] = "qemu.convert_memory"

    gpa: int = column("First byte")
    size: int = column("Bytes")
    attributes: int = column("8 to private, 0 to shared")


@event
class QemuRamBlockStateChange(Event):
    """A RAM block's range is made shared (populated) or private (discarded).

    Source: trace_ram_block_attributes_state_change().  Prints no RAM block; not emitted for invalid
    requests, emitted for no-ops.
    """

    name_: ClassVar[str] = "qemu.ram_block_state_change"

    offset: int = column("First byte in the RAM block")
    size: int = column("Bytes")
    attributes: int = column("State wanted: 8 discarded (private), 0 populated (shared)")
    detail: str | None = column(
        'State before: {"from": "discarded|populated|mixture"}', default=None
    )


@event
class QemuMemoryFault(Event):
    """KVM asks for an implicit conversion.  Source: kvm_memory_fault."""

    name_: ClassVar[str] = "qemu.memory_fault"

    gpa: int = column("First byte")
    size: int = column("Bytes")
    flags: int = column("Bit 3: private")


@event
class QemuMapGpaRange(Event):
    """The guest asks for a conversion.  Source: kvm_hc_map_gpa_range."""

    name_: ClassVar[str] = "qemu.map_gpa_range"

    gpa: int = column("First byte")
    size: int = column("Bytes")
    attributes: int = column("As asked for by the guest")
    flags: int = column("Flags of the exit")


@event
class QemuSetUserMemory(Event):
    """A memory slot was set.  Source: kvm_set_user_memory."""

    name_: ClassVar[str] = "qemu.set_user_memory"

    id: int = column("Slot, address space in the high half")
    flags: int = column("As for KVM")
    gpa: int = column("First byte")
    size: int = column("Bytes; 0 deletes")
    vaddr: int = column("First user address")
    file_fd: int | None = column("guest_memfd", default=None)
    offset: int | None = column("Offset in the guest_memfd", default=None)
    ret: int = column("Result")


@event
class QemuDiscardRange(Event):
    """The shared side was discarded.

    Source: ram_block_discard_range; ram_block_discard_shared_range from 11.1.
    """

    name_: ClassVar[str] = "qemu.discard_range"

    name: str | None = column("RAM block", default=None)
    vaddr: int = column("First user address")
    size: int = column("Bytes")
    flags: int = column("1 madvise, 2 fallocate, 3 both")
    ret: int = column("Result")


@event
class QemuRegion(Event):
    """VFIO's listener sees a section come or go.

    Source: vfio_listener_region_add_ram, _region_del, _region_skip, _region_add_no_dma_map.
    """

    name_: ClassVar[str] = "qemu.region"

    iova: int = column("First byte")
    size: int = column("Bytes")
    vaddr: int | None = column("First user address", default=None)
    flags: int = column("1 added, 0 removed, 2 skipped")
    name: str | None = column("Region", default=None)


@event
class QemuIommuNotify(Event):
    """A guest's IOMMU mapped or unmapped, so the VM has a vIOMMU.

    Source: vfio_iommu_map_notify.
    """

    name_: ClassVar[str] = "qemu.iommu_notify"

    iova: int = column("First byte, an address of the guest's own IOMMU")
    size: int = column("Bytes")
    flags: int = column("1 map, 0 unmap")


@event
class QemuIommuRegion(Event):
    """VFIO's listener sees a region behind a guest's IOMMU come or go.

    Source: vfio_listener_region_add_iommu, _region_del_iommu.
    """

    name_: ClassVar[str] = "qemu.iommu_region"

    iova: int | None = column("Added: first byte", default=None)
    size: int | None = column("Added: bytes", default=None)
    flags: int = column("1 added, 0 removed")
    name: str | None = column("Region", default=None)


@event
class QemuDirtyBitmap(Event):
    """Migration asks which pages a device wrote.

    Source: vfio_container_query_dirty_bitmap, iommufd_backend_get_dirty_bitmap.
    """

    name_: ClassVar[str] = "qemu.dirty_bitmap"

    fd: int | None = column("iommufd", default=None)
    id: int | None = column("Page table of an iommufd", default=None)
    iova: int = column("First byte")
    size: int = column("Bytes")
    gpa: int | None = column("First byte, as QEMU translated it", default=None)
    count: int | None = column("Dirty pages", default=None)
    ret: int | None = column("Result", default=None)


@event
class QemuDirtyTracking(Event):
    """Dirty tracking is switched.  Source: iommufd_backend_set_dirty."""

    name_: ClassVar[str] = "qemu.dirty_tracking"

    fd: int = column("iommufd")
    id: int = column("Page table")
    flags: int = column("1 on, 0 off")
    ret: int = column("Result")


@event
class QemuIommufdConnection(Event):
    """A user of an iommufd comes or goes.  Source: iommufd_backend_connect, _disconnect."""

    name_: ClassVar[str] = "qemu.iommufd_connection"

    fd: int = column("iommufd; -1 once the last user has gone")
    flags: int = column("1 came, 0 went")
    count: int = column("Users")


@event
class QemuIommufdMap(Event):
    """Source: iommufd_backend_map_dma, iommufd_backend_map_file_dma.  ``ret`` is raw, not errno."""

    name_: ClassVar[str] = "qemu.iommufd_map"

    fd: int = column("iommufd")
    id: int = column("ioas")
    iova: int = column("First byte")
    size: int = column("Bytes")
    vaddr: int | None = column("First user address", default=None)
    file_fd: int | None = column("File mapped", default=None)
    offset: int | None = column("First byte in the file", default=None)
    flags: int | None = column("1 read-only", default=None)
    ret: int = column("Result")


@event
class QemuIommufdUnmap(Event):
    """Source: iommufd_backend_unmap_dma, iommufd_backend_unmap_dma_non_exist (``flags`` 1)."""

    name_: ClassVar[str] = "qemu.iommufd_unmap"

    fd: int = column("iommufd")
    id: int = column("ioas")
    iova: int = column("First byte")
    size: int = column("Bytes")
    flags: int = column("1: nothing was there")
    ret: int = column("Result")


@event
class QemuIommufdIoas(Event):
    """Source: iommufd_backend_alloc_ioas (``flags`` 1), iommufd_backend_free_id (``flags`` 0)."""

    name_: ClassVar[str] = "qemu.iommufd_ioas"

    fd: int = column("iommufd")
    id: int = column("Object")
    flags: int = column("1 made, 0 freed")


@event
class QemuVirtioMem(Event):
    """The guest asks virtio-mem to plug or unplug.

    Source: virtio_mem_plug_request, _unplug_request, _unplug_all_request, _state_request,
    _send_response, _state_response, _unplugged_all.
    """

    name_: ClassVar[str] = "qemu.virtio_mem"

    cmd: int = column(
        "0 plug, 1 unplug, 2 unplug all, 3 state, 16 response, 17 state told, 18 all is unplugged"
    )
    gpa: int | None = column("First byte", default=None)
    count: int | None = column("Device blocks", default=None)
    ret: int | None = column(
        "Response: 0 ACK, 1 NACK, 2 BUSY, 3 ERROR; state: 0 plugged, 1 unplugged, 2 mixed",
        default=None,
    )


@event
class QemuVirtioMemResized(Event):
    """The part of virtio-mem's region that the guest may use.

    Source: virtio_mem_resized_usable_region.
    """

    name_: ClassVar[str] = "qemu.virtio_mem_resized"

    size: int = column("Bytes, from now on")
    detail: str | None = column('Bytes before: {"old_size": N}', default=None)
