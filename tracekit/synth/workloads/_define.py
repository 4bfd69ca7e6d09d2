"""How a scenario is declared: a function that makes machines and yields what their threads do.

@workload("dma-ring", "buffers of a device go to and fro", memory=bytes_of("..", "16MiB"))
def dma_ring(world: World, memory: int) -> Iterator[Phase]:
    machine = world.machine(memory, devices=1)
    yield from machine.boot()
    yield {machine.vcpus[0]: machine.steady(machine.vcpus[0], buffers, world.left)}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from tracekit.errors import UnknownNameError, UsageError
from tracekit.synth.faults._define import Fault, Request

if TYPE_CHECKING:
    from tracekit.synth.world import Phase

__all__ = ("WORKLOADS", "Parameter", "Unit", "Workload", "bytes_of", "number_of", "time_of",
           "workload", "workload_named")  # fmt: skip


class Unit(Enum):
    """What a parameter counts."""

    BYTES = "bytes"
    NANOSECONDS = "time"
    NUMBER = "number"


_FACTORS = {
    Unit.BYTES: {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
    Unit.NANOSECONDS: {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000},
    Unit.NUMBER: {"": 1},
}
_VALUE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]*)")


@dataclass(frozen=True)
class Parameter:
    """A number with a unit; ``default`` as a user would write it."""

    meaning: str
    unit: Unit
    default: str
    least: int = 1
    most: int = 1 << 50

    def value(self, name: str, text: str) -> int:
        """What somebody wrote, in bytes, nanoseconds or as a number.

        :raises UsageError: no such quantity
        """
        found = _VALUE.fullmatch(text.strip())
        factors = _FACTORS[self.unit]
        if found is None or found[2] not in factors:
            units = ", ".join(f"{self.default[:1]}{f}" for f in factors)
            raise UsageError(f"{name}={text} is no {self.unit.value}", help=f"such as {units}")
        value = round(float(found[1]) * factors[found[2]])
        if self.unit is Unit.BYTES and value % 4096:
            raise UsageError(f"{name}={text} is not made of whole pages of 4KiB")
        if not self.least <= value <= self.most:
            raise UsageError(f"{name}={text} is not between {self.least} and {self.most}")
        return value


def bytes_of(meaning: str, default: str, *, most: int = 1 << 40) -> Parameter:
    """A size."""
    return Parameter(meaning, Unit.BYTES, default, 4096, most)


def time_of(meaning: str, default: str) -> Parameter:
    """A duration."""
    return Parameter(meaning, Unit.NANOSECONDS, default, 1_000, 60_000_000_000)


def number_of(meaning: str, default: str, *, most: int = 64) -> Parameter:
    """A count."""
    return Parameter(meaning, Unit.NUMBER, default, 1, most)


@dataclass(frozen=True)
class Workload:
    """``devices``: containers of each VM.  ``requests``: what a fault can change of it.

    ``generations``, ``backends``: where it means something, the usual one first.  ``in_place``: the
    order is also right where memory is converted in place.  ``events``: how many by default, about.
    ``discards``: what becomes private loses its shared side.
    """

    name: str
    summary: str
    run: Callable[..., Iterator[Phase]]
    parameters: dict[str, Parameter]
    devices: int = 1
    requests: tuple[Request, ...] = (Request.CONVERSION,)
    generations: tuple[str, ...] = ("merged", "v4", "11.1")
    backends: tuple[str, ...] = ("type1", "iommufd")
    in_place: bool = False
    discards: bool = True
    events: int = 20_000

    def why_not(self, fault: Fault, generation: str, backend: str) -> str | None:
        """Why a fault cannot strike this; ``None``: it can."""
        return fault.why_not(
            generation=generation,
            backend=backend,
            devices=self.devices,
            requests=self.requests,
            discards=self.discards,
        )

    def values(self, given: dict[str, str]) -> dict[str, int]:
        """Every parameter's value: the given ones, else the defaults.

        :raises UnknownNameError: no such parameter
        :raises UsageError: a value that is none
        """
        for name in given:
            if name not in self.parameters:
                raise UnknownNameError(f"parameter of {self.name}", name, self.parameters)
        return {
            name: p.value(name, given.get(name, p.default)) for name, p in self.parameters.items()
        }


WORKLOADS: dict[str, Workload] = {}
"""Every scenario by its name."""

GUEST_TIME = time_of("mean time that a vCPU spends in its guest between two requests", "200us")


def workload(
    name: str, summary: str, *, limits: dict[str, Any] | None = None, **parameters: Parameter
) -> Callable[[Callable[..., Iterator[Phase]]], Callable[..., Iterator[Phase]]]:
    """Declare a scenario; ``limits`` are fields of :class:`Workload`."""

    def declare(run: Callable[..., Iterator[Phase]]) -> Callable[..., Iterator[Phase]]:
        assert name not in WORKLOADS, name
        every = {**parameters, "guest_time": GUEST_TIME}
        WORKLOADS[name] = Workload(name, summary, run, every, **(limits or {}))
        return run

    return declare


def workload_named(name: str) -> Workload:
    """The scenario called ``name``.

    :raises UnknownNameError: there is none
    """
    if name not in WORKLOADS:
        raise UnknownNameError("scenario", name, WORKLOADS)
    return WORKLOADS[name]
