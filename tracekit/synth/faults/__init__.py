"""Named ways to break a correct trace: functions with ``@fault`` in a module here."""

from tracekit.synth.faults import conversions, mappings, maps
from tracekit.synth.faults._define import FAULTS, Fault, Plan, fault, fault_named

__all__ = (
    "FAULTS",
    "Fault",
    "Plan",
    "conversions",
    "fault",
    "fault_named",
    "mappings",
    "maps",
)
