"""The language in which tests write traces: one call or event a line.

::

    0us    vmm   create-vm
    1us    vmm   memory                        # mmap of the memfd that is the guest's RAM
    2us    vmm   set-iommu
    3us    vmm   map 0x100000+2M each=4K       # one DMA map call, 4 KiB pieces in the IOMMU
    9us    vmm   private 0x100000+2M           # KVM_SET_MEMORY_ATTRIBUTES
    12us   vmm2  unmap 0x100000+1M for=20us    # another thread; the call takes 20 us
    40us   vmm   punch 0x100000+2M             # a hole in the shared memory
    lost cpu0 44us..50us
    60us   vmm   run
    70us   vmm   create-gmem 0x0+1G            # KVM_CREATE_GUEST_MEMFD
    71us   vmm   slot 0 0x0+1G gmem            # KVM_SET_USER_MEMORY_REGION2, with that guest_memfd
    72us   vmm   ioas-map 0x100000+2M ioas=3   # the same through iommufd
    clock-back cpu0 70us said=20us
    90us   end

A line gives the rows that an importer makes of a recording in which everything was probed.  Every
call takes 1 us, its events spread over it.  Options:

``ret=N``
    the call's result; a refused call has no effect, and no events of one
``for=TIME``
    how long it takes
``no-exit``
    its return was not recorded, nor its callee's
``no-return``
    its callee's return was recorded, its own not
``no-callee``
    no probe on the kernel function: an eprobe on the system call's entry tells the arguments
``bare``
    neither: nobody tells the arguments
``no-op``
    an attribute change of what is so already: no post hook
``each=SIZE``
    a map's pieces
``silent``
    no iommu events
``domain``
    a probe on iommu_map() shows the domain
``fd=N cpu=N at=ADDRESS flags=N tell=SIZE``
    descriptor, CPU, user address; flags of the call; what the iommu event says was unmapped
``gmem=N goff=SIZE untold``
    a slot's guest_memfd (a bare ``gmem`` is the usual one), the offset in it; neither recorded
``ioas=N huge``
    number of the IO address space; a mapping of huge pages
``sock`` and ``sockN``
    the thread of a vsock socket: its verbs are in ``vsock_language.py``
``irq``
    an interrupt's, under the name of the thread that it stopped
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from vsock_language import VSOCK_VERBS

from tracekit.events import COLUMNS, event_type

__all__ = ("GMEM_FD", "IOMMUFD_FD", "MEMORY", "MEMORY_FD", "trace_of")

Row = dict[str, Any]

MEMORY = 0x7F00_0000_0000
"""User address of the guest's first byte."""
KVM_FD, MEMORY_FD, VM_FD, GMEM_FD, CONTAINER_FD, GROUP_FD = 5, 4, 6, 7, 8, 9
IOMMUFD_FD = 11
CONTAINER, VM_FILE, VM, DOMAIN = 0xFFFF_0001, 0xFFFF_0002, 0xFFFF_0003, 0xFFFF_0004

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIME = re.compile(r"^(\d+(?:\.\d+)?)(ns|us|ms|s)$")
_RANGE = re.compile(r"^(0x[0-9a-f]+|\d+)\+(0x[0-9a-f]+|\d+)([KMG]?)$")
_EMPTY: Row = {c.name: None for c in COLUMNS}


def trace_of(text: str) -> list[Row]:
    """The rows of a trace, in order."""
    written: list[Row] = []
    threads: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words:
            written += _line(words, threads)
    written.sort(key=lambda row: row["ts_ns"])
    if written:
        # Later threads are threads of the first: somebody made them.
        start = written[0]["ts_ns"]
        born = [n for n in threads.values() if n not in (_tid("vmm"), _tid("other"))]
        written[:0] = [_row("process.fork", start, _tid("vmm"), 0, id=tid) for tid in sorted(born)]
    for seq, row in enumerate(written):
        row["seq"] = seq
    return written


def nanoseconds(text: str) -> int:
    """``5us`` as a number."""
    found = _TIME.match(text)
    assert found is not None, f"no time: {text}"
    return round(float(found[1]) * _UNITS[found[2]])


