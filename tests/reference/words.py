"""What rows say, in numbers and names: pages, ioctls (J2), the events of a call (J1)."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

PAGE = 4096
U64 = 1 << 64
PRIVATE, SHARED = "private", "shared"
EEXIST, EINVAL, ENOENT, ENOSPC = 17, 22, 2, 28

# J2: the ioctls that count.
ATTR_CMD = 0x4020AED2
RUN_CMD = 0xAE80
CREATE_VM_CMD, CREATE_GMEM_CMD = 0xAE01, 0xC040AED4
TYPE1_MAP, TYPE1_UNMAP, SET_IOMMU = 0x3B71, 0x3B72, 0x3B66
IOAS_DESTROY, IOAS_ALLOC, IOAS_MAP, IOAS_UNMAP = 0x3B80, 0x3B81, 0x3B85, 0x3B86
IOAS_MAP_FILE = 0x3B8F
OPERATIONS = {
    ATTR_CMD: "ATTR",
    TYPE1_MAP: "MAP",
    IOAS_MAP: "MAP",
    IOAS_MAP_FILE: "MAP",
    TYPE1_UNMAP: "UNMAP",
    IOAS_UNMAP: "UNMAP",
    RUN_CMD: "RUN",
    IOAS_DESTROY: "DESTROY",
    0x4020AE46: "SLOT",
    0x40A0AE49: "SLOT",
}
# J2: the size that the caller itself writes confirms what an eprobe read from user memory.
ARGSZ_HOLDS = {
    TYPE1_MAP: lambda n: n == 32,
    TYPE1_UNMAP: lambda n: n >= 24,
    IOAS_MAP: lambda n: n == 40,
    IOAS_MAP_FILE: lambda n: n == 40,
    IOAS_UNMAP: lambda n: n == 24,
}
DONTNEED, MAP_SHARED, MAP_FIXED = 4, 0x01, 0x10
DISCARD_ADVICE, POPULATE_ADVICE = (4, 9), (22, 23)
HAS_GMEM, MAP_HUGETLB = 4, 0x40000
CODES = (
    "TK101",
    "TK102",
    "TK103",
    "TK104",
    "TK105",
    "TK106",
    "TK107",
    "TK108",
    "TK109",
    "TK110",
    "TK111",
    "TK202",
    "TK901",
    "TK902",
)
CALLEES = ("vfio.type1_ioctl", "kvm.vm_ioctl", "iommufd.ioctl")
INNER_CALLS = ("iommufd.iopt_map_user", "iommufd.iopt_map_file", "iommufd.iopt_unmap")
CALLEE_RETURNS = (
    "vfio.type1_ioctl_returned",
    "kvm.vm_ioctl_returned",
    "iommufd.ioctl_returned",
    "iommufd.iopt_map_returned",
    "iommufd.iopt_unmap_returned",
)
SYSTEM_CALLS = ("ioctl", "fallocate", "madvise", "mmap", "munmap", "open", "close")
# J4, rule 4 of A4: the frames whose being open keeps a conversion going.
BUSY = ("MAP", "UNMAP", "ATTR", "DISCARD")


def pages_of(iova: int, size: int) -> range:
    """The page numbers that [iova, iova + size) touches."""
    return range(iova // PAGE, -(-(iova + size) // PAGE))


def common(one: range, two: range) -> range:
    """The pages of both."""
    return range(max(one.start, two.start), min(one.stop, two.stop))
