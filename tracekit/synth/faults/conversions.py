"""Faults of conversions as a whole: their order, their range, what they discard, how they fail."""

from __future__ import annotations

from dataclasses import replace

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.faults._define import DISCARDS, EINVAL, ENOMEM, Plan, fault

__all__: tuple[str, ...] = ()

PRIVATE = 8


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
    "discard-before-unmap",
    "in a conversion to private the shared side is discarded first and unmapped then",
    codes=("TK111", "TK201"),
    private=True,
    discards=True,
)
def discard_before_unmap(plan: Plan) -> None:
    discards = plan.all(*DISCARDS)
    for call in discards:
        plan.remove(call)
    plan.insert_after(plan.find(Op.LEAVE), *discards)
    plan.diverges()


@fault(
    "wrong-side-to-private",
    "a conversion to private throws the private side away",
    codes=("TK110", "TK201"),
    private=True,
    discards=True,
)
def wrong_side_to_private(plan: Plan) -> None:
    for call in plan.all(*DISCARDS):
        punched = plan.change(call, op=Op.PUNCH_PRIVATE, value=0)
    plan.violates("TK110", since=punched, until=punched)
    plan.diverges()


@fault(
    "wrong-side-to-shared",
    "a conversion to shared throws the shared side away, which devices have mapped by then",
    codes=("TK102", "TK110", "TK201"),
    private=False,
    discards=True,
)
def wrong_side_to_shared(plan: Plan) -> None:
    thrown = plan.change(plan.find(Op.PUNCH_PRIVATE), op=Op.MADVISE, value=4)
    plan.violates("TK110", since=thrown, until=thrown)
    for space in plan.spaces:
        plan.violates("TK102", since=thrown, space=space)
    plan.diverges()


@fault(
    "missing-discard",
    "a conversion to private keeps the shared side, so that both sides hold memory",
    codes=("TK201",),
    private=True,
    discards=True,
    generations=("merged", "11.1"),
)
def missing_discard(plan: Plan) -> None:
    for call in plan.all(*DISCARDS):
        plan.remove(call)
    plan.diverges()


@fault(
    "missing-punch",
    "a conversion to shared keeps the private side",
    codes=("TK201",),
    private=False,
    generations=("merged", "11.1"),
)
def missing_punch(plan: Plan) -> None:
    plan.remove(plan.find(Op.PUNCH_PRIVATE))
    plan.diverges()


@fault(
    "wrong-generation",
    "the order of calls of another generation: pages are unmapped on the other side of the commit",
    codes=("TK111", "TK201"),
    private=True,
)
def wrong_generation(plan: Plan) -> None:
    attribute, unmaps = plan.find(Op.ATTRIBUTE), plan.all(Op.UNMAP)
    for call in unmaps:
        plan.remove(call)
    if plan.generation == "v4":
        plan.insert_after(attribute, *unmaps)
    else:
        plan.insert_after(plan.find(Op.LEAVE), *unmaps)
    if plan.in_place:
        for call in unmaps:
            plan.violates("TK111", since=attribute, until=call, space=call.space)
    plan.diverges()


@fault(
    "half-conversion",
    "the attribute changes of the first pages only, and all of them are mapped",
    codes=("TK103", "TK111", "TK201"),
    private=False,
    pages=2,
)
def half_conversion(plan: Plan) -> None:
    kept = PAGE * plan.chance.randrange(1, plan.size // PAGE)
    attribute = plan.find(Op.ATTRIBUTE)
    plan.change(attribute, size=kept, parts=((plan.gpa, kept),))
    gpa, size = plan.gpa + kept, plan.size - kept
    for space in plan.spaces:
        first = next(c for c in plan.all(Op.MAP) if c.space == space and c.at == gpa)
        plan.violates("TK103", since=first, gpa=gpa, size=size, space=space)
        if plan.in_place:
            plan.violates("TK111", since=first, gpa=gpa, size=size, space=space)
    # From 10.1 on the attribute call is the request; in v4 the discard tells it.
    plan.diverges(size=None if plan.generation == "v4" else kept)


@fault(
    "rollback-keeps-mappings",
    "a map fails half-way, the pages become private again, and those before it stay mapped",
    codes=("TK108", "TK201"),
    private=False,
    pages=2,
)
def rollback_keeps_mappings(plan: Plan) -> None:
    space = plan.all(Op.MAP)[0].space
    maps = [c for c in plan.all(Op.MAP) if c.space == space]
    at = plan.chance.randrange(1, len(maps))
    failed = plan.change(maps[at], ret=-ENOMEM)
    for call in plan.all(Op.MAP, Op.PUNCH_PRIVATE):
        if call is not failed and call not in maps[:at]:
            plan.remove(call)
    attribute = plan.find(Op.ATTRIBUTE)
    plan.insert_after(failed, replace(attribute, value=PRIVATE))
    plan.violates("TK108", since=failed, until=plan.last(Op.ENTER), size=at * PAGE, space=space)
    if plan.generation != "v4":  # there a conversion without its discard is no request
        plan.diverges()  # pages are left mapped
        plan.diverges()  # and a conversion to private, for which the rollback is taken, unmaps them


@fault(
    "rollback-maps-nothing",
    "the attribute call fails after the unmaps, and what was unmapped is not mapped again",
    codes=("TK108", "TK201"),
    private=True,
    generations=("v4",),
)
def rollback_maps_nothing(plan: Plan) -> None:
    failed = plan.change(plan.find(Op.ATTRIBUTE), ret=-ENOMEM, parts=())
    for call in plan.all(*DISCARDS):
        plan.remove(call)
    for space in plan.spaces:
        plan.violates("TK108", since=failed, until=plan.last(Op.ENTER), space=space)


@fault(
    "invalid-conversion",
    "a conversion is asked for that begins within a page, which the kernel refuses: a warning",
    codes=("TK201", "TK202"),
)
def invalid_conversion(plan: Plan) -> None:
    _invalid(plan, -EINVAL)


@fault(
    "invalid-conversion-taken",
    "a conversion that begins within a page is taken",
    codes=("TK201", "TK202"),
)
def invalid_conversion_taken(plan: Plan) -> None:
    _invalid(plan, 0)


def _invalid(plan: Plan, ret: int) -> None:
    value = PRIVATE if plan.private else 0
    asked = Call(Op.ATTRIBUTE, at=plan.gpa + 0x800, size=PAGE, value=value, ret=ret)
    plan.insert_after(plan.last(Op.ENTER), Call(Op.LEAVE, value=3), asked, Call(Op.ENTER))
    plan.violates(
        "TK202", since=asked, until=asked, gpa=asked.at, size=PAGE,
        severity="warning" if ret else "error",
    )  # fmt: skip
    if plan.generation != "v4" or not ret:  # QEMU asks the kernel for whole pages only
        plan.diverges(gpa=asked.at, size=PAGE)
