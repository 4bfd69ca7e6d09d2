"""Which events a text holds, and how each one's lines become records with a format of their own.

So that one decoder recognises all recordings, an event's text is turned back into a record: a
format that names its fields is made for every wording met, and for every place that was probed.
What a text does not say is not in the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracekit.ftrace.event_format import EventFormat
from tracekit.ftrace.functions import FUNCTIONS
from tracekit.ftrace.probes import Definition
from tracekit.ftrace.text_wordings import WORDINGS, Kind
from tracekit.ftrace.uapi import offsets_of_names

__all__ = ("MAX_TEXT", "Shape", "TextEvents", "numbers")

MAX_NUMBERS = 60_000
MAX_SHAPES = 2_000
MAX_PER_NAME = 64
OTHER_NAMES = "(more names)"
MAX_NAME = 128
MAX_TEXT = 3000
"""Bytes of a text field that are kept."""
MAX_TRIES = 4
"""Shapes of one probe, whose fields may be numbers here and not there."""

_COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n"
)
_PROBE = re.compile(
    rb": +(?:\((?P<where>[^()\n]+)\)"
    rb"|__probe_ip=(?P<ip>[0-9a-f]{1,16})(?= |$)"
    rb"|__probe_func=(?P<func>[0-9a-f]{1,16}) __probe_ret_ip=[0-9a-f]{1,16}(?= |$)|)"
    rb"(?P<fields>[^\n]*)"
)
_FIELD = re.compile(rb"(?:^| )([A-Za-z_][A-Za-z0-9_]{0,63})=(\S*)")
_SYMBOL = re.compile(r"([A-Za-z_][\w.]*)(?:\+0x([0-9a-f]{1,8})/0x[0-9a-f]+)?(?: \[[\w-]+\])?")
_ADDRESS = re.compile(r"(?:0x)?([0-9a-f]{8,16})")
_NUMBER = rb"(-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20}))(?=[ \n]|\Z)"
_NUMERIC = re.compile(rb"-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20})")
_EPROBE = "syscalls.sys_enter_ioctl"
_SETSOCKOPT = "syscalls.sys_enter_setsockopt"
_EPROBE_FIELDS = ({"fd", "cmd"}, {"fd", "level", "onoff", "linger"})
_TYPE = re.compile(r"^(?P<name>\w+)=.*:(?P<sign>[usx])(?P<bits>8|16|32|64)$")
_ADDRESSES = 0xFFFF_FFFF_0000_0000
"""Where functions lie whose names the text shows in place of their addresses."""

_OPEN_FLAGS = {
    b"O_RDONLY": 0, b"O_WRONLY": 1, b"O_RDWR": 2, b"O_CREAT": 0x40, b"O_EXCL": 0x80,
    b"O_NOCTTY": 0x100, b"O_TRUNC": 0x200, b"O_APPEND": 0x400, b"O_NONBLOCK": 0x800,
    b"O_DSYNC": 0x1000, b"FASYNC": 0x2000, b"O_DIRECT": 0x4000, b"O_LARGEFILE": 0x8000,
    b"O_DIRECTORY": 0x10000, b"O_NOFOLLOW": 0x20000, b"O_NOATIME": 0x40000, b"O_CLOEXEC": 0x80000,
    b"__O_SYNC": 0x100000, b"O_PATH": 0x200000, b"__O_TMPFILE": 0x400000,
}  # fmt: skip

_PACKET = {
    b"STREAM": 1, b"SEQPACKET": 2, b"INVALID": 0, b"REQUEST": 1, b"RESPONSE": 2, b"RST": 3,
    b"SHUTDOWN": 4, b"RW": 5, b"CREDIT_UPDATE": 6, b"CREDIT_REQUEST": 7,
}  # fmt: skip
"""Types and operations of vsock packets: no name is both."""

Values = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Shape:
    """Lines of one event in one wording, as records of ``number``.

    ``fields``: of each group of ``pattern``, how it is written and its place in the record.
    ``size``: bytes before the texts.  ``probe``: the probed address, at byte 8.
    """

    number: int
    event: EventFormat
    pattern: re.Pattern[bytes]
    fields: tuple[tuple[Kind, int], ...] = ()
    size: int = 8
    probe: int | None = None


@dataclass(frozen=True)
class _Place:
    """What a dynamic event's line says about its probe.

    ``shown``: the function, as text in the line; ``head``: the pattern of what stands before the
    fields.  ``kind``: as in definitions, ``p`` for all function probes.
    """

    kind: str
    shown: str
    returned: bool
    head: bytes


class TextEvents:
    """All shapes of a text.  :meth:`learn` its lines first, then :meth:`take` them."""

    def __init__(self, definitions: Sequence[Definition]) -> None:
        """``definitions``: of the recording host's dynamic events."""
        self._definitions: dict[str, list[Definition]] = {}
        for d in definitions:
            self._definitions.setdefault(d.source.partition(":")[2], []).append(d)
        self._shapes: dict[bytes, list[Shape]] = {}
        self._unknown: dict[bytes, Shape] = {}
        self._tries: dict[tuple[bytes, _Place], int] = {}
        self._functions: dict[str, int] = {}
        self._count = 0
        self.used: dict[int, Shape] = {}
        """The shapes that lines had, by number."""

    def formats(self) -> list[EventFormat]:
        """Of every event met."""
        return [shape.event for shape in self.used.values()]

    def kallsyms(self) -> bytes:
        """A symbol table of the functions that the text names."""
        return b"".join(b"%016x t %s\n" % (a, n.encode()) for n, a in self._functions.items())

    def learn(self, name: bytes, bodies: list[bytes]) -> None:
        """Take note of lines of an event, by what follows its name."""
        for shape, rows, _ in self._match(name, bodies, learn=True):
            if len(rows):
                self.used[shape.number] = shape

    def take(
        self, name: bytes, bodies: list[bytes]
    ) -> Iterator[tuple[Shape, npt.NDArray[np.int64], list[tuple[bytes, ...]]]]:
        """Lines of an event by shape: which of them, and their groups."""
        return self._match(name, bodies, learn=False)

    # -- matching ----------------------------------------------------------------------------------

    def _match(
        self, name: bytes, bodies: list[bytes], *, learn: bool
    ) -> Iterator[tuple[Shape, npt.NDArray[np.int64], list[tuple[bytes, ...]]]]:
        left = np.arange(len(bodies), dtype=np.int64)
        for shape in self._known(name):
            left, bodies, found = _tried(shape, left, bodies)
            if found is not None:
                yield shape, *found
            if not bodies:
                return
        while learn and bodies:
            # Each round learns from the first line that nothing fits, until nothing can be learnt.
            new = next((s for s in (self._learnt(name, b) for b in bodies) if s is not None), None)
            if new is None:
                break
            left, bodies, found = _tried(new, left, bodies)
            if found is not None:
                yield new, *found
        if bodies:
            yield self._rest(name), left, [()] * len(bodies)

    def _known(self, name: bytes) -> list[Shape]:
        shapes = self._shapes.get(name)
        if shapes is None:
            shapes = []
            for one in WORDINGS.get(name, ()):
                system, _, event = one.source.partition(":")
                fields = [(f, kind, _static_size(one.source, f), False) for f, kind in one.fields]
                shapes.append(self._shape(system, event, one.pattern, fields, None, False))
            if len(self._shapes) < MAX_NUMBERS:
                self._shapes[name] = shapes
        return shapes

    def _rest(self, name: bytes) -> Shape:
        """For lines that are counted only."""
        shape = self._unknown.get(name)
        if shape is None:
            if self._count >= MAX_NUMBERS and name != OTHER_NAMES.encode():
                return self._rest(OTHER_NAMES.encode())
            shown = name[:MAX_NAME].decode("utf-8", "replace")
            self._count += 1
            shape = Shape(self._count, EventFormat("?", shown, self._count, _COMMON), _ANY)
            self._unknown[name] = shape
        return shape

    def _shape(
        self,
        system: str,
        name: str,
        pattern: bytes,
        fields: Sequence[tuple[str, Kind, int, bool]],
        probe: int | None,
        returned: bool,
    ) -> Shape:
        """``fields``: name, how it is written, bytes, signed."""
        self._count += 1
        lines, places, at = [], [], 8
        if probe is not None:
            address = "__probe_func" if returned else "__probe_ip"
            lines.append(f"\tfield:unsigned long {address};\toffset:8;\tsize:8;\tsigned:0;\n")
            at = 16
        for field, kind, size, signed in fields:
            places.append((kind, at))
            if kind is Kind.TEXT:
                lines.append(f"\tfield:__data_loc char[] {field};\toffset:{at};\tsize:4;\n")
                at += 4
            else:
                lines.append(
                    f"\tfield:u64 {field};\toffset:{at};\tsize:{size};\tsigned:{int(signed)};\n"
                )
                at += 8
        text = f"name: {name}\nID: {self._count}\nformat:\n{_COMMON}\n{''.join(lines)}"
        return Shape(
            self._count,
            EventFormat(system, name, self._count, text),
            _line_pattern(pattern),
            tuple(places),
            at,
            probe,
        )

    # -- dynamic events ----------------------------------------------------------------------------

    def _learnt(self, name: bytes, body: bytes) -> Shape | None:
        """A new shape that fits a dynamic event's line; none: it is no such line."""
        place = _place(body)
        if place is None or self._count >= MAX_NUMBERS or len(self._known(name)) >= MAX_PER_NAME:
            return None
        match = _PROBE.match(body)
        assert match is not None
        found = _FIELD.findall(match["fields"])
        names = [n.decode() for n, _ in found]
        shown = place.kind != "e" or place.shown
        if not shown and not any(known <= set(names) for known in _EPROBE_FIELDS):
            return None
        if len(set(names)) != len(names) or len(names) > 128:
            return None
        tries = self._tries.get((name, place), 0)
        if tries >= MAX_TRIES or len(self._tries) >= MAX_SHAPES:
            return None
        self._tries[name, place] = tries + 1
        pattern = place.head
        numbers = []
        for at, (field, value) in enumerate(found):
            pattern += b" +" + field + b"="
            if _NUMERIC.fullmatch(value) and not field.startswith((b"common_", b"__probe_")):
                numbers.append(names[at])
                pattern += _NUMBER
            elif at + 1 < len(found):
                pattern += b"(?>[^\\n]*?(?= " + found[at + 1][0] + b"=))"
            else:
                pattern += b"[^\\n]*"
        shape = self._dynamic(name.decode("utf-8", "replace")[:MAX_NAME], place, numbers, pattern)
        self._known(name).append(shape)
        return shape

    def _dynamic(self, name: str, place: _Place, numbers: list[str], pattern: bytes) -> Shape:
        function, offset = _function(name, place)
        definition = self._definition(name, place, function, numbers)
        probe = None
        if place.kind == "p":
            probe = self._address(function, offset) if function else int(place.shown, 16)
        if definition is not None:
            types = _types(definition)
            fields = [(n, Kind.NUMBER, *types.get(n, (8, False))) for n in numbers]
            system = definition.source.partition(":")[0]
        else:
            fields = [(n, _written(n, place), s, False) for n, s in _sizes(numbers).items()]
            system = "?"
            if place.kind == "e" and place.shown not in ("", _EPROBE, _SETSOCKOPT):
                fields = []  # an eprobe on something else
        return self._shape(system, name, pattern, fields, probe, place.returned)

    def _definition(
        self, name: str, place: _Place, function: str | None, numbers: list[str]
    ) -> Definition | None:
        """The one definition that the line can be of."""
        named = place.shown and not _ADDRESS.fullmatch(place.shown)
        found = [
            d
            for d in self._definitions.get(name, ())
            if (d.kind == "e") == (place.kind == "e")
            and d.returns == place.returned
            and (
                not named
                or d.target == (function if place.kind == "p" else place.shown.replace(".", "/"))
            )
        ]
        if len(found) > 1:  # groups may use one name for different fields
            found = [d for d in found if list(d.fields) == numbers] or found
        if len({(d.kind, d.target, tuple(d.fields.items())) for d in found}) != 1:
            return None
        return found[0]

    def _address(self, function: str, offset: int) -> int:
        """An address in a function, in the table that :meth:`kallsyms` shows."""
        at = self._functions.setdefault(function, _ADDRESSES + (len(self._functions) << 12))
        return at + min(offset, 0xFFF)


