"""What an IOMMU translates when a recording begins, where debugfs shows its page tables.

Intel's driver does: ``iommu/intel/DEVICE/[PASID/]domain_translation_struct`` (each device, from 6.6
on), before that one ``iommu/intel/domain_translation_struct`` (drivers/iommu/intel/debugfs.c; needs
CONFIG_INTEL_IOMMU_DEBUGFS).  A line is a leaf: the page number of its IOVA and the entry of each
level; the lowest entry that is not zero is the leaf, on the first level 4 KiB.  Large tables take
seconds to read and hold up the driver's lock meanwhile: only devices that vfio drives are read,
and up to a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Translation", "parse_domain", "translations")

MAX_LINES = 1 << 20
MAX_RANGES = 1 << 14
_LEAF = re.compile(r"^0x([0-9a-f]{1,16})\s*\|((?:\s+0x[0-9a-f]{1,16}){3,5})\s*$")
_DEVICE = re.compile(r"^Device ([\w:.]+)")
_ADDRESS = 0x000FFFFFFFFFF000


@dataclass(frozen=True)
class Translation:
    """``size`` bytes that a device reaches at ``iova``, and at what physical address."""

    device: str
    iova: int
    paddr: int
    size: int
    writable: bool


def translations(root: Path, devices: list[str]) -> tuple[list[Translation], str]:
    """The translations of some PCI devices; why there are none, if so."""
    if not devices:
        return [], "no device is driven by vfio"
    folder = root / "sys/kernel/debug/iommu/intel"
    if not folder.is_dir():
        return (
            [],
            "the kernel does not show them (CONFIG_INTEL_IOMMU_DEBUGFS, or debugfs unmounted)",
        )
    files = [path for device in devices for path in _files(folder / device)]
    if not files and (folder / "domain_translation_struct").is_file():
        files = [folder / "domain_translation_struct"]
    found: list[Translation] = []
    for path in files:
        device = path.parent.name if path.parent != folder else ""
        try:
            with path.open(errors="replace") as lines:
                found += parse_domain(lines, device, wanted=frozenset(devices))
        except OSError as why:
            return found, f"cannot read {path.name}: {why.strerror}"
        if len(found) > MAX_RANGES:
            return found[:MAX_RANGES], f"more than {MAX_RANGES:,} ranges: the others are left out"
    return found, "" if files else "debugfs shows none of the devices"


def parse_domain(
    lines: Iterable[str], device: str = "", wanted: frozenset[str] = frozenset()
) -> list[Translation]:
    """The leaves of a ``domain_translation_struct``, adjacent ones joined."""
    found: list[Translation] = []
    for number, line in enumerate(lines):
        if number >= MAX_LINES or len(found) > MAX_RANGES:
            break
        if (head := _DEVICE.match(line)) is not None:
            device = head[1]
            continue
        leaf = _LEAF.match(line)
        if leaf is None or (wanted and device not in wanted):
            continue
        entries = [int(entry, 16) for entry in leaf[2].split()]
        last = max((i for i, entry in enumerate(entries) if entry), default=None)
        if last is None:
            continue
        level = len(entries) - 1 - last
        entry = entries[last]
        size = 4096 << (9 * level)
        one = Translation(
            device=device,
            iova=int(leaf[1], 16) << 12,
            paddr=entry & _ADDRESS & ~(size - 1),
            size=size,
            writable=bool(entry & 2),
        )
        if found and _continues(found[-1], one):
            before = found.pop()
            one = Translation(
                one.device, before.iova, before.paddr, before.size + size, one.writable
            )
        found.append(one)
    return found


def _continues(before: Translation, one: Translation) -> bool:
    return (
        (before.device, before.writable) == (one.device, one.writable)
        and before.iova + before.size == one.iova
        and before.paddr + before.size == one.paddr
    )


def _files(folder: Path) -> list[Path]:
    """The device's table, else those of its address spaces."""
    own = folder / "domain_translation_struct"
    if own.is_file():
        return [own]
    try:
        return sorted(p for p in folder.glob("*/domain_translation_struct") if p.is_file())
    except OSError:
        return []
