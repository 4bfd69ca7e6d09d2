"""QEMU's trace events that matter here: arguments, text, and the event type they become.

Declared once, in the shape of QEMU's trace-events files, for both back ends: the arguments are what
simpletrace writes one after the other, the text is what the log prints behind the event's name.  An
event whose arguments changed between versions is declared once for each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = (
    "TRACE_EVENTS",
    "Arguments",
    "Row",
    "TraceEvent",
    "read_integer",
    "row_of_arguments",
    "row_of_text",
)

Row = dict[str, int | str | None]
"""Columns of the trace table, without the common ones."""

MAX_TEXT = 4096
"""Longest text of arguments that is taken apart; names and addresses are far shorter."""

_U64 = (1 << 64) - 1
_BITS = {
    "bool": 8, "u16": 16, "u32": 32, "int": 32, "u64": 64, "ptr": 64, "size": 64, "ulong": 64,
}  # fmt: skip
_CONVERTED = {"shared_to_private": 8, "private_to_shared": 0}
_STATES = {"discarded": 8, "populated": 0}


@dataclass(frozen=True)
class Arguments:
    """A record's arguments by name: integers within their type's range, and texts."""

    numbers: Mapping[str, int]
    texts: Mapping[str, str]

    def __getitem__(self, name: str) -> int:
        """An integer argument.

        :raises KeyError: there is none of that name
        """
        return self.numbers[name]

    def text(self, name: str) -> str:
        """A text argument.

        :raises KeyError: there is none of that name
        """
        return self.texts[name]


@dataclass(frozen=True)
class TraceEvent:
    """One declaration: ``arguments`` as (type, name); ``row`` raises KeyError for what it can't."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    pattern: re.Pattern[str]
    event: str
    row: Callable[[Arguments], Row]


TRACE_EVENTS: dict[str, list[TraceEvent]] = {}
"""By QEMU's name; newest version first."""


def row_of_text(known: list[TraceEvent], text: str) -> tuple[str, Row] | None:
    """Event type and row of a log line's arguments; none if they are not as declared."""
    text = text.strip()
    if len(text) > MAX_TEXT:
        return None
    for one in known:
        match = one.pattern.fullmatch(text)
        if match is None:
            continue
        numbers: dict[str, int] = {}
        texts: dict[str, str] = {}
        for kind, name in one.arguments:
            said = match[f"a_{name}"] if f"a_{name}" in match.re.groupindex else None
            if said is None:
                continue  # an argument that the text leaves out
            if kind == "str":
                texts[name] = said
                continue
            number = read_integer(kind, _number(said))
            if number is None:
                return None
            numbers[name] = number
        return _row(one, Arguments(numbers, texts))
    return None


def row_of_arguments(known: TraceEvent, arguments: Arguments) -> tuple[str, Row] | None:
    """Event type and row of a record's arguments; none if they are not as declared."""
    return _row(known, arguments)


def read_integer(kind: str, value: int) -> int | None:
    """``value`` as C's type holds it, whatever sign it was printed with; none: it does not fit."""
    bits = _BITS[kind]
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        return None
    value &= (1 << bits) - 1
    return _signed(value) if kind == "int" else value


def _row(one: TraceEvent, arguments: Arguments) -> tuple[str, Row] | None:
    try:
        return one.event, one.row(arguments)
    except KeyError:
        return None


def _number(said: str) -> int:
    if said == "(nil)":
        return 0
    return int(said, 16) if said.startswith("0x") else int(said)


def _signed(value: int) -> int:
    """A file descriptor or result that was declared unsigned."""
    return value - (1 << 32) if value >> 31 else value


def _through(first: int, last: int) -> int:
    """Bytes from ``first`` to ``last`` inclusive; all of 2^64 do not fit and count as one less."""
    return min((last - first + 1) & ((1 << 65) - 1), _U64)


# -- declarations ----------------------------------------------------------------------------------


def _declare(
    name: str, arguments: str, text: str, event: str, row: Callable[[Arguments], Row]
) -> None:
    pairs = [a.split(" ") for a in arguments.split(", ") if a]
    taken = tuple((kind, argument) for kind, argument in pairs)
    kinds = {argument: kind for kind, argument in taken}
    pattern = ""
    for piece in re.split(r"(\{[a-z_:]+\})", text):
        if not piece.startswith("{"):
            pattern += re.escape(piece)
            continue
        argument, _, shown = piece[1:-1].partition(":")
        kind = kinds[argument]
        if shown == "word":
            form = "[a-z_]{1,40}"
        elif kind == "str":
            form = ".*"
        elif kind == "ptr":
            form = r"0x[0-9a-f]{1,16}|\(nil\)"
        elif shown == "x":
            form = "0x[0-9a-f]{1,16}"
        else:
            form = "-?[0-9]{1,20}"
        pattern += f"(?P<a_{argument}>{form})"
    made = TraceEvent(name, taken, re.compile(pattern), event, row)
    TRACE_EVENTS.setdefault(name, []).append(made)


