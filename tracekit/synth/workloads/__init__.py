"""The scenarios.  A new one is a function with ``@workload`` in a module that is named here."""

from tracekit.synth.workloads import boot, conversions, machines, memory
from tracekit.synth.workloads._define import (
    WORKLOADS,
    Parameter,
    Unit,
    Workload,
    workload,
    workload_named,
)

__all__ = (
    "WORKLOADS",
    "Parameter",
    "Unit",
    "Workload",
    "boot",
    "conversions",
    "machines",
    "memory",
    "workload",
    "workload_named",
)
