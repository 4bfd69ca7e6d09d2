"""What to record for which purpose, and how to say it to a host that has no tracekit.

The plans are data, declared once: ``tracekit plan`` prints them as a script, docs/recording.md
lists them, and what records on this host takes them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from collectors.plans._define import Plan, Probe, Section, Tracepoint, parse_kernel
from collectors.plans.bpftrace import bpftrace_script
from collectors.plans.dma import DMA
from collectors.plans.linger import LINGER
from collectors.plans.scripts import raw_script, trace_cmd_script

__all__ = ("FORMATS", "PLANS", "Plan", "Probe", "Section", "Tracepoint", "parse_kernel")

PLANS: dict[str, Plan] = {plan.purpose: plan for plan in (DMA, LINGER)}
"""Every plan by its purpose."""

Serves = Mapping[str, tuple[str, ...]]
"""By event type: the checks that cannot judge without it or one that stands in for it."""

FORMATS: dict[str, Callable[[Plan, Serves], str]] = {
    "trace-cmd": trace_cmd_script,
    "sh": raw_script,
    "bpftrace": bpftrace_script,
}
"""What a plan can be printed as."""