def numbers(texts: Sequence[bytes], kind: Kind) -> Values:
    """Values of groups that matched ``kind``, modulo 2**64."""
    if kind is Kind.OPEN_FLAGS:
        known: dict[bytes, int] = {t: _open_flags(t) for t in set(texts)}
        return np.array([known[t] for t in texts], np.uint64)
    if kind is Kind.PACKET:
        named: dict[bytes, int] = {t: _packet(t) for t in set(texts)}
        return np.array([named[t] for t in texts], np.uint64)
    if kind is Kind.TRUTH:
        return np.array([t in (b"true", b"1") for t in texts], np.uint64)
    array = np.array(texts, dtype=np.bytes_)
    letters = array.view(np.uint8).reshape(len(array), array.itemsize)
    width = letters.shape[1]
    negative = letters[:, 0] == ord("-")
    prefixed = np.zeros(len(array), bool)
    for at in (1, 2):
        if width > at:
            prefixed |= letters[:, at] == ord("x")
    base = np.where(prefixed | (kind is Kind.HEX), np.uint64(16), np.uint64(10))
    found = np.zeros(len(array), np.uint64)
    for at in range(width):
        digit = _DIGITS[letters[:, at]]
        # Signs and the x of a prefix are no digits; the 0 before it changes nothing.
        found = np.where(digit < 16, found * base + digit, found)
    if kind is Kind.NEGATED:
        negative = ~negative
    if kind is Kind.RESULT:
        error = prefixed & (found >= 0xFFFFF001) & (found <= 0xFFFFFFFF)
        found = np.where(error, found | np.uint64(0xFFFFFFFF00000000), found)
    return np.where(negative, np.uint64(0) - found, found)


