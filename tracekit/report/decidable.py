"""What a trace can decide: which check has the events it needs, and which event is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tracekit.report.vmms import Vmm
from tracekit.store import Manifest

__all__ = ("Decidable", "Needs", "decidable", "limits")

Needs = tuple[tuple[str, ...], ...]
"""Each need is one or more event types, of which one suffices."""


@dataclass(frozen=True, kw_only=True)
class Decidable:
    """One check and one trace.

    ``missing``: needs that nothing in the recording covers.  ``idle``: needs whose events were
    recorded and never happened, so that there is nothing to judge.
    """

    code: str
    name: str
    missing: Needs
    idle: Needs

    @property
    def possible(self) -> bool:
        return not self.missing


def decidable(
    manifest: Manifest, names: Mapping[str, str], needs: Mapping[str, Needs]
) -> list[Decidable]:
    """One answer a check, in the order of ``names`` (code to name)."""
    recorded = {r.event for r in manifest.recorded} | {e for e, n in manifest.events.items() if n}
    found = []
    for code, name in names.items():
        missing = tuple(n for n in needs[code] if not recorded.intersection(n))
        idle = tuple(
            n
            for n in needs[code]
            if n not in missing and not any(manifest.events.get(e) for e in n)
        )
        found.append(Decidable(code=code, name=name, missing=missing, idle=idle))
    return found


def limits(manifest: Manifest, vmms: Sequence[Vmm]) -> list[str]:
    """What makes verdicts of this trace weaker although the checks can run; one sentence each."""
    recorded = {r.event for r in manifest.recorded} | set(manifest.events)
    said = []
    if "kvm.entry" not in recorded and not any("KVM_RUN" in v.acts for v in vmms):
        said.append(
            "no KVM_RUN and no kvm:kvm_entry: that a thread went back to its guest does not show, "
            "so it ends no conversion; the thread's exit and the other rules do"
        )
    if "ioctl.returned" not in recorded:
        said.append("no results of ioctl(): calls without another sign of failure count as done")
    if manifest.lost_unknown:
        said.append("the recorder lost events without counting them")
    if manifest.clock not in ("mono", "boot"):
        said.append(f"clock {manifest.clock!r}: times of different CPUs may not be comparable")
    return said
