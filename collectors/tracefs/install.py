"""A plan into an instance: what this kernel has is made and enabled, the rest is named with why."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collectors.kernel_config import kernel_config
from collectors.plans import Plan, Probe, Tracepoint
from collectors.tracefs.files import Tracefs
from collectors.tracefs.instance import Instance
from tracekit.errors import TracekitError

__all__ = ("Functions", "Installed", "LeftOut", "configure", "install", "kinds_missing")

KALLSYMS = Path("/proc/kallsyms")
FPROBES = "f[:[<group>/][<event>]]"
"""In tracefs's README where the kernel has fprobes.  (Event probes are listed also where not.)"""


@dataclass(frozen=True)
class LeftOut:
    """Something of the plan that is not recorded, and why."""

    what: str
    why: str


@dataclass
class Installed:
    """What of a plan is in the kernel.  ``events``: SYSTEM:NAME; ``definitions``: by the name of
    the probe, the line that the kernel took."""

    events: list[str] = field(default_factory=list)
    definitions: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


class Functions:
    """Of a plan's functions those that ftrace can be attached to, else those that have a symbol."""

    def __init__(self, tracefs: Tracefs, plan: Plan, kallsyms: Path = KALLSYMS) -> None:
        wanted = frozenset(target for probe in plan.probes for target in probe.targets)
        names = tracefs.functions(wanted)
        self.certain = names is not None
        """Whether ftrace itself named them."""
        self.names = names if names is not None else _symbols(kallsyms, wanted)

    def why_not(self, function: str) -> str:
        """Why it cannot be probed; empty if it can."""
        if function in self.names:
            return ""
        if any(name.startswith(function + ".") for name in self.names):
            return f"the compiler changed {function}() (its arguments are not what they were)"
        return f"no function {function}(): inlined, renamed, or its module is not loaded"


def configure(instance: Instance, *, clock: str, buffer_kb: int, percent: int = 25) -> list[str]:
    """Set an instance up, still off: clock, size of the buffer for each CPU; what it lacks.

    :raises TracekitError: the kernel has no such clock, or no memory for the buffers
    """
    files = instance.files
    files.write("tracing_on", "0")
    if not files.set("trace_clock", clock):
        raise TracekitError(f"this kernel has no trace clock {clock!r}")
    try:
        files.write("buffer_size_kb", str(buffer_kb))
    except OSError as why:
        raise TracekitError(
            f"the kernel gives no {buffer_kb} KiB of buffer for each CPU: {why.strerror}",
            help="take a smaller --buffer",
        ) from None
    # A buffer that is full overwrites its oldest events, and its pages then show where they were.
    wanted = {"options/overwrite": "1", "buffer_percent": str(percent)}
    # Once our last process is gone, however, nothing is recorded and the buffers are given back.
    wanted["options/disable_on_free"] = "1"
    wanted["options/record-cmd"] = "1"
    return [name for name, value in wanted.items() if not files.set(name, value)]


def install(
    plan: Plan,
    instance: Instance,
    functions: Functions,
    extra: Sequence[str] = (),
    config: Mapping[str, str] | None = None,
) -> Installed:
    """Make the plan's probes and set its filters; :func:`enable` follows.

    ``extra``: further events, SYSTEM:NAME.  ``config``: the kernel's; the running one's, else.

    :raises TracekitError: a filter is refused, or one of ``extra`` is no event of this kernel
    """
    made = Installed()
    missing = kinds_missing(instance.tracefs, config)
    for item in plan.items:
        if isinstance(item, Tracepoint):
            _add_event(instance, made, item.source, item.filter)
        else:
            _add_probe(instance, made, item, functions, missing)
    for source in extra:
        if not instance.files.has_event(source):
            raise TracekitError(
                f"this kernel has no event {source}",
                help="its events are listed in available_events of tracefs, as SYSTEM:NAME",
            )
        if source not in made.events:
            made.events.append(source)
    return made


