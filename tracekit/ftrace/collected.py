"""What a collector says of the host it recorded: ``collected.json`` beside its pages.

It becomes entries of the manifest's ``sources``: one of the recording, one of each VM.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ("FILE", "MAX_BYTES", "CollectedSource", "collected_hz", "collected_sources")

FILE = "collected.json"

MAX_BYTES = 8 << 20
_MAX_TEXT = 4000
_MAX_VMS = 1000
_INT64 = 1 << 63

CollectedSource = dict[str, str | int | None]


def collected_sources(text: bytes) -> tuple[CollectedSource, ...]:
    """The manifest's entries; none if it is not what a collector writes."""
    about = _object(text)
    if not about:
        return ()
    host, pair = _dict(about.get("host")), _dict(about.get("clock_pair"))
    left_out = _dict(about.get("left_out"))
    config = _dict(host.get("config"))
    one: CollectedSource = {
        "format": "tracekit collect",
        "purpose": _text(about.get("purpose")),
        "left_out": _text("; ".join(f"{k}: {v}" for k, v in left_out.items())) or None,
        "clock_pair_mono_ns": _number(pair.get("mono_ns")),
        "clock_pair_realtime_ns": _number(pair.get("realtime_ns")),
        "clock_pair_error_ns": _number(pair.get("error_ns")),
        "dma_entry_limit": _number(host.get("dma_entry_limit")),
        "iommu_translations": len(_list(host.get("translations"))),
        "vsock_sockets": _number(host.get("vsock_sockets")),
        "config": _text(" ".join(f"{k}={v}" for k, v in sorted(config.items()))) or None,
        "modules": _text(" ".join(str(m) for m in _list(host.get("modules")))) or None,
    }
    return (one, *(_vm(_dict(vm)) for vm in _list(host.get("vms"))[:_MAX_VMS]))


def collected_hz(text: bytes) -> int | None:
    """Timer ticks a second (CONFIG_HZ) of the host; ``None`` if unknown."""
    said = _dict(_dict(_object(text).get("host")).get("config")).get("CONFIG_HZ")
    if not isinstance(said, str) or re.fullmatch(r"[1-9]\d{1,4}", said) is None:
        return None
    return int(said)


def _vm(vm: dict[str, Any]) -> CollectedSource:
    return {
        "format": "VM at the start",
        "pid": _number(vm.get("pid")),
        "name": _text(vm.get("name")),
        "uuid": _text(vm.get("uuid")),
        "executable": _text(vm.get("executable")),
        "command_line": _text(" ".join(str(w) for w in _list(vm.get("command_line")))) or None,
        "threads": len(_dict(vm.get("threads"))),
        "vcpus": _number(vm.get("vcpus")),
        "kvm_vms": len(_list(vm.get("kvm_fds"))),
        "guest_memfds": len(_list(vm.get("guest_memfds"))),
        "vfio_containers": len(_list(vm.get("containers"))),
        "iommufds": len(_list(vm.get("iommufds"))),
        "vfio_devices": len(_dict(vm.get("vfio_devices"))),
        "locked_limit": _number(vm.get("locked_limit")),
    }


def _object(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        return {}
    try:
        return _dict(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) else None


def _number(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
        return None
    return value