def _line(words: list[str], threads: dict[str, int]) -> Iterator[Row]:
    if words[0] == "lost":
        first, last = (nanoseconds(t) for t in words[2].split(".."))
        cpu = int(words[1].removeprefix("cpu"))
        yield _row("trace.lost", first, None, cpu, until_ns=last)
        return
    if words[0] == "clock-back":
        said = nanoseconds(words[3].removeprefix("said="))
        yield _row("trace.clock_back", nanoseconds(words[2]), None, 0, until_ns=said)
        return
    at = nanoseconds(words[0])
    if words[1] == "end":
        yield _row("trace.marker", at, _tid("other"), 0, detail="end")
        return
    actor, verb, *rest = words[1:]
    threads[actor] = tid = _tid(actor)
    options: dict[str, str] = {}
    where: list[str] = []
    for word in rest:
        name, _, value = word.partition("=")
        if _RANGE.match(word) or word.isdigit():
            where.append(word)
        else:
            options[name] = value
    cpu = int(options.get("cpu", 0))
    call = _Call(where, options)
    rows = list((VSOCK_VERBS[verb] if verb in VSOCK_VERBS else _VERBS[verb])(call))
    takes = nanoseconds(options.get("for", "1us"))
    for i, (event, columns) in enumerate(rows):
        columns, thread = dict(columns), int(columns.get("thread", tid))
        columns.pop("thread", None)
        then = at + takes * i // max(len(rows) - 1, 1)
        if columns.pop("at_end", False):
            then = at + takes
        elif columns.pop("at_begin", False):
            then = at + i
        context = {"context": 0x08} if "irq" in options else {}
        yield _row(event, then, thread, cpu, **context, **columns)


def _tid(actor: str) -> int:
    if actor == "other":
        return 900
    if actor.startswith("sock"):
        return 500 + int(actor.removeprefix("sock") or 1)
    return 100 + int(actor.removeprefix("vmm") or 1) - 1


def _row(event: str, ts_ns: int, tid: int | None, cpu: int, **columns: Any) -> Row:
    """A row of the declared type: a column that it does not have is an error."""
    return {**_EMPTY, **event_type(event)(ts_ns=ts_ns, tid=tid, cpu=cpu, **columns).row()}


Events = Iterator[tuple[str, dict[str, Any]]]


class _Call:
    """The words of one line."""

    def __init__(self, where: list[str], options: dict[str, str]) -> None:
        self.options = options
        self.words = where
        self.iova = self.size = 0
        self.number = int(where[0]) if where and where[0].isdigit() else None
        ranges = [word for word in where if not word.isdigit()]
        if ranges:
            found = _RANGE.match(ranges[0])
            assert found is not None
            self.iova = int(found[1], 0)
            self.size = int(found[2], 0) * _SIZES[found[3]]
        self.ret = int(options.get("ret", "0"))

    def __contains__(self, option: str) -> bool:
        return option in self.options

    def fd(self, default: int) -> int:
        return int(self.options.get("fd", default))

    @property
    def vaddr(self) -> int:
        return int(self.options.get("at", hex(MEMORY + self.iova)), 0)

    def pieces(self) -> Iterator[tuple[int, int]]:
        each = self.size
        if "each" in self:
            found = _RANGE.match(f"0+{self.options['each']}")
            assert found is not None
            each = int(found[2], 0) * _SIZES[found[3]]
        for iova in range(self.iova, self.iova + self.size, max(each, 1)):
            yield iova, min(each, self.iova + self.size - iova)

    def ioctl(
        self, fd: int, cmd: int, callee: str | None = None, inside: Events | None = None,
        **arguments: Any,
    ) -> Events:  # fmt: skip
        """An ioctl with its probes; ``arguments`` as the callee's or the eprobe's columns."""
        yield "ioctl.entered", {"fd": fd, "cmd": cmd}
        told = callee is not None and "no-callee" not in self and "bare" not in self
        if callee is not None and "no-callee" in self:
            mine = {k: v for k, v in arguments.items() if k != "object"}
            yield "ioctl.arguments", {"fd": fd, "cmd": cmd, **mine}
        if told:
            mine = {k: v for k, v in arguments.items() if callee != "kvm.vm_ioctl" or k != "argsz"}
            yield str(callee), {"cmd": cmd, **mine}
        if self.ret >= 0 and inside is not None:
            yield from inside
        if "no-exit" in self:
            return
        if told:
            yield f"{callee}_returned", {"ret": self.ret}
        if "no-return" not in self:
            yield "ioctl.returned", {"ret": self.ret}

    def system_call(self, name: str, **columns: Any) -> Events:
        yield f"{name}.entered", columns
        if "no-exit" not in self:
            yield f"{name}.returned", {"ret": self.ret}


def _create_vm(call: _Call) -> Events:
    call.ret = call.ret or call.fd(VM_FD)
    yield from call.ioctl(KVM_FD, 0xAE01)


