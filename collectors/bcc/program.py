"""A plan as a BPF program: probes from this folder's C, tracepoints written from their fields.

Every event has a *kind*, a number that C knows as ``KIND_NAME``, and a line of text: the one that
ftrace would have printed, so that an import needs to know nothing of BPF.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from collectors.plans import Plan
from collectors.plans._define import Probe, Tracepoint
from collectors.plans.bpftrace import SYSTEM_CALLS, TEXTS

__all__ = ("GROUP", "Attach", "Kind", "Program", "build_program")

HERE = Path(__file__).parent
GROUP = "tracekit_bcc"
# More than the plans' probes fetch: no fetch expression follows the pointer to the transport.
MORE = {"vt_release": " unread=vsk->trans:u32 unsent=vsk->trans:u64"}
STRINGS = {
    "iommu:attach_device_to_domain": "device",
    "sched:sched_process_exec": "filename",
}
"""The only text of a tracepoint."""
LEFT_OUT = {"iommu:io_page_fault"}
"""Two texts; seen to fire on no machine."""


@dataclass(frozen=True)
class Kind:
    """How an event is printed: ``form`` is filled with values by number, and with ``{text}``,
    ``{comm}`` and ``{tid}``.

    ``types``: of each value, ``u`` or ``s`` and its bits.
    """

    form: str
    types: tuple[str, ...]

    def line(self, values: tuple[int, ...], text: str, comm: str, tid: int) -> str:
        """The event's own part of a line."""
        shown = [_typed(value, type) for value, type in zip(values, self.types, strict=False)]
        return self.form.format(*shown, text=text, comm=comm, tid=tid)


@dataclass(frozen=True)
class Attach:
    """A function of the program, and the kernel's function that it belongs to."""

    function: str
    name: str
    returns: bool


@dataclass(frozen=True, kw_only=True)
class Program:
    """``text``: in C; ``kinds``: by number; ``definitions``: of the probes, as ``dynamic_events``
    would show them; ``left_out``: what this kernel, or this source, does not have."""

    text: str
    kinds: tuple[Kind, ...]
    attach: tuple[Attach, ...]
    definitions: tuple[str, ...]
    left_out: tuple[str, ...]


def build_program(
    plan: Plan, *, has_event: Callable[[str], bool], functions: Collection[str]
) -> Program:
    """The program for a plan on a kernel with these tracepoints and functions."""
    code = (HERE / f"{plan.purpose}.c").read_text(encoding="utf-8")
    kinds: list[Kind] = []
    defines, tracepoints, attach, definitions, left_out = [], [], [], [], []
    here: set[str] = set()
    written = set(re.findall(r"^int probe_(\w+)\(", code, re.MULTILINE))
    for item in plan.items:
        number = len(kinds)
        if isinstance(item, Tracepoint):
            if item.source in LEFT_OUT or not has_event(item.source):
                left_out.append(item.source)
                continue
            kind, text = _tracepoint(item)
            tracepoints.append(text)
        else:
            target = next((t for t in item.targets if t in functions), None)
            if item.where == "event" or item.name not in written or target is None:
                left_out.append(f"{plan.group}:{item.name}")
                continue
            definition = _definition(item, target)
            kind = _probe_kind(item.name, target, definition)
            definitions.append(definition)
            attach.append(Attach(f"probe_{item.name}", target, item.where == "return"))
        kinds.append(kind)
        defines.append(f"#define KIND_{_name(item)} {number}")
        here.add(_name(item))
    # What is not attached must compile all the same.
    absent = sorted({_name(item) for item in plan.items} - here)
    defines += [f"#define KIND_{name} 0" for name in absent]
    event = (HERE / "event.c").read_text(encoding="utf-8")
    return Program(
        text="\n".join([*defines, event, code, *tracepoints]),
        kinds=tuple(kinds),
        attach=tuple(attach),
        definitions=tuple(definitions),
        left_out=tuple(left_out),
    )


def _name(item: Tracepoint | Probe) -> str:
    return item.name if isinstance(item, Probe) else "on_" + item.source.replace(":", "_")


