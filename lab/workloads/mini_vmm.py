"""Plays a VMM, inside the lab's guest only: guest memory shared and private, mapped for a device.

32 MiB of guest RAM in a memfd, a software-protected KVM VM with a guest_memfd behind the same
pages, and QEMU's ``edu`` device bound to vfio-pci.  GPA = IOVA.  Conversions in QEMU's order:
attribute, then unmap or map, then discard.  ``--mistake stale`` leaves one page mapped when it
becomes private and unmaps it a few milliseconds later.

Writes what it did, with CLOCK_MONOTONIC before and after each call, and what a checker has to find.
Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM = 0xAE01, 1
KVM_SET_USER_MEMORY_REGION2, KVM_MEM_GUEST_MEMFD = 0x40A0AE49, 4
KVM_SET_MEMORY_ATTRIBUTES, PRIVATE, SHARED = 0x4020AED2, 8, 0
KVM_CREATE_GUEST_MEMFD = 0xC040AED4
VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU = 0x3B66, 3
VFIO_GROUP_SET_CONTAINER = 0x3B68
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA = 0x3B71, 0x3B72
VFIO_DEVICE_BIND_IOMMUFD, VFIO_DEVICE_ATTACH_IOMMUFD_PT = 0x3B76, 0x3B77
IOMMU_IOAS_ALLOC, IOMMU_IOAS_MAP, IOMMU_IOAS_UNMAP = 0x3B81, 0x3B85, 0x3B86
READ_WRITE = 3
FIXED_WRITEABLE_READABLE = 7
KEEP_SIZE_PUNCH_HOLE = 3

MiB = 1 << 20
PAGE = 4096
RAM = 32 * MiB

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def bind_to_vfio(device: str) -> int:
    """Give the PCI device to vfio-pci; its IOMMU group."""
    folder = Path("/sys/bus/pci/devices") / device
    (folder / "driver_override").write_text("vfio-pci\n")
    if not (folder / "driver").exists():
        Path("/sys/bus/pci/drivers_probe").write_text(device + "\n")
    return int((folder / "iommu_group").readlink().name)


class Log:
    """What was done, when, and with which result."""

    def __init__(self) -> None:
        self.operations: list[dict[str, Any]] = []

    def did(self, name: str, start: int, size: int, call: Callable[[], int]) -> dict[str, Any]:
        """Do it and note it; a refused call is noted with its errno."""
        begun, ret, errno = time.monotonic_ns(), 0, 0
        try:
            ret = call()
        except OSError as why:
            ret, errno = -1, why.errno or 0
        row = {
            "op": name, "iova": start, "size": size, "ret": ret, "errno": errno,
            "start_ns": begun, "stop_ns": time.monotonic_ns(),
        }  # fmt: skip
        self.operations.append(row)
        return row


class Vmm:
    """Guest memory, a VM and a device that reaches the memory."""

    def __init__(self, device: str, backend: str) -> None:
        self.log = Log()
        self.backend = backend
        self.ram_fd = os.memfd_create("guest-ram")
        os.ftruncate(self.ram_fd, RAM)
        self.ram = mmap.mmap(self.ram_fd, RAM)
        self.hva = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        kvm = os.open("/dev/kvm", os.O_RDWR)
        self.vm = fcntl.ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM)
        self.gmem = fcntl.ioctl(
            self.vm, KVM_CREATE_GUEST_MEMFD, bytearray(struct.pack("=QQ48x", RAM, 0))
        )
        region = struct.pack("=IIQQQQI116x", 0, KVM_MEM_GUEST_MEMFD, 0, RAM, self.hva, 0, self.gmem)
        fcntl.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION2, bytearray(region))
        group = bind_to_vfio(device)
        if backend == "type1":
            self._open_type1(device, group)
        else:
            self._open_iommufd(device)

    def _open_type1(self, device: str, group: int) -> None:
        self.container = os.open("/dev/vfio/vfio", os.O_RDWR)
        group_fd = os.open(f"/dev/vfio/{group}", os.O_RDWR)
        fcntl.ioctl(
            group_fd, VFIO_GROUP_SET_CONTAINER, bytearray(struct.pack("=i", self.container))
        )
        fcntl.ioctl(self.container, VFIO_SET_IOMMU, VFIO_TYPE1V2_IOMMU)
        fcntl.ioctl(group_fd, VFIO_GROUP_GET_DEVICE_FD, bytearray(device.encode() + b"\0"))

    def _open_iommufd(self, device: str) -> None:
        self.container = os.open("/dev/iommu", os.O_RDWR)
        (entry,) = (Path("/sys/bus/pci/devices") / device / "vfio-dev").iterdir()
        device_fd = os.open(f"/dev/vfio/devices/{entry.name}", os.O_RDWR)
        bind = bytearray(struct.pack("=IIiI", 16, 0, self.container, 0))
        fcntl.ioctl(device_fd, VFIO_DEVICE_BIND_IOMMUFD, bind)
        ioas = bytearray(struct.pack("=III", 12, 0, 0))
        fcntl.ioctl(self.container, IOMMU_IOAS_ALLOC, ioas)
        self.ioas = struct.unpack("=III", ioas)[2]
        attach = bytearray(struct.pack("=III", 12, 0, self.ioas))
        fcntl.ioctl(device_fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach)

    def map(self, start: int, size: int) -> dict[str, Any]:
        """Map guest memory for the device."""
        vaddr = self.hva + start
        if self.backend == "type1":
            cmd, words = (
                VFIO_IOMMU_MAP_DMA,
                struct.pack("=IIQQQ", 32, READ_WRITE, vaddr, start, size),
            )
        else:
            cmd, words = (
                IOMMU_IOAS_MAP,
                struct.pack(
                    "=IIIIQQQ", 40, FIXED_WRITEABLE_READABLE, self.ioas, 0, vaddr, size, start
                ),
            )
        return self.log.did(
            "map", start, size, lambda: fcntl.ioctl(self.container, cmd, bytearray(words))
        )

    def unmap(self, start: int, size: int) -> dict[str, Any]:
        """Take guest memory from the device."""
        if self.backend == "type1":
            cmd, words = VFIO_IOMMU_UNMAP_DMA, struct.pack("=IIQQ", 24, 0, start, size)
        else:
            cmd, words = IOMMU_IOAS_UNMAP, struct.pack("=IIQQ", 24, self.ioas, start, size)
        return self.log.did(
            "unmap", start, size, lambda: fcntl.ioctl(self.container, cmd, bytearray(words))
        )

    def attribute(self, start: int, size: int, value: int) -> dict[str, Any]:
        """Make guest memory private or shared, as KVM sees it."""
        words = struct.pack("=QQQQ", start, size, value, 0)
        return self.log.did(
            "private" if value else "shared",
            start,
            size,
            lambda: fcntl.ioctl(self.vm, KVM_SET_MEMORY_ATTRIBUTES, bytearray(words)),
        )

    def discard(self, name: str, fd: int, start: int, size: int) -> dict[str, Any]:
        """Punch a hole into the memfd or the guest_memfd."""

        def punch() -> int:
            if libc.fallocate(fd, KEEP_SIZE_PUNCH_HOLE, start, size):
                raise OSError(ctypes.get_errno(), "fallocate")
            return 0

        return self.log.did(name, start, size, punch)

    def to_private(self, start: int, size: int) -> None:
        """A conversion as QEMU makes it."""
        self.attribute(start, size, PRIVATE)
        self.unmap(start, size)
        self.discard("discard_shared", self.ram_fd, start, size)

    def to_shared(self, start: int, size: int) -> None:
        """Likewise, back: mapped in the pieces in which it may be unmapped again."""
        self.attribute(start, size, SHARED)
        for at in range(start, start + size, PAGE):
            self.map(at, PAGE)
        self.discard("discard_private", self.gmem, start, size)

    def stale(self, start: int, size: int) -> dict[str, Any]:
        """The mistake: private and discarded while mapped; what has to be found."""
        private = self.attribute(start, size, PRIVATE)
        self.discard("discard_shared", self.ram_fd, start, size)
        time.sleep(0.01)
        unmap = self.unmap(start, size)
        return {
            "code": "TK101",
            "gpa": start,
            "size": size,
            "from_ns": [private["start_ns"], private["stop_ns"]],
            "until_ns": [unmap["start_ns"], unmap["stop_ns"]],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="the file to write")
    parser.add_argument("--device", default="0000:00:10.0")
    parser.add_argument("--backend", choices=("type1", "iommufd"), default="type1")
    parser.add_argument("--mistake", choices=("none", "stale"), default="none")
    given = parser.parse_args()
    vmm = Vmm(given.device, given.backend)
    expected = []
    vmm.attribute(0, RAM, PRIVATE)  # as QEMU does with a slot that has a guest_memfd
    for start, size in ((0, 64 * PAGE), (8 * MiB, 16 * PAGE), (16 * MiB, PAGE)):
        vmm.to_shared(start, size)
        vmm.ram[start] = 1  # the shared side is touched
    for start, size in ((PAGE, PAGE), (4 * PAGE, 8 * PAGE), (8 * MiB, 16 * PAGE)):
        vmm.to_private(start, size)
    vmm.to_shared(4 * PAGE, 8 * PAGE)
    if given.mistake == "stale":
        expected.append(vmm.stale(20 * PAGE, PAGE))
    for round in range(3):
        vmm.to_private((32 + round) * PAGE, PAGE)
        vmm.to_shared((32 + round) * PAGE, PAGE)
    left = sorted({o["iova"] for o in vmm.log.operations if o["op"] == "map" and not o["errno"]})
    for at in left:
        vmm.unmap(at, PAGE)  # finds nothing where it is unmapped already
    truth = {
        "pid": os.getpid(),
        "backend": given.backend,
        "expected": expected,
        "operations": vmm.log.operations,
    }
    given.truth.write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
