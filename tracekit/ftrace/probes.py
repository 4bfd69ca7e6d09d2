"""Definitions of dynamic events: the lines of tracefs's ``dynamic_events`` at recording time.

Grammar: Documentation/trace/{kprobetrace,fprobetrace,eprobetrace}.rst.  What a field means is what
its fetch expression reads.  Lines of kinds that say nothing to us (uprobes, synthetic events) are
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile

__all__ = (
    "Argument",
    "Definition",
    "Dereference",
    "EventField",
    "Fetch",
    "ReturnValue",
    "parse_definitions",
    "read_definitions",
)

MAX_FILE = 4 << 20
MAX_LINE = 4096
"""The kernel takes no longer one."""
_REGISTERS = {"di": 0, "si": 1, "dx": 2, "cx": 3, "r8": 4, "r9": 5}
"""The x86-64 registers of a kernel function's first six arguments."""

MAX_NESTING = 32
"""Twice the dereferences that the kernel takes."""

_OFFSET = r"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19}"
"""As C writes numbers."""
_HEAD = re.compile(r"^(?P<kind>[prfte])\d*(?::(?:(?P<group>[\w.-]+)[/.])?(?P<name>[\w.-]+))?$")
_TARGET = re.compile(
    r"^(?:[\w.-]+:)?(?P<symbol>[\w.]+?)(?P<ret>%return)?(?:\+(?P<offset>"
    + _OFFSET
    + r"))?(?P<ret2>%return)?$"
)
_POINTER = re.compile(r"^(?P<sign>[+-])(?P<user>u?)(?P<offset>" + _OFFSET + r")\((?P<inner>.*)\)$")
_BTF = re.compile(r"^[A-Za-z_]\w*(?:(?:->|\.)[A-Za-z_]\w*)*$")
_TYPE = re.compile(r":[a-z]\w*(?:@\d+/\d+)?(?:\[\d+\])?$")


@dataclass(frozen=True)
class Argument:
    """The function's argument: its number from 0, or its name, and the members taken from it."""

    which: int | str
    members: str = ""


@dataclass(frozen=True)
class Dereference:
    """Memory at ``inner`` + ``offset``; ``user``: user memory."""

    inner: Fetch
    offset: int
    user: bool


@dataclass(frozen=True)
class ReturnValue:
    """What the function returned."""


@dataclass(frozen=True)
class EventField:
    """A field of the event that an eprobe is attached to."""

    name: str


Fetch = Argument | Dereference | ReturnValue | EventField | None
"""What a field reads; ``None``: something that is not followed here."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One dynamic event.  ``target``: the function, or ``system/event`` of an eprobe."""

    kind: str
    source: str
    target: str
    returns: bool
    at_entry: bool
    fields: dict[str, Fetch]
    all_arguments: bool
    text: str


def read_definitions(path: Path) -> list[Definition]:
    """The definitions in a file.

    :raises TracekitError: it cannot be read
    :raises ImportFormatError: it is not a list of definitions
    """
    with RegularFile(path) as file:
        if file.size > MAX_FILE:
            raise ImportFormatError(f"{file.name}: {file.size} bytes are no list of probes")
        text = file.read(0, file.size, "definitions").decode("utf-8", "replace")
    return parse_definitions(text.splitlines(), path.name)


def parse_definitions(lines: Iterable[str], where: str) -> list[Definition]:
    """The definitions in ``lines``; blank lines and ``#`` comments are allowed.

    :raises ImportFormatError: a line that is no definition
    """
    found = []
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise ImportFormatError(f"{where} line {number} is longer than any definition")
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        head = _HEAD.match(words[0])
        if head is None and re.match(r"^[a-z]\d*:", words[0]) and len(words) > 1:
            continue  # a uprobe or synthetic event
        if head is None or len(words) < 2 or head["name"] is None:
            raise ImportFormatError(
                f"{where} line {number} is no definition of a dynamic event: {line.strip()[:80]!r}"
            )
        found.append(_definition(head, words[1], words[2:], line.strip()))
    return found


def _definition(head: re.Match[str], target: str, arguments: list[str], text: str) -> Definition:
    kind = head["kind"]
    default = {"e": "eprobes", "f": "fprobes", "t": "tracepoints"}.get(kind, "kprobes")
    fields: dict[str, Fetch] = {}
    everything = False
    for position, word in enumerate(arguments, 1):
        if word == "if":
            break
        if word.startswith("$arg*"):
            everything = True
            continue
        name, equals, expression = word.partition("=")
        if not equals:
            expression = word
            plain = _TYPE.sub("", word)
            name = plain.lstrip("$") if re.fullmatch(r"\$?\w+", plain) else f"arg{position}"
        fields[name] = parse_fetch(_TYPE.sub("", expression), eprobe=kind == "e")
    if kind == "e":
        symbol, returns, at_entry = target.replace(".", "/", 1), False, True
    else:
        match = _TARGET.match(target)
        symbol = match["symbol"] if match else target
        returns = kind == "r" or bool(match and (match["ret"] or match["ret2"]))
        at_entry = match is not None and _number(match["offset"] or "0") == 0
    return Definition(
        kind=kind,
        source=f"{head['group'] or default}:{head['name']}",
        target=symbol,
        returns=returns,
        at_entry=at_entry,
        fields=fields,
        all_arguments=everything,
        text=text,
    )


def parse_fetch(expression: str, *, eprobe: bool, nested: int = 0) -> Fetch:
    """What a fetch expression without its type reads; ``None`` where it is not followed here."""
    pointer = _POINTER.match(expression) if nested < MAX_NESTING else None
    if pointer:
        inner = parse_fetch(pointer["inner"], eprobe=eprobe, nested=nested + 1)
        offset = _number(pointer["offset"])
        return inner and Dereference(
            inner, -offset if pointer["sign"] == "-" else offset, pointer["user"] == "u"
        )
    if expression.startswith("%"):
        number = _REGISTERS.get(expression[1:])
        return None if number is None or eprobe else Argument(number)
    if expression == "$retval":
        return ReturnValue()
    if expression.startswith("$"):
        if eprobe:
            return EventField(expression[1:])
        match = re.fullmatch(r"\$arg(\d{1,2})", expression)
        return Argument(int(match[1]) - 1) if match and int(match[1]) else None
    if _BTF.match(expression) and not eprobe:
        root, _, members = expression.replace(".", "->").partition("->")
        return Argument(root, members)
    return None


def _number(text: str) -> int:
    """A number as C writes it."""
    octal = text.startswith("0") and text.isdigit()
    return int(text, 8) if octal else int(text, 0)
