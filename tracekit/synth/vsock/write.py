"""A vsock scenario as a file and the truth about it: what ``tracekit generate vsock-...`` calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tracekit.errors import UsageError
from tracekit.store import Manifest, RecordedName, TraceWriter
from tracekit.store.events import from_events
from tracekit.synth.defects import Defects
from tracekit.synth.truth import truth_path
from tracekit.synth.vsock.generate import generate
from tracekit.synth.vsock.truth import Planted

__all__ = ("PREFIX", "SocketTruth", "write")

PREFIX = "vsock-"
"""Before a workload's name where it stands among scenarios of memory."""


@dataclass(kw_only=True)
class SocketTruth:
    """How a recording was made, and its violations; none for a correct one."""

    scenario: str
    seed: int
    model: str
    side: str
    fault: str | None
    parameters: dict[str, str]
    defects: list[str] = field(default_factory=list)
    events: int = 0
    violations: list[Planted] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        said = {"schema": 1, **asdict(self)}
        path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def write(
    scenario: str,
    out: Path,
    *,
    seed: int = 0,
    fault: str | None = None,
    parameters: Mapping[str, str] | None = None,
    defects: Defects | None = None,
    refused: Iterable[str] = (),
) -> SocketTruth:
    """Write a recording to ``out`` and the truth beside it.

    Among ``parameters``: ``model`` (legacy, v1, merged) and ``side`` (loopback, guest, host).
    ``refused``: options that were given and mean nothing here.

    :raises UnknownNameError: no such scenario, model, side, fault or parameter
    :raises UsageError: a value that is none, a fault that cannot happen here, or that struck none
    """
    for option in refused:
        raise UsageError(f"{option} means nothing in a scenario of vsock")
    given = dict(parameters or {})
    model, side = given.pop("model", "merged"), given.pop("side", "loopback")
    made = generate(
        scenario.removeprefix(PREFIX), seed=seed, model=model, side=side, fault=fault,
        parameters=given,
    )  # fmt: skip
    if fault is not None and not made.planted:
        raise UsageError(
            f"the fault {fault} found nothing to strike", help="another --seed, or scenario"
        )
    used = defects or Defects()
    truth = SocketTruth(
        scenario=scenario, seed=seed, model=model, side=side, fault=fault, parameters=given,
        defects=used.said(), violations=made.planted,
    )  # fmt: skip
    counts: dict[str, int] = dict.fromkeys(made.recorded, 0)
    with TraceWriter(out) as writer:
        for batch in used.applied(from_events(sorted(made.events, key=lambda e: e.ts_ns))):
            for name in batch.column("event").to_pylist():
                counts[name] = counts.get(name, 0) + 1
            writer.write(batch)
        truth.events = writer.rows
        writer.finish(
            Manifest(
                host="synthetic",
                kernel=made.kernel,
                machine="x86_64",
                cpus=2,
                hz=made.hz,
                recorded=tuple(
                    RecordedName(name=name, event=name, count=count)
                    for name, count in sorted(counts.items())
                    if name in made.recorded and name not in used.without
                ),
                lost_events=used.losses.events,
                loss_marks=used.losses.marks,
            )
        )
    truth.write(truth_path(out))
    return truth
