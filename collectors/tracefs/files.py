"""The files of tracefs, and what the kernel says when it does not like what is written there."""

from __future__ import annotations

import os
from pathlib import Path

from tracekit.errors import TracekitError

__all__ = ("Tracefs", "find_tracefs")

PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
"""Where tracefs is mounted, or shown by debugfs."""


class Tracefs:
    """tracefs at ``root``.  What the kernel refuses raises OSError, as files do."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.root / name).read_text(encoding="utf-8", errors="replace")

    def read_or_nothing(self, name: str) -> str:
        """The text of a file; empty if it cannot be read."""
        try:
            return self.read(name)
        except OSError:
            return ""

    def write(self, name: str, text: str) -> None:
        """Write a file in one call, which the kernel takes as one command."""
        self._put(name, text, os.O_WRONLY | os.O_TRUNC)

    def append(self, name: str, text: str) -> None:
        """Add to a file whose truncation would remove what others put there."""
        self._put(name, text, os.O_WRONLY | os.O_APPEND)

    def set(self, name: str, text: str) -> bool:
        """Write a file that not every kernel has or lets us write; whether it took it."""
        try:
            self.write(name, text)
        except OSError:
            return False
        return True

    def has(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return (self.root / name).exists()

    def can_read(self, name: str) -> bool:
        """Whether the kernel lets us open a file."""
        try:
            os.close(self.open(name, os.O_RDONLY))
        except OSError:
            return False
        return True

    def has_event(self, source: str) -> bool:
        """Whether there is an event SYSTEM:NAME."""
        system, _, name = source.partition(":")
        return bool(system and name) and self.has(f"events/{system}/{name}/format")

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder, in order; none if it cannot be read."""
        try:
            with os.scandir(self.root / name) as found:
                return sorted(entry.name for entry in found if entry.is_dir())
        except OSError:
            return []

    def functions(self, wanted: frozenset[str] | None = None) -> frozenset[str] | None:
        """What ftrace can be attached to; of ``wanted`` only, and those with a compiler's suffix.

        ``None`` where the kernel does not let us read it.
        """
        try:
            path = self.root / "available_filter_functions"
            with path.open(encoding="utf-8", errors="replace") as lines:
                names = (line.split(maxsplit=1)[0] for line in lines if line.strip())
                return frozenset(
                    name for name in names if wanted is None or name.partition(".")[0] in wanted
                )
        except OSError:
            return None

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file."""
        return os.open(self.root / name, flags | os.O_CLOEXEC)

    def below(self, name: str) -> Tracefs:
        """An instance: it has the same files."""
        return Tracefs(self.root / name)

    def make_instance(self, name: str) -> None:
        """Make an instance; the kernel fills the folder."""
        (self.root / "instances" / name).mkdir()

    def remove_instance(self, name: str) -> None:
        """Remove an instance; the kernel empties the folder."""
        (self.root / "instances" / name).rmdir()

    def last_error(self) -> str:
        """What the kernel's ``error_log`` says of the last command that it refused."""
        said = [line for line in self.read_or_nothing("error_log").splitlines() if "error:" in line]
        return said[-1].split("error:", 1)[1].strip() if said else ""

    def _put(self, name: str, text: str, flags: int) -> None:
        file = self.open(name, flags)
        try:
            os.write(file, text.encode() + b"\n")
        finally:
            os.close(file)


def find_tracefs(places: tuple[Path, ...] = PLACES) -> Tracefs:
    """The host's tracefs, which we may write.

    :raises TracekitError: it is not mounted, or only root may use it
    """
    denied = False
    for place in places:
        try:
            mounted = (place / "events").is_dir() and (place / "instances").is_dir()
        except PermissionError:
            denied = True
            continue
        if mounted and os.access(place / "instances", os.W_OK):
            return Tracefs(place)
        denied = denied or mounted or (place.is_dir() and not os.access(place, os.R_OK))
    if denied:
        raise TracekitError(
            f"tracefs at {places[0]} may be used by root only",
            help="sudo tracekit ...; docs/collecting.md says what it does with that right",
        )
    raise TracekitError(
        f"tracefs is not mounted at {places[0]}",
        help=f"mount -t tracefs nodev {places[0]}",
    )
