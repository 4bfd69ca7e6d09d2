"""What a recording plan is made of: tracepoints and probes, each with what it gives and costs.

A plan says nothing about how it is carried out; that is the renderers' part (``trace_cmd.py``,
``shell.py``, ``bpftrace.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tracekit.errors import UsageError
from tracekit.ftrace.functions import FUNCTIONS
from tracekit.ftrace.tracepoints import TRACEPOINTS

__all__ = ("Kernel", "Plan", "Probe", "Section", "Tracepoint", "parse_kernel")

Kernel = tuple[int, int]
"""A kernel's version: 6.12 is ``(6, 12)``."""


@dataclass(frozen=True, kw_only=True)
class Tracepoint:
    """One of the kernel's own trace events.  ``filter``: in the grammar of its ``filter`` file."""

    source: str
    filter: str = ""
    since: Kernel = (0, 0)

    @property
    def event(self) -> str | None:
        """The event type that an import makes of it; ``None``: it is counted only."""
        known = TRACEPOINTS.get(self.source)
        return known.event if known else None

    def exists(self, kernel: Kernel) -> bool:
        """Whether a kernel of this version can have it."""
        return kernel >= self.since


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A dynamic event of our own.

    ``where``: at a function's entry or return, or (``event``) an eprobe.  ``targets``: the
    functions to try, the first that the kernel has is taken; of an eprobe ``SYSTEM.EVENT``.
    ``fetches``: fetch expressions to try in turn.  ``instead_of``: probes, by name, that make this
    one superfluous if all of them are there.  ``fires_with``: probes by name, or events
    SYSTEM:NAME: where one of these came, this one should have fired; if it never did, it is blind.
    """

    name: str
    where: Literal["entry", "return", "event"] = "entry"
    targets: tuple[str, ...]
    fetches: tuple[str, ...]
    filter: str = ""
    since: Kernel = (0, 0)
    before: Kernel = (999, 0)
    instead_of: tuple[str, ...] = ()
    fires_with: tuple[str, ...] = ()

    @property
    def event(self) -> str | None:
        """The event type that an import makes of it; ``None``: it is counted only."""
        if self.where == "event":
            return {
                "syscalls.sys_enter_ioctl": "ioctl.arguments",
                "syscalls.sys_enter_setsockopt": "setsockopt.arguments",
            }.get(self.targets[0])
        function = FUNCTIONS.get(self.targets[0])
        if function is None:
            return None
        return function.event if self.where == "entry" else function.returned

    def exists(self, kernel: Kernel) -> bool:
        """Whether a kernel of this version can have it."""
        return self.since <= kernel < self.before

    def definitions(self, group: str) -> list[str]:
        """The lines to try for ``dynamic_events``, best first: kprobes, then fprobes."""
        name = f"{group}/{self.name}"
        forms = {
            "entry": ("p:{0} {1} {2}", "f:{0} {1} {2}"),
            "return": ("r:{0} {1} {2}", "f:{0} {1}%return {2}"),
            "event": ("e:{0} {1} {2}",),
        }[self.where]
        return [
            form.format(name, target, fetch).rstrip()
            for fetch in self.fetches
            for target in self.targets
            for form in forms
        ]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Items that answer one question together.  ``costs`` is what they cost on a busy host."""

    gives: str
    costs: str
    items: tuple[Tracepoint | Probe, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that one purpose needs.

    ``group``: of its probes, and the name of its tracefs instance.  ``buffer_kb``: of ring buffer
    for each CPU.
    """

    purpose: str
    title: str
    group: str
    buffer_kb: int
    sections: tuple[Section, ...]

    @property
    def items(self) -> tuple[Tracepoint | Probe, ...]:
        """Everything, in order."""
        return tuple(item for section in self.sections for item in section.items)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The dynamic events."""
        return tuple(item for item in self.items if isinstance(item, Probe))

    def for_kernel(self, kernel: Kernel | None) -> Plan:
        """The plan without what a kernel of this version cannot have; all of it for ``None``."""
        if kernel is None:
            return self
        sections = tuple(
            Section(
                gives=section.gives,
                costs=section.costs,
                items=tuple(item for item in section.items if item.exists(kernel)),
            )
            for section in self.sections
        )
        return Plan(
            purpose=self.purpose,
            title=self.title,
            group=self.group,
            buffer_kb=self.buffer_kb,
            sections=tuple(s for s in sections if s.items),
        )


def parse_kernel(text: str) -> Kernel:
    """The version at the start of what ``uname -r`` prints.

    :raises UsageError: there is none
    """
    match = re.match(r"(\d{1,3})\.(\d{1,4})(?![\d])", text)
    if match is None:
        raise UsageError(f"{text!r} is no kernel version", help="as in --kernel 6.12")
    return int(match[1]), int(match[2])
