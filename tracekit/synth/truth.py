"""What a made trace really holds: its planted violations, beside it as ``OUT.truth.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ("Planted", "Truth", "Violation", "truth_path")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A violation by the calls that begin and end it: positions in the plan that has it.

    ``until`` ``None``: it lasts until the trace ends.  ``gpa``: of ``size`` bytes.
    ``space``: in which container, where each has its own.
    """

    code: str
    severity: str = "error"
    gpa: int
    size: int
    since: int
    until: int | None = None
    space: int | None = None


@dataclass(frozen=True, kw_only=True)
class Violation:
    """The same in time: each moment is between its call's first and last event, inclusive."""

    code: str
    severity: str
    kind: str
    vm: int
    space: int | None
    gpa: int
    iova: int
    size: int
    from_ns: tuple[int, int]
    until_ns: tuple[int, int] | None


@dataclass(kw_only=True)
class Truth:
    """How a trace was made, and its violations; none for a correct one."""

    scenario: str
    seed: int
    generation: str
    backend: str
    in_place: bool = False
    fault: str | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    events: int = 0
    violations: list[Violation] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        said = {"schema": 1, **asdict(self)}
        path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def truth_path(out: Path) -> Path:
    """Where the truth about the trace ``out`` is."""
    return out.with_name(out.name + ".truth.json")
