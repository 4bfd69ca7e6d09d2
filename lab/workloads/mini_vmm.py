"""Plays a VMM, inside the lab's guest only: guest memory shared and private, mapped for a device.

32 MiB of guest RAM in a memfd and QEMU's ``edu`` device bound to vfio-pci, through type1 or
iommufd.  With KVM a software-protected VM with a guest_memfd is behind the same pages; conversions
are in QEMU's order: attribute, then unmap or map, then discard.  A kernel without such VMs takes
``--kvm none``: then memory is only discarded, after its unmap, and mapped again.  GPA = IOVA.

The mistakes are made one after the other, on pages of their own, between correct conversions.
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

    def __init__(self, device: str, backend: str, *, kvm: bool) -> None:
        self.log = Log()
        self.backend = backend
        self.kvm = kvm
        self.mapped: dict[int, int] = {}
        self.ram_fd = os.memfd_create("guest-ram")
        os.ftruncate(self.ram_fd, RAM)
        self.ram = mmap.mmap(self.ram_fd, RAM)
        self.hva = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        if kvm:
            self._create_vm()
        group = bind_to_vfio(device)
        if backend == "type1":
            self._open_type1(device, group)
        else:
            self._open_iommufd(device)

    def _create_vm(self) -> None:
        kvm = os.open("/dev/kvm", os.O_RDWR)
        self.vm = fcntl.ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM)
        self.gmem = fcntl.ioctl(
            self.vm, KVM_CREATE_GUEST_MEMFD, bytearray(struct.pack("=QQ48x", RAM, 0))
        )
        region = struct.pack("=IIQQQQI116x", 0, KVM_MEM_GUEST_MEMFD, 0, RAM, self.hva, 0, self.gmem)
        fcntl.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION2, bytearray(region))

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
        row = self.log.did(
            "map", start, size, lambda: fcntl.ioctl(self.container, cmd, bytearray(words))
        )
        if not row["errno"]:
            self.mapped[start] = size
        return row

    def unmap(self, start: int, size: int) -> dict[str, Any]:
        """Take guest memory from the device."""
        if self.backend == "type1":
            cmd, words = VFIO_IOMMU_UNMAP_DMA, struct.pack("=IIQQ", 24, 0, start, size)
        else:
            cmd, words = IOMMU_IOAS_UNMAP, struct.pack("=IIQQ", 24, self.ioas, start, size)
        row = self.log.did(
            "unmap", start, size, lambda: fcntl.ioctl(self.container, cmd, bytearray(words))
        )
        if not row["errno"]:
            for at in [at for at in self.mapped if start <= at < start + size]:
                del self.mapped[at]
        return row

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
        """A conversion as QEMU makes it; without KVM only its effect on the device."""
        if self.kvm:
            self.attribute(start, size, PRIVATE)
        self.unmap(start, size)
        self.discard("discard_shared", self.ram_fd, start, size)

    def to_shared(self, start: int, size: int) -> None:
        """Likewise, back: mapped in the pieces in which it may be unmapped again."""
        if self.kvm:
            self.attribute(start, size, SHARED)
        for at in range(start, start + size, PAGE):
            self.map(at, PAGE)
        if self.kvm:
            self.discard("discard_private", self.gmem, start, size)


Expected = dict[str, Any]
Row = dict[str, Any]


def expect(code: str, severity: str, start: int, size: int, begun: Row, ended: Row) -> Expected:
    """A finding to be made: from one operation to another, each of which took a while."""
    return {
        "code": code, "severity": severity, "gpa": start, "size": size,
        "from_ns": [begun["start_ns"], begun["stop_ns"]],
        "until_ns": [ended["start_ns"], ended["stop_ns"]],
    }  # fmt: skip


def stale(vmm: Vmm, start: int) -> list[Expected]:
    """Private and discarded while mapped, and unmapped a while later."""
    private = vmm.attribute(start, PAGE, PRIVATE)
    vmm.discard("discard_shared", vmm.ram_fd, start, PAGE)
    time.sleep(0.01)
    unmap = vmm.unmap(start, PAGE)
    return [expect("TK101", "error", start, PAGE, private, unmap)]


def early(vmm: Vmm, start: int) -> list[Expected]:
    """Mapped before the pages are shared."""
    vmm.to_private(start, 2 * PAGE)
    wrong = vmm.map(start, 2 * PAGE)
    time.sleep(0.01)
    shared = vmm.attribute(start, 2 * PAGE, SHARED)
    vmm.discard("discard_private", vmm.gmem, start, 2 * PAGE)
    return [expect("TK103", "error", start, 2 * PAGE, wrong, shared)]


def missing(vmm: Vmm, start: int) -> list[Expected]:
    """Shared again and never mapped."""
    vmm.to_private(start, PAGE)
    shared = vmm.attribute(start, PAGE, SHARED)
    over = vmm.discard("discard_private", vmm.gmem, start, PAGE)
    return [expect("TK104", "error", start, PAGE, shared, over)]


def wrong_side(vmm: Vmm, start: int) -> list[Expected]:
    """To private, and then the private side thrown away."""
    vmm.attribute(start, PAGE, PRIVATE)
    vmm.unmap(start, PAGE)
    vmm.discard("discard_shared", vmm.ram_fd, start, PAGE)
    wrong = vmm.discard("discard_private", vmm.gmem, start, PAGE)
    return [expect("TK110", "error", start, PAGE, wrong, wrong)]


def invalid(vmm: Vmm, start: int) -> list[Expected]:
    """A conversion of half a page, which the kernel refuses, and QEMU would not ask for."""
    wrong = vmm.attribute(start, PAGE // 2, PRIVATE)
    return [
        expect("TK202", "warning", start, PAGE // 2, wrong, wrong),
        expect("TK201", "error", start, PAGE // 2, wrong, wrong),
    ]


def late(vmm: Vmm, start: int) -> list[Expected]:
    """Discarded while mapped, and unmapped long after."""
    punch = vmm.discard("discard_shared", vmm.ram_fd, start, PAGE)
    time.sleep(0.5)
    unmap = vmm.unmap(start, PAGE)
    return [expect("TK102", "warning", start, PAGE, punch, unmap)]


def cut(vmm: Vmm, start: int) -> list[Expected]:
    """Two pages mapped as one, and one of them unmapped, which the kernel refuses."""
    vmm.unmap(start, PAGE)
    vmm.unmap(start + PAGE, PAGE)
    vmm.map(start, 2 * PAGE)
    wrong = vmm.unmap(start, PAGE)
    return [expect("TK105", "warning", start, PAGE, wrong, wrong)]


def double(vmm: Vmm, start: int) -> list[Expected]:
    """Mapped where it is mapped, which the kernel refuses."""
    wrong = vmm.map(start, PAGE)
    return [expect("TK106", "warning", start, PAGE, wrong, wrong)]


MISTAKES: dict[str, Callable[[Vmm, int], list[Expected]]] = {
    "stale": stale,
    "early": early,
    "missing": missing,
    "wrong-side": wrong_side,
    "invalid": invalid,
    "late": late,
    "cut": cut,
    "double": double,
}
WITHOUT_KVM = ("late", "cut", "double")
"""Mistakes that need no private memory."""
MISTAKES_AT = 12 * MiB
"""Each has eight pages, mapped one by one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="the file to write")
    parser.add_argument("--device", default="0000:00:10.0")
    parser.add_argument("--backend", choices=("type1", "iommufd"), default="type1")
    parser.add_argument("--kvm", choices=("protected", "none"), default="protected")
    parser.add_argument(
        "--mistake", choices=("none", "all", *MISTAKES), default="none",
        help="all: all that are possible with or without KVM",
    )  # fmt: skip
    given = parser.parse_args()
    vmm = Vmm(given.device, given.backend, kvm=given.kvm == "protected")
    mistakes = [] if given.mistake == "none" else [given.mistake]
    if given.mistake == "all":
        mistakes = list(MISTAKES) if vmm.kvm else list(WITHOUT_KVM)
    expected: list[Expected] = []
    if vmm.kvm:
        vmm.attribute(0, RAM, PRIVATE)  # as QEMU does with a slot that has a guest_memfd
    for start, size in ((0, 64 * PAGE), (8 * MiB, 16 * PAGE), (16 * MiB, PAGE)):
        vmm.to_shared(start, size)
        vmm.ram[start] = 1  # the shared side is touched
    if mistakes:
        vmm.to_shared(MISTAKES_AT, 8 * PAGE * len(mistakes))
    for start, size in ((PAGE, PAGE), (4 * PAGE, 8 * PAGE), (8 * MiB, 16 * PAGE)):
        vmm.to_private(start, size)
    vmm.to_shared(4 * PAGE, 8 * PAGE)
    for number, name in enumerate(mistakes):
        expected += MISTAKES[name](vmm, MISTAKES_AT + 8 * PAGE * number)
        vmm.to_private((40 + number) * PAGE, PAGE)
    for round in range(3):
        vmm.to_private((32 + round) * PAGE, PAGE)
        vmm.to_shared((32 + round) * PAGE, PAGE)
    for at, size in sorted(vmm.mapped.items()):
        vmm.unmap(at, size)
    truth = {
        "pid": os.getpid(),
        "backend": given.backend,
        "expected": expected,
        "operations": vmm.log.operations,
    }
    given.truth.write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
