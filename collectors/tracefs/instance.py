"""Our own tracefs instances: made, locked as long as a process of ours records, and removed.

An instance and the group of its probes share one name, ``tracekit_collect_PURPOSE``.  Who records
holds a lock (``flock``) on the instance's folder, which ends with its last process however that
ends: an instance without a lock was left by a dead run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from collectors.tracefs.files import Tracefs
from tracekit.errors import TracekitError

__all__ = ("PREFIX", "Instance", "Leftover", "leftovers", "remove_leftover")

PREFIX = "tracekit_collect_"
PATIENCE_S = 10.0
"""How long a run that is ending may take before we say that it is there."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What a dead run left in the kernel.  ``instance``: whether there is one; ``probes``: of the
    group, those defined."""

    name: str
    instance: bool
    probes: tuple[str, ...]


class Instance:
    """A tracefs instance that is ours as long as this process, or a child of it, lives."""

    def __init__(self, tracefs: Tracefs, name: str, lock: int) -> None:
        self.tracefs = tracefs
        self.name = name
        self.files = tracefs.below(f"instances/{name}")
        self._lock = lock

    @classmethod
    def make(cls, tracefs: Tracefs, purpose: str) -> Instance:
        """A new instance for a purpose; what dead runs left, for any purpose, is removed first.

        Recordings of no purpose may run beside each other.

        :raises TracekitError: another run records for this purpose, or the kernel refuses
        """
        name = PREFIX + purpose
        if purpose == "none":
            name += f"_{os.getpid()}"
        until = time.monotonic() + PATIENCE_S
        while True:
            for left in leftovers(tracefs):
                remove_leftover(tracefs, left.name)
            try:
                tracefs.make_instance(name)
            except FileExistsError:
                if time.monotonic() > until:
                    raise TracekitError(
                        f"another tracekit collect records for this purpose ({name})",
                        help="end it first, or record for another purpose",
                    ) from None
                time.sleep(0.1)
                continue
            except OSError as why:
                raise TracekitError(f"cannot make a tracefs instance: {why.strerror}") from None
            lock = locked(tracefs, name)
            if lock is not None:
                return cls(tracefs, name, lock)
            # Another run that begins just now took it for a leftover.

    def remove(self) -> list[str]:
        """Stop, and take the instance and its probes out of the kernel; what could not be done."""
        problems = []
        self.files.set("tracing_on", "0")
        self.files.set("events/enable", "0")
        if not remove_folder(self.tracefs, self.name):
            problems.append(f"cannot remove the tracefs instance {self.name}")
        left = remove_probes(self.tracefs, self.name)
        problems += [f"cannot remove the probe {self.name}:{probe}" for probe in left]
        os.close(self._lock)
        return problems


def locked(tracefs: Tracefs, name: str) -> int | None:
    """A descriptor that holds the instance's lock; ``None`` while another process does."""
    try:
        folder = tracefs.open(f"instances/{name}", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as why:
            if why.errno != errno.ENOSYS:
                raise
            # A kernel without file locks (CONFIG_FILE_LOCKING): what is open tells as well.
            if is_open_elsewhere(tracefs.root / "instances" / name):
                raise
        if os.path.samestat(os.fstat(folder), (tracefs.root / "instances" / name).stat()):
            return folder
    except OSError:
        pass  # held, or removed since it was opened
    os.close(folder)
    return None


def is_open_elsewhere(folder: Path, proc: Path = Path("/proc")) -> bool:
    """Whether another process has the folder, or something in it, open; as far as we may see."""
    for pid in (entry.name for entry in os.scandir(proc) if entry.name.isdigit()):
        if int(pid) == os.getpid():
            continue
        try:
            for fd in os.scandir(proc / pid / "fd"):
                target = Path(os.readlink(fd.path))
                if target == folder or folder in target.parents:
                    return True
        except OSError:
            continue
    return False


def leftovers(tracefs: Tracefs) -> list[Leftover]:
    """What runs of ours left that are dead."""
    names = {*tracefs.folders("instances"), *tracefs.folders("events")}
    found = []
    for name in sorted(n for n in names if n.startswith(PREFIX)):
        instance = tracefs.has(f"instances/{name}")
        if instance:
            lock = locked(tracefs, name)
            if lock is None:
                continue
            os.close(lock)
        probes = tuple(tracefs.folders(f"events/{name}"))
        found.append(Leftover(name=name, instance=instance, probes=probes))
    return found


def remove_leftover(tracefs: Tracefs, name: str) -> bool:
    """Take what a dead run left out of the kernel; whether it is gone.

    Nothing is done while a process holds the lock.
    """
    assert name.startswith(PREFIX)
    if tracefs.has(f"instances/{name}"):
        lock = locked(tracefs, name)
        if lock is None:
            return False
        try:
            files = tracefs.below(f"instances/{name}")
            files.set("tracing_on", "0")
            files.set("events/enable", "0")
            if not remove_folder(tracefs, name):
                return False
        finally:
            os.close(lock)
    return not remove_probes(tracefs, name)


def remove_folder(tracefs: Tracefs, name: str) -> bool:
    """Remove an instance; a reader may hold it for a moment."""
    for _ in range(50):
        try:
            tracefs.remove_instance(name)
        except FileNotFoundError:
            return True
        except OSError as why:
            if why.errno != errno.EBUSY:
                return False
            time.sleep(0.05)
        else:
            return True
    return False


def remove_probes(tracefs: Tracefs, group: str) -> list[str]:
    """Remove every probe of a group; those that stay."""
    left = []
    for probe in tracefs.folders(f"events/{group}"):
        try:
            tracefs.append("dynamic_events", f"-:{group}/{probe}")
        except OSError:
            left.append(probe)
    return left
