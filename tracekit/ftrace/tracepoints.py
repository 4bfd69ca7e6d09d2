"""The kernel's own tracepoints: which event type each is, and which field fills which column."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ("TRACEPOINTS", "Span", "Tracepoint")


@dataclass(frozen=True)
class Span:
    """Two fields, first and one past the last, that fill ``column`` and ``size``."""

    first: str
    end: str
    column: str
    shift: int = 0


@dataclass(frozen=True, kw_only=True)
class Tracepoint:
    """``columns``: column -> field, or several to try in order."""

    event: str
    columns: dict[str, str] = field(default_factory=dict)
    span: Span | None = None
    constants: dict[str, int] = field(default_factory=dict)
    shifts: dict[str, int] = field(default_factory=dict)
    only_for: tuple[str, int, frozenset[str]] | None = None
    """Field, value, columns: these are filled only where the field has the value."""
    no_negative: frozenset[str] = frozenset()
    """Columns that are null where the field is negative."""
    addresses: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Columns that hold a vsock address: the fields of its CID and its port."""


GFN = 12
"""Bits of a page's offset: guest frame numbers are written as bytes."""


def _syscalls() -> dict[str, Tracepoint]:
    entries: dict[str, tuple[str, dict[str, str]]] = {
        "ioctl": ("ioctl", {"fd": "fd", "cmd": "cmd", "vaddr": "arg"}),
        "fallocate": (
            "fallocate",
            {"fd": "fd", "flags": "mode", "offset": "offset", "size": "len"},
        ),
        "madvise": ("madvise", {"vaddr": "start", "size": "len_in", "flags": "behavior"}),
        "mmap": (
            "mmap",
            {"vaddr": "addr", "size": "len", "flags": "flags", "file_fd": "fd", "offset": "off"},
        ),
        "munmap": ("munmap", {"vaddr": "addr", "size": "len"}),
        "openat": ("open", {"name": "__filename_val", "flags": "flags"}),
        "open": ("open", {"name": "__filename_val", "flags": "flags"}),
        "openat2": ("open", {"name": "__filename_val"}),
        "creat": ("open", {"name": "__pathname_val"}),
        "close": ("close", {"fd": "fd"}),
        "socket": ("socket", {"id": "family", "flags": "type"}),
        "accept": ("accept", {"fd": "fd"}),
        "accept4": ("accept", {"fd": "fd"}),
        "connect": ("connect", {"fd": "fd", "vaddr": "uservaddr"}),
        "sendto": ("send", {"fd": "fd", "size": "len", "flags": "flags"}),
        "recvfrom": ("recv", {"fd": "fd", "size": "size", "flags": "flags"}),
        "shutdown": ("shutdown", {"fd": "fd", "flags": "how"}),
        "dup": ("dup", {"fd": "fildes"}),
        "dup2": ("dup", {"fd": "oldfd", "file_fd": "newfd"}),
        "dup3": ("dup", {"fd": "oldfd", "file_fd": "newfd"}),
        "setsockopt": (
            "setsockopt",
            {"fd": "fd", "id": "level", "cmd": "optname", "vaddr": "optval", "argsz": "optlen"},
        ),
    }
    found = {}
    for call, (name, columns) in entries.items():
        no_negative = frozenset(("file_fd",)) if call == "mmap" else frozenset()
        found[f"syscalls:sys_enter_{call}"] = Tracepoint(
            event=f"{name}.entered", columns=columns, no_negative=no_negative
        )
        found[f"syscalls:sys_exit_{call}"] = Tracepoint(
            event=f"{name}.returned", columns={"ret": "ret"}
        )
    return found


_PACKET = {"size": "len", "id": "type", "cmd": "op", "flags": "flags"}
_PACKET_ADDRESSES = {"local": ("src_cid", "src_port"), "peer": ("dst_cid", "dst_port")}

