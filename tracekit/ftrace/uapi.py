"""ioctl numbers of VFIO, iommufd and KVM, and which bytes of their structures fill which columns.

From include/uapi/linux/{vfio,iommufd,kvm}.h, x86-64; the same from 6.12 to 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = (
    "KVM_CREATE_GUEST_MEMFD",
    "KVM_SET_MEMORY_ATTRIBUTES",
    "KVM_SET_USER_MEMORY_REGION",
    "KVM_SET_USER_MEMORY_REGION2",
    "NAMED_OFFSETS",
    "STRUCTURES",
    "Member",
    "offsets_of_names",
)

VFIO_GROUP_SET_CONTAINER = 0x3B68
VFIO_IOMMU_MAP_DMA = 0x3B71
VFIO_IOMMU_UNMAP_DMA = 0x3B72
VFIO_DEVICE_BIND_IOMMUFD = 0x3B76
VFIO_DEVICE_ATTACH_IOMMUFD_PT = 0x3B77
IOMMU_DESTROY = 0x3B80
IOMMU_IOAS_ALLOC = 0x3B81
IOMMU_IOAS_COPY = 0x3B83
IOMMU_IOAS_MAP = 0x3B85
IOMMU_IOAS_UNMAP = 0x3B86
IOMMU_IOAS_MAP_FILE = 0x3B8F
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_USER_MEMORY_REGION2 = 0x40A0AE49
KVM_SET_MEMORY_ATTRIBUTES = 0x4020AED2
KVM_CREATE_GUEST_MEMFD = 0xC040AED4


@dataclass(frozen=True)
class Member:
    """Bytes [offset, offset + size) of a structure fill ``column``."""

    column: str
    offset: int
    size: int
    signed: bool = False


STRUCTURES: dict[int, tuple[Member, ...]] = {
    VFIO_GROUP_SET_CONTAINER: (Member("file_fd", 0, 4, signed=True),),
    # struct vfio_iommu_type1_dma_map, _unmap
    VFIO_IOMMU_MAP_DMA: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("vaddr", 8, 8),
        Member("iova", 16, 8),
        Member("size", 24, 8),
    ),
    VFIO_IOMMU_UNMAP_DMA: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("iova", 8, 8),
        Member("size", 16, 8),
    ),
    # struct vfio_device_bind_iommufd, vfio_device_attach_iommufd_pt
    VFIO_DEVICE_BIND_IOMMUFD: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("file_fd", 8, 4, signed=True),
    ),
    VFIO_DEVICE_ATTACH_IOMMUFD_PT: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("id", 8, 4),
    ),
    # struct iommu_destroy, iommu_ioas_alloc, _copy, _map, _unmap, _map_file
    IOMMU_DESTROY: (Member("argsz", 0, 4), Member("id", 4, 4)),
    IOMMU_IOAS_ALLOC: (Member("argsz", 0, 4), Member("flags", 4, 4)),
    IOMMU_IOAS_COPY: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("id", 8, 4),
        Member("size", 16, 8),
        Member("iova", 24, 8),
    ),
    IOMMU_IOAS_MAP: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("id", 8, 4),
        Member("vaddr", 16, 8),
        Member("size", 24, 8),
        Member("iova", 32, 8),
    ),
    IOMMU_IOAS_UNMAP: (
        Member("argsz", 0, 4),
        Member("id", 4, 4),
        Member("iova", 8, 8),
        Member("size", 16, 8),
    ),
    IOMMU_IOAS_MAP_FILE: (
        Member("argsz", 0, 4),
        Member("flags", 4, 4),
        Member("id", 8, 4),
        Member("file_fd", 12, 4, signed=True),
        Member("offset", 16, 8),
        Member("size", 24, 8),
        Member("iova", 32, 8),
    ),
    # struct kvm_userspace_memory_region, _region2, kvm_memory_attributes, kvm_create_guest_memfd
    KVM_SET_USER_MEMORY_REGION: (
        Member("id", 0, 4),
        Member("flags", 4, 4),
        Member("gpa", 8, 8),
        Member("size", 16, 8),
        Member("vaddr", 24, 8),
    ),
    KVM_SET_USER_MEMORY_REGION2: (
        Member("id", 0, 4),
        Member("flags", 4, 4),
        Member("gpa", 8, 8),
        Member("size", 16, 8),
        Member("vaddr", 24, 8),
        Member("offset", 32, 8),
        Member("file_fd", 40, 4, signed=True),
    ),
    KVM_SET_MEMORY_ATTRIBUTES: (
        Member("gpa", 0, 8),
        Member("size", 8, 8),
        Member("attributes", 16, 8),
        Member("flags", 24, 8),
    ),
    KVM_CREATE_GUEST_MEMFD: (Member("size", 0, 8), Member("flags", 8, 8)),
}

# Where a recorder that gives a field such a name usually reads it: offsets in the structure that it
# had in mind.  What the bytes mean is then up to ``cmd``.  The first row whose key is there counts.
NAMED_OFFSETS: tuple[tuple[frozenset[str], dict[str, int]], ...] = (
    (
        frozenset(("attributes", "attr", "attrs")),
        {
            "address": 0, "addr": 0, "gpa": 0, "size": 8, "attributes": 16, "attr": 16,
            "attrs": 16, "flags": 24,
        },
    ),
    (
        frozenset(("slot", "uaddr", "userspace_addr", "hva", "guest_phys_addr")),
        {
            "slot": 0, "flags": 4, "gpa": 8, "guest_phys_addr": 8, "size": 16, "memory_size": 16,
            "uaddr": 24, "userspace_addr": 24, "hva": 24, "vaddr": 24, "gmem_off": 32,
            "guest_memfd_offset": 32, "goff": 32, "gmem": 40, "guest_memfd": 40, "gfd": 40,
        },
    ),
    (frozenset(("vaddr",)), {"argsz": 0, "flags": 4, "vaddr": 8, "iova": 16, "size": 24}),
    (frozenset(("iova",)), {"argsz": 0, "flags": 4, "iova": 8, "size": 16}),
    (frozenset(("argsz",)), {"argsz": 0, "flags": 4}),
)  # fmt: skip


def offsets_of_names(names: list[str]) -> dict[str, int]:
    """Where in the structure behind an ioctl's argument the fields with these names lie.

    ``aN`` (or ``qN``, ``uN``, ``xN``, ``oN``) is offset N; other names have their usual offset in
    the structure that the set of names suggests.  Names that say nothing are left out.
    """
    found: dict[str, int] = {}
    for keys, offsets in NAMED_OFFSETS:
        if keys.intersection(names):
            found = {n: offsets[n] for n in names if n in offsets}
            break
    else:
        if "flags" in names:  # beside aN fields only
            found["flags"] = 4
    for name in names:
        if name[:1] in "aquxo" and name[1:].isascii() and name[1:].isdigit() and len(name) <= 4:
            found[name] = int(name[1:])
    return found
