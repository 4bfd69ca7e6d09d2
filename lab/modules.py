"""Kernel modules in the order in which they have to be loaded, without kmod.

A module names what it needs in its ``.modinfo`` section, as ``depends=a,b``; its file may be
compressed with xz.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from tracekit.errors import TracekitError

__all__ = ("content", "load_order")


def content(path: Path) -> bytes:
    """A module's file, unpacked."""
    packed = path.read_bytes()
    return lzma.decompress(packed) if path.suffix == ".xz" else packed


def load_order(folder: Path, names: Iterable[str]) -> list[Path]:
    """Files below ``folder`` for these modules and all that they need, each after its needs.

    What is built into the kernel has no file and is left out.

    :raises TracekitError: a module is neither there nor built in
    """
    files = {
        _plain(path.name.removesuffix(".xz").removesuffix(".ko")): path
        for pattern in ("*.ko", "*.ko.xz")
        for path in folder.rglob(pattern)
    }
    listed = folder / "modules.builtin"
    text = listed.read_text(encoding="utf-8") if listed.is_file() else ""
    builtin = {_plain(Path(line).stem) for line in text.splitlines()}
    order: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in order or name in builtin:
            return
        if name not in files:
            raise TracekitError(f"the kernel of {folder.name} has no module {name}")
        for needed in _depends(content(files[name])):
            add(needed)
        order[name] = files[name]

    for name in names:
        add(_plain(name))
    return list(order.values())


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _depends(module: bytes) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    if found is None:
        return []
    return [_plain(name) for name in found[1].decode("ascii").split(",") if name]