def _create_gmem(call: _Call) -> Events:
    """KVM_CREATE_GUEST_MEMFD: ``gmem=N`` is the descriptor that it returns."""
    call.ret = call.ret or int(call.options.get("gmem") or GMEM_FD)
    yield from call.ioctl(
        call.fd(VM_FD), 0xC040AED4, "kvm.vm_ioctl", object=_vm_file(call), size=call.size, flags=0,
    )  # fmt: skip


def _slot(call: _Call) -> Events:
    """KVM_SET_USER_MEMORY_REGION2; size 0 deletes."""
    arguments: dict[str, Any] = {
        "id": call.number, "gpa": call.iova,
        "flags": int(call.options.get("flags", 4 if "gmem" in call else 0)),
        "size": call.size, "vaddr": call.vaddr,
    }  # fmt: skip
    if "gmem" in call and "untold" not in call:
        arguments["file_fd"] = int(call.options["gmem"] or GMEM_FD)
        arguments["offset"] = int(call.options.get("goff", "0"), 0)
    yield from call.ioctl(
        call.fd(VM_FD), 0x40A0AE49, "kvm.vm_ioctl", object=_vm_file(call), **arguments
    )


def _vm_file(call: _Call) -> int:
    return VM_FILE + 0x100 * (call.fd(VM_FD) - VM_FD)


def _gmem_attributes(call: _Call) -> Events:
    """Attributes of a guest_memfd, not of the VM."""
    yield from call.ioctl(call.fd(GMEM_FD), 0xC080AED2)


def _set_iommu(call: _Call) -> Events:
    yield from call.ioctl(call.fd(CONTAINER_FD), 0x3B66)


def _memory(call: _Call) -> Events:
    """mmap() of the guest's memory: a line without a range maps 1 GiB."""
    size = call.size or 1 << 30
    fd = call.fd(MEMORY_FD)
    flags = 0x40001 if "huge" in call else 1
    yield "mmap.entered", {
        "vaddr": 0, "size": size, "flags": flags, "file_fd": fd, "offset": call.iova,
    }  # fmt: skip
    yield "mmap.returned", {"ret": call.vaddr}


def _map(call: _Call) -> Events:
    def inside() -> Events:
        if "silent" not in call:
            for iova, size in call.pieces():
                if "domain" in call:
                    yield "iommu.map_called", {"object": DOMAIN, "iova": iova, "size": size}
                yield "iommu.map", {"iova": iova, "size": size, "paddr": 0x1_0000_0000 + iova}

    flags = int(call.options.get("flags", "3"))
    yield from call.ioctl(
        call.fd(CONTAINER_FD), 0x3B71, "vfio.type1_ioctl", inside(),
        object=CONTAINER + 16 * (call.fd(CONTAINER_FD) - CONTAINER_FD), argsz=32, flags=flags,
        vaddr=call.vaddr, iova=call.iova, size=call.size,
    )  # fmt: skip


def _unmap(call: _Call) -> Events:
    def inside() -> Events:
        if "silent" not in call and call.size:
            tell = call.options.get("tell")
            for iova, size in call.pieces():
                removed = size if tell is None else int(tell, 0)
                yield "iommu.unmap", {"iova": iova, "size": size, "unmapped": removed}

    flags = int(call.options.get("flags", "0"))
    yield from call.ioctl(
        call.fd(CONTAINER_FD), 0x3B72, "vfio.type1_ioctl", inside(),
        object=CONTAINER + 16 * (call.fd(CONTAINER_FD) - CONTAINER_FD), argsz=24, flags=flags,
        iova=call.iova, size=call.size,
    )  # fmt: skip


def _ioas_alloc(call: _Call) -> Events:
    yield from call.ioctl(call.fd(IOMMUFD_FD), 0x3B81)


def _ioas_map(call: _Call) -> Events:
    def inside() -> Events:
        if "silent" not in call:
            for iova, size in call.pieces():
                yield "iommu.map", {"iova": iova, "size": size, "paddr": 0x1_0000_0000 + iova}

    yield from call.ioctl(
        call.fd(IOMMUFD_FD), 0x3B85, "iommufd.ioctl", inside(), argsz=40, flags=7,
        id=int(call.options.get("ioas", "1")), vaddr=call.vaddr, iova=call.iova, size=call.size,
    )  # fmt: skip