def _tracepoint(point: Tracepoint) -> tuple[Kind, str]:
    """The line of a tracepoint, and the C that fills it."""
    system, _, name = point.source.partition(":")
    string = STRINGS.get(point.source)
    if system == "syscalls":
        way, call = name.split("_", 2)[1:]
        if way == "enter":
            fields = SYSTEM_CALLS[call].split()
            listed = ", ".join(f"{f}: {{{n}:x}}" for n, f in enumerate(fields))
            form = f"sys_{call}({listed})"
        else:
            fields, form = ["ret"], f"sys_{call} -> 0x{{0:x}}"
        types = tuple("u64" for _ in fields)
    else:
        printed, wanted = TEXTS[point.source]
        fields, form, types = _printed(name, printed, wanted, string)
    lines = [f"    e.value[{n}] = (u64)args->{field};" for n, field in enumerate(fields)]
    if string is not None:
        lines.append(f"    TP_DATA_LOC_READ_CONST(e.text, {string}, TEXT - 1);")
    unless = _condition(point.filter)
    body = "\n".join(
        [
            f"TRACEPOINT_PROBE({system}, {name})",
            "{",
            "    struct event e;",
            "",
            *([f"    if (!({unless}))", "        return 0;"] if unless else []),
            f"    begin(&e, KIND_{_name(point)});",
            *lines,
            "    sent(events.perf_submit(args, &e, sizeof(e)));",
            "    return 0;",
            "}",
        ]
    )
    return Kind(form, types), body


def _printed(
    name: str, printed: str, wanted: str, string: str | None
) -> tuple[list[str], str, tuple[str, ...]]:
    """Fields, form and types of what the kernel prints for a tracepoint."""
    fields: list[str] = []
    types: list[str] = []
    values = [w.strip() for w in wanted.split(",")]
    form = f"{name}: "
    parts = re.split(r"(%[0-9]*l?[xudsX])", printed)
    for part in parts:
        if not part.startswith("%"):
            form += part.replace("{", "{{").replace("}", "}}")
            continue
        value = values.pop(0)
        if part == "%s":
            form += "{text}" if string is not None and f"{{{string}}}" in value else "{comm}"
            continue
        if value == "tid":
            form += "{tid}"
            continue
        # An expression such as "{iova} + {size}" is computed by C.
        fields.append(re.sub(r"\{(\w+)\}", r"\1", value).replace(" + ", " + args->"))
        width = part[1:-1].rstrip("l")
        letter = "d" if part[-1] in "ud" else "x"
        form += f"{{{len(types)}:{width}{letter}}}"
        types.append("s64" if part[-1] == "d" else "u64")
    return fields, form, tuple(types)


def _definition(probe: Probe, target: str) -> str:
    """The definition that ftrace would show for what the C reads."""
    kind = "r" if probe.where == "return" else "p"
    fetches = probe.fetches[0] + MORE.get(probe.name, "")
    return f"{kind}:{GROUP}/{probe.name} {target} {fetches}".rstrip()


def _probe_kind(name: str, target: str, definition: str) -> Kind:
    """The line that ftrace would print for a probe of this definition."""
    fields = re.findall(r" (\w+)=(\S+)", definition)
    place = f"(0x0 <- {target})" if definition.startswith("r:") else f"({target}+0x0/0x0)"
    form, types = f"{name}: {place}", []
    for number, (field, fetch) in enumerate(fields):
        type = fetch.rpartition(":")[2] if re.search(r":[sux]\d+$", fetch) else "x64"
        form += f" {field}=" + (f"0x{{{number}:x}}" if type[0] == "x" else f"{{{number}}}")
        types.append(type.replace("x", "u"))
    return Kind(form, tuple(types))


def _condition(filter: str) -> str:
    """A filter of ftrace in C; one on common fields cannot be said."""
    if not filter or "common_" in filter:
        return ""
    return re.sub(r"\b([a-z]\w*)\b", r"args->\1", filter)


def _typed(value: int, type: str) -> int:
    bits = int(type[1:])
    value &= (1 << bits) - 1
    return value - (1 << bits) if type[0] == "s" and value >> (bits - 1) else value
