"""What can be recorded on this host, by which mechanism; what not, why, and what would help.

Looks only: nothing is made in the kernel.  ``clean`` removes what dead runs left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from collectors.kernel_config import kernel_config
from collectors.plans import PLANS, Plan, Probe, Tracepoint, parse_kernel
from collectors.tracefs.files import PLACES, Tracefs, find_tracefs
from collectors.tracefs.install import Functions, kinds_missing, why_no_event, why_no_probe
from collectors.tracefs.instance import Leftover, leftovers, remove_leftover
from tracekit.errors import TracekitError

__all__ = ("Diagnosis", "Item", "Purpose", "clean", "examine")

ROOT = Path("/")
_MODULES = (
    ("kvm_", "kvm", "CONFIG_KVM"),
    ("vfio_", "vfio_iommu_type1", "CONFIG_VFIO_IOMMU_TYPE1"),
    ("iommufd_", "iommufd", "CONFIG_IOMMUFD"),
    ("iopt_", "iommufd", "CONFIG_IOMMUFD"),
    ("iommu_", "", "CONFIG_IOMMU_API"),
    ("vsock_", "vsock", "CONFIG_VSOCKETS"),
    ("virtio_transport_", "vmw_vsock_virtio_transport_common", "CONFIG_VIRTIO_VSOCKETS_COMMON"),
)
"""By the beginning of a function's name: the module it is in, and the option that builds it."""
_SYSTEMS = {
    "kvm": ("kvm", "CONFIG_KVM"),
    "iommu": ("", "CONFIG_IOMMU_API"),
    "syscalls": ("", "CONFIG_FTRACE_SYSCALLS"),
    "vsock": ("vmw_vsock_virtio_transport_common", "CONFIG_VIRTIO_VSOCKETS_COMMON"),
}
"""By system of events: its module and option."""
_FORMS = {"p": "kprobe", "r": "kretprobe", "f": "fprobe", "e": "event probe"}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing of a plan.  ``how``: the mechanism; empty if it cannot be recorded: ``why``, and
    ``fix`` if something would help."""

    what: str
    event: str | None
    how: str = ""
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What of a plan can be recorded."""

    purpose: str
    title: str
    items: tuple[Item, ...]

    @property
    def events(self) -> frozenset[str]:
        """Types of events that a recording would hold."""
        return frozenset(item.event for item in self.items if item.how and item.event)


@dataclass(kw_only=True)
class Diagnosis:
    """What :func:`examine` found.  ``problem``: why nothing at all can be recorded, and ``fix``;
    ``notes``: what makes recordings poorer."""

    kernel: str
    problem: str = ""
    fix: str = ""
    notes: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    purposes: list[Purpose] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)


def examine(
    places: tuple[Path, ...] = PLACES,
    root: Path = ROOT,
    kallsyms: Path = Path("/proc/kallsyms"),
) -> Diagnosis:
    """Look at this host."""
    found = Diagnosis(kernel=os.uname().release)
    found.sources = _sources()
    try:
        tracefs = find_tracefs(places)
    except TracekitError as error:
        found.problem, found.fix = error.message, error.help or ""
        return found
    config = kernel_config(root)
    missing = kinds_missing(tracefs, config)
    if not tracefs.can_read("available_filter_functions"):
        found.notes.append(
            "available_filter_functions cannot be read: probes are tried on any function that the"
            " symbol table names"
        )
    if not tracefs.has("instances"):
        found.notes.append("no instances: recording would disturb other tracers")
    for plan in PLANS.values():
        functions = Functions(tracefs, plan, kallsyms)
        items = _items(plan, tracefs, functions, missing, _Modules(root))
        found.purposes.append(Purpose(purpose=plan.purpose, title=plan.title, items=items))
        needed = plan.buffer_kb * (os.cpu_count() or 1)
        if needed > (free := _free_kb(root)):
            found.notes.append(
                f"{plan.purpose}: {needed >> 10:,} MiB of buffers, and {free >> 10:,} MiB are free:"
                " take a smaller --buffer"
            )
    found.leftovers = leftovers(tracefs)
    return found


def clean(places: tuple[Path, ...] = PLACES) -> list[Leftover]:
    """Remove what dead runs left in the kernel; what that was.

    :raises TracekitError: tracefs cannot be used, or something cannot be removed
    """
    tracefs = find_tracefs(places)
    found = leftovers(tracefs)
    stayed = [left.name for left in found if not remove_leftover(tracefs, left.name)]
    if stayed:
        raise TracekitError(
            f"cannot remove {', '.join(stayed)}", help="is something reading it? see fuser, lsof"
        )
    return found


