"""Which event type a recorded event is, and how its fields fill columns.

Static tracepoints go by SYSTEM:NAME.  A dynamic event goes by its definition where that is known;
else a probe goes by the function that its address belongs to and by its fields' names, and an
eprobe, which carries nothing else, by its fields' names alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tracekit.events import COLUMNS, ColumnType
from tracekit.ftrace.event_format import EventFormat, Field
from tracekit.ftrace.functions import FUNCTIONS, ByCommand, Function, Pointee
from tracekit.ftrace.probes import (
    Argument,
    Definition,
    Dereference,
    EventField,
    Fetch,
    ReturnValue,
)
from tracekit.ftrace.program import Op, Recipe, Step
from tracekit.ftrace.tracepoints import GFN, TRACEPOINTS, Tracepoint
from tracekit.ftrace.uapi import STRUCTURES, offsets_of_names

__all__ = ("RETURN_ADDRESS", "probe_address_field", "recognise")

PLAUSIBLE_GFN = (1 << 40) - 1
"""x86-64 has at most 52 bits of physical address."""
RETURN_ADDRESS = "__probe_func"
_TYPES = {c.name: c.type for c in COLUMNS}
_UNSEEN = Recipe(event=None)
_TEXT_TYPES = ("__data_loc", "__rel_loc")


@dataclass(frozen=True)
class _Column:
    """The field fills a column."""

    name: str
    signed: bool = False
    size: int = 8


@dataclass(frozen=True)
class _Bytes:
    """The field holds the bytes at an offset of the structure that ``cmd`` names."""

    offset: int


@dataclass(frozen=True)
class _Gfn:
    """The field is the first frame number of a range, or the one behind its last."""

    end: bool


@dataclass(frozen=True)
class _Half:
    """The field is one half of an address: its CID, which is the upper one, or its port."""

    name: str
    cid: bool


_Meaning = _Column | _Bytes | _Gfn | _Half | None


def probe_address_field(event: EventFormat) -> Field | None:
    """The field that holds the probed function's address; ``None``: not a function probe."""
    if event.source in TRACEPOINTS or "__probe_vaddr" in event.fields:
        return None
    found = event.fields.get(RETURN_ADDRESS) or event.fields.get("__probe_ip")
    if found is None or found.size != 8 or found.offset % 4 or not found.number:
        return None
    return found


def recognise(
    event: EventFormat, definition: Definition | None, functions: Iterable[str]
) -> Recipe:
    """The recipe for ``event``; its ``event`` is ``None`` if no event type covers it.

    ``functions``: names of the function that its first record was probed in; empty for others.
    """
    if event.source in TRACEPOINTS:
        return _static(event, TRACEPOINTS[event.source])
    if definition is not None:
        return _defined(event, definition)
    address = probe_address_field(event)
    if address is not None:
        for name in functions:
            if name in FUNCTIONS:
                returned = RETURN_ADDRESS in event.fields
                meanings = _meanings_by_name(event, FUNCTIONS[name], returned)
                return _dynamic(event, name, returned, meanings, address.offset)
        return Recipe(event=None, function=next(iter(functions), None), probe_at=address.offset)
    if "cmd" in event.fields and "fd" in event.fields:
        return _eprobe(event, _eprobe_meanings_by_name(event))
    if {"fd", "level", "onoff", "linger"} <= event.fields.keys():
        return _setsockopt_eprobe(
            event, {n: m for n, m in _SETSOCKOPT_NAMES.items() if n in event.fields}
        )
    return _UNSEEN


# -- static tracepoints --------------------------------------------------------------------------


def _static(event: EventFormat, point: Tracepoint) -> Recipe:
    steps: list[Step] = []
    conditional: list[Step] = []
    for column, name in point.columns.items():
        field = event.fields.get(name)
        if field is None:
            continue
        step = _load(
            column,
            field,
            shift=point.shifts.get(column, 0),
            limit=-0x7FFFFFFF if column in point.no_negative else 0,
        )
        if step is None:
            continue
        later = point.only_for is not None and column in point.only_for[2]
        (conditional if later else steps).append(step)
    for column, (cid, port) in point.addresses.items():
        if cid in event.fields and port in event.fields:
            steps += _address(column, event.fields[cid], event.fields[port])
    if point.span is not None:
        first, end = event.fields.get(point.span.first), event.fields.get(point.span.end)
        if first is None or end is None or first.size != 8 or end.size != 8:
            return _UNSEEN
        steps.append(_span(first, end, point.span.column, point.span.shift, limit=0))
    steps += [
        Step(op=Op.CONST, column=column, other=value) for column, value in point.constants.items()
    ]
    cases: dict[int, tuple[Step, ...]] = {}
    cmd_at = -1
    if point.only_for is not None:
        selector = event.fields.get(point.only_for[0])
        if selector is not None and selector.number and selector.size >= 4:
            cases, cmd_at = {point.only_for[1]: tuple(conditional)}, selector.offset
    return Recipe(event=point.event, steps=tuple(steps), cases=cases, cmd_at=cmd_at)