_DIGITS = np.full(256, 16, np.uint64)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint64)
_ANY = re.compile(rb"^[^\n]*$", re.MULTILINE)


def _line_pattern(pattern: bytes) -> re.Pattern[bytes]:
    # Names are padded by trace-cmd.  Two empty groups: findall gives tuples, always.
    if pattern.startswith(rb":\ "):
        pattern = rb": +" + pattern[3:]
    return re.compile(b"^" + pattern + b" *$()()", re.MULTILINE)


def _tried(
    shape: Shape, left: npt.NDArray[np.int64], bodies: list[bytes]
) -> tuple[
    npt.NDArray[np.int64],
    list[bytes],
    tuple[npt.NDArray[np.int64], list[tuple[bytes, ...]]] | None,
]:
    """Rows and lines that a shape does not fit; rows that it fits, and their groups."""
    groups = shape.pattern.findall(b"\n".join(bodies))
    if len(groups) == len(bodies):
        return left[:0], [], (left, groups)
    if not groups:
        return left, bodies, None
    fits = [shape.pattern.match(b) for b in bodies]
    rows = np.array([m is not None for m in fits])
    groups = [m.groups() for m in fits if m is not None]
    rest = [b for b, m in zip(bodies, fits, strict=True) if m is None]
    return left[~rows], rest, (left[rows], groups)


