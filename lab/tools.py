"""Programs that the lab needs, where they are, and what to install where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tracekit.errors import TracekitError

__all__ = ("BUILT", "busybox", "guest_kernel", "main", "missing", "qemu")

BUILT = Path(__file__).resolve().parent.parent / "build" / "lab"
"""What the lab downloads and builds."""

KERNEL_VARIABLE = "TRACEKIT_LAB_KERNEL"


def qemu() -> Path:
    """QEMU's x86-64 system emulator.

    :raises TracekitError: it is not installed
    """
    found = shutil.which("qemu-system-x86_64")
    if found is None:
        raise TracekitError(
            "qemu-system-x86_64 is not installed", help="Debian: apt-get install qemu-system-x86"
        )
    return Path(found)


def busybox() -> Path:
    """A statically linked busybox: the system's, else unpacked from Debian's package.

    :raises TracekitError: neither can be had
    """
    for place in (shutil.which("busybox"), BUILT / "busybox" / "bin" / "busybox"):
        if place is not None and Path(place).is_file() and _is_static(Path(place)):
            return Path(place)
    folder = BUILT / "busybox"
    download = BUILT / "download"
    download.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["apt-get", "download", "busybox-static"],
            cwd=download, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        (package,) = download.glob("busybox-static_*.deb")
        subprocess.run(["dpkg", "-x", package, folder], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise TracekitError(
            "no statically linked busybox, and its package cannot be downloaded",
            help="Debian: apt-get install busybox-static",
        ) from None
    return next(p for p in folder.rglob("busybox") if p.is_file() and _is_static(p))


def guest_kernel() -> Path:
    """The kernel to boot: ``$TRACEKIT_LAB_KERNEL``, else the one that ``lab.kernel`` built.

    :raises TracekitError: there is none
    """
    named = os.environ.get(KERNEL_VARIABLE)
    path = Path(named) if named else BUILT / "bzImage"
    if not path.is_file():
        raise TracekitError(
            f"no kernel for the lab at {path}",
            help=f"set {KERNEL_VARIABLE} to a bzImage, or build one: python -m lab.kernel",
        )
    return path


def missing() -> str | None:
    """Why the lab cannot run here; ``None``: it can."""
    try:
        qemu()
        guest_kernel()
        busybox()
    except TracekitError as error:
        return error.message
    return None


def _is_static(path: Path) -> bool:
    """No program interpreter among the program headers of a 64-bit ELF file."""
    head = path.read_bytes()[:4096]
    if head[:5] != b"\x7fELF\x02":
        return False
    at, size = int.from_bytes(head[32:40], "little"), int.from_bytes(head[54:56], "little")
    count = int.from_bytes(head[56:58], "little")
    types = [int.from_bytes(head[at + i * size :][:4], "little") for i in range(count)]
    return 3 not in types


def main() -> int:
    """``python -m lab.tools``: 0 where the lab can run; else 2, and why not."""
    if reason := missing():
        print(reason)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
