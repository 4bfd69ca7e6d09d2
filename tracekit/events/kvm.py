"""KVM: memory attributes, memory slots, guest_memfd, and a vCPU entering the guest."""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "KvmAttributes",
    "KvmAttributesPost",
    "KvmAttributesPre",
    "KvmEntry",
    "KvmExit",
    "KvmGmemBound",
    "KvmGmemCreated",
    "KvmGmemFallocate",
    "KvmGmemFallocateReturned",
    "KvmHypercall",
    "KvmMemslot",
    "KvmMemslotReturned",
    "KvmPageFault",
    "KvmRmpFault",
    "KvmUnmapHva",
    "KvmUserspaceExit",
    "KvmVmIoctl",
    "KvmVmIoctlReturned",
    "KvmVmgexit",
)


@event
class KvmAttributes(Event):
    """KVM was asked to change memory attributes.

    Source: kvm:kvm_vm_set_mem_attributes (6.17 and later).  Fires before the no-op test and before
    any failure, and names no VM: a request.  gfns are written as bytes.
    """

    name_: ClassVar[str] = "kvm.attributes"

    gpa: int = column("First byte")
    size: int = column("Bytes")
    attributes: int = column("8 private, 0 shared")


@event
class KvmAttributesPre(Event):
    """The old side is no longer reachable by the guest.

    Source: a probe on kvm_arch_pre_set_memory_attributes(); only for calls that change something,
    once a memory slot.
    """

    name_: ClassVar[str] = "kvm.attributes_pre"

    object: int | None = column("struct kvm", default=None)
    gpa: int | None = column("First byte, where the probe reads it right", default=None)
    size: int | None = column("Bytes, likewise", default=None)


@event
class KvmAttributesPost(Event):
    """The change is committed.

    Source: a probe on kvm_arch_post_set_memory_attributes(); only for calls that change something,
    once a memory slot.
    """

    name_: ClassVar[str] = "kvm.attributes_post"

    object: int | None = column("struct kvm", default=None)
    gpa: int | None = column("First byte, where the probe reads it right", default=None)
    size: int | None = column("Bytes, likewise", default=None)


@event
class KvmVmIoctl(Event):
    """An ioctl on a VM's file, with its structure.

    Source: a probe on kvm_vm_ioctl().  Columns depend on ``cmd``; commands other than memory
    attributes, memory slots and guest_memfd creation carry ``cmd`` only.
    """

    name_: ClassVar[str] = "kvm.vm_ioctl"

    object: int | None = column("struct file of the VM", default=None)
    cmd: int = column("Command")
    gpa: int | None = column("First guest physical address", default=None)
    size: int | None = column("Bytes", default=None)
    attributes: int | None = column("KVM_SET_MEMORY_ATTRIBUTES: the attributes", default=None)
    flags: int | None = column("The structure's flags", default=None)
    vaddr: int | None = column("Memory slot: first user address", default=None)
    offset: int | None = column("Memory slot: offset in the guest_memfd", default=None)
    file_fd: int | None = column("Memory slot: the guest_memfd", default=None)
    id: int | None = column("Memory slot: its number, address space in the high half", default=None)


@event
class KvmVmIoctlReturned(Event):
    """Source: a return probe on kvm_vm_ioctl()."""

    name_: ClassVar[str] = "kvm.vm_ioctl_returned"

    ret: int = column("Result")


@event
class KvmMemslot(Event):
    """A memory slot is set; size 0 deletes it.  Source: a probe on kvm_set_memory_region()."""

    name_: ClassVar[str] = "kvm.memslot"

    object: int | None = column("struct kvm", default=None)
    id: int = column("Slot, address space in the high half")
    flags: int | None = column("1 log dirty pages, 2 read-only, 4 has a guest_memfd", default=None)
    gpa: int = column("First guest physical address")
    size: int = column("Bytes; 0 deletes")
    vaddr: int | None = column("First user address", default=None)
    file_fd: int | None = column("guest_memfd", default=None)
    offset: int | None = column("Offset in the guest_memfd", default=None)


@event
class KvmMemslotReturned(Event):
    """Source: a return probe on kvm_set_memory_region()."""

    name_: ClassVar[str] = "kvm.memslot_returned"

    ret: int = column("Result")


