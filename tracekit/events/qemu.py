"""QEMU's own trace events: what it was asked to convert, map and plug.

Names and arguments as in the trace-events files of QEMU 10.1, 10.2 and 11.1.  Sizes and addresses
are bytes.  QEMU prints neither its KVM file nor, mostly, the RAM block.
"""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "QemuConvertMemory",
    "QemuDiscardRange",
    "QemuIommufdIoas",
    "QemuIommufdMap",
    "QemuIommufdUnmap",
    "QemuMapGpaRange",
    "QemuMemoryFault",
    "QemuRamBlockStateChange",
    "QemuRegion",
    "QemuSetUserMemory",
    "QemuVirtioMem",
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

    Source: virtio_mem_plug_request, _unplug_request, _unplug_all_request, _send_response.
    """

    name_: ClassVar[str] = "qemu.virtio_mem"

    cmd: int = column("0 plug, 1 unplug, 2 unplug all, 3 state, 16 response")
    gpa: int | None = column("First byte", default=None)
    count: int | None = column("Device blocks", default=None)
    ret: int | None = column("Response: 0 ACK, 1 NACK, 2 BUSY, 3 ERROR", default=None)