TRACEPOINTS: dict[str, Tracepoint] = {
    **_syscalls(),
    "syscalls:sys_enter_exit_group": Tracepoint(
        event="process.exit_called", columns={"ret": "error_code"}
    ),
    "vsock:virtio_transport_alloc_pkt": Tracepoint(
        event="vsock.packet_allocated", columns=_PACKET, addresses=_PACKET_ADDRESSES
    ),
    "vsock:virtio_transport_recv_pkt": Tracepoint(
        event="vsock.packet_received",
        columns={**_PACKET, "argsz": "buf_alloc", "count": "fwd_cnt"},
        addresses=_PACKET_ADDRESSES,
    ),
    "signal:signal_generate": Tracepoint(
        event="signal.generated",
        columns={
            "cmd": "sig",
            "id": "pid",
            "flags": "group",
            "ret": "result",
        },
    ),
    "signal:signal_deliver": Tracepoint(event="signal.delivered", columns={"cmd": "sig"}),
    "iommu:map": Tracepoint(
        event="iommu.map", columns={"iova": "iova", "paddr": "paddr", "size": "size"}
    ),
    "iommu:unmap": Tracepoint(
        event="iommu.unmap",
        columns={"iova": "iova", "size": "size", "unmapped": "unmapped_size"},
    ),
    "iommu:attach_device_to_domain": Tracepoint(event="iommu.attach", columns={"name": "device"}),
    "iommu:add_device_to_group": Tracepoint(
        event="iommu.group_device", columns={"id": "gid", "name": "device"}, constants={"flags": 1}
    ),
    "iommu:remove_device_from_group": Tracepoint(
        event="iommu.group_device", columns={"id": "gid", "name": "device"}, constants={"flags": 0}
    ),
    "iommu:io_page_fault": Tracepoint(
        event="iommu.fault", columns={"iova": "iova", "name": "device", "flags": "flags"}
    ),
    "kvm:kvm_vm_set_mem_attributes": Tracepoint(
        event="kvm.attributes",
        columns={"attributes": "attr"},
        span=Span("start", "end", "gpa", GFN),
    ),
    "kvm:kvm_unmap_hva_range": Tracepoint(
        event="kvm.unmap_hva", span=Span("start", "end", "vaddr")
    ),
    "kvm:kvm_entry": Tracepoint(event="kvm.entry", columns={"id": "vcpu_id"}),
    "kvm:kvm_exit": Tracepoint(event="kvm.exit", columns={"id": "vcpu_id", "flags": "exit_reason"}),
    "kvm:kvm_userspace_exit": Tracepoint(
        event="kvm.userspace_exit", columns={"flags": "reason", "ret": "errno"}
    ),
    "kvm:kvm_hypercall": Tracepoint(
        event="kvm.hypercall",
        columns={"cmd": "nr", "gpa": "a0", "size": "a1", "flags": "a2"},
        shifts={"size": GFN},
        only_for=("nr", 12, frozenset(("gpa", "size", "flags"))),
    ),
    "kvm:kvm_page_fault": Tracepoint(
        event="kvm.page_fault",
        columns={"id": "vcpu_id", "gpa": "fault_address", "flags": "error_code"},
    ),
    "kvm:kvm_rmp_fault": Tracepoint(
        event="kvm.rmp_fault", columns={"id": "vcpu_id", "gpa": "gpa", "flags": "error_code"}
    ),
    "kvm:kvm_vmgexit_enter": Tracepoint(
        event="kvm.vmgexit", columns={"id": "vcpu_id", "flags": "exit_reason"}
    ),
    "sched:sched_process_fork": Tracepoint(
        event="process.fork", columns={"id": "child_pid", "name": "child_comm"}
    ),
    "sched:sched_process_exec": Tracepoint(event="process.exec", columns={"name": "filename"}),
    "sched:sched_process_exit": Tracepoint(event="process.exit", columns={"flags": "group_dead"}),
    "ftrace:print": Tracepoint(event="trace.marker", columns={"detail": "buf"}),
}
