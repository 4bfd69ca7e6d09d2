"""How long what lies before an event takes: quantiles that a recording of a real kernel shows.

Measured by ``python docs/synthetic.py --fit`` (docs/synthetic.md draws them beside made traces);
the recording is of 12,000 conversions in a kernel that QEMU emulates.  No distribution is assumed;
between the quantiles the logarithm is linear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ("BETWEEN_CALLS", "GAPS", "LEVELS", "LONGEST_NS", "STEPS", "gap_table")

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

GAPS: Mapping[str, Sequence[int]] = {
    "probe": (971, 982, 992, 1012, 1062, 1512, 2133, 2494, 4126, 42350),
    "called": (12429, 12629, 12789, 13180, 14031, 22723, 34080, 46448, 163811, 2786658),
    "map": (2094, 2123, 2143, 2203, 2504, 3455, 5278, 6430, 13207, 300316),
    "mapped": (3074, 3114, 3144, 3215, 3405, 5117, 8052, 10125, 28182, 513841),
    "exit": (1392, 1412, 1422, 1462, 1603, 2243, 3274, 3956, 7411, 86128),
    "next map": (7250, 7381, 7421, 7511, 7682, 11377, 15162, 17496, 44526, 1616311),
    "to unmap": (7451, 7698, 7902, 8602, 10345, 14093, 21086, 39634, 119275, 4100684),
    "unmap": (9411, 11756, 14209, 19393, 29403, 40084, 57094, 75257, 292478, 2363165),
    "unmap more": (4436, 4657, 4977, 5098, 5368, 6610, 9294, 10766, 36884, 861590),
    "unmapped": (4006, 4475, 4797, 5849, 8713, 15513, 30267, 40113, 98318, 1964832),
    "request": (3916, 4337, 4697, 5678, 8272, 13040, 19920, 27166, 52166, 735014),
    "commit": (5459, 6975, 8252, 12661, 24291, 49944, 118035, 216562, 521845, 2437878),
    "committed": (2794, 3345, 3706, 4807, 7952, 13096, 19519, 24757, 54471, 705266),
    "to discard": (7481, 7722, 7961, 8663, 10455, 17235, 34359, 55294, 148296, 1990817),
    "punch": (1742, 2023, 2243, 2874, 4436, 7832, 11026, 13626, 23629, 582458),
    "punched": (6520, 8968, 12318, 21742, 43585, 128111, 315782, 579138, 1448235, 5017096),
    "discarded": (22872, 29951, 37344, 62709, 117826, 283467, 672414, 1154044, 2472011, 6102920),
    "after discard": (7982, 8963, 10005, 12359, 16585, 25228, 40710, 58998, 168320, 2550428),
}
"""Nanoseconds at :data:`LEVELS`, by what the time is spent on."""

# Before the attribute call a vCPU returns from the guest and takes QEMU's lock; what happens once,
# as making a VM, is slow and rare: neither is in that recording.
ALIKE = {"to request": "after discard", "slow": "discarded"}
BETWEEN_CALLS = frozenset(("next map", "to unmap", "to discard", "to request", "after discard"))
LONGEST_NS = 400_000
"""A vCPU between two calls of a conversion is not off its CPU for longer, because the judge allows
1 ms (``replay --grace``) before it calls a conversion over.  The recordings go beyond it in less
than 1 % of the cases."""

PAUSE_NS = 3_000_000
"""What a fault puts before a call."""

STEPS = 1024
"""Resolution of the drawn quantiles."""


def gap_table(names: Sequence[str], guest_ns: int) -> npt.NDArray[np.int64]:
    """[name, step]: nanoseconds at the quantile (step + 1/2) / STEPS.

    ``guest``, the time that a vCPU spends in its guest between two requests, is exponential with
    mean ``guest_ns``: requests that come independently of each other.  ``pause`` is
    :data:`PAUSE_NS`.
    """
    return np.array([_drawn(name, guest_ns) for name in names], np.int64)


@cache
def _drawn(name: str, guest_ns: int) -> list[int]:
    levels = ((step + 0.5) / STEPS for step in range(STEPS))
    if name == "guest":
        return [max(1, round(-guest_ns * math.log1p(-level))) for level in levels]
    if name == "pause":
        return [PAUSE_NS] * STEPS
    longest = LONGEST_NS if name in BETWEEN_CALLS else 1 << 40
    return [min(longest, _quantile(GAPS[ALIKE.get(name, name)], level)) for level in levels]


def _quantile(values: Sequence[int], level: float) -> int:
    if level <= LEVELS[0]:
        return values[0]
    for (low, a), (high, b) in zip(
        zip(LEVELS, values, strict=True), zip(LEVELS[1:], values[1:], strict=True), strict=False
    ):
        if level <= high:
            share = (level - low) / (high - low)
            return round(math.exp(math.log(a) + share * (math.log(b) - math.log(a))))
    return values[-1]
