"""A call as the events that a kernel records of it.

Entry, probe with arguments, what happens inside, the callee's return, the return: the events of
``tracekit plan --purpose dma``, with every system call's exit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tracekit.synth.calls import Call, Op
from tracekit.synth.vmm import (
    DOMAIN,
    FIRST_DEVICE_FD,
    GMEM_FILE,
    IO_PAGETABLE,
    IOMMUFD_FILE,
    KVM,
    KVM_FD,
    VFIO_IOMMU,
    VM_FD,
    VM_FILE,
    Region,
    Vmm,
)

__all__ = ("RUN", "SOURCES", "Row", "rows")

PROBES = "tracekit_dma"
PRIVATE = 8
PUNCH_HOLE = 3
CREATE_VM, CREATE_GMEM, SET_SLOT, SET_ATTRIBUTES, RUN = (
    0xAE01, 0xC040AED4, 0x40A0AE49, 0x4020AED2, 0xAE80,
)  # fmt: skip
SET_IOMMU, MAP_DMA, UNMAP_DMA = 0x3B66, 0x3B71, 0x3B72
ATTACH_PT, IOAS_ALLOC, IOAS_MAP, IOAS_UNMAP, IOAS_MAP_FILE = 0x3B77, 0x3B81, 0x3B85, 0x3B86, 0x3B8F
IOAS = 2
SYSFS_FD = 90

SOURCES = {
    "open.entered": "syscalls:sys_enter_openat",
    "open.returned": "syscalls:sys_exit_openat",
    **{
        f"{call}.{what}": f"syscalls:sys_{way}_{call}"
        for call in ("ioctl", "fallocate", "madvise", "mmap", "close")
        for what, way in (("entered", "enter"), ("returned", "exit"))
    },
    "kvm.vm_ioctl": f"{PROBES}:kvm_vm_ioctl",
    "kvm.vm_ioctl_returned": f"{PROBES}:kvm_vm_ioctl_ret",
    "kvm.attributes": "kvm:kvm_vm_set_mem_attributes",
    "kvm.attributes_pre": f"{PROBES}:kvm_pre_set",
    "kvm.attributes_post": f"{PROBES}:kvm_post_set",
    "kvm.gmem_fallocate": f"{PROBES}:kvm_gmem_fallocate",
    "kvm.userspace_exit": "kvm:kvm_userspace_exit",
    "vfio.type1_ioctl": f"{PROBES}:type1_ioctl",
    "vfio.type1_ioctl_returned": f"{PROBES}:type1_ioctl_ret",
    "iommufd.ioctl": f"{PROBES}:iommufd_ioctl",
    "iommufd.ioctl_returned": f"{PROBES}:iommufd_ioctl_ret",
    "iommufd.iopt_map_user": f"{PROBES}:iopt_map_user",
    "iommufd.iopt_map_file": f"{PROBES}:iopt_map_file",
    "iommufd.iopt_unmap": f"{PROBES}:iopt_unmap",
    "iommu.map_called": f"{PROBES}:iommu_map",
    "iommu.map": "iommu:map",
    "iommu.unmap": "iommu:unmap",
    "iommu.attach": "iommu:attach_device_to_domain",
    "iommu.domain_freed": f"{PROBES}:iommu_domain_free",
    "process.fork": "sched:sched_process_fork",
    "process.exit": "sched:sched_process_exit",
}
"""What records each event type."""


class Row(NamedTuple):
    """One event of a call: its type, what the time before it is spent on, and its columns.

    ``moves``: the columns that hold an address, which moves with the call's.
    """

    event: str
    gap: str
    columns: dict[str, Any]
    moves: tuple[str, ...] = ()


def rows(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    """The events of a call by thread ``tid``, in their order."""
    yield from _RENDERERS[call.op](call, vmm, tid)


def _ioctl(fd: int, cmd: int, gap: str, inside: list[Row], ret: int) -> Iterator[Row]:
    yield Row("ioctl.entered", gap, {"fd": fd, "cmd": cmd, "vaddr": 0x7FFD_6956_D220})
    yield from inside
    yield Row("ioctl.returned", "exit", {"ret": ret})


def _kvm(call: Call, vmm: Vmm, cmd: int, columns: dict[str, Any], moves: tuple[str, ...],
         inside: list[Row]) -> Iterator[Row]:  # fmt: skip
    said = {"object": vmm.object(VM_FILE), "cmd": cmd, **columns}
    within = [Row("kvm.vm_ioctl", "probe", said, moves), *inside]
    within.append(Row("kvm.vm_ioctl_returned", "committed", {"ret": call.ret}))
    yield from _ioctl(VM_FD, cmd, "to request", within, call.ret)


def _create_vm(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield from _ioctl(KVM_FD, CREATE_VM, "slow", [], VM_FD)


def _create_gmem(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    fd = vmm.region_at(call.at).gmem
    columns = {"size": call.size, "flags": 0}
    yield from _kvm(_with(call, fd), vmm, CREATE_GMEM, columns, (), [])


def _with(call: Call, ret: int) -> Call:
    return Call(call.op, call.at, call.size, call.value, call.space, ret, call.parts)


def _slot(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    region = vmm.region_at(call.at)
    flags = call.parts[0][0] if call.parts else (4 if region.gmem >= 0 else 0)
    columns = {
        "id": call.value, "flags": flags, "gpa": call.at, "size": call.size,
        "vaddr": _host(region, call.at), "offset": 0, "file_fd": 0,
    }  # fmt: skip
    if region.gmem >= 0:
        columns |= {"offset": call.at - region.gpa, "file_fd": region.gmem}
    yield from _kvm(call, vmm, SET_SLOT, columns, (), [])


def _host(region: Region, gpa: int) -> int:
    return region.host + gpa - region.gpa


def _mmap(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    region = vmm.region_at(call.at)
    flags = call.value or (1 if region.fd >= 0 else 0x22)
    entered = {"vaddr": 0, "size": call.size, "flags": flags, "offset": 0}
    if region.fd >= 0:
        entered["file_fd"] = region.fd
    yield Row("mmap.entered", "slow", entered)
    yield Row("mmap.returned", "slow", {"ret": region.host})


def _open(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield Row("open.entered", "slow", {"flags": 2})
    yield Row("open.returned", "slow", {"ret": vmm.container_fd(call.space)})


def _attach(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    fd = vmm.container_fd(call.space)
    device = Row("iommu.attach", "slow", {"name": f"0000:{0x3B + call.space:02x}:00.0"})
    if vmm.backend == "type1":
        yield from _ioctl(fd, SET_IOMMU, "slow", [device], 0)
        return
    said = {"object": vmm.object(IOMMUFD_FILE, call.space), "cmd": IOAS_ALLOC, "argsz": 12,
            "flags": 0}  # fmt: skip
    alloc = [
        Row("iommufd.ioctl", "probe", said),
        Row("iommufd.ioctl_returned", "mapped", {"ret": 0}),
    ]
    yield from _ioctl(fd, IOAS_ALLOC, "slow", alloc, 0)
    yield from _ioctl(FIRST_DEVICE_FD + call.space, ATTACH_PT, "slow", [device], 0)


def _close(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield Row("close.entered", "slow", {"fd": vmm.container_fd(call.space)})
    for domain in range(vmm.domains):
        number = call.space * vmm.domains + domain
        yield Row("iommu.domain_freed", "slow", {"object": vmm.object(DOMAIN, number)})
    yield Row("close.returned", "slow", {"ret": 0})


def _look_up(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield Row("open.entered", "slow", {"flags": 0})
    yield Row("open.returned", "slow", {"ret": SYSFS_FD})
    yield Row("close.entered", "slow", {"fd": SYSFS_FD})
    yield Row("close.returned", "slow", {"ret": 0})


def _other(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    fd = VM_FD if call.space < 0 else vmm.container_fd(call.space)
    yield from _ioctl(fd, call.value, "slow", [], call.ret)


def _attribute(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    span = {"gpa": call.at, "size": call.size}
    said = {**span, "attributes": call.value, "flags": 0}
    inside = [Row("kvm.attributes", "request", {**span, "attributes": call.value}, ("gpa",))]
    for event, gap in (("kvm.attributes_pre", "exit"), ("kvm.attributes_post", "commit")):
        for gpa, size in call.parts:
            kvm = {"object": vmm.object(KVM), "gpa": gpa, "size": size}
            inside.append(Row(event, gap, kvm, ("gpa",)))
    yield from _kvm(call, vmm, SET_ATTRIBUTES, said, ("gpa",), inside)


def _map(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    region = vmm.region_at(call.at)
    vaddr = _host(region, call.at)
    inside: list[Row] = []
    if call.ret >= 0:
        span = {"iova": call.at, "size": call.size, "paddr": vmm.paddr + call.at}
        for domain in range(vmm.domains):
            number = call.space * vmm.domains + domain
            called = {**span, "object": vmm.object(DOMAIN, number), "flags": 7}
            gap = "called" if not domain else "map"
            inside.append(Row("iommu.map_called", gap, called, ("iova", "paddr")))
            inside.append(Row("iommu.map", "map", span, ("iova", "paddr")))
    yield from _dma(
        call, vmm, MAP_DMA, IOAS_MAP,
        {"argsz": 32, "flags": 3, "vaddr": vaddr, "iova": call.at, "size": call.size},
        {"argsz": 40, "flags": 7, "id": IOAS, "vaddr": vaddr, "size": call.size, "iova": call.at},
        inside, "mapped", "next map",
    )  # fmt: skip


def _unmap(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    inside: list[Row] = []
    for iova, size in call.parts:
        for _ in range(vmm.domains):
            gap = "unmap more" if inside else "unmap"
            said = {"iova": iova, "size": size, "unmapped": size}
            inside.append(Row("iommu.unmap", gap, said, ("iova",)))
    yield from _dma(
        call, vmm, UNMAP_DMA, IOAS_UNMAP,
        {"argsz": 24, "flags": 0, "iova": call.at, "size": call.size},
        {"argsz": 24, "id": IOAS, "iova": call.at, "size": call.size},
        inside, "unmapped", "pause" if call.value else "to unmap",
    )  # fmt: skip


def _dma(
    call: Call,
    vmm: Vmm,
    type1: int,
    iommufd: int,
    type1_said: dict[str, Any],
    iommufd_said: dict[str, Any],
    inside: list[Row],
    done: str,
    gap: str,
) -> Iterator[Row]:
    fd = vmm.container_fd(call.space)
    moves: tuple[str, ...]
    if vmm.backend == "type1":
        said = {"object": vmm.object(VFIO_IOMMU, call.space), "cmd": type1, **type1_said}
        moves = ("iova", "vaddr") if "vaddr" in said else ("iova",)
        within = [Row("vfio.type1_ioctl", "probe", said, moves), *inside]
        within.append(Row("vfio.type1_ioctl_returned", done, {"ret": call.ret}))
        yield from _ioctl(fd, type1, gap, within, call.ret)
        return
    said = {"object": vmm.object(IOMMUFD_FILE, call.space), "cmd": iommufd, **iommufd_said}
    pages = {"object": vmm.object(IO_PAGETABLE, call.space), "iova": call.at, "size": call.size}
    if iommufd == IOAS_UNMAP:
        core = Row("iommufd.iopt_unmap", "exit", pages, ("iova",))
        moves = ("iova",)
    elif vmm.map_file and (region := vmm.region_at(call.at)).fd >= 0:
        iommufd = said["cmd"] = IOAS_MAP_FILE
        del said["vaddr"]
        where = {"offset": call.at - region.gpa, "file_fd": region.fd}
        said |= where
        core = Row("iommufd.iopt_map_file", "exit", {**pages, **where}, ("iova", "offset"))
        moves = ("iova", "offset")
    else:
        user = {**pages, "vaddr": said["vaddr"], "flags": 3}
        core = Row("iommufd.iopt_map_user", "exit", user, ("iova", "vaddr"))
        moves = ("iova", "vaddr")
    within = [Row("iommufd.ioctl", "probe", said, moves), core, *inside]
    within.append(Row("iommufd.ioctl_returned", done, {"ret": call.ret}))
    yield from _ioctl(fd, iommufd, gap, within, call.ret)


def _punch_private(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    region = vmm.region_at(call.at)
    span = {"flags": PUNCH_HOLE, "offset": call.at - region.gpa, "size": call.size}
    yield Row("fallocate.entered", "to discard", {"fd": region.gmem, **span}, ("offset",))
    inner = {"object": vmm.object(GMEM_FILE, region.gmem), **span}
    yield Row("kvm.gmem_fallocate", "punch", inner, ("offset",))
    yield Row("fallocate.returned", "punched", {"ret": call.ret})


def _fallocate(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    region = vmm.region_at(call.at)
    span = {"flags": PUNCH_HOLE, "offset": call.at - region.gpa, "size": call.size}
    yield Row("fallocate.entered", "to discard", {"fd": region.fd, **span}, ("offset",))
    yield Row("fallocate.returned", "discarded", {"ret": call.ret})


def _madvise(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    span = {"vaddr": _host(vmm.region_at(call.at), call.at), "size": call.size,
            "flags": call.value}  # fmt: skip
    yield Row("madvise.entered", "to discard", span, ("vaddr",))
    yield Row("madvise.returned", "discarded", {"ret": call.ret})


def _run(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield from _ioctl(vmm.vcpu_fd(tid), RUN, "after discard", [], 0)


def _enter(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    columns = {"fd": vmm.vcpu_fd(tid), "cmd": RUN, "vaddr": 0}
    yield Row("ioctl.entered", "after discard", columns)


MEMORY_FAULT, EFAULT = 39, -14


def _leave(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    ret = EFAULT if call.value == MEMORY_FAULT else 0
    yield Row("kvm.userspace_exit", "guest", {"flags": call.value, "ret": ret})
    yield Row("ioctl.returned", "exit", {"ret": ret})


def _fork(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield Row("process.fork", "slow", {"id": call.value, "name": vmm.comm})


def _exit(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    yield Row("process.exit", "slow", {"flags": 1} if call.value else {})


def _wait(call: Call, vmm: Vmm, tid: int) -> Iterator[Row]:
    return iter(())


_RENDERERS = {
    Op.FORK: _fork, Op.CREATE_VM: _create_vm, Op.MMAP: _mmap, Op.CREATE_GMEM: _create_gmem,
    Op.SLOT: _slot, Op.OPEN: _open, Op.ATTACH: _attach, Op.CLOSE: _close, Op.IOCTL: _other,
    Op.LOOK_UP: _look_up,
    Op.ATTRIBUTE: _attribute, Op.MAP: _map, Op.UNMAP: _unmap, Op.PUNCH_PRIVATE: _punch_private,
    Op.FALLOCATE: _fallocate, Op.MADVISE: _madvise, Op.RUN: _run, Op.ENTER: _enter,
    Op.LEAVE: _leave, Op.WAIT: _wait, Op.EXIT: _exit,
}  # fmt: skip
