"""Faults of mappings: they stay, go too late, come too early, or are left half undone."""

from __future__ import annotations

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.faults._define import Plan, Request, fault, joined

__all__: tuple[str, ...] = ()

DISCARDS = (Op.FALLOCATE, Op.MADVISE)
ENOMEM = 12


def _stale(plan: Plan, unmaps: dict[int, Call | None]) -> None:
    """Mappings outlive a conversion to private, and the discard of the shared side if any.

    ``unmaps``: by container, the late unmap.
    """
    attribute = plan.find(Op.ATTRIBUTE)
    for space, until in unmaps.items():
        plan.violates("TK101", since=attribute, until=until, space=space)
        if plan.all(*DISCARDS):
            plan.violates("TK102", since=plan.find(*DISCARDS), until=until, space=space)
        if plan.in_place:
            plan.violates("TK111", since=attribute, until=until, space=space)
    plan.violates("TK201", since=attribute)


@fault(
    "missing-unmap",
    "pages become private and are discarded, and a device keeps its mapping of them",
    codes=("TK101", "TK102", "TK111", "TK201"),
    private=True,
)
def missing_unmap(plan: Plan) -> None:
    unmaps = plan.all(Op.UNMAP)
    for call in unmaps:
        plan.remove(call)
    _stale(plan, {call.space: None for call in unmaps})


@fault(
    "late-unmap",
    "the unmap comes only after the vCPU went back into the guest",
    codes=("TK101", "TK102", "TK111", "TK201"),
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
    "map-before-commit",
    "pages are mapped for a device before they are shared",
    codes=("TK103", "TK111", "TK201"),
    private=False,
)
def map_before_commit(plan: Plan) -> None:
    maps = plan.all(Op.MAP)
    for call in maps:
        plan.remove(call)
    attribute = plan.find(Op.ATTRIBUTE)
    plan.insert_after(plan.find(Op.LEAVE), *maps)
    for space in plan.spaces:
        first = next(call for call in maps if call.space == space)
        plan.violates("TK103", since=first, until=attribute, space=space)
        if plan.in_place:
            plan.violates("TK111", since=first, until=attribute, space=space)
    plan.violates("TK201", since=maps[0])


@fault(
    "discard-under-mapping",
    "shared pages are thrown away, with no conversion, while a device has them mapped",
    codes=("TK102",),
    private=True,
    discards=True,
)
def discard_under_mapping(plan: Plan) -> None:
    for call in plan.all(Op.ATTRIBUTE, Op.UNMAP, Op.PUNCH_PRIVATE):
        plan.remove(call)
    for space in plan.spaces:
        plan.violates("TK102", since=plan.find(*DISCARDS), space=space)


@fault(
    "lost-rollback",
    "a map fails half-way, and what was done before it is not undone",
    codes=("TK108", "TK201"),
    private=False,
    pages=2,
)
def lost_rollback(plan: Plan) -> None:
    maps = [c for c in plan.all(Op.MAP) if c.space == plan.spaces[0]]
    at = plan.chance.randrange(1, len(maps))
    failed = plan.change(maps[at], ret=-ENOMEM)
    for call in maps[at + 1 :]:
        plan.remove(call)
    for call in plan.all(Op.PUNCH_PRIVATE):
        plan.remove(call)
    begin = plan.gpa + at * PAGE
    left = plan.gpa + plan.size - begin
    plan.violates("TK108", since=failed, until=plan.last(Op.ENTER), gpa=begin, size=left)
    if plan.generation != "v4":  # there a conversion without its discard is no request
        plan.violates("TK201", since=failed)


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
