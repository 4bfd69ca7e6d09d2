"""Buffers that go to and fro between shared and private: thousands of conversions at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.faults._define import Request
from tracekit.synth.tape import I64, Pieces, Thread
from tracekit.synth.world import BATCH_EVENTS, Block, Machine

__all__ = ("Buffers",)


class Buffers:
    """The buffers (first page, pages) of one vCPU, each all shared or all private.

    What a conversion of each size and direction does is asked of the models once; which buffer
    comes next is drawn for many conversions together.
    """

    def __init__(
        self, machine: Machine, thread: Thread, slots: Sequence[tuple[int, int]], reason: int
    ) -> None:
        self._machine, self._thread, self._reason = machine, thread, reason
        self._tape, self._world = machine.world.tape, machine.world
        self._slots = list(slots)
        assert all(len(set(machine.shared[f : f + n])) == 1 for f, n in self._slots)
        self._chance = np.random.Generator(np.random.PCG64(self._world.chance.getrandbits(64)))

    def blocks(self, events: int) -> Iterator[Block]:
        """About ``events`` events, a block of some ten thousand at a time; at least one each way.

        In the middle of it the world's fault strikes, if no other thread's had it.
        """
        per_request = self._mean_events()
        requests = max(4, round(events / per_request))
        struck_at = -1
        if self._world.fault is not None and self._world.fault.request is Request.CONVERSION:
            struck_at = round(requests * (0.2 + 0.5 * self._world.chance.random()))
        most = max(1, BATCH_EVENTS // round(per_request))
        done = 0
        while done < requests:
            count = min(most, requests - done)
            if done <= struck_at < done + count:
                if struck_at > done:
                    yield self._block(struck_at - done)
                yield from self._strike()
                count, done, struck_at = done + count - struck_at, struck_at, -1
            if count:
                yield self._block(count)
            done += count

    def _mean_events(self) -> float:
        sizes = {n for _, n in self._slots}
        each = {n: sum(len_ for len_ in self._round(n)) / 2 for n in sizes}
        return sum(each[n] for _, n in self._slots) / len(self._slots)

    def _round(self, count: int) -> tuple[int, int]:
        """Events of one conversion each way."""
        first = next(f for f, n in self._slots if n == count)
        private = bool(self._machine.shared[first])
        one = self._machine.convert(first, count, private=private)
        two = self._machine.convert(first, count, private=not private)
        return one.events + 3, two.events + 3

    def _block(self, requests: int) -> Block:
        """So many conversions of random buffers."""
        machine, tape = self._machine, self._tape
        leave = tape.pieces([Call(Op.LEAVE, value=self._reason)], self._thread)
        enter = tape.pieces([Call(Op.ENTER)], self._thread)
        sizes = sorted({n for _, n in self._slots})
        numbers: list[npt.NDArray[np.int32]] = []
        shifts: list[I64] = []
        lengths: list[int] = []
        for count in sizes:
            first = next(f for f, n in self._slots if n == count)
            state = machine.shared[first]
            shapes = [None, None]
            for private in (bool(state), not state):
                shapes[private] = machine.convert(first, count, private=private).pieces  # type: ignore[call-overload]
            for shape in shapes:  # 0: to shared, 1: to private
                assert isinstance(shape, Pieces)
                numbers += [leave.numbers, shape.numbers, enter.numbers]
                shifts += [leave.shifts, shape.shifts, enter.shifts]
                lengths.append(len(shape) + 2)
        of_size = np.array([sizes.index(n) for _, n in self._slots])
        firsts = np.array([f for f, _ in self._slots], np.int64)
        shared = np.array([machine.shared[f] for f, _ in self._slots], np.int64)
        picked = self._chance.integers(0, len(self._slots), requests)
        # A buffer that was shared before becomes private by its first conversion, and so on.
        before = _rank(picked)
        kinds = 2 * of_size[picked] + ((shared[picked] + before) & 1)
        times = np.bincount(picked, minlength=len(self._slots))
        for (first, count), value in zip(self._slots, ((shared + times) & 1).tolist(), strict=True):
            machine.shared[first : first + count] = bytes([value]) * count
        length = np.array(lengths, np.int64)
        start = np.cumsum(length) - length
        each = length[kinds]
        ends = np.cumsum(each)
        at = np.repeat(start[kinds] - (ends - each), each) + np.arange(ends[-1])
        moved = np.concatenate(shifts)[at] + np.repeat(firsts[picked] * PAGE, each)
        return Block(Pieces(np.concatenate(numbers)[at], moved))

    def _strike(self) -> Iterator[Block]:
        """One conversion with the fault in it; its buffer is left alone from then on."""
        world, machine = self._world, self._machine
        fault = world.fault
        if fault is None:
            return
        fitting = [
            (first, count)
            for first, count in self._slots
            if fault.private in (None, bool(machine.shared[first])) and count >= fault.pages
        ]
        if not fitting:  # all buffers are the other way: one more conversion
            fitting = [max(self._slots, key=lambda slot: slot[1])]
            first, count = fitting[0]
            if count < fault.pages:
                return
            private = bool(machine.shared[first])
            calls = machine.plan(first, count, private=private, reason=self._reason)
            yield Block(self._tape.pieces(calls, self._thread))
        first, count = world.chance.choice(fitting)
        if fault.beside and not any(machine.shared[f] for f, n in self._slots if f != first):
            f, n = next(slot for slot in self._slots if slot[0] != first)
            calls = machine.plan(f, n, private=False, reason=self._reason)
            yield Block(self._tape.pieces(calls, self._thread))
        if world.fault is not fault:  # another vCPU's conversion was struck meanwhile
            return
        private = bool(machine.shared[first])
        calls = machine.plan(first, count, private=private, reason=self._reason)
        yield machine.struck(self._thread, calls, first, count, private=private)
        self._slots.remove((first, count))
        machine.retired.add((first, count))


def _rank(picked: I64) -> I64:
    """How often each value came before it."""
    order = np.argsort(picked, kind="stable")
    ordered = picked[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    at = np.arange(len(picked))
    run = np.repeat(begins, np.diff(np.concatenate([begins, [len(picked)]])))
    out = np.empty(len(picked), np.int64)
    out[order] = at - run
    return out
