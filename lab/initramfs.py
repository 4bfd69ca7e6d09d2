"""The guest's first file system: busybox and one script, as a cpio archive in memory.

Format: Documentation/driver-api/early-userspace/buffer-format.rst, the "newc" one.
"""

from __future__ import annotations

import gzip
import stat
from dataclasses import dataclass
from pathlib import Path

from lab.modules import content

__all__ = ("Entry", "cpio", "initramfs")

APPLETS = ("sh", "mount", "mkdir", "cat", "echo", "chroot", "sleep", "insmod", "umount")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, folder, link or device node of the archive."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: list[Entry]) -> bytes:
    """The archive of ``entries``, in their order."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry(name="TRAILER!!!", mode=0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (
            number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0,
        )  # fmt: skip
        out += b"070701" + b"".join(b"%08x" % f for f in fields) + name
        out += b"\0" * (-len(out) % 4)
        out += entry.content + b"\0" * (-len(entry.content) % 4)
    return bytes(out)


def initramfs(busybox: Path, script: bytes, modules: list[Path] | None = None) -> bytes:
    """A gzipped archive that runs ``script`` as ``/init``.

    ``modules``: kernel modules, loaded by the script in this order; they are unpacked before.
    """
    folders = ("bin", "dev", "proc", "sys", "modules")
    entries = [Entry(name=name, mode=stat.S_IFDIR | 0o755) for name in folders]
    entries += [
        Entry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry(name="bin/busybox", mode=stat.S_IFREG | 0o755, content=busybox.read_bytes()),
        Entry(name="init", mode=stat.S_IFREG | 0o755, content=script),
    ]
    entries += [
        Entry(name=f"bin/{a}", mode=stat.S_IFLNK | 0o777, content=b"busybox") for a in APPLETS
    ]
    entries += [
        Entry(name=f"modules/{n:03}.ko", mode=stat.S_IFREG | 0o644, content=content(m))
        for n, m in enumerate(modules or ())
    ]
    return gzip.compress(cpio(entries), compresslevel=1, mtime=0)