def _convert_memory(a: Arguments) -> Row:
    return {
        "gpa": a["start"],
        "size": a["size"],
        "attributes": _CONVERTED[a.text("msg")],
    }


def _state_change(a: Arguments) -> Row:
    return {
        "offset": a["offset"],
        "size": a["size"],
        "attributes": _STATES[a.text("to")],
        "detail": json.dumps({"from": a.text("from")[:40]}),
    }


def _set_user_memory(a: Arguments) -> Row:
    told = "fd" in a.numbers
    return {
        "id": a.numbers.get("as", 0) << 16 | a["slot"],
        "flags": a["flags"],
        "gpa": a["guest_phys_addr"],
        "size": a["memory_size"],
        "vaddr": a["userspace_addr"],
        "file_fd": _signed(a["fd"]) if told else None,
        "offset": a["fd_offset"] if told else None,
        "ret": a["ret"],
    }


def _discard_range(a: Arguments) -> Row:
    return {
        "name": a.text("rbname") or None,
        "vaddr": a["hva"],
        "size": a["length"],
        "flags": (1 if a["need_madvise"] else 0) | (2 if a["need_fallocate"] else 0),
        "ret": a["ret"],
    }


def _region(flags: int, first: str = "start", last: str = "end") -> Callable[[Arguments], Row]:
    def row(a: Arguments) -> Row:
        return {
            "iova": a[first],
            "size": _through(a[first], a[last]),
            "vaddr": a.numbers.get("vaddr"),
            "flags": flags,
            "name": a.texts.get("name"),
        }

    return row


def _region_not_aligned(a: Arguments) -> Row:
    return {"iova": a["iova"], "size": a["size"], "flags": 2, "name": a.text("name")}


def _iommu_region_added(a: Arguments) -> Row:
    return {
        "iova": a["start"],
        "size": _through(a["start"], a["end"]),
        "flags": 1,
        "name": a.text("name"),
    }


def _iommu_region_removed(a: Arguments) -> Row:
    return {"flags": 0, "name": a.text("name")}


def _iommu_notify(a: Arguments) -> Row:
    return {
        "iova": a["iova_start"],
        "size": _through(a["iova_start"], a["iova_end"]),
        "flags": {"MAP": 1, "UNMAP": 0}[a.text("op")],
    }


def _dirty_bitmap(a: Arguments) -> Row:
    return {
        "iova": a["iova"],
        "size": a["size"],
        "gpa": a["translated_addr"],
        "count": a["dirty_pages"],
    }


def _iommufd_dirty_bitmap(a: Arguments) -> Row:
    return {
        "fd": a["iommufd"],
        "id": a["hwpt_id"],
        "iova": a["iova"],
        "size": a["size"],
        "ret": a["ret"],
    }


def _dirty_tracking(a: Arguments) -> Row:
    return {
        "fd": a["iommufd"],
        "id": a["hwpt_id"],
        "flags": 1 if a["start"] else 0,
        "ret": a["ret"],
    }


def _iommufd_map(a: Arguments) -> Row:
    return {
        "fd": a["iommufd"],
        "id": a["ioas"],
        "iova": a["iova"],
        "size": a["size"],
        "vaddr": a.numbers.get("vaddr"),
        "file_fd": a.numbers.get("fd"),
        "offset": a.numbers.get("start"),
        "flags": 1 if a["readonly"] else 0,
        "ret": a["ret"],
    }


def _iommufd_unmap(flags: int) -> Callable[[Arguments], Row]:
    def row(a: Arguments) -> Row:
        return {
            "fd": a["iommufd"],
            "id": a["ioas"],
            "iova": a["iova"],
            "size": a["size"],
            "flags": flags,
            "ret": a["ret"],
        }

    return row


def _connection(flags: int) -> Callable[[Arguments], Row]:
    def row(a: Arguments) -> Row:
        return {"fd": a["fd"], "flags": flags, "count": a["users"]}

    return row


def _virtio_mem(cmd: int) -> Callable[[Arguments], Row]:
    def row(a: Arguments) -> Row:
        return {
            "cmd": cmd,
            "gpa": a.numbers.get("addr"),
            "count": a.numbers.get("nb_blocks"),
            "ret": a.numbers.get("type", a.numbers.get("state")),
        }

    return row


