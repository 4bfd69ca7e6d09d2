"""What a benchmark measured, said so that ``python -m benchmarks`` can collect it.

Run alone, a benchmark only prints.  ``$TRACEKIT_FIGURES`` names a file to which each figure, and
each reason to measure nothing, is appended as a line of JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ("VARIABLE", "Figure", "say", "skipped")

VARIABLE = "TRACEKIT_FIGURES"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """``value`` is the median of ``runs``, in ``unit``.

    ``least``, ``most``: the target, if there is one.  ``stretch``: what would be better still.
    ``shown``: in README.md's table, where all that have a target are.
    """

    name: str
    value: float
    unit: str
    runs: int = 1
    least: float | None = None
    most: float | None = None
    stretch: float | None = None
    shown: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most


def say(
    name: str,
    value: float,
    unit: str,
    *,
    runs: int = 1,
    least: float | None = None,
    most: float | None = None,
    stretch: float | None = None,
    shown: bool = False,
) -> None:
    """Say a figure: see :class:`Figure`."""
    figure = Figure(
        name=name,
        value=float(f"{value:.4g}"),
        unit=unit,
        runs=runs,
        least=least,
        most=most,
        stretch=stretch,
        shown=shown or least is not None or most is not None,
    )
    _append({k: v for k, v in asdict(figure).items() if v is not None})


def skipped(why: str) -> None:
    """Print, and say, why something was not measured."""
    print(f"skipped: {why}", flush=True)
    _append({"skipped": why})


def _append(line: dict[str, object]) -> None:
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")