def enable(instance: Instance, made: Installed) -> None:
    """Switch the events on; what the kernel refuses is left out."""
    for source in list(made.events):
        try:
            instance.files.write(f"events/{source.replace(':', '/')}/enable", "1")
        except OSError as why:
            made.events.remove(source)
            made.left_out.append(LeftOut(source, f"the kernel does not enable it: {why.strerror}"))


def kinds_missing(tracefs: Tracefs, config: Mapping[str, str] | None = None) -> dict[str, str]:
    """By kind of definition (p, r, f, e): what this kernel lacks for it.

    ``config``: its configuration, as far as known.
    """
    missing = {}
    if not tracefs.has("kprobe_events"):
        missing["p"] = missing["r"] = "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)"
    if FPROBES not in tracefs.read_or_nothing("README"):
        missing["f"] = "this kernel has no fprobes (CONFIG_FPROBE_EVENTS)"
    known = kernel_config() if config is None else config
    if known and known.get("CONFIG_EPROBE_EVENTS") != "y":
        missing["e"] = "this kernel has no event probes (CONFIG_EPROBE_EVENTS)"
    return missing


def why_no_event(tracefs: Tracefs, source: str) -> str:
    """Why a tracepoint cannot be recorded; empty if it can."""
    if tracefs.has_event(source):
        return ""
    system = source.partition(":")[0]
    if not tracefs.has(f"events/{system}"):
        return f"no events of {system}: not built in, or its module is not loaded"
    return "this kernel does not have the event"


def why_no_probe(
    tracefs: Tracefs, probe: Probe, functions: Functions, missing: dict[str, str]
) -> str:
    """Why none of a probe's definitions can be made, as far as can be told without trying."""
    if probe.where == "event":
        (target,) = probe.targets
        return why_no_event(tracefs, target.replace(".", ":", 1)) or missing.get("e", "")
    kinds = ("p", "f") if probe.where == "entry" else ("r", "f")
    if all(kind in missing for kind in kinds):
        return missing[kinds[0]] + ", nor fprobes"
    reasons = [functions.why_not(target) for target in probe.targets]
    return "" if "" in reasons else reasons[0]


def _add_event(instance: Instance, made: Installed, source: str, filter: str) -> None:
    if why := why_no_event(instance.files, source):
        made.left_out.append(LeftOut(source, why))
        return
    if filter:
        try:
            instance.files.write(f"events/{source.replace(':', '/')}/filter", filter)
        except OSError as why_not:
            raise TracekitError(
                f"the kernel does not take the filter {filter!r} of {source}: {why_not.strerror}"
            ) from None
    made.events.append(source)


def _add_probe(
    instance: Instance,
    made: Installed,
    probe: Probe,
    functions: Functions,
    missing: dict[str, str],
) -> None:
    """Try the definitions in turn, on functions that are there."""
    if probe.instead_of and all(name in made.definitions for name in probe.instead_of):
        return
    name = f"{instance.name}:{probe.name}"
    if why := why_no_probe(instance.files, probe, functions, missing):
        made.left_out.append(LeftOut(name, why))
        return
    refused = ""
    for definition in probe.definitions(instance.name):
        target = definition.split()[1].partition("%")[0]
        if definition[0] in missing or (probe.where != "event" and functions.why_not(target)):
            continue
        try:
            instance.tracefs.append("dynamic_events", definition)
        except OSError as error:
            if error.errno == errno.EPERM:
                refused = "the kernel does not let root make probes (lockdown)"
                break
            refused = instance.tracefs.last_error() or str(error.strerror)
            continue
        made.definitions[probe.name] = definition
        _add_event(instance, made, name, probe.filter)
        return
    made.left_out.append(LeftOut(name, f"the kernel refuses its definition: {refused}"))


def _symbols(kallsyms: Path, wanted: frozenset[str]) -> frozenset[str]:
    """Which of some functions are in the symbol table, also with a suffix of the compiler's."""
    try:
        with kallsyms.open(encoding="utf-8", errors="replace") as lines:
            words = (line.split() for line in lines)
            return frozenset(
                w[2]
                for w in words
                if len(w) > 2 and w[1] in "tTwW" and w[2].partition(".")[0] in wanted
            )
    except OSError:
        return frozenset()