# -- dynamic events ------------------------------------------------------------------------------


def _defined(event: EventFormat, definition: Definition) -> Recipe:
    if definition.kind == "e":
        if definition.target == "syscalls/sys_enter_setsockopt":
            return _setsockopt_eprobe(
                event,
                {
                    name: meaning
                    for name, fetch in definition.fields.items()
                    if name in event.fields and (meaning := _setsockopt_meaning(fetch)) is not None
                },
            )
        if definition.target != "syscalls/sys_enter_ioctl":
            return _UNSEEN
        meanings = {
            name: _eprobe_meaning(fetch)
            for name, fetch in definition.fields.items()
            if name in event.fields
        }
        return _eprobe(event, meanings)
    function = FUNCTIONS.get(definition.target)
    if function is None or definition.kind == "t" or not definition.at_entry:
        return Recipe(event=None, function=definition.target)
    fetched = {
        name: _meaning(fetch, function)
        for name, fetch in definition.fields.items()
        if name in event.fields
    }
    if definition.all_arguments:
        named = _meanings_by_name(event, function, definition.returns)
        fetched = {**named, **fetched}
    return _dynamic(event, definition.target, definition.returns, fetched, -1)


def _dynamic(
    event: EventFormat,
    name: str,
    returned: bool,
    meanings: dict[str, _Meaning],
    probe_at: int,
) -> Recipe:
    function = FUNCTIONS[name]
    if returned:
        if function.returns_nothing:
            return Recipe(event=function.returned, function=name, probe_at=probe_at)
        ret = next((n for n, m in meanings.items() if m == _Column("ret")), None)
        if function.returned is None or ret is None or not event.fields[ret].number:
            return Recipe(event=None, function=name, probe_at=probe_at)
        field = event.fields[ret]
        size = min(field.size, function.ret_size)
        step = Step(op=Op.LOAD, column="ret", at=field.offset, size=size, signed=size < 8)
        return Recipe(event=function.returned, function=name, steps=(step,), probe_at=probe_at)
    steps, cases, cmd_at = _steps(event, meanings, function.limits)
    if any(isinstance(a, ByCommand) for a in function.arguments.values()) and cmd_at < 0:
        return Recipe(event=None, function=name, probe_at=probe_at)
    return Recipe(
        event=function.event,
        function=name,
        steps=steps,
        cases=cases,
        cmd_at=cmd_at,
        probe_at=probe_at,
    )


def _eprobe(event: EventFormat, meanings: dict[str, _Meaning]) -> Recipe:
    steps, cases, cmd_at = _steps(event, meanings, {})
    if cmd_at < 0:
        return _UNSEEN
    return Recipe(event="ioctl.arguments", steps=steps, cases=cases, cmd_at=cmd_at)


def _setsockopt_eprobe(event: EventFormat, meanings: dict[str, _Meaning]) -> Recipe:
    steps, _, _ = _steps(event, meanings, {})
    return Recipe(event="setsockopt.arguments", steps=steps)