_declare(
    "kvm_convert_memory",
    "u64 start, u64 size, str msg",
    "start {start:x} size {size:x} {msg:word}",
    "qemu.convert_memory",
    _convert_memory,
)
_declare(
    "ram_block_attributes_state_change",
    "u64 offset, u64 size, str from, str to",
    "offset {offset:x} size {size:x} from '{from:word}' to '{to:word}'",
    "qemu.ram_block_state_change",
    _state_change,
)
_declare(
    "kvm_memory_fault",
    "u64 start, u64 size, u64 flags",
    "start {start:x} size {size:x} flags {flags:x}",
    "qemu.memory_fault",
    lambda a: {"gpa": a["start"], "size": a["size"], "flags": a["flags"]},
)
_declare(
    "kvm_hc_map_gpa_range",
    "u64 gpa, u64 size, u64 attributes, u64 flags",
    "gpa {gpa:x} size {size:x} attributes {attributes:x} flags {flags:x}",
    "qemu.map_gpa_range",
    lambda a: {n: a[n] for n in ("gpa", "size", "attributes", "flags")},
)
_declare(
    "kvm_set_user_memory",
    "u16 as, u16 slot, u32 flags, u64 guest_phys_addr, u64 memory_size, u64 userspace_addr, u32 fd,"
    " u64 fd_offset, int ret",
    "AddrSpace#{as} Slot#{slot} flags={flags:x} gpa={guest_phys_addr:x} size={memory_size:x}"
    " ua={userspace_addr:x} guest_memfd={fd} guest_memfd_offset={fd_offset:x} ret={ret}",
    "qemu.set_user_memory",
    _set_user_memory,
)
_declare(  # before guest_memfd
    "kvm_set_user_memory",
    "u16 as, u16 slot, u32 flags, u64 guest_phys_addr, u64 memory_size, u64 userspace_addr,"
    " int ret",
    "AddrSpace#{as} Slot#{slot} flags={flags:x} gpa={guest_phys_addr:x} size={memory_size:x}"
    " ua={userspace_addr:x} ret={ret}",
    "qemu.set_user_memory",
    _set_user_memory,
)
_declare(  # as in 7.2: the address space is in the slot's high half
    "kvm_set_user_memory",
    "u32 slot, u32 flags, u64 guest_phys_addr, u64 memory_size, u64 userspace_addr, int ret",
    "Slot#{slot} flags={flags:x} gpa={guest_phys_addr:x} size={memory_size:x}"
    " ua={userspace_addr:x} ret={ret}",
    "qemu.set_user_memory",
    _set_user_memory,
)
for _name in ("ram_block_discard_shared_range", "ram_block_discard_range"):  # since 11.1, before
    _declare(
        _name,
        "str rbname, ptr hva, size length, bool need_madvise, bool need_fallocate, int ret",
        "{rbname}@{hva} + {length:x}: madvise: {need_madvise} fallocate: {need_fallocate}"
        " ret: {ret}",
        "qemu.discard_range",
        _discard_range,
    )
_declare(
    "vfio_listener_region_add_ram",
    "u64 iova_start, u64 iova_end, ptr vaddr",
    "region_add [ram] {iova_start:x} - {iova_end:x} [{vaddr}]",
    "qemu.region",
    _region(1, "iova_start", "iova_end"),
)
_declare(
    "vfio_listener_region_del",
    "u64 start, u64 end",
    "region_del {start:x} - {end:x}",
    "qemu.region",
    _region(0),
)
_declare(
    "vfio_listener_region_skip",
    "str name, u64 start, u64 end",
    "SKIPPING {name} {start:x} - {end:x}",
    "qemu.region",
    _region(2),
)
for _what in ("add", "del"):  # older names of that one
    _declare(
        f"vfio_listener_region_{_what}_skip",
        "u64 start, u64 end",
        f"SKIPPING region_{_what} {{start:x}} - {{end:x}}",
        "qemu.region",
        _region(2),
    )