@event
class KvmGmemCreated(Event):
    """A guest_memfd is made; the ioctl's result is its descriptor.  Source: a probe on
    kvm_gmem_create()."""

    name_: ClassVar[str] = "kvm.gmem_created"

    object: int | None = column("struct kvm", default=None)
    size: int | None = column("Bytes", default=None)
    flags: int | None = column("GUEST_MEMFD_FLAG_", default=None)


@event
class KvmGmemBound(Event):
    """A guest_memfd is bound to a memory slot.  Source: a probe on kvm_gmem_bind()."""

    name_: ClassVar[str] = "kvm.gmem_bound"

    object: int | None = column("struct kvm", default=None)
    file_fd: int | None = column("guest_memfd", default=None)
    offset: int | None = column("Offset in it", default=None)


@event
class KvmGmemFallocate(Event):
    """guest_memfd pages are allocated (mode 1) or punched (mode 3).

    Source: a probe on kvm_gmem_fallocate().
    """

    name_: ClassVar[str] = "kvm.gmem_fallocate"

    object: int | None = column("struct file of the guest_memfd", default=None)
    flags: int | None = column("Mode", default=None)
    offset: int | None = column("First byte", default=None)
    size: int | None = column("Bytes", default=None)


@event
class KvmGmemFallocateReturned(Event):
    """Source: a return probe on kvm_gmem_fallocate()."""

    name_: ClassVar[str] = "kvm.gmem_fallocate_returned"

    ret: int = column("Result")


@event
class KvmEntry(Event):
    """A vCPU enters the guest.  Source: kvm:kvm_entry."""

    name_: ClassVar[str] = "kvm.entry"

    id: int | None = column("vCPU", default=None)


@event
class KvmExit(Event):
    """A vCPU left the guest.  Source: kvm:kvm_exit."""

    name_: ClassVar[str] = "kvm.exit"

    id: int | None = column("vCPU", default=None)
    flags: int | None = column("Exit reason", default=None)


@event
class KvmUserspaceExit(Event):
    """KVM_RUN came back to the VMM.  Source: kvm:kvm_userspace_exit; 39 is MEMORY_FAULT."""

    name_: ClassVar[str] = "kvm.userspace_exit"

    flags: int | None = column("Exit reason", default=None)
    ret: int | None = column("errno as recorded, negative", default=None)


@event
class KvmHypercall(Event):
    """A guest's hypercall; 12 asks for a conversion.  Source: kvm:kvm_hypercall; SNP and TDX
    bypass it."""

    name_: ClassVar[str] = "kvm.hypercall"

    cmd: int = column("Hypercall number")
    gpa: int | None = column("MAP_GPA_RANGE: first byte", default=None)
    size: int | None = column("MAP_GPA_RANGE: bytes", default=None)
    flags: int | None = column("MAP_GPA_RANGE: the attributes word (bit 4: private)", default=None)


@event
class KvmPageFault(Event):
    """A guest access that KVM had to resolve.  Source: kvm:kvm_page_fault."""

    name_: ClassVar[str] = "kvm.page_fault"

    id: int | None = column("vCPU", default=None)
    gpa: int | None = column("Address", default=None)
    flags: int | None = column("Error code; bit 49: private", default=None)


@event
class KvmRmpFault(Event):
    """An SNP ownership fault.  Source: kvm:kvm_rmp_fault."""

    name_: ClassVar[str] = "kvm.rmp_fault"

    id: int | None = column("vCPU", default=None)
    gpa: int | None = column("Address", default=None)
    flags: int | None = column("Error code", default=None)


@event
class KvmVmgexit(Event):
    """An SEV-ES guest's request.  Source: kvm:kvm_vmgexit_enter; 0x80000010 is a page-state
    change."""

    name_: ClassVar[str] = "kvm.vmgexit"

    id: int | None = column("vCPU", default=None)
    flags: int | None = column("Exit code", default=None)


@event
class KvmUnmapHva(Event):
    """The host's memory management takes host pages away from the guest.

    Source: kvm:kvm_unmap_hva_range.  Any MMU notifier invalidation: not a discard by itself.
    """

    name_: ClassVar[str] = "kvm.unmap_hva"

    vaddr: int = column("First byte")
    size: int = column("Bytes")
