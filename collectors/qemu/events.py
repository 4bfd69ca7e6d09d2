"""The trace events of QEMU that an import makes rows of, by version, and how to ask for them.

From the trace-events files of 10.0.2, 10.1, 10.2.2 and 11.1.3; what another build really has it
says itself (``-trace help``).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from tracekit.errors import TracekitError, UsageError

__all__ = ("EVENTS", "TraceEvent", "arguments", "events_of", "offered", "parse_version")

Version = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class TraceEvent:
    """One event.  ``since``, ``before``: the versions that have it, of those from 7.2 on."""

    name: str
    since: Version = (0, 0)
    before: Version = (999, 0)


EVENTS = (
    TraceEvent(name="kvm_convert_memory", since=(9, 1)),
    TraceEvent(name="kvm_memory_fault", since=(9, 1)),
    TraceEvent(name="kvm_hc_map_gpa_range", since=(10, 0)),
    TraceEvent(name="kvm_set_user_memory"),
    TraceEvent(name="ram_block_attributes_state_change", since=(10, 1)),
    TraceEvent(name="ram_block_discard_range", before=(11, 0)),
    TraceEvent(name="ram_block_discard_shared_range", since=(11, 0)),
    TraceEvent(name="vfio_listener_region_add_ram"),
    TraceEvent(name="vfio_listener_region_del"),
    TraceEvent(name="vfio_listener_region_skip", since=(8, 1)),
    TraceEvent(name="vfio_listener_region_add_skip", before=(8, 1)),
    TraceEvent(name="vfio_listener_region_del_skip", before=(8, 1)),
    TraceEvent(name="vfio_listener_region_add_no_dma_map"),
    TraceEvent(name="vfio_listener_region_add_iommu"),
    TraceEvent(name="vfio_listener_region_del_iommu", since=(10, 0)),
    TraceEvent(name="vfio_iommu_map_notify"),
    TraceEvent(name="vfio_container_query_dirty_bitmap", since=(10, 0)),
    TraceEvent(name="iommufd_backend_map_dma", since=(9, 0)),
    TraceEvent(name="iommufd_backend_map_file_dma", since=(10, 1)),
    TraceEvent(name="iommufd_backend_unmap_dma", since=(9, 0)),
    TraceEvent(name="iommufd_backend_unmap_dma_non_exist", since=(9, 0)),
    TraceEvent(name="iommufd_backend_alloc_ioas", since=(9, 0)),
    TraceEvent(name="iommufd_backend_free_id", since=(9, 0)),
    TraceEvent(name="iommufd_backend_connect", since=(9, 0)),
    TraceEvent(name="iommufd_backend_disconnect", since=(9, 0)),
    TraceEvent(name="iommufd_backend_set_dirty", since=(9, 1)),
    TraceEvent(name="iommufd_backend_get_dirty_bitmap", since=(9, 1)),
    TraceEvent(name="virtio_mem_plug_request"),
    TraceEvent(name="virtio_mem_unplug_request"),
    TraceEvent(name="virtio_mem_unplug_all_request"),
    TraceEvent(name="virtio_mem_unplugged_all"),
    TraceEvent(name="virtio_mem_state_request"),
    TraceEvent(name="virtio_mem_state_response"),
    TraceEvent(name="virtio_mem_send_response"),
    TraceEvent(name="virtio_mem_resized_usable_region"),
)


def parse_version(text: str) -> Version:
    """The version at the start of a text such as ``10.2.2``.

    :raises UsageError: there is none
    """
    found = re.match(r"(\d{1,3})\.(\d{1,3})(?!\d)", text)
    if found is None:
        raise UsageError(f"{text!r} is no version of QEMU", help="as in --version 10.2")
    return int(found[1]), int(found[2])


def events_of(version: Version) -> tuple[str, ...]:
    """Names of the events that QEMU of this version has."""
    return tuple(e.name for e in EVENTS if e.since <= version < e.before)


def offered(qemu: str) -> tuple[str, ...]:
    """Names of the events that this QEMU says it has.

    :raises TracekitError: it cannot be run, or can write none of them
    """
    try:
        said = subprocess.run(
            [qemu, "-trace", "help"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        raise TracekitError(f"cannot ask {qemu} for its trace events: {why}") from None
    has = set(said.stdout.split())
    names = tuple(e.name for e in EVENTS if e.name in has)
    if not names:
        raise TracekitError(
            f"{qemu} has none of the trace events that are needed",
            help="a build with --enable-trace-backends=log, as Debian's are",
        )
    return names


def arguments(names: Iterable[str], log: str) -> list[str]:
    """What to add to QEMU's command line so that these events go to ``log``, with their times."""
    words = ["-msg", "timestamp=on", "-D", log]
    for name in names:
        words += ["-trace", name]
    return words
