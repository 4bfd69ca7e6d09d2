"""A what-if as data: everything that the text says, and the series behind its plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from replay.whatif.counts import Failure, Point
from replay.whatif.requests import Kind, Requests
from replay.whatif.what_if import Answer

__all__ = ("json_of",)


def json_of(path: str, told: Sequence[tuple[Requests, Sequence[Answer]]]) -> str:
    """One JSON document; addresses also as hex strings, unknown is null."""
    processes = [_process(requests, answers) for requests, answers in told]
    return json.dumps({"schema": 1, "trace": path, "processes": processes}, indent=1) + "\n"


def _process(requests: Requests, answers: Sequence[Answer]) -> dict[str, Any]:
    kinds = {kind.name.lower(): sum(r.kind is kind for r in requests.requests) for kind in Kind}
    return {
        "process": requests.process,
        "containers": requests.containers,
        "regions": [
            {"gpa": gpa, "gpa_hex": f"{gpa:#x}", "size": size} for gpa, size in requests.regions
        ],
        "requests": kinds,
        "unknown": requests.unknown,
        "losses": requests.lost,
        "worlds": [_world(answer) for answer in answers],
    }


def _world(answer: Answer) -> dict[str, Any]:
    world, counts = answer.world, answer.counts
    return {
        "name": world.name,
        "generation": world.generation,
        "granularity": world.granularity.value,
        "iommu": world.iommu.value,
        "dma_entry_limit": world.dma_entry_limit if world.iommu.value == "type1" else None,
        "in_place": world.in_place,
        "vfio_priority": world.vfio_priority if world.generation == "v4" else None,
        "entries_peak": counts.peak,
        "entries_end": counts.entries,
        "map_calls": counts.maps,
        "unmap_calls": counts.unmaps,
        "iotlb_flushes": counts.flushes,
        "splits": counts.splits,
        "conversions": counts.conversions,
        "conversions_refused": counts.refused,
        "conversions_rejected_in_place": counts.rejected,
        "doubled_bytes": counts.doubled,
        "doubled_bytes_left": counts.doubled_left,
        "maps_of_private_memory": counts.premature,
        "failures": counts.failures,
        "first_failure": _failure(counts.failure),
        "qemu_ended": counts.ended or None,
        "entries_needed": answer.needed,
        "enough_dma_entry_limit": answer.enough,
        "series": {
            name: [point[i] for point in counts.series] for i, name in enumerate(Point._fields)
        },
    }


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {**asdict(failure), "address_hex": f"{failure.address:#x}"}
