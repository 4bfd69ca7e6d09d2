"""A made trace as trace-cmd records it: the events' bytes, with the formats that say what they are.

Probes are those of ``tracekit plan --purpose dma``, and so are their fields' names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracekit.errors import TracekitError, UsageError
from tracekit.ftrace.uapi import STRUCTURES
from tracekit.ftrace.writer import Lost, Record, Recording, event_format, record
from tracekit.synth.rows import SOURCES

if TYPE_CHECKING:
    from tracekit.synth.generate import Made

__all__ = ("write_trace_dat",)

PAGE_SHIFT = 12
FIRST_ID = 400
FIRST_FUNCTION = 0xFFFF_FFFF_8110_0000


@dataclass(frozen=True)
class _Field:
    """``declaration`` as in a format file; what it holds is ``column``, or the method of the same
    name in :class:`_Values`."""

    declaration: str
    column: str
    size: int = 8
    signed: bool = False


def _call(*fields: tuple[str, str]) -> tuple[_Field, ...]:
    return (_Field("int __syscall_nr", "-", 4, True), *(_Field(d, c) for d, c in fields))


_RETURNED = (_Field("int __syscall_nr", "-", 4, True), _Field("long ret", "ret", 8, True))
_IP = _Field("unsigned long __probe_ip", "@")
_LEFT = (
    _Field("unsigned long __probe_func", "@"),
    _Field("unsigned long __probe_ret_ip", "-"),
    _Field("s64 ret", "ret", 8, True),
)
_OBJECT_CMD = (_Field("u32 cmd", "cmd", 4),)


def _words(*offsets: int) -> tuple[_Field, ...]:
    return tuple(_Field(f"u64 a{n}", f"a{n}") for n in offsets)


_GFNS = (_Field("u64 kvm", "object"), _Field("u64 start", "gfn"), _Field("u64 end", "gfn_end"))
_ARGUMENTS = (_Field("u32 argsz", "s0", 4), _Field("u32 flags", "s4", 4))

# Event type -> fields, and the probed function.
FIELDS: dict[str, tuple[tuple[_Field, ...], str | None]] = {
    "open.entered": (_call(("int dfd", "-"), ("const char * filename", "-"), ("int flags", "flags"),
                           ("umode_t mode", "-")), None),
    "close.entered": (_call(("unsigned int fd", "fd")), None),
    "ioctl.entered": (_call(("unsigned int fd", "fd"), ("unsigned int cmd", "cmd"),
                            ("unsigned long arg", "vaddr")), None),
    "fallocate.entered": (_call(("int fd", "fd"), ("int mode", "flags"),
                                ("loff_t offset", "offset"),
                                ("loff_t len", "size")), None),
    "madvise.entered": (_call(("unsigned long start", "vaddr"), ("size_t len_in", "size"),
                              ("int behavior", "flags")), None),
    "mmap.entered": (_call(("unsigned long addr", "vaddr"), ("unsigned long len", "size"),
                           ("unsigned long prot", "-"), ("unsigned long flags", "flags"),
                           ("unsigned long fd", "file_fd_or_none"),
                           ("unsigned long off", "offset")), None),
    **{f"{c}.returned": (_RETURNED, None)
       for c in ("open", "close", "ioctl", "fallocate", "madvise", "mmap")},
    "kvm.attributes": ((_Field("u64 start", "gfn"), _Field("u64 end", "gfn_end"),
                        _Field("unsigned long attr", "attributes")), None),
    "kvm.userspace_exit": ((_Field("__u32 reason", "flags", 4),
                            _Field("int errno", "ret", 4, True)), None),
    "kvm.vm_ioctl": ((_IP, _Field("u64 filp", "object"), *_OBJECT_CMD,
                      *_words(0, 8, 16, 24, 32, 40)), "kvm_vm_ioctl"),
    "kvm.vm_ioctl_returned": (_LEFT, "kvm_vm_ioctl"),
    "kvm.attributes_pre": ((_IP, *_GFNS), "kvm_arch_pre_set_memory_attributes"),
    "kvm.attributes_post": ((_IP, *_GFNS), "kvm_arch_post_set_memory_attributes"),
    "kvm.gmem_fallocate": ((_IP, _Field("u64 file", "object"), _Field("u32 mode", "flags", 4),
                            _Field("u64 offset", "offset"), _Field("u64 len", "size")),
                           "kvm_gmem_fallocate"),
    "vfio.type1_ioctl": ((_IP, _Field("u64 iommu", "object"), *_OBJECT_CMD, *_ARGUMENTS,
                          *_words(8, 16, 24)), "vfio_iommu_type1_ioctl"),
    "vfio.type1_ioctl_returned": (_LEFT, "vfio_iommu_type1_ioctl"),
    "iommufd.ioctl": ((_IP, _Field("u64 filp", "object"), *_OBJECT_CMD, *_ARGUMENTS,
                       *_words(8, 16, 24, 32)), "iommufd_fops_ioctl"),
    "iommufd.ioctl_returned": (_LEFT, "iommufd_fops_ioctl"),
    "iommufd.iopt_map_user": ((_IP, _Field("u64 iopt", "object"), _Field("u64 iova", "iova"),
                               _Field("u64 uptr", "vaddr"), _Field("u64 length", "size"),
                               _Field("u32 prot", "flags", 4)), "iopt_map_user_pages"),
    "iommufd.iopt_map_file": ((_IP, _Field("u64 iopt", "object"), _Field("u64 iova", "iova"),
                               _Field("s32 fd", "file_fd", 4, True), _Field("u64 start", "offset"),
                               _Field("u64 length", "size")), "iopt_map_file_pages"),
    "iommufd.iopt_unmap": ((_IP, _Field("u64 iopt", "object"), _Field("u64 iova", "iova"),
                            _Field("u64 length", "size")), "iopt_unmap_iova"),
    "iommu.map_called": ((_IP, _Field("u64 domain", "object"), _Field("u64 iova", "iova"),
                          _Field("u64 paddr", "paddr"), _Field("u64 size", "size"),
                          _Field("u32 prot", "flags", 4)), "iommu_map_nosync"),
    "iommu.domain_freed": ((_IP, _Field("u64 domain", "object")), "iommu_domain_free"),
    "iommu.map": ((_Field("u64 iova", "iova"), _Field("u64 paddr", "paddr"),
                   _Field("size_t size", "size")), None),
    "iommu.unmap": ((_Field("u64 iova", "iova"), _Field("size_t size", "size"),
                     _Field("size_t unmapped_size", "unmapped")), None),
    "iommu.attach": ((_Field("__data_loc char[] device", "name", 4),), None),
    "process.fork": ((_Field("__data_loc char[] child_comm", "name", 4),
                      _Field("pid_t child_pid", "id", 4, True)), None),
    "process.exit": ((_Field("bool group_dead", "flags", 1),), None),
}  # fmt: skip


def write_trace_dat(made: Made, out: Path, *, most: int) -> None:
    """Write a made trace as trace.dat version 7, uncompressed.

    :raises UsageError: more than ``most`` events: it is made in memory
    :raises TracekitError: the file cannot be written
    """
    numbers = {event: FIRST_ID + i for i, event in enumerate(FIELDS)}
    functions = list(dict.fromkeys(f for _, f in FIELDS.values() if f))
    at = {name: FIRST_FUNCTION + 0x1000 * i for i, name in enumerate(functions)}
    cpus: dict[int, list[Record | Lost]] = {}
    comms: dict[int, str] = {}
    count = 0
    for row in _rows(made):
        count += 1
        if count > most:
            raise UsageError(
                f"a trace.dat of more than {most:,} events is not made", help="use Parquet"
            )
        of_cpu = cpus.setdefault(row["cpu"], [])
        event = row["event"]
        if event == "trace.lost":
            of_cpu.append(Lost(row["count"]))
            continue
        fields, function = FIELDS[event]
        body = _body(fields, row, at.get(function or "", 0))
        of_cpu.append(Record(row["ts_ns"], record(numbers[event], row["tid"], body)))
        comms[row["tid"]] = row["comm"]
    formats = []
    for event, (fields, _) in FIELDS.items():
        system, _, name = SOURCES[event].partition(":")
        declared = [(f.declaration, f.size, f.signed) for f in fields]
        formats.append((system, event_format(name, numbers[event], declared)))
    manifest = made.manifest()
    recording = Recording(
        formats=formats,
        cpus=[cpus.get(i, []) for i in range(manifest.cpus)],
        kallsyms="".join(f"{address:016x} T {name}\n" for name, address in at.items()),
        command_lines=comms,
        uname=f"Linux {manifest.host} {manifest.kernel} {manifest.machine}",
    )
    temporary = out.with_name(f".{out.name}.part")
    try:
        recording.write(temporary)
        temporary.replace(out)
    except OSError as why:
        temporary.unlink(missing_ok=True)
        raise TracekitError(f"cannot write {out}: {why.strerror}") from None


def _rows(made: Made) -> Iterator[dict[str, Any]]:
    for batch in made.batches:
        yield from batch.to_pylist()


def _body(fields: tuple[_Field, ...], row: dict[str, Any], address: int) -> bytes:
    """A record's fields, each at a multiple of its size, texts behind them all."""
    out = bytearray()
    texts: list[tuple[int, bytes]] = []
    structure = _structure(row)
    for field in fields:
        out += bytes(-(8 + len(out)) % field.size)
        if field.declaration.startswith("__data_loc"):
            texts.append((len(out), str(row[field.column]).encode() + b"\0"))
            out += bytes(4)
            continue
        value = _value(field.column, row, address, structure)
        out += (value & ((1 << 8 * field.size) - 1)).to_bytes(field.size, "little")
    for place, text in texts:
        struct.pack_into("<I", out, place, len(text) << 16 | (8 + len(out)))
        out += text
    return bytes(out)


def _value(column: str, row: dict[str, Any], address: int, structure: bytes) -> int:
    if column == "-":
        return 0
    if column == "@":
        return address
    if column == "gfn":
        return int(row["gpa"]) >> PAGE_SHIFT
    if column == "gfn_end":
        return (int(row["gpa"]) + int(row["size"])) >> PAGE_SHIFT
    if column == "file_fd_or_none":
        return -1 if row["file_fd"] is None else int(row["file_fd"])
    if column[0] in "as" and column[1:].isdigit():
        size = 8 if column[0] == "a" else 4
        begin = int(column[1:])
        return int.from_bytes(structure[begin : begin + size], "little")
    return int(row[column] or 0)


def _structure(row: dict[str, Any]) -> bytes:
    """The user's structure behind an ioctl, with what the columns say."""
    out = bytearray(64)
    for member in STRUCTURES.get(row["cmd"] or 0, ()):
        value = row[member.column]
        if value is not None:
            wide = int(value) & ((1 << 8 * member.size) - 1)
            out[member.offset : member.offset + member.size] = wide.to_bytes(member.size, "little")
    return bytes(out)
