"""Event format text: what tracefs shows in ``events/SYSTEM/NAME/format``.

Offsets and sizes are bytes from the start of the record, whose first eight bytes are the common
header.  The text is hostile: everything that does not parse is an :class:`ImportFormatError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from tracekit.errors import ImportFormatError

__all__ = ("EventFormat", "Field", "parse_fields", "parse_format")

MAX_RECORD = 0xFFFF
"""A record's fields end within 64 KiB: offsets in ``__data_loc`` words have 16 bits."""

MAX_LINE = 4096
"""Characters of a ``field:`` line."""

_FIELD = re.compile(
    r"^\s*field:(?P<declaration>[^;]*);\s*offset:(?P<offset>\d{1,9});\s*size:(?P<size>\d{1,9});"
    r"(?:\s*signed:(?P<signed>[01]);)?\s*$"
)
_DECLARATION = re.compile(r"^(?P<type>.*?)\b(?P<name>\w+)\s*(?P<array>\[[^\]]*\])?$")
_NAME = re.compile(r"^name:\s*(\S+)\s*$", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_ID = re.compile(r"^ID:\s*(\d{1,9})\s*$", re.MULTILINE)

_COMMON = {
    "common_type": (0, 2),
    "common_flags": (2, 1),
    "common_preempt_count": (3, 1),
    "common_pid": (4, 4),
}


@dataclass(frozen=True)
class Field:
    """One field of a record.  ``size`` 0 means: from ``offset`` to the record's end."""

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    array: bool

    @property
    def data_loc(self) -> bool:
        """The field is a word that says where in the record the value lies."""
        return self.type.startswith("__data_loc")

    @property
    def rel_loc(self) -> bool:
        """Likewise, counted from the end of the word itself."""
        return self.type.startswith("__rel_loc")

    @property
    def number(self) -> bool:
        """The field is one integer or pointer."""
        return not (self.array or self.data_loc or self.rel_loc) and self.size in (1, 2, 4, 8)

    @property
    def value_size(self) -> int:
        """Bytes of the value: system call arguments of type int lie in eight-byte slots."""
        if self.size == 8 and not self.type.endswith("*") and _is_int(self.type):
            return 4
        return self.size


@dataclass(frozen=True)
class EventFormat:
    """An event of the recording: its number there, its names, and its text."""

    system: str
    name: str
    id: int
    text: str

    @property
    def source(self) -> str:
        """SYSTEM:NAME."""
        return f"{self.system}:{self.name}"

    @cached_property
    def fields(self) -> dict[str, Field]:
        """The fields after the common header, by name.

        :raises ImportFormatError: the text does not parse, or its common header is not the usual
        one
        """
        found = parse_fields(self.text, self.source)
        for name, (offset, size) in _COMMON.items():
            common = found.pop(name, None)
            if common is None or (common.offset, common.size) != (offset, size):
                raise ImportFormatError(
                    f"the format of event {self.source} has no usual {name} field"
                )
        return {n: f for n, f in found.items() if not n.startswith("common_")}


def parse_format(system: str, text: str) -> EventFormat:
    """An event's format; its fields are parsed when first asked for.

    :raises ImportFormatError: no name, or no number that fits 16 bits
    """
    name, number = _NAME.search(text), _ID.search(text)
    if name is None or number is None:
        raise ImportFormatError(
            f"an event format of system {system[:40]!r} has no name or no ID line"
        )
    for word in (system, name[1]):
        if not _PLAIN.fullmatch(word):
            raise ImportFormatError(f"an event or system is called {word[:40]!r}")
    if int(number[1]) > 0xFFFF:
        raise ImportFormatError(
            f"event {system}:{name[1]} has the number {number[1]}, past 16 bits"
        )
    return EventFormat(system, name[1], int(number[1]), text)


def parse_fields(text: str, where: str) -> dict[str, Field]:
    """All ``field:`` lines of a format or header text, by name.

    :raises ImportFormatError: a line that does not parse, or a field that ends past 64 KiB
    """
    fields: dict[str, Field] = {}
    for line in text.splitlines():
        if "field:" not in line or line.startswith("print fmt:"):
            continue
        match = _FIELD.match(line) if len(line) <= MAX_LINE else None
        declared = _DECLARATION.match(match["declaration"].strip()) if match else None
        if match is None or declared is None:
            raise ImportFormatError(f"{where}: cannot read the field line {line.strip()[:80]!r}")
        offset, size = int(match["offset"]), int(match["size"])
        if offset + size > MAX_RECORD:
            raise ImportFormatError(
                f"{where}: field {declared['name']} ends past {MAX_RECORD} bytes"
            )
        fields[declared["name"]] = Field(
            name=declared["name"],
            type=declared["type"].strip(),
            offset=offset,
            size=size,
            signed=match["signed"] == "1",
            array=declared["array"] is not None,
        )
    return fields


def _is_int(type_name: str) -> bool:
    return type_name in (
        "int",
        "unsigned int",
        "u32",
        "s32",
        "umode_t",
        "unsigned",
        "__u32",
        "__s32",
    )
