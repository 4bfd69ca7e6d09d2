"""Faults of maps: they come early, late, never, twice, in wrong pieces, or beyond a limit."""

from __future__ import annotations

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.faults._define import ENOMEM, Plan, fault

__all__: tuple[str, ...] = ()

EEXIST, ENOSPC = 17, 28


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
    plan.insert_after(plan.find(Op.LEAVE), *maps)
    _premature(plan, plan.find(Op.ATTRIBUTE))
    plan.diverges()


@fault(
    "map-of-private",
    "private pages are mapped for a device, with no conversion",
    codes=("TK103", "TK111"),
    private=False,
)
def map_of_private(plan: Plan) -> None:
    for call in plan.all(Op.ATTRIBUTE, Op.PUNCH_PRIVATE):
        plan.remove(call)
    _premature(plan, None)


def _premature(plan: Plan, until: Call | None) -> None:
    for space in plan.spaces:
        first = next(call for call in plan.all(Op.MAP) if call.space == space)
        plan.violates("TK103", since=first, until=until, space=space)
        if plan.in_place:
            plan.violates("TK111", since=first, until=until, space=space)


@fault(
    "missing-map",
    "pages become shared, and no device gets them",
    codes=("TK104", "TK201"),
    private=False,
    beside=True,
)
def missing_map(plan: Plan) -> None:
    for call in plan.all(Op.MAP):
        plan.remove(call)
    _unmapped(plan, dict.fromkeys(plan.spaces))


@fault(
    "missing-map-in-one-container",
    "one of several containers does not get pages that become shared",
    codes=("TK104", "TK201"),
    private=False,
    beside=True,
    devices=2,
)
def missing_map_in_one_container(plan: Plan) -> None:
    space = plan.chance.choice(plan.spaces)
    for call in plan.all(Op.MAP):
        if call.space == space:
            plan.remove(call)
    _unmapped(plan, {space: None})


@fault(
    "truncated-map",
    "the last pages of a conversion to shared are not mapped",
    codes=("TK104", "TK201"),
    private=False,
    beside=True,
    pages=2,
)
def truncated_map(plan: Plan) -> None:
    kept = PAGE * plan.chance.randrange(1, plan.size // PAGE)
    for call in plan.all(Op.MAP):
        if call.at >= plan.gpa + kept:
            plan.remove(call)
    _unmapped(plan, dict.fromkeys(plan.spaces), plan.gpa + kept, plan.size - kept)


@fault(
    "late-map",
    "pages are mapped only after the vCPU went back into the guest",
    codes=("TK104", "TK201"),
    private=False,
    beside=True,
)
def late_map(plan: Plan) -> None:
    late = plan.all(Op.MAP)
    for call in late:
        plan.remove(call)
    plan.insert_after(plan.last(Op.ENTER), Call(Op.LEAVE, value=3), *late, Call(Op.ENTER))
    _unmapped(plan, {call.space: call for call in late})


def _unmapped(
    plan: Plan, maps: dict[int, Call | None], gpa: int | None = None, size: int | None = None
) -> None:
    for space, until in maps.items():
        plan.violates(
            "TK104", since=plan.find(Op.ATTRIBUTE), until=until, gpa=gpa, size=size, space=space
        )
    plan.diverges()


@fault(
    "double-map",
    "pages that are mapped are mapped once more, which the kernel refuses: a warning",
    codes=("TK106", "TK201"),
    private=False,
)
def double_map(plan: Plan) -> None:
    last = plan.last(Op.MAP)
    again = Call(Op.MAP, at=last.at, size=last.size, space=last.space, ret=-EEXIST)
    plan.insert_after(last, again)
    plan.violates(
        "TK106", since=again, until=again, gpa=last.at, size=last.size, severity="warning"
    )
    plan.diverges()


@fault(
    "double-map-taken",
    "pages that are mapped are mapped once more, and the kernel takes it",
    codes=("TK106", "TK201"),
    private=False,
)
def double_map_taken(plan: Plan) -> None:
    last = plan.last(Op.MAP)
    again = Call(Op.MAP, at=last.at, size=last.size, space=last.space)
    plan.insert_after(last, again)
    plan.violates("TK106", since=again, gpa=last.at, size=last.size)
    plan.diverges()


@fault(
    "coarse-map",
    "pages are mapped in one entry, of which none could be unmapped alone",
    codes=("TK201",),
    private=False,
    pages=2,
)
def coarse_map(plan: Plan) -> None:
    for space in plan.spaces:
        maps = [call for call in plan.all(Op.MAP) if call.space == space]
        plan.change(maps[0], size=plan.size)
        for call in maps[1:]:
            plan.remove(call)
    plan.diverges()


@fault(
    "descending-map",
    "pages are mapped from the last one to the first",
    codes=("TK201",),
    private=False,
    pages=2,
)
def descending_map(plan: Plan) -> None:
    maps = plan.all(Op.MAP)
    spaces = dict.fromkeys(call.space for call in maps)
    by_space = {space: [c for c in maps if c.space == space][::-1] for space in spaces}
    before = plan.find(Op.ATTRIBUTE)
    for call in maps:
        plan.remove(call)
    plan.insert_after(before, *(call for maps in by_space.values() for call in maps))
    plan.diverges()


@fault(
    "listeners-out-of-order",
    "the containers are told of a conversion in another order than they are registered in",
    codes=("TK201",),
    private=True,
    devices=2,
)
def listeners_out_of_order(plan: Plan) -> None:
    unmaps = plan.all(Op.UNMAP)
    before = plan.calls[plan.calls.index(unmaps[0]) - 1]
    for call in unmaps:
        plan.remove(call)
    plan.insert_after(before, *unmaps[::-1])
    plan.diverges()


@fault(
    "dma-limit",
    "no DMA entries are left in the middle of a conversion to shared, and nothing is undone",
    codes=("TK107", "TK108", "TK201"),
    private=False,
    pages=2,
    backends=("type1",),
)
def dma_limit(plan: Plan) -> None:
    _fails(plan, ENOSPC)


@fault(
    "lost-rollback",
    "a map fails half-way, and what was done before it is not undone",
    codes=("TK108", "TK201"),
    private=False,
    pages=2,
)
def lost_rollback(plan: Plan) -> None:
    _fails(plan, ENOMEM)


def _fails(plan: Plan, errno: int) -> None:
    maps = [c for c in plan.all(Op.MAP) if c.space == plan.spaces[0]]
    at = plan.chance.randrange(1, len(maps))
    failed = plan.change(maps[at], ret=-errno)
    for call in maps[at + 1 :]:
        plan.remove(call)
    for call in plan.all(Op.PUNCH_PRIVATE):
        plan.remove(call)
    begin = plan.gpa + at * PAGE
    left = plan.gpa + plan.size - begin
    if errno == ENOSPC:
        plan.violates("TK107", since=failed, until=failed, gpa=begin, size=PAGE)
    plan.violates("TK108", since=failed, until=plan.last(Op.ENTER), gpa=begin, size=left)
    if plan.generation != "v4":  # there a conversion without its discard is no request
        plan.diverges()
