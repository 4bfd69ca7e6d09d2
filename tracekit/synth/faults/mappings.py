"""Faults of unmaps: they are missing, late, of too little, refused; and what outlives a device."""

from __future__ import annotations

from functools import partial

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.faults._define import DISCARDS, EINVAL, Plan, Request, fault, joined
from tracekit.synth.vmm import FIRMWARE

__all__: tuple[str, ...] = ()

EIO = 5
NOWHERE = 1 << 46
"""An address where no guest of ours has memory."""
STALE = ("TK101", "TK102", "TK111", "TK201")


def _stale(
    plan: Plan,
    unmaps: dict[int, Call | None],
    *,
    gpa: int | None = None,
    size: int | None = None,
    diverges: bool = True,
    discarded: bool = True,
) -> None:
    """Mappings outlive a conversion to private, and the discard of the shared side if any.

    ``unmaps``: by container, the late unmap.
    """
    attribute = plan.find(Op.ATTRIBUTE)
    for space, until in unmaps.items():
        violates = partial(plan.violates, until=until, gpa=gpa, size=size, space=space)
        violates("TK101", since=attribute)
        if discarded and plan.all(*DISCARDS):
            violates("TK102", since=plan.find(*DISCARDS))
        if plan.in_place:
            violates("TK111", since=attribute)
    if diverges:
        plan.diverges()


@fault(
    "missing-unmap",
    "pages become private and are discarded, and a device keeps its mapping of them",
    codes=STALE,
    private=True,
)
def missing_unmap(plan: Plan) -> None:
    unmaps = plan.all(Op.UNMAP)
    for call in unmaps:
        plan.remove(call)
    _stale(plan, {call.space: None for call in unmaps})


@fault(
    "missing-unmap-of-one-container",
    "one of several containers does not hear of a conversion to private",
    codes=STALE,
    private=True,
    devices=2,
)
def missing_unmap_of_one_container(plan: Plan) -> None:
    forgotten = plan.chance.choice(plan.all(Op.UNMAP))
    plan.remove(forgotten)
    _stale(plan, {forgotten.space: None})


@fault(
    "late-unmap",
    "the unmap comes only after the vCPU went back into the guest",
    codes=STALE,
    private=True,
)
def late_unmap(plan: Plan) -> None:
    late = plan.all(Op.UNMAP)
    for call in late:
        plan.remove(call)
    again = Call(Op.LEAVE, value=3)
    plan.insert_after(plan.last(Op.ENTER), again, *late, Call(Op.ENTER))
    _stale(plan, {call.space: call for call in late})


@fault(
    "slow-unmap",
    "3 ms pass between a conversion to private and its unmap: a warning",
    codes=("TK101",),
    private=True,
    generations=("merged", "11.1"),
)
def slow_unmap(plan: Plan) -> None:
    first = plan.find(Op.UNMAP)
    plan.change(first, value=1)
    for call in plan.all(Op.UNMAP):
        plan.violates(
            "TK101", since=plan.find(Op.ATTRIBUTE), until=call, space=call.space,
            severity="warning",
        )  # fmt: skip


@fault(
    "truncated-unmap",
    "the unmap of a conversion to private ends before the conversion does",
    codes=STALE,
    private=True,
    pages=2,
)
def truncated_unmap(plan: Plan) -> None:
    kept = PAGE * plan.chance.randrange(1, plan.size // PAGE)
    spaces = [call.space for call in plan.all(Op.UNMAP)]
    for call in plan.all(Op.UNMAP):
        plan.change(call, size=kept, parts=_before(call.parts, plan.gpa + kept))
    _stale(plan, dict.fromkeys(spaces), gpa=plan.gpa + kept, size=plan.size - kept)


@fault(
    "unmap-elsewhere",
    "the unmap of a conversion to private is of another address, where nothing is mapped",
    codes=STALE,
    private=True,
)
def unmap_elsewhere(plan: Plan) -> None:
    spaces = [call.space for call in plan.all(Op.UNMAP)]
    for call in plan.all(Op.UNMAP):
        refused = -2 if plan.backend == "iommufd" else 0
        plan.change(call, at=NOWHERE + call.at, parts=(), ret=refused)
    _stale(plan, dict.fromkeys(spaces))


@fault(
    "refused-unmap",
    "the unmap of a conversion to private fails, and the conversion goes on",
    codes=("TK101", "TK102"),
    private=True,
    generations=("merged", "11.1"),
)
def refused_unmap(plan: Plan) -> None:
    spaces = [call.space for call in plan.all(Op.UNMAP)]
    for call in plan.all(Op.UNMAP):
        plan.change(call, parts=(), ret=-EIO)
    _stale(plan, dict.fromkeys(spaces), diverges=False)  # QEMU does ignore it


@fault(
    "short-unmap",
    "an unmap succeeds, and the IOMMU goes on to translate the range's last pages",
    codes=("TK101", "TK105", "TK111"),
    private=True,
    pages=2,
)
def short_unmap(plan: Plan) -> None:
    kept = PAGE * plan.chance.randrange(1, plan.size // PAGE)
    gpa, size = plan.gpa + kept, plan.size - kept
    spaces = [call.space for call in plan.all(Op.UNMAP)]
    for call in plan.all(Op.UNMAP):
        made = plan.change(call, parts=_before(call.parts, gpa))
        plan.violates("TK105", since=made, gpa=gpa, size=size, space=call.space)
    # The entry is gone, and with it what backs the pages: their discard tells nothing (TK102).
    _stale(plan, dict.fromkeys(spaces), gpa=gpa, size=size, diverges=False, discarded=False)


@fault(
    "bisecting-unmap",
    "an unmap of one page out of a larger entry, which the kernel refuses: a warning",
    codes=("TK105",),
)
def bisecting_unmap(plan: Plan) -> None:
    refused = -EINVAL if plan.backend == "type1" else -2
    at = FIRMWARE.gpa + PAGE * plan.chance.randrange(1, FIRMWARE.size // PAGE)
    cuts = Call(Op.UNMAP, at=at, size=PAGE, space=plan.spaces[0], ret=refused)
    plan.insert_after(plan.last(Op.ENTER), Call(Op.LEAVE, value=3), cuts, Call(Op.ENTER))
    plan.violates("TK105", since=cuts, until=cuts, gpa=at, size=PAGE, severity="warning")


@fault(
    "mapping-leak",
    "a device goes and its IOMMU domain is freed while pages are still mapped in it",
    codes=("TK109",),
    request=Request.UNPLUG,
)
def mapping_leak(plan: Plan) -> None:
    closing = plan.find(Op.CLOSE)
    mapped = [part for call in plan.all(Op.UNMAP) for part in call.parts]
    for call in plan.all(Op.UNMAP):
        plan.remove(call)
    for gpa, size in joined(mapped):
        plan.violates("TK109", since=closing, gpa=gpa, size=size)


@fault(
    "leak-after-refused-unmap",
    "a device goes although the last unmap of its memory failed",
    codes=("TK109",),
    request=Request.UNPLUG,
)
def leak_after_refused_unmap(plan: Plan) -> None:
    closing, last = plan.find(Op.CLOSE), plan.last(Op.UNMAP)
    plan.change(last, parts=(), ret=-EIO)
    for gpa, size in joined(last.parts):
        plan.violates("TK109", since=closing, gpa=gpa, size=size)


def _before(parts: tuple[tuple[int, int], ...], end: int) -> tuple[tuple[int, int], ...]:
    return tuple(part for part in parts if part[0] < end)