def _place(body: bytes) -> _Place | None:
    """Where a dynamic event's line says it was probed; none: it is no such line."""
    match = _PROBE.match(body)
    if match is None:
        return None
    if match["ip"] is not None:
        return _Place("p", match["ip"].decode(), False, b": +__probe_ip=" + match["ip"])
    if match["func"] is not None:
        head = b": +__probe_func=" + match["func"] + b" __probe_ret_ip=[0-9a-f]+"
        return _Place("p", match["func"].decode(), True, head)
    if match["where"] is None:
        return _Place("e", "", False, b": *") if b"=" in match["fields"] else None
    before, returned, after = match["where"].partition(b" <- ")
    if not returned:
        text = before.decode("utf-8", "replace")
        head = b": +\\(" + re.escape(before) + b"\\)"
        if re.fullmatch(r"\w+\.\w+", text):
            return _Place("e", text, False, head)
        return _Place("p", text, False, head) if _names(text, "+0x") else None
    # The kernel shows where the function returns to, then the function; trace-cmd, which knows no
    # names, the function first.
    text = before.decode("utf-8", "replace")
    if re.fullmatch(r"[0-9a-f]{8,16}", text):
        return _Place("p", text, True, b": +\\(" + re.escape(before) + rb" <- [^()\n]*\)")
    text = after.decode("utf-8", "replace")
    if not _names(text):
        return None
    return _Place("p", text, True, rb": +\([^()\n]*? <- " + re.escape(after) + b"\\)")