def _items(
    plan: Plan,
    tracefs: Tracefs,
    functions: Functions,
    missing: Mapping[str, str],
    modules: _Modules,
) -> tuple[Item, ...]:
    items: list[Item] = []
    made: set[str] = set()
    for item in plan.items:
        if isinstance(item, Tracepoint):
            why = why_no_event(tracefs, item.source)
            fix = modules.fix_event(item.source, item.since) if why else ""
            how = "" if why else "tracepoint"
            items.append(Item(what=item.source, event=item.event, how=how, why=why, fix=fix))
            continue
        if item.instead_of and made.issuperset(item.instead_of):
            continue
        why = why_no_probe(tracefs, item, functions, dict(missing))
        if why:
            fix = modules.fix_probe(item, missing)
            items.append(Item(what=item.name, event=item.event, why=why, fix=fix))
            continue
        made.add(item.name)
        how = _form(plan, item, functions, missing)
        items.append(Item(what=item.name, event=item.event, how=how))
    return tuple(items)


def _form(plan: Plan, probe: Probe, functions: Functions, missing: Mapping[str, str]) -> str:
    """The mechanism that would be tried first, and on what."""
    for definition in probe.definitions(plan.group):
        target = definition.split()[1].partition("%")[0]
        known = probe.where == "event" or not functions.why_not(target)
        if definition[0] not in missing and known:
            return f"{_FORMS[definition[0]]} on {target}"
    return ""


def _built_with(source: str) -> str:
    """The option that an event of a system that is there depends on."""
    attributes = source == "kvm:kvm_vm_set_mem_attributes"
    return "a kernel with CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES=y" if attributes else ""


class _Modules:
    """Which modules are loaded, and which could be."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            folder = root / "lib" / "modules" / os.uname().release
            text = (folder / "modules.dep").read_text(errors="replace")
        except OSError:
            text = ""
        files = (line.partition(":")[0] for line in text.splitlines())
        self._there = {Path(f).name.partition(".")[0].replace("-", "_") for f in files}

    def fix_event(self, source: str, since: tuple[int, int]) -> str:
        """What would make an event appear."""
        system = source.partition(":")[0]
        module, option = _SYSTEMS.get(system, ("", ""))
        if since > (0, 0) and (self._root / "sys/module" / module).is_dir():
            older = parse_kernel(os.uname().release) < since
            return "a kernel from {}.{} on".format(*since) if older else _built_with(source)
        return self._fix(module, option)

    def fix_probe(self, probe: Probe, missing: Mapping[str, str]) -> str:
        """What would make a probe possible."""
        if "p" in missing and "f" in missing and probe.where != "event":
            return "a kernel with CONFIG_KPROBE_EVENTS=y"
        if probe.where == "event":
            return "a kernel with CONFIG_EPROBE_EVENTS=y and CONFIG_FTRACE_SYSCALLS=y"
        for start, module, option in _MODULES:
            if probe.targets[0].startswith(start):
                if (self._root / "sys/module" / module).is_dir() and module:
                    return ""  # loaded: the function was inlined, or is not of this version
                return self._fix(module, option)
        return ""

    def _fix(self, module: str, option: str) -> str:
        if module and module in self._there and not (self._root / "sys/module" / module).is_dir():
            return f"modprobe {module}"
        return f"a kernel with {option}" if option else ""


def _sources() -> dict[str, str]:
    """Other sources, and what is gained with each."""
    from collectors.bcc import available

    why = available()
    gain = (
        "it adds typed structures of user memory, a socket's unsent bytes and the IOMMU domain"
        " where the kernel has no type information for probes (tracekit collect --only bcc)"
    )
    return {
        "bcc": f"there: {gain}" if why is None else f"{why}; with it: {gain}",
        "trace-cmd": "there (tracekit does not need it)"
        if shutil.which("trace-cmd")
        else "not there (not needed)",
    }


def _free_kb(root: Path) -> int:
    try:
        text = (root / "proc" / "meminfo").read_text(errors="replace")
    except OSError:
        return 1 << 40
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "MemAvailable:" and words[1].isdigit():
            return int(words[1])
    return 1 << 40
