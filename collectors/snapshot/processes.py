"""VMs as /proc shows them: processes that hold a KVM VM, and what else they hold open."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from collectors.snapshot.command_lines import without_secrets
from tracekit.errors import TracekitError

__all__ = ("Vm", "find_vm", "running_vms")

ROOT = Path("/")
MAX_COMMAND = 4000
MAX_FDS = 1 << 16


@dataclass(kw_only=True)
class Vm:
    """A process with a KVM VM, or one that maps memory for a device without one.

    ``name``: as its VMM calls it (``-name``), else its executable.  ``threads``: names by thread
    id.  ``kvm_fds``: descriptors of VMs.  ``guest_memfds``, ``containers`` (``/dev/vfio/vfio``),
    ``iommufds``, ``vfio_groups`` and ``vfio_devices``: what the other descriptors are.
    ``locked_limit``: RLIMIT_MEMLOCK in bytes, -1 for none.
    """

    pid: int
    name: str
    uuid: str | None = None
    executable: str | None = None
    started_ticks: int = 0
    command_line: list[str] = field(default_factory=list)
    threads: dict[int, str] = field(default_factory=dict)
    kvm_fds: list[int] = field(default_factory=list)
    vcpus: int = 0
    guest_memfds: list[int] = field(default_factory=list)
    containers: list[int] = field(default_factory=list)
    iommufds: list[int] = field(default_factory=list)
    vfio_groups: dict[int, str] = field(default_factory=dict)
    vfio_devices: dict[int, str] = field(default_factory=dict)
    vhost_vsock: list[int] = field(default_factory=list)
    locked_limit: int | None = None

    @property
    def concerns_us(self) -> bool:
        """Whether it runs a VM or maps memory for a device."""
        return bool(self.kvm_fds or self.containers or self.iommufds)


def running_vms(root: Path = ROOT) -> list[Vm]:
    """Every VM, by pid.  Needs root to see what other users' processes hold open."""
    return [vm for pid in _pids(root) if (vm := _vm(root, pid)) is not None]


def find_vm(wanted: str, root: Path = ROOT) -> _Threads:
    """The one VM of this name or pid.

    :raises TracekitError: there is none, or more than one
    """
    if wanted.isdigit():
        if not (root / "proc" / wanted).is_dir():
            raise TracekitError(f"there is no process {wanted}")
        return _Threads(root, int(wanted))
    vms = running_vms(root)
    found = [vm for vm in vms if vm.name == wanted]
    if len(found) == 1:
        return _Threads(root, found[0].pid)
    if found:
        pids = ", ".join(str(vm.pid) for vm in found)
        raise TracekitError(f"{len(found)} VMs are called {wanted!r}", help=f"give a pid: {pids}")
    names = ", ".join(f"{vm.name} ({vm.pid})" for vm in vms[:12])
    raise TracekitError(
        f"no running VM is called {wanted!r}", help=f"running: {names}" if names else None
    )


class _Threads:
    """A VM's threads: its own, and those that the kernel works for it with."""

    def __init__(self, root: Path, pid: int) -> None:
        self._root = root
        self.pid = pid

    def threads(self) -> list[int]:
        """Thread ids, now."""
        own = [tid for tid, _ in _threads(self._root / "proc" / str(self.pid))]
        helpers = []
        for pid in _pids(self._root):
            # vhost-PID serves its sockets and disks, kvm-...-PID its page tables.
            if re.fullmatch(rf"(?:vhost|kvm-\S+)-{self.pid}", _comm(self._root, pid)):
                helpers.append(pid)
        return sorted({*own, *helpers})


def _vm(root: Path, pid: int) -> Vm | None:
    folder = root / "proc" / str(pid)
    vm = Vm(pid=pid, name="")
    for fd, target in _descriptors(folder):
        _note(vm, fd, target)
    if not vm.concerns_us:
        return None
    try:
        words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        words = []
    vm.executable = _link(folder / "exe")
    shown = Path(vm.executable or (words[0] if words else "?")).name
    vm.name = _name(words) or shown
    vm.uuid = _option(words, "-uuid")
    vm.command_line = _bounded(without_secrets(words))
    vm.threads = dict(_threads(folder))
    vm.vcpus = vm.vcpus or sum(1 for comm in vm.threads.values() if comm.startswith("CPU "))
    vm.started_ticks = _started(folder)
    vm.locked_limit = _locked_limit(folder)
    return vm


def _note(vm: Vm, fd: int, target: str) -> None:
    if target == "anon_inode:kvm-vm":
        vm.kvm_fds.append(fd)
    elif target.startswith("anon_inode:kvm-vcpu"):
        vm.vcpus += 1
    elif target in ("anon_inode:[kvm-gmem]", "anon_inode:kvm-gmem", "/[kvm-gmem]"):
        vm.guest_memfds.append(fd)
    elif target == "/dev/vfio/vfio":
        vm.containers.append(fd)
    elif target == "/dev/iommu":
        vm.iommufds.append(fd)
    elif target == "/dev/vhost-vsock":
        vm.vhost_vsock.append(fd)
    elif target.startswith("/dev/vfio/devices/"):
        vm.vfio_devices[fd] = target
    elif target.startswith("/dev/vfio/"):
        vm.vfio_groups[fd] = target
    elif target in ("anon_inode:[vfio-device]",):
        vm.vfio_devices[fd] = target


def _pids(root: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(root / "proc") if name.isdigit())
    except OSError:
        return []


def _descriptors(folder: Path) -> Iterator[tuple[int, str]]:
    try:
        names = os.listdir(folder / "fd")[:MAX_FDS]
    except OSError:
        return
    for name in sorted((n for n in names if n.isdigit()), key=int):
        target = _link(folder / "fd" / name)
        if target is not None:
            yield int(name), target


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _threads(folder: Path) -> Iterator[tuple[int, str]]:
    try:
        names = os.listdir(folder / "task")
    except OSError:
        return
    for name in sorted((n for n in names if n.isdigit()), key=int):
        try:
            yield int(name), (folder / "task" / name / "comm").read_text(errors="replace").strip()
        except OSError:
            continue


def _comm(root: Path, pid: int) -> str:
    try:
        return (root / "proc" / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _started(folder: Path) -> int:
    """Clock ticks from boot to its start: with the pid, which process it is."""
    try:
        words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(words[19])
    except (OSError, ValueError, IndexError):
        return 0


def _locked_limit(folder: Path) -> int | None:
    try:
        text = (folder / "limits").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^Max locked memory\s+(\S+)", text, re.MULTILINE)
    if found is None:
        return None
    return int(found[1]) if found[1].isdigit() else -1


def _name(words: list[str]) -> str | None:
    said = _option(words, "-name")
    if said is None:
        return None
    for part in re.split(r"(?<!,),(?!,)", said):
        key, equals, value = part.partition("=")
        if not equals:
            return key
        if key == "guest":
            return value
    return None


def _option(words: list[str], name: str) -> str | None:
    for word, value in itertools.pairwise(words):
        if word in (name, "-" + name):
            return value
    return None


def _bounded(words: list[str]) -> list[str]:
    found: list[str] = []
    left = MAX_COMMAND
    for word in words:
        left -= len(word) + 1
        if left < 0:
            return [*found, "..."]
        found.append(word)
    return found