def _names(where: str, holds: str = "") -> bool:
    """Whether it is a function, or an address."""
    return bool((_SYMBOL.fullmatch(where) and holds in where) or _ADDRESS.fullmatch(where))


def _function(name: str, place: _Place) -> tuple[str | None, int]:
    """The probed function, and how far behind its entry the probe is.

    Where the text has only an address, the event's name tells if it is one that the kernel gives to
    events without one (``p_FUNCTION_0``, ``FUNCTION__entry``), or a known function's own.
    """
    if place.kind != "p":
        return None, 0
    if not _ADDRESS.fullmatch(place.shown):
        match = _SYMBOL.fullmatch(place.shown)
        assert match is not None
        return match[1], int(match[2] or "0", 16)
    patterns = (
        (r"r_(.+)_0", r"(.+)__exit", r"(.+)_ret")
        if place.returned
        else (r"p_(.+)_0", r"(.+)__entry", r"(.+)")
    )
    for pattern in patterns:
        told = re.fullmatch(pattern, name)
        if told and told[1] in FUNCTIONS:
            return told[1], 0
    return None, 0


_INTS = (
    "fd", "mode", "behavior", "flags", "how", "error_code", "family", "type", "protocol", "level",
    "optname", "fildes",
)  # fmt: skip
"""Arguments of system calls that are ints."""


def _static_size(source: str, field: str) -> int:
    """Bytes of an int: the text may show its register's upper half too, or a sign."""
    if (source, field) == ("kvm:kvm_userspace_exit", "reason"):
        return 4
    ints = source.startswith("syscalls:sys_enter_") and source != "syscalls:sys_enter_mmap"
    return 4 if ints and field in _INTS else 8


def _written(name: str, place: _Place) -> Kind:
    return Kind.RESULT if place.returned and name in ("ret", "retval", "arg1") else Kind.NUMBER


def _types(definition: Definition) -> Mapping[str, tuple[int, bool]]:
    """Bytes and sign of the fields whose type is stated."""
    found = {}
    for word in definition.text.split():
        if match := _TYPE.match(word):
            found[match["name"]] = (int(match["bits"]) // 8, match["sign"] == "s")
    return found


def _sizes(names: list[str]) -> dict[str, int]:
    """Bytes of fields: up to the next one in the structure that their names suggest."""
    offsets = offsets_of_names(names)
    starts = sorted(set(offsets.values()))
    found = {}
    for name in names:
        size = 8
        if name in offsets:
            at = offsets[name]
            gap = min((s - at for s in starts if s > at), default=8)
            if at % 8 or name in ("argsz", "slot"):
                gap = min(gap, 4)
            size = max(s for s in (1, 2, 4, 8) if s <= gap)
        found[name] = size
    return found


def _open_flags(text: bytes) -> int:
    if not re.match(rb"[A-Z_]", text):
        return int(text, 16)
    found = 0
    for name in text.split(b"|"):
        found |= int(name, 16) if name.startswith(b"0x") else _OPEN_FLAGS.get(name, 0)
    return found


def _packet(text: bytes) -> int:
    return int(text, 0) if text[:1].isdigit() else _PACKET.get(text, 0)
