"""What the checks of device mappings and memory conversions need (TK1xx, TK2xx)."""

from __future__ import annotations

from collectors.plans._define import Plan, Probe, Section, Tracepoint

__all__ = ("DMA",)

_NOT_IN_INTERRUPT = "!(common_flags & 0x18)"
"""The checks ignore what interrupts map for network cards and disks, which is most of it."""

# An exit says only its result, so it belongs to the entry before it on its thread: where exits of
# success are left out, no entry may be.  That is why KVM_RUN (0xae80) stays in.
_CALLS = Section(
    gives="""
        Which call each thread is in, on which descriptor, and which calls failed. The entry of
        KVM_RUN is what ends a conversion for certain. Successful ioctls have no exit here: the
        functions below say when they returned.
    """,
    costs="""
        One event for each return of a vCPU to its VMM, and one for every other ioctl of the host.
    """,
    items=(
        Tracepoint(source="syscalls:sys_enter_ioctl"),
        Tracepoint(source="syscalls:sys_exit_ioctl", filter="ret != 0"),
    ),
)
_PROCESSES = Section(
    gives="""
        Which threads are one process, and its end: a conversion is over, containers are closed.
    """,
    costs="Little.",
    items=(
        Tracepoint(source="sched:sched_process_fork"),
        Tracepoint(source="sched:sched_process_exec"),
        Tracepoint(source="sched:sched_process_exit"),
    ),
)
_DISCARDS = Section(
    gives="Backing that the VMM throws away (4 DONTNEED, 9 REMOVE) or fetches (22, 23 POPULATE).",
    costs="Little, but every madvise of the host shows its exit.",
    items=(
        Tracepoint(source="syscalls:sys_enter_fallocate"),
        Tracepoint(source="syscalls:sys_exit_fallocate"),
        Tracepoint(
            source="syscalls:sys_enter_madvise",
            filter="behavior == 4 || behavior == 9 || behavior == 22 || behavior == 23",
        ),
        Tracepoint(source="syscalls:sys_exit_madvise"),
    ),
)
_ADDRESSES = Section(
    gives="""
        Which file lies behind which address, and which descriptor is which file: so that a hole
        punched into a file is found in a mapping made by address. For memory that was mapped
        before the recording began, KVM's own invalidations show it.
    """,
    costs="""
        Every mmap, munmap, openat and close of the host; the invalidations are many where the
        kernel merges or migrates pages.
    """,
    items=(
        *(
            Tracepoint(source=f"syscalls:sys_{way}_{call}")
            for call in ("mmap", "munmap", "openat", "close")
            for way in ("enter", "exit")
        ),
        Tracepoint(source="kvm:kvm_unmap_hva_range"),
    ),
)
_MAP_COMMANDS = "(cmd >= 0x3b71 && cmd <= 0x3b72) || (cmd >= 0x3b80 && cmd <= 0x3b8f)"
_KVM_COMMANDS = "cmd == 0x4020aed2 || cmd == 0x40a0ae49 || cmd == 0x4020ae46 || cmd == 0xc040aed4"
_CONVERSIONS = Section(
    gives="""
        Conversions between private and shared: what was asked for, the moment it took effect, the
        result; memory slots; guest_memfd's own allocations and holes.
    """,
    costs="""
        Few events for a conversion; a return of every other ioctl on a VM (interrupts that the
        VMM injects by ioctl).
    """,
    items=(
        Probe(
            name="kvm_vm_ioctl",
            targets=("kvm_vm_ioctl",),
            fetches=(
                "filp=$arg1:x64 cmd=$arg2:x32 a0=+u0($arg3):x64 a8=+u8($arg3):x64"
                " a16=+u16($arg3):x64 a24=+u24($arg3):x64 a32=+u32($arg3):x64"
                " a40=+u40($arg3):x64",
            ),
            filter=_KVM_COMMANDS,
            fires_with=("kvm:kvm_vm_set_mem_attributes",),
        ),
        Probe(
            name="kvm_vm_ioctl_ret",
            where="return",
            targets=("kvm_vm_ioctl",),
            fetches=("ret=$retval:s64",),
            fires_with=("kvm_vm_ioctl",),
        ),
        Tracepoint(source="kvm:kvm_vm_set_mem_attributes", since=(6, 17)),
        Probe(
            name="kvm_pre_set",
            targets=("kvm_arch_pre_set_memory_attributes",),
            fetches=("kvm=$arg1:x64 start=+8($arg2):x64 end=+16($arg2):x64",),
            since=(6, 8),
        ),
        Probe(
            name="kvm_post_set",
            targets=("kvm_arch_post_set_memory_attributes",),
            fetches=("kvm=$arg1:x64 start=+8($arg2):x64 end=+16($arg2):x64",),
            since=(6, 8),
        ),
        Probe(
            name="kvm_gmem_fallocate",
            targets=("kvm_gmem_fallocate",),
            fetches=("file=$arg1:x64 mode=$arg2:x32 offset=$arg3:x64 len=$arg4:x64",),
            since=(6, 8),
        ),
    ),
)
_REQUESTS = Section(
    gives="""
        What the VMM asked VFIO or iommufd to map and unmap, in which container, and the result.
    """,
    costs="Two to four events for a request; a VMM that maps by 4 KiB makes many.",
    items=(
        Probe(
            name="type1_ioctl",
            targets=("vfio_iommu_type1_ioctl",),
            fetches=(
                "iommu=$arg1:x64 cmd=$arg2:x32 argsz=+u0($arg3):u32 flags=+u4($arg3):x32"
                " a8=+u8($arg3):x64 a16=+u16($arg3):x64 a24=+u24($arg3):x64",
            ),
            fires_with=("type1_ioctl_ret",),
        ),
        Probe(
            name="type1_ioctl_ret",
            where="return",
            targets=("vfio_iommu_type1_ioctl",),
            fetches=("ret=$retval:s64",),
            fires_with=("type1_ioctl",),
        ),
        Probe(
            name="iommufd_ioctl",
            targets=("iommufd_fops_ioctl",),
            fetches=(
                "filp=$arg1:x64 cmd=$arg2:x32 argsz=+u0($arg3):u32 flags=+u4($arg3):x32"
                " a8=+u8($arg3):x64 a16=+u16($arg3):x64 a24=+u24($arg3):x64 a32=+u32($arg3):x64",
            ),
            since=(6, 2),
            fires_with=("iommufd_ioctl_ret",),
        ),
        Probe(
            name="iommufd_ioctl_ret",
            where="return",
            targets=("iommufd_fops_ioctl",),
            fetches=("ret=$retval:s64",),
            since=(6, 2),
            fires_with=("iommufd_ioctl",),
        ),
        Probe(
            name="iopt_map_user",
            targets=("iopt_map_user_pages",),
            fetches=(
                "iopt=$arg2:x64 iova=+0($arg3):x64 uptr=$arg4:x64 length=$arg5:u64 prot=$arg6:x32",
            ),
            since=(6, 2),
        ),
        Probe(
            name="iopt_map_file",
            targets=("iopt_map_file_pages",),
            fetches=(
                "iopt=$arg2:x64 iova=+0($arg3):x64 fd=$arg4:s32 start=$arg5:x64 length=$arg6:u64",
            ),
            since=(6, 13),
        ),
        Probe(
            name="iopt_unmap",
            targets=("iopt_unmap_iova",),
            fetches=("iopt=$arg1:x64 iova=$arg2:x64 length=$arg3:x64",),
            since=(6, 2),
        ),
        # Reads memory that may not be present, so only where a function's own probe is missing.
        Probe(
            name="ioctl_arguments",
            where="event",
            targets=("syscalls.sys_enter_ioctl",),
            fetches=(
                "fd=$fd:s32 cmd=$cmd:x32 argsz=+u0($arg):u32 flags=+u4($arg):x32"
                " a8=+u8($arg):x64 a16=+u16($arg):x64 a24=+u24($arg):x64 a32=+u32($arg):x64",
            ),
            filter=f"{_MAP_COMMANDS} || {_KVM_COMMANDS}",
            since=(5, 15),
            instead_of=("type1_ioctl", "kvm_vm_ioctl"),
        ),
    ),
)
_TRANSLATIONS = Section(
    gives="""
        What the IOMMU really translates, and for which domain. Without it a mapping is live as
        long as no request removed it.
    """,
    costs="""
        The expensive part: one event for each physically contiguous piece, hundreds for 2 MiB of
        small pages; also what other drivers map outside interrupts.
    """,
    items=(
        Tracepoint(source="iommu:map", filter=_NOT_IN_INTERRUPT),
        Tracepoint(source="iommu:unmap", filter=_NOT_IN_INTERRUPT),
        Probe(
            name="iommu_map",
            targets=("iommu_map_nosync", "iommu_map"),
            fetches=(
                "domain=$arg1:x64 iova=$arg2:x64 paddr=$arg3:x64 size=$arg4:u64 prot=$arg5:x32",
            ),
            filter=_NOT_IN_INTERRUPT,
            fires_with=("iommu:map",),
        ),
        Probe(
            name="iommu_domain_free",
            targets=("iommu_domain_free",),
            fetches=("domain=$arg1:x64",),
        ),
        Tracepoint(source="iommu:attach_device_to_domain"),
        Tracepoint(source="iommu:io_page_fault"),
    ),
)

DMA = Plan(
    purpose="dma",
    title="device mappings and memory conversions: KVM, VFIO, iommufd, the IOMMU",
    group="tracekit_dma",
    buffer_kb=16384,
    sections=(
        _CALLS, _PROCESSES, _CONVERSIONS, _REQUESTS, _TRANSLATIONS, _DISCARDS, _ADDRESSES,
    ),
)  # fmt: skip