def _steps(
    event: EventFormat, meanings: dict[str, _Meaning], limits: dict[str, int]
) -> tuple[tuple[Step, ...], dict[int, tuple[Step, ...]], int]:
    """Steps for all records, steps by command, and where the command is (-1: nowhere)."""
    steps: list[Step] = []
    structure: list[tuple[int, Field]] = []
    gfns: dict[bool, Field] = {}
    halves: dict[tuple[str, bool], Field] = {}
    cmd_at = -1
    for name, meaning in meanings.items():
        field = event.fields[name]
        if isinstance(meaning, _Column):
            step = _load(meaning.name, field, limit=limits.get(meaning.name, 0))
            if step is None or any(s.column == meaning.name for s in steps):
                continue
            steps.append(step)
            if meaning.name == "cmd" and field.number and field.size >= 4:
                cmd_at = field.offset
        elif isinstance(meaning, _Bytes) and field.number:
            structure.append((meaning.offset, field))
        elif isinstance(meaning, _Gfn) and field.number and field.size == 8:
            gfns[meaning.end] = field
        elif isinstance(meaning, _Half) and field.number and field.size >= 4:
            halves[meaning.name, meaning.cid] = field
    for column in ("local", "peer"):
        if (column, True) in halves and (column, False) in halves:
            steps += _address(column, halves[column, True], halves[column, False])
    if False in gfns and True in gfns:
        steps.append(_span(gfns[False], gfns[True], "gpa", GFN, limit=PLAUSIBLE_GFN))
    elif False in gfns:
        at = gfns[False].offset
        steps.append(Step(op=Op.LOAD, column="gpa", at=at, shift=GFN, limit=PLAUSIBLE_GFN))
    cases = _cases(structure) if cmd_at >= 0 else {}
    return tuple(steps), cases, cmd_at


def _cases(structure: list[tuple[int, Field]]) -> dict[int, tuple[Step, ...]]:
    """For each command: the steps that fill its columns from the structure's recorded bytes."""
    recorded: dict[int, int] = {}
    for offset, field in structure:
        for byte in range(field.size):
            recorded.setdefault(offset + byte, field.offset + byte)
    cases = {}
    for cmd, members in STRUCTURES.items():
        steps: list[Step] = []
        for member in members:
            places = [recorded.get(member.offset + b, -1) for b in range(member.size)]
            if -1 in places:
                continue
            first = True
            begin = 0
            while begin < member.size:
                end = begin + 1
                while end < member.size and places[end] == places[end - 1] + 1:
                    end += 1
                steps.append(
                    Step(
                        op=Op.LOAD if first else Op.OR,
                        column=member.column,
                        at=places[begin],
                        size=end - begin,
                        signed=member.signed and end == member.size,
                        shift=8 * begin,
                    )
                )
                first, begin = False, end
        if steps:
            cases[cmd] = tuple(steps)
    return cases


# -- what a field means --------------------------------------------------------------------------


def _meaning(fetch: Fetch, function: Function) -> _Meaning:
    """What a probe's field is, by what it fetches."""
    if isinstance(fetch, ReturnValue):
        return _Column("ret")
    if isinstance(fetch, Argument):
        argument = _argument(fetch, function)
        if not fetch.members:
            if isinstance(argument, Pointee):
                return _Column(argument.column) if argument.column else None
            return _Column(argument) if isinstance(argument, str) else None
        if not isinstance(argument, Pointee):
            return None
        if argument.gfns is not None and fetch.members in ("start", "end"):
            return _Gfn(fetch.members == "end")
        column = argument.names.get(fetch.members)
        return _named(column) if column else None
    if isinstance(fetch, Dereference) and isinstance(fetch.inner, Argument):
        argument = None if fetch.inner.members else _argument(fetch.inner, function)
        if isinstance(argument, ByCommand):
            return _Bytes(fetch.offset) if fetch.user else None
        if isinstance(argument, Pointee) and fetch.user == argument.user:
            if argument.gfns is not None and fetch.offset == argument.gfns.first:
                return _Gfn(False)
            if argument.gfns is not None and fetch.offset == argument.gfns.end:
                return _Gfn(True)
            for member in argument.members:
                if member.offset == fetch.offset:
                    return _Column(member.column)
    return None


def _named(column: str) -> _Meaning:
    """What fills ``column``, which may be half an address."""
    name, _, half = column.partition(".")
    return _Half(name, half == "cid") if half else _Column(name)


def _argument(fetch: Argument, function: Function) -> str | ByCommand | Pointee | None:
    if isinstance(fetch.which, str):
        return function.arguments.get(fetch.which)
    arguments = list(function.arguments.values())
    return arguments[fetch.which] if fetch.which < len(arguments) else None


