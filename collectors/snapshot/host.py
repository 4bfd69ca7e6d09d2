"""The host when a recording begins: limits, IOMMU groups, what the IOMMU translates, sockets."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from collectors.kernel_config import kernel_config
from collectors.snapshot.page_tables import Translation, translations
from collectors.snapshot.processes import ROOT, Vm, running_vms
from collectors.snapshot.vsock_sockets import VsockSocket, open_vsock_sockets

__all__ = ("CONFIG", "Snapshot", "take_snapshot")

CONFIG = (
    "CONFIG_HZ",
    "CONFIG_PREEMPT",
    "CONFIG_KPROBE_EVENTS",
    "CONFIG_FPROBE_EVENTS",
    "CONFIG_EPROBE_EVENTS",
    "CONFIG_PROBE_EVENTS_BTF_ARGS",
    "CONFIG_FTRACE_SYSCALLS",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_KVM_GENERIC_MEMORY_ATTRIBUTES",
    "CONFIG_KVM_SW_PROTECTED_VM",
    "CONFIG_INTEL_TDX_HOST",
    "CONFIG_KVM_AMD_SEV",
    "CONFIG_IOMMUFD",
    "CONFIG_VFIO_IOMMU_TYPE1",
    "CONFIG_IOMMU_DEFAULT_DMA_LAZY",
    "CONFIG_IOMMU_DEFAULT_DMA_STRICT",
    "CONFIG_IOMMU_DEFAULT_PASSTHROUGH",
    "CONFIG_VHOST_VSOCK",
    "CONFIG_VSOCKETS_LOOPBACK",
)
"""What of the configuration decides how a recording is to be read."""
MODULES = ("kvm", "kvm_intel", "kvm_amd", "vfio", "vfio_iommu_type1", "iommufd", "vsock",
           "vhost_vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback")  # fmt: skip


@dataclass(kw_only=True)
class Snapshot:
    """The host when a recording began.

    ``dma_entry_limit``: of new containers.  ``iommu_groups``: devices and domain type by group.
    ``translations``: what the IOMMU translates for devices that processes drive, where the kernel
    shows it; ``translations_why``: why not, else.  ``vsock_sockets``: how many; ``vsock_list``:
    each, where the kernel lists them.
    """

    release: str = ""
    vms: list[Vm] = field(default_factory=list)
    config: dict[str, str] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    dma_entry_limit: int | None = None
    iommu_groups: dict[str, dict[str, object]] = field(default_factory=dict)
    translations: list[Translation] = field(default_factory=list)
    translations_why: str = ""
    vsock_sockets: int | None = None
    vsock_list: list[VsockSocket] | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def take_snapshot(root: Path = ROOT) -> Snapshot:
    """What is there now under ``root``."""
    config = kernel_config(root)
    groups = _iommu_groups(root)
    driven = sorted(
        device
        for group in groups.values()
        for device, driver in group["devices"].items()  # type: ignore[attr-defined]
        if str(driver).startswith("vfio")
    )
    found, why = translations(root, driven)
    return Snapshot(
        release=_text(root / "proc/sys/kernel/osrelease") or os.uname().release,
        vms=running_vms(root),
        config={name: config[name] for name in CONFIG if name in config},
        modules=[name for name in MODULES if (root / "sys/module" / name).is_dir()],
        dma_entry_limit=_number(root / "sys/module/vfio_iommu_type1/parameters/dma_entry_limit"),
        iommu_groups=groups,
        translations=found,
        translations_why=why,
        vsock_sockets=_vsock_sockets(root),
        vsock_list=open_vsock_sockets() if root == ROOT else None,
    )


def _iommu_groups(root: Path) -> dict[str, dict[str, object]]:
    """Groups with a device that vfio drives, by number: devices with driver, type of domain."""
    folder = root / "sys/kernel/iommu_groups"
    found: dict[str, dict[str, object]] = {}
    try:
        groups = sorted(
            (p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
        )
    except OSError:
        return {}
    for group in groups:
        try:
            devices = {p.name: _driver(p) for p in sorted((group / "devices").iterdir())}
        except OSError:
            continue
        if any(str(driver).startswith("vfio") for driver in devices.values()):
            found[group.name] = {"type": _text(group / "type"), "devices": devices}
    return found


def _driver(device: Path) -> str | None:
    try:
        return Path(os.readlink(device / "driver")).name
    except OSError:
        return None


def _vsock_sockets(root: Path) -> int | None:
    """How many vsock sockets are open, as /proc/net/protocols counts them."""
    found = re.search(r"^AF_VSOCK\s+\d+\s+(-?\d+)", _text(root / "proc/net/protocols") or "", re.M)
    return max(int(found[1]), 0) if found else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text) else None
