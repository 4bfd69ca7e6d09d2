"""How ftrace's text words the events that are known: the kernel's own, and trace-cmd's.

Wordings are regular expressions made of a small notation, so that a line can be tried in time that
grows with its length only: text up to a literal is taken once and never again differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = ("WORDINGS", "Kind", "Wording", "wording")


class Kind(Enum):
    """How a value is written; the value is its letter in the notation."""

    HEX = "x"
    NUMBER = "d"
    """Decimal, or hexadecimal behind 0x."""
    RESULT = "r"
    """As NUMBER; an error of 32 bits in hexadecimal is negative."""
    NEGATED = "n"
    TRUTH = "b"
    OPEN_FLAGS = "o"
    PACKET = "p"
    """Type or operation of a vsock packet, by name."""
    TEXT = "t"


_NUMBER = rb"(-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20}))(?![0-9a-z])"
_PATTERNS = {
    Kind.HEX: rb"((?:0x)?[0-9a-f]{1,16})(?![0-9a-z])",
    Kind.NUMBER: _NUMBER,
    Kind.RESULT: _NUMBER,
    Kind.NEGATED: rb"([0-9]{1,10})(?![0-9a-z])",
    Kind.TRUTH: rb"(true|false|[01])(?![0-9a-z])",
    Kind.PACKET: rb"([A-Z_]{2,16}|[0-9]{1,5}|0x[0-9a-f]{1,4})(?![0-9a-zA-Z])",
    Kind.OPEN_FLAGS: rb"((?:0x)?[0-9a-f]{1,16}(?![0-9a-zA-Z])"
    rb"|[A-Z_]+(?:\|(?:[A-Z_]+|0x[0-9a-f]{1,16}))*)",
}
_PIECE = re.compile(r"\{(\w+):([xdrnbotp])\}|(\{\*\})")


@dataclass(frozen=True)
class Wording:
    """One event in one spelling.  ``fields``: what ``pattern``'s groups are, in order.

    ``pattern`` matches what follows the event's name on a line.
    """

    source: str
    fields: tuple[tuple[str, Kind], ...]
    pattern: bytes


def wording(source: str, notation: str) -> Wording:
    """A wording from its notation: ``size={size:d}`` takes a field, ``{*}`` passes over text."""
    out = b""
    fields: list[tuple[str, Kind]] = []
    pieces = _PIECE.split(notation)
    # Literal, (field, letter, None) or (None, None, "{*}"), literal, ...
    out += re.escape(pieces[0].encode())
    for at in range(1, len(pieces), 4):
        name, letter, _, literal = pieces[at : at + 4]
        after = re.escape(literal.encode())
        kind = Kind(letter) if letter else None
        if kind is None:
            out += b"(?>[^\\n]*?" + after + b")" if after else b"[^\\n]*"
            continue
        fields.append((name, kind))
        if kind is not Kind.TEXT:
            out += _PATTERNS[kind] + after
        else:
            out += b"((?>[^\\n]*?(?=" + after + b")))" + after if after else b"([^\\n]*)"
    return Wording(source, tuple(fields), out)


_CALLS: dict[str, tuple[str, ...]] = {
    "ioctl": ("fd: {fd:x}, cmd: {cmd:x}, arg: {arg:x}", "fd={fd:x} cmd={cmd:x} arg={arg:x}"),
    "fallocate": (
        "fd: {fd:x}, mode: {mode:x}, offset: {offset:x}, len: {len:x}",
        "fd={fd:x} mode={mode:x} offset={offset:x} len={len:x}",
    ),
    "madvise": (
        "start: {start:x}, len_in: {len_in:x}, behavior: {behavior:x}",
        "start={start:x} len_in={len_in:x} behavior={behavior:x}",
    ),
    "mmap": (
        "addr: {addr:x}, len: {len:x}, prot: {*}, flags: {flags:x}, fd: {fd:x}, off: {off:x}",
        "addr={addr:x} len={len:x} prot={*} flags={flags:x} fd={fd:x} off={off:x}",
    ),
    "munmap": ("addr: {addr:x}, len: {len:x}", "addr={addr:x} len={len:x}"),
    "close": ("fd: {fd:x}", "fd={fd:x}"),
    "socket": (
        "family: {family:x}, type: {type:x}, protocol: {*}",
        "family={family:x} type={type:x} protocol={*}",
    ),
    "accept": ("fd: {fd:x}, {*}", "fd={fd:x} {*}"),
    "accept4": ("fd: {fd:x}, {*}", "fd={fd:x} {*}"),
    "connect": (
        "fd: {fd:x}, uservaddr: {uservaddr:x}, addrlen: {*}",
        "fd={fd:x} uservaddr={uservaddr:x} addrlen={*}",
    ),
    "sendto": (
        "fd: {fd:x}, buff: {*}, len: {len:x}, flags: {flags:x}, addr: {*}",
        "fd={fd:x} buff={*} len={len:x} flags={flags:x} addr={*}",
    ),
    "recvfrom": (
        "fd: {fd:x}, ubuf: {*}, size: {size:x}, flags: {flags:x}, addr: {*}",
        "fd={fd:x} ubuf={*} size={size:x} flags={flags:x} addr={*}",
    ),
    "shutdown": ("fd: {fd:x}, how: {how:x}", "fd={fd:x} how={how:x}"),
    "dup": ("fildes: {fildes:x}", "fildes={fildes:x}"),
    "dup2": ("oldfd: {oldfd:x}, newfd: {newfd:x}", "oldfd={oldfd:x} newfd={newfd:x}"),
    "dup3": (
        "oldfd: {oldfd:x}, newfd: {newfd:x}, flags: {*}",
        "oldfd={oldfd:x} newfd={newfd:x} flags={*}",
    ),
    "setsockopt": (
        "fd: {fd:x}, level: {level:x}, optname: {optname:x}, optval: {optval:x},"
        " optlen: {optlen:x}",
        "fd={fd:x} level={level:x} optname={optname:x} optval={optval:x} optlen={optlen:x}",
    ),
    # The path is shown by newer kernels only.
    "openat": (
        'dfd: {*}, filename: {*} "{__filename_val:t}", flags: {flags:o}{*}',
        "dfd: {*}, filename: {*}, flags: {flags:o}{*}",
        "dfd={*} flags={flags:d} {*}__filename_val={__filename_val:t}",
        "dfd={*} flags={flags:d}{*}",
    ),
    "open": (
        'filename: {*} "{__filename_val:t}", flags: {flags:o}{*}',
        "filename: {*}, flags: {flags:o}{*}",
        "filename={*} flags={flags:d} {*}__filename_val={__filename_val:t}",
        "filename={*} flags={flags:d}{*}",
    ),
    "openat2": (
        'dfd: {*}, filename: {*} "{__filename_val:t}", how: {*}',
        "dfd: {*}",
        "dfd={*} __filename_val={__filename_val:t}",
        "dfd={*}",
    ),
    "creat": (
        'pathname: {*} "{__pathname_val:t}", mode: {*}',
        "pathname: {*}",
        "pathname={*} __pathname_val={__pathname_val:t}",
        "pathname={*}",
    ),
}
"""Arguments of system calls.  The kernel writes all numbers in hexadecimal, with 0x from 10 on."""


def _syscalls() -> dict[str, list[Wording]]:
    found: dict[str, list[Wording]] = {}
    exit_group = "syscalls:sys_enter_exit_group"
    found["sys_exit_group"] = [wording(exit_group, "(error_code: {error_code:x})")]
    found["sys_enter_exit_group"] = [
        wording(exit_group, ": error_code: {error_code:x}"),
        wording(exit_group, ": __syscall_nr={*} error_code={error_code:x}"),
    ]
    for call, notations in _CALLS.items():
        entry, leave = f"syscalls:sys_enter_{call}", f"syscalls:sys_exit_{call}"
        shown = [n for n in notations if "=" not in n]
        raw = [n for n in notations if "=" in n]
        found[f"sys_{call}"] = [wording(entry, f"({n})") for n in shown]
        found[f"sys_{call}"].append(wording(leave, " -> {ret:x}"))
        found[f"sys_enter_{call}"] = [wording(entry, f": {n}") for n in shown]
        found[f"sys_enter_{call}"] += [wording(entry, f": __syscall_nr={{*}} {n}") for n in raw]
        found[f"sys_exit_{call}"] = [
            wording(leave, ": {ret:x}"),
            wording(leave, ": __syscall_nr={*} ret={ret:x}"),
        ]
    return found


_EVENTS: dict[str, tuple[str, ...]] = {
    "iommu:map": (
        "IOMMU: iova={iova:x} - {*} paddr={paddr:x} size={size:d}",
        "iova={iova:x} paddr={paddr:x} size={size:d}",
    ),
    "iommu:unmap": (
        "IOMMU: iova={iova:x} - {*} size={size:d} unmapped_size={unmapped_size:d}",
        "iova={iova:x} size={size:d} unmapped_size={unmapped_size:d}",
    ),
    "iommu:attach_device_to_domain": ("IOMMU: device={device:t}", "device={device:t}"),
    "iommu:add_device_to_group": (
        "IOMMU: groupID={gid:d} device={device:t}",
        "gid={gid:d} device={device:t}",
    ),
    "iommu:remove_device_from_group": (
        "IOMMU: groupID={gid:d} device={device:t}",
        "gid={gid:d} device={device:t}",
    ),
    "iommu:io_page_fault": (
        "IOMMU:{driver:t} {device:t} iova={iova:x} flags={flags:x}",
        "device={device:t} driver={driver:t} iova={iova:x} flags={flags:d}",
    ),
    "kvm:kvm_vm_set_mem_attributes": (
        "{start:x} -- {end:x} [{attr:x}]",
        "start={start:x} end={end:x} attr={attr:x}",
    ),
    "kvm:kvm_unmap_hva_range": (
        "mmu notifier unmap range: {start:x} -- {end:x}",
        "start={start:x} end={end:x}",
    ),
    "kvm:kvm_entry": ("vcpu {vcpu_id:d}{*}", "vcpu_id={vcpu_id:d}{*}"),
    # The name of a reason depends on the processor's vendor; only one without a name is a number.
    # trace-cmd's plugin may leave the vCPU out.
    "kvm:kvm_exit": (
        "vcpu {vcpu_id:d} reason 0x{exit_reason:x}{*}",
        "vcpu {vcpu_id:d} reason UNKNOWN ({exit_reason:d}){*}",
        "vcpu {vcpu_id:d} reason {*}",
        "reason UNKNOWN ({exit_reason:d}){*}",
        "reason {*}",
        "exit_reason={exit_reason:d} {*}vcpu_id={vcpu_id:d}{*}",
    ),
    # The kernel shows either the error or the reason, trace-cmd's plugin never the error.
    "kvm:kvm_userspace_exit": (
        "reason restart ({errno:n})",
        "reason error ({errno:n})",
        "reason {*} ({reason:d})",
        "reason={reason:d} errno={errno:d}",
    ),
    "kvm:kvm_hypercall": (
        "nr {nr:x} a0 {a0:x} a1 {a1:x} a2 {a2:x} a3 {a3:x}",
        "nr={nr:x} a0={a0:x} a1={a1:x} a2={a2:x} a3={a3:x}",
    ),
    "kvm:kvm_page_fault": (
        "vcpu {vcpu_id:d} rip {*} address {fault_address:x} error_code {error_code:x}",
        "vcpu_id={vcpu_id:d} {*}fault_address={fault_address:x} error_code={error_code:x}",
        "address {fault_address:x} error_code {error_code:x}",
    ),
    "kvm:kvm_rmp_fault": (
        "vcpu {vcpu_id:d} gpa {gpa:x} pfn {*} error_code {error_code:x} rmp_level {*}",
        "vcpu_id={vcpu_id:d} gpa={gpa:x} pfn={*} error_code={error_code:x} {*}",
    ),
    "kvm:kvm_vmgexit_enter": (
        "vcpu {vcpu_id:d}, exit_reason {exit_reason:x}, {*}",
        "vcpu_id={vcpu_id:d} exit_reason={exit_reason:x} {*}",
    ),
    "sched:sched_process_fork": (
        "comm={*} child_comm={child_comm:t} child_pid={child_pid:d}",
        "parent_comm={*} child_comm={child_comm:t} child_pid={child_pid:d}",
    ),
    "sched:sched_process_exec": ("filename={filename:t} pid={*}",),
    "sched:sched_process_exit": (
        "comm={*} prio={*} group_dead={group_dead:b}",
        "comm={*} prio={*}",
    ),
    "vsock:virtio_transport_alloc_pkt": (
        "{src_cid:d}:{src_port:d} -> {dst_cid:d}:{dst_port:d} len={len:d} type={type:p}"
        " op={op:p} flags={flags:x}{*}",
        "src_cid={src_cid:d} src_port={src_port:d} dst_cid={dst_cid:d} dst_port={dst_port:d}"
        " len={len:d} type={type:d} op={op:d} flags={flags:d}{*}",
    ),
    "vsock:virtio_transport_recv_pkt": (
        "{src_cid:d}:{src_port:d} -> {dst_cid:d}:{dst_port:d} len={len:d} type={type:p}"
        " op={op:p} flags={flags:x} buf_alloc={buf_alloc:d} fwd_cnt={fwd_cnt:d}",
        "src_cid={src_cid:d} src_port={src_port:d} dst_cid={dst_cid:d} dst_port={dst_port:d}"
        " len={len:d} type={type:d} op={op:d} flags={flags:d} buf_alloc={buf_alloc:d}"
        " fwd_cnt={fwd_cnt:d}",
    ),
    "signal:signal_generate": (
        "sig={sig:d} errno={*} comm={*} pid={pid:d} grp={group:d} res={result:d}",
        "sig={sig:d} errno={*} comm={*} pid={pid:d} group={group:d} result={result:d}",
    ),
    "signal:signal_deliver": ("sig={sig:d} {*}",),
    "ftrace:print": (
        "ip={*} buf={buf:t}",
        "{*}: {buf:t}",
    ),
}  # fmt: skip


def _wordings() -> Mapping[bytes, tuple[Wording, ...]]:
    found = _syscalls()
    for source, notations in _EVENTS.items():
        name = source.partition(":")[2]
        found.setdefault(name, []).extend(wording(source, f": {n}") for n in notations)
    found["tracing_mark_write"] = [wording("ftrace:print", ": {buf:t}")]
    return {name.encode(): tuple(every) for name, every in found.items()}


WORDINGS = _wordings()
"""By the name that a line shows: its wordings, the first that matches counts."""