def _meanings_by_name(
    event: EventFormat, function: Function, returned: bool
) -> dict[str, _Meaning]:
    """What a probe's fields are, by their names."""
    if returned:
        ret = next((n for n in ("ret", "retval", "arg1") if n in event.fields), None)
        return {ret: _Column("ret")} if ret is not None else {}
    names = [n for n in event.fields if not n.startswith("__probe_")]
    known: dict[str, _Meaning] = {}
    structure: dict[str, int] = {}
    gfns = False
    for parameter, argument in function.arguments.items():
        if isinstance(argument, str):
            known[parameter] = _Column(argument)
        elif isinstance(argument, ByCommand):
            structure = offsets_of_names(names)
        elif isinstance(argument, Pointee):
            gfns = gfns or argument.gfns is not None
            known.update({n: _named(c) for n, c in argument.names.items() if "->" not in n})
            if argument.column:
                known[parameter] = _Column(argument.column)
    known.update({n: _named(c) for n, c in function.aliases.items()})
    if gfns:
        known.update(start=_Gfn(False), end=_Gfn(True))
    found: dict[str, _Meaning] = {}
    for name in names:
        if name in structure:
            found[name] = _Bytes(structure[name])
        elif name in known:
            found[name] = known[name]
    return found


def _eprobe_meaning(fetch: Fetch) -> _Meaning:
    """What a field of an eprobe on sys_enter_ioctl is, by what it fetches."""
    if isinstance(fetch, EventField) and fetch.name in ("fd", "cmd"):
        return _Column(fetch.name)
    if (
        isinstance(fetch, Dereference)
        and fetch.inner == EventField("arg")
        and fetch.user
        and fetch.offset >= 0
    ):
        return _Bytes(fetch.offset)
    return None


def _eprobe_meanings_by_name(event: EventFormat) -> dict[str, _Meaning]:
    offsets = offsets_of_names(list(event.fields))
    found: dict[str, _Meaning] = {"fd": _Column("fd"), "cmd": _Column("cmd")}
    found.update({n: _Bytes(o) for n, o in offsets.items()})
    return found


_SETSOCKOPT_NAMES: dict[str, _Meaning] = {
    "fd": _Column("fd"),
    "level": _Column("id"),
    "opt": _Column("cmd"),
    "optname": _Column("cmd"),
    "onoff": _Column("flags"),
    "linger": _Column("count"),
}


def _setsockopt_meaning(fetch: Fetch) -> _Meaning:
    """What a field of an eprobe on sys_enter_setsockopt is, by what it fetches."""
    if isinstance(fetch, EventField):
        return {"fd": _Column("fd"), "level": _Column("id"), "optname": _Column("cmd")}.get(
            fetch.name
        )
    if isinstance(fetch, Dereference) and fetch.inner == EventField("optval") and fetch.user:
        return {0: _Column("flags"), 4: _Column("count")}.get(fetch.offset)
    return None


# -- steps ---------------------------------------------------------------------------------------


def _load(column: str, field: Field, *, shift: int = 0, limit: int = 0) -> Step | None:
    """The step that puts a field into a column; ``None`` where their types do not go together."""
    if _TYPES[column] is ColumnType.TEXT:
        if field.data_loc and field.size == 4:
            return Step(op=Op.TEXT_LOC, column=column, at=field.offset, size=4)
        if field.rel_loc and field.size == 4:
            return Step(op=Op.TEXT_REL, column=column, at=field.offset, size=4)
        if field.array and "char" in field.type:
            return Step(op=Op.TEXT_FIXED, column=column, at=field.offset, size=field.size)
        return None
    if not field.number:
        return None
    wide = _TYPES[column] in (ColumnType.U64, ColumnType.I64)
    size = field.value_size if wide or field.size < 4 else min(field.value_size, 4)
    signed_column = _TYPES[column] in (ColumnType.I64, ColumnType.I32)
    signed = (field.signed and size < 8 and signed_column) or limit < 0
    return Step(
        op=Op.LOAD,
        column=column,
        at=field.offset,
        size=min(size, 4) if limit < 0 else size,
        signed=signed,
        shift=shift,
        limit=limit,
    )


def _address(column: str, cid: Field, port: Field) -> list[Step]:
    return [
        Step(op=Op.LOAD, column=column, at=port.offset, size=4),
        Step(op=Op.OR, column=column, at=cid.offset, size=4, shift=32),
    ]


def _span(first: Field, end: Field, column: str, shift: int, *, limit: int) -> Step:
    return Step(
        op=Op.SPAN,
        column=column,
        at=first.offset,
        other=end.offset,
        column2="size",
        shift=shift,
        limit=limit,
    )
