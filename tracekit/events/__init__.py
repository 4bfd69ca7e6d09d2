"""The schema: every event type and column, each declared once."""

from tracekit.events import iommu, kvm, process, qemu, shmem, syscall, trace, vfio
from tracekit.events._define import (
    COLUMNS,
    COMMON,
    EVENT_TYPES,
    SCHEMA_VERSION,
    Column,
    ColumnType,
    Event,
    column,
    event,
    event_columns,
    event_type,
)

__all__ = (
    "COLUMNS",
    "COMMON",
    "EVENT_TYPES",
    "SCHEMA_VERSION",
    "Column",
    "ColumnType",
    "Event",
    "column",
    "event",
    "event_columns",
    "event_type",
    "iommu",
    "kvm",
    "process",
    "qemu",
    "shmem",
    "syscall",
    "trace",
    "vfio",
)