def _ioas_unmap(call: _Call) -> Events:
    def inside() -> Events:
        if "silent" not in call:
            for iova, size in call.pieces():
                yield "iommu.unmap", {"iova": iova, "size": size, "unmapped": size}

    yield from call.ioctl(
        call.fd(IOMMUFD_FD), 0x3B86, "iommufd.ioctl", inside(), argsz=24,
        id=int(call.options.get("ioas", "1")), iova=call.iova, size=call.size,
    )  # fmt: skip


def _attributes(attributes: int) -> Callable[[_Call], Events]:
    def verb(call: _Call) -> Events:
        def inside() -> Events:
            if "bare" not in call:
                yield "kvm.attributes", {
                    "gpa": call.iova & ~0xFFF, "size": call.size & ~0xFFF, "attributes": attributes,
                }  # fmt: skip
            if "no-op" not in call and "no-post" not in call:
                yield "kvm.attributes_post", {"object": VM}

        yield from call.ioctl(
            call.fd(VM_FD), 0x4020AED2, "kvm.vm_ioctl", inside(),
            object=_vm_file(call), gpa=call.iova, size=call.size, attributes=attributes, flags=0,
        )  # fmt: skip

    return verb


def _fallocate(mode: int, default_fd: int) -> Callable[[_Call], Events]:
    def verb(call: _Call) -> Events:
        fd = call.fd(default_fd)
        yield "fallocate.entered", {
            "fd": fd, "flags": mode, "offset": call.iova, "size": call.size,
        }  # fmt: skip
        if fd == GMEM_FD:
            yield "kvm.gmem_fallocate", {
                "object": 0xFFFF_0007, "flags": mode, "offset": call.iova, "size": call.size,
            }  # fmt: skip
        if "no-exit" not in call:
            yield "fallocate.returned", {"ret": call.ret}

    return verb


def _madvise(behaviour: int) -> Callable[[_Call], Events]:
    def verb(call: _Call) -> Events:
        yield from call.system_call("madvise", vaddr=call.vaddr, size=call.size, flags=behaviour)

    return verb


def _run(call: _Call) -> Events:
    yield from call.ioctl(10, 0xAE80)


def _one(event: str, **columns: Any) -> Callable[[_Call], Events]:
    def verb(call: _Call) -> Events:
        own = dict(columns)
        if event == "iommu.map":
            own = {"iova": call.iova, "size": call.size, "paddr": 0}
        if event == "iommu.unmap":
            own = {"iova": call.iova, "size": call.size, "unmapped": call.size}
        if event == "kvm.unmap_hva":
            own = {"vaddr": call.vaddr, "size": call.size}
        if event == "iommu.fault":
            own["iova"] = call.iova
        if event == "qemu.iommu_notify":
            own = {"iova": call.iova, "size": call.size, "flags": 1}
        yield event, own

    return verb


_VERBS: dict[str, Callable[[_Call], Events]] = {
    "create-vm": _create_vm,
    "create-gmem": _create_gmem,
    "slot": _slot,
    "gmem-attributes": _gmem_attributes,
    "set-iommu": _set_iommu,
    "memory": _memory,
    "map": _map,
    "unmap": _unmap,
    "ioas-alloc": _ioas_alloc,
    "ioas-map": _ioas_map,
    "ioas-unmap": _ioas_unmap,
    "private": _attributes(8),
    "shared": _attributes(0),
    "punch": _fallocate(3, MEMORY_FD),
    "populate": _fallocate(0, MEMORY_FD),
    "punch-private": _fallocate(3, GMEM_FD),
    "populate-private": _fallocate(1, GMEM_FD),
    "madvise": _madvise(4),
    "remove": _madvise(9),
    "prefault": _madvise(23),
    "run": _run,
    "enter": _one("kvm.entry", id=0),
    "exit": _one("process.exit", flags=1),
    "exit-thread": _one("process.exit", flags=0),
    "exec": _one("process.exec"),
    "iommu-notify": _one("qemu.iommu_notify"),
    "invalidate": _one("kvm.unmap_hva"),
    "fault": _one("iommu.fault", name="0000:00:10.0"),
    "domain": _one("iommu.group_attached", object=DOMAIN),
    "free-domain": _one("iommu.domain_freed", object=DOMAIN),
    "iommu-map": _one("iommu.map"),
    "iommu-unmap": _one("iommu.unmap"),
    "close": lambda call: call.system_call("close", fd=call.number),
    "munmap": lambda call: call.system_call("munmap", vaddr=call.vaddr, size=call.size),
    "log": lambda call: call.ioctl(1, 0x5401),
}