_declare(
    "vfio_listener_region_add_no_dma_map",
    "str name, u64 iova, u64 size, u64 page_size",
    'Region "{name}" {iova:x} size={size:x} is not aligned to {page_size:x}'
    " and cannot be mapped for DMA",
    "qemu.region",
    _region_not_aligned,
)
_declare(
    "vfio_listener_region_add_iommu",
    "str name, u64 start, u64 end",
    "region_add [iommu] {name} {start:x} - {end:x}",
    "qemu.iommu_region",
    _iommu_region_added,
)
_declare(
    "vfio_listener_region_del_iommu",
    "str name",
    "region_del [iommu] {name}",
    "qemu.iommu_region",
    _iommu_region_removed,
)
_declare(
    "vfio_iommu_map_notify",
    "str op, u64 iova_start, u64 iova_end",
    "iommu {op} @ {iova_start:x} - {iova_end:x}",
    "qemu.iommu_notify",
    _iommu_notify,
)
_declare(
    "vfio_container_query_dirty_bitmap",
    "u64 iova, u64 size, u64 bitmap_size, u64 translated_addr, u64 dirty_pages",
    "iova={iova:x} size= {size:x} bitmap_size={bitmap_size:x} gpa={translated_addr:x}"
    " dirty_pages={dirty_pages}",
    "qemu.dirty_bitmap",
    _dirty_bitmap,
)
_declare(
    "iommufd_backend_get_dirty_bitmap",
    "int iommufd, u32 hwpt_id, u64 iova, u64 size, u64 page_size, int ret",
    "iommufd={iommufd} hwpt={hwpt_id} iova={iova:x} size={size:x} page_size={page_size:x} ({ret})",
    "qemu.dirty_bitmap",
    _iommufd_dirty_bitmap,
)
_declare(
    "iommufd_backend_set_dirty",
    "int iommufd, u32 hwpt_id, bool start, int ret",
    "iommufd={iommufd} hwpt={hwpt_id} enable={start} ({ret})",
    "qemu.dirty_tracking",
    _dirty_tracking,
)
_declare(
    "iommufd_backend_map_dma",
    "int iommufd, u32 ioas, u64 iova, u64 size, ptr vaddr, bool readonly, int ret",
    "iommufd={iommufd} ioas={ioas} iova={iova:x} size={size:x} addr={vaddr} readonly={readonly}"
    " ({ret})",
    "qemu.iommufd_map",
    _iommufd_map,
)
_declare(
    "iommufd_backend_map_file_dma",
    "int iommufd, u32 ioas, u64 iova, u64 size, int fd, ulong start, bool readonly, int ret",
    "iommufd={iommufd} ioas={ioas} iova={iova:x} size={size:x} fd={fd} start={start}"
    " readonly={readonly} ({ret})",
    "qemu.iommufd_map",
    _iommufd_map,
)
_declare(
    "iommufd_backend_unmap_dma",
    "int iommufd, u32 ioas, u64 iova, u64 size, int ret",
    "iommufd={iommufd} ioas={ioas} iova={iova:x} size={size:x} ({ret})",
    "qemu.iommufd_unmap",
    _iommufd_unmap(0),
)
_declare(
    "iommufd_backend_unmap_dma_non_exist",
    "int iommufd, u32 ioas, u64 iova, u64 size, int ret",
    "Unmap nonexistent mapping: iommufd={iommufd} ioas={ioas} iova={iova:x} size={size:x} ({ret})",
    "qemu.iommufd_unmap",
    _iommufd_unmap(1),
)
_declare(
    "iommufd_backend_alloc_ioas",
    "int iommufd, u32 ioas",
    "iommufd={iommufd} ioas={ioas}",
    "qemu.iommufd_ioas",
    lambda a: {"fd": a["iommufd"], "id": a["ioas"], "flags": 1},
)
_declare(
    "iommufd_backend_free_id",
    "int iommufd, u32 id, int ret",
    "iommufd={iommufd} id={id} ({ret})",
    "qemu.iommufd_ioas",
    lambda a: {"fd": a["iommufd"], "id": a["id"], "flags": 0},
)
_declare(
    "iommufd_backend_connect",
    "int fd, bool owned, u32 users",
    "fd={fd} owned={owned} users={users}",
    "qemu.iommufd_connection",
    _connection(1),
)
_declare(
    "iommufd_backend_disconnect",
    "int fd, u32 users",
    "fd={fd} users={users}",
    "qemu.iommufd_connection",
    _connection(0),
)
for _name, _cmd in (
    ("virtio_mem_plug_request", 0),
    ("virtio_mem_unplug_request", 1),
    ("virtio_mem_state_request", 3),
):
    _declare(
        _name,
        "u64 addr, u16 nb_blocks",
        "addr={addr:x} nb_blocks={nb_blocks}",
        "qemu.virtio_mem",
        _virtio_mem(_cmd),
    )
_declare("virtio_mem_unplug_all_request", "", "", "qemu.virtio_mem", _virtio_mem(2))
_declare("virtio_mem_send_response", "u16 type", "type={type}", "qemu.virtio_mem", _virtio_mem(16))
_declare(
    "virtio_mem_state_response", "u16 state", "state={state}", "qemu.virtio_mem", _virtio_mem(17)
)
_declare("virtio_mem_unplugged_all", "", "", "qemu.virtio_mem", _virtio_mem(18))
_declare(
    "virtio_mem_resized_usable_region",
    "u64 old_size, u64 new_size",
    "old_size={old_size:x}new_size={new_size:x}",  # no space: as QEMU prints it
    "qemu.virtio_mem_resized",
    lambda a: {"size": a["new_size"], "detail": json.dumps({"old_size": a["old_size"]})},
)
