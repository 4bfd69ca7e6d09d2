"""How an event type is declared: one frozen dataclass, whose fields are shared columns.

A trace is one table.  Its columns are declared once, in :data:`COLUMNS`; an event type says which
of them it fills and what they mean there.  The Arrow schema, the reader's typed views, ``tracekit
schema``, docs/events.md and the importers' field tables all derive from these declarations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, ClassVar, TypeVar, dataclass_transform

__all__ = (
    "COLUMNS",
    "COMMON",
    "EVENT_TYPES",
    "SCHEMA_VERSION",
    "Column",
    "ColumnType",
    "Event",
    "column",
    "event",
    "event_columns",
    "event_type",
)

SCHEMA_VERSION = 1
"""Raised by anything but a new nullable column or a new event type."""


class ColumnType(Enum):
    """Storage types; the value is the Arrow type's name."""

    U8 = "uint8"
    U32 = "uint32"
    U64 = "uint64"
    I32 = "int32"
    I64 = "int64"
    TEXT = "dictionary"


@dataclass(frozen=True)
class Column:
    """One column of the trace table.  ``None`` in a row means: the source does not say."""

    name: str
    type: ColumnType
    meaning: str


_U8, _U32, _U64 = ColumnType.U8, ColumnType.U32, ColumnType.U64
_I32, _I64, _TEXT = ColumnType.I32, ColumnType.I64, ColumnType.TEXT

COMMON: tuple[Column, ...] = (
    Column("ts_ns", _I64, "Time, ns of the clock that the manifest names; never null"),
    Column(
        "seq", _I64, "Total order given when the trace was written; the event's number; never null"
    ),
    Column("cpu", _I32, "CPU that recorded the event"),
    Column("pid", _I32, "Process (thread group); null where the source shows only the thread"),
    Column("tid", _I32, "Thread that was running (ftrace's common_pid)"),
    Column("comm", _TEXT, "Thread's name as recorded; not to be trusted"),
    Column("source", _TEXT, "What recorded it: the tracepoint or probe, SYSTEM:NAME"),
    Column("event", _TEXT, "Event type; never null"),
    Column("context", _U8, "ftrace's common_flags: 0x08 hard interrupt, 0x10 soft interrupt"),
)

COLUMNS: tuple[Column, ...] = (
    *COMMON,
    Column("iova", _U64, "First byte, as a device addresses it"),
    Column("gpa", _U64, "First byte, as the guest addresses it"),
    Column("paddr", _U64, "First byte, host physical"),
    Column("vaddr", _U64, "First byte, in the process's address space"),
    Column("offset", _U64, "First byte, from the start of a file or RAM block"),
    Column("size", _U64, "Bytes"),
    Column("unmapped", _U64, "Bytes that the kernel says it removed"),
    Column("flags", _U64, "Flags, mode or behaviour, as in the call's own interface"),
    Column("attributes", _U64, "KVM memory attributes: 8 private, 0 shared"),
    Column("ret", _I64, "Result; negative is -errno"),
    Column("object", _U64, "Kernel pointer that identifies the object the call is about"),
    Column("fd", _I32, "File descriptor that the call is made on"),
    Column("file_fd", _I32, "File descriptor given as an argument (memfd, guest_memfd, group)"),
    Column("cmd", _U32, "ioctl command; operation, option or signal number"),
    Column("argsz", _U32, "Size that the caller wrote into the structure it passes"),
    Column("id", _U32, "Small number that names an object or a kind: memslot, ioas, thread, type"),
    Column("inode", _U64, "Inode number of the file"),
    Column("name", _TEXT, "Path, device or program; not to be trusted"),
    Column("detail", _TEXT, "Rare arguments, as a JSON object"),
    Column("count", _U64, "How many: lost events, bytes, seconds, jiffies"),
    Column("until_ns", _I64, "End of an interval that begins at ts_ns"),
    Column("local", _U64, "vsock address, own or source: CID in the upper 32 bits, then port"),
    Column("peer", _U64, "vsock address of the peer or destination, likewise"),
)
assert len(COLUMNS) <= 32, "an all-null column is free on disk but not in memory"

_BY_NAME = {c.name: c for c in COLUMNS}
EVENT_TYPES: dict[str, type[Event]] = {}
"""Every event type by its name."""


def column(meaning: str, *, default: Any = MISSING) -> Any:
    """A field of an event type: the shared column of the same name, and what it means here.

    Without ``default`` the event makes no sense without it; ``default=None`` where the source may
    not say.
    """
    if default is MISSING:
        return field(metadata={"meaning": meaning})
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Event:
    """What every event has.  ``ts_ns`` in nanoseconds; ``None``: the source does not say.

    Comparing and showing is written once, here: what a dataclass writes for each of more than a
    hundred types takes a tenth of a second.
    """

    name_: ClassVar[str] = ""
    ts_ns: int
    seq: int = -1
    cpu: int | None = None
    pid: int | None = None
    tid: int | None = None
    comm: str | None = None
    source: str | None = None
    context: int | None = None

    def row(self) -> dict[str, Any]:
        """The event as a row of the trace table; absent columns are null."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        out["event"] = self.name_
        return out

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        said = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{type(self).__qualname__}({said})"


E = TypeVar("E", bound=Event)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(column,))
def event(cls: type[E]) -> type[E]:
    """Make an event type of a class: a frozen dataclass, registered under its ``name_``.

    :raises ValueError: a field that is no column, a name taken twice, no docstring
    """
    made = dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
    unknown = [f.name for f in fields(made) if f.name not in _BY_NAME]
    if unknown:
        raise ValueError(f"{cls.__name__}: no such column: {', '.join(unknown)}")
    if not made.name_ or made.name_ in EVENT_TYPES:
        raise ValueError(f"{cls.__name__}: event name {made.name_!r} is empty or taken")
    if not cls.__doc__:
        raise ValueError(f"{cls.__name__}: the docstring names the source")
    EVENT_TYPES[made.name_] = made
    return made


def event_columns(name: str) -> list[tuple[Column, str, bool]]:
    """The columns that the event type fills beyond the common ones: column, meaning, required."""
    own = [f for f in fields(event_type(name)) if "meaning" in f.metadata]
    return [(_BY_NAME[f.name], f.metadata["meaning"], f.default is MISSING) for f in own]


def event_type(name: str) -> type[Event]:
    """The event type called ``name``.

    :raises KeyError: there is none
    """
    return EVENT_TYPES[name]


def names(types: Iterable[type[Event]]) -> list[str]:
    """The event names of types, in order."""
    return [t.name_ for t in types]
