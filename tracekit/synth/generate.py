"""A scenario as a trace and the truth about it: the function behind ``tracekit generate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from tracekit.errors import UsageError
from tracekit.store import Manifest, RecordedName, TraceWriter
from tracekit.synth.defects import Defects
from tracekit.synth.faults import Fault, fault_named
from tracekit.synth.play import play
from tracekit.synth.rows import SOURCES
from tracekit.synth.truth import Truth, truth_path
from tracekit.synth.vsock import write as sockets
from tracekit.synth.workloads import Workload, workload_named
from tracekit.synth.world import World

__all__ = ("FORMATS", "Made", "batches", "generate")

FORMATS = ("parquet", "trace.dat")
KERNEL = "7.3.4-synthetic"
MOST_RECORDS = 2_000_000
"""Events of a trace.dat, which is made in memory."""


@dataclass
class Made:
    """A trace that is being made: ``truth`` is complete once all of ``batches`` were taken."""

    batches: Iterator[pa.RecordBatch]
    truth: Truth
    workload: Workload
    world: World
    defects: Defects
    counts: dict[str, int] = field(default_factory=dict)

    def manifest(self) -> Manifest:
        """What the trace says of itself; asked once all batches were taken."""
        return Manifest(
            host="synthetic",
            kernel=KERNEL,
            machine="x86_64",
            cpus=1 + max((t.cpu for t in self.world.tape.threads), default=0),
            recorded=tuple(
                RecordedName(name=SOURCES[event], event=event, count=count)
                for event, count in sorted(self.counts.items())
                if event in SOURCES
            ),
            lost_events=self.defects.losses.events,
            loss_marks=self.defects.losses.marks,
        )


def batches(
    scenario: str,
    *,
    seed: int = 0,
    events: int | None = None,
    generation: str | None = None,
    backend: str | None = None,
    fault: str | None = None,
    parameters: Mapping[str, str] | None = None,
    defects: Defects | None = None,
) -> Made:
    """A scenario's trace as batches of the store's schema but for ``seq``, in time order.

    The same arguments give the same bytes.  ``events``: about how many; whole requests are made.
    ``generation`` of QEMU and ``backend`` (``type1``, ``iommufd``): the scenario's usual ones if
    absent.  ``parameters``: values with units, by name.

    :raises UnknownNameError: no such scenario, fault or parameter
    :raises UsageError: values that make no sense, or a fault that cannot happen here
    """
    workload = workload_named(scenario)
    values = workload.values(dict(parameters or {}))
    generation = _one_of("generation", generation, workload, workload.generations)
    backend = _one_of("backend", backend, workload, workload.backends)
    wanted = workload.events if events is None else events
    if wanted < 1:
        raise UsageError("a trace has at least one event")
    chosen = None if fault is None else _applicable(fault, workload, generation, backend)
    world = World(
        seed,
        generation,
        backend,
        wanted,
        guest_ns=values["guest_time"],
        fault=chosen,
        in_place=workload.in_place,
    )
    truth = Truth(
        scenario=scenario,
        seed=seed,
        generation=generation,
        backend=backend,
        in_place=workload.in_place,
        fault=fault,
        parameters=values,
        defects=defects.said() if defects else [],
    )
    own = {k: v for k, v in values.items() if k != "guest_time"}
    used = defects or Defects()
    made = Made(iter(()), truth, workload, world, used)
    made.batches = _counted(made, used.applied(play(world, workload.run(world, **own))))
    return made


def generate(
    scenario: str,
    out: Path,
    *,
    format: str = "parquet",
    progress: Callable[[int], None] | None = None,
    seed: int = 0,
    events: int | None = None,
    generation: str | None = None,
    backend: str | None = None,
    fault: str | None = None,
    parameters: Mapping[str, str] | None = None,
    defects: Defects | None = None,
) -> Truth | sockets.SocketTruth:
    """Write a trace to ``out`` and the truth about it beside it; arguments as :func:`batches`.

    ``format``: ``parquet``, or ``trace.dat`` as trace-cmd records it.

    :raises UsageError: also for a trace.dat of more than 2,000,000 events
    :raises TracekitError: the files cannot be written
    """
    if format not in FORMATS:
        raise UsageError(f"no such format: {format}", help=f"one of {', '.join(FORMATS)}")
    if scenario.startswith(sockets.PREFIX):
        given = {"--events": events, "--generation": generation, "--backend": backend}
        refused = [option for option, value in given.items() if value is not None]
        refused += ["--format"] if format != "parquet" else []
        return sockets.write(
            scenario, out, seed=seed, fault=fault, parameters=parameters, defects=defects,
            refused=refused,
        )  # fmt: skip
    made = batches(
        scenario,
        seed=seed,
        events=events,
        generation=generation,
        backend=backend,
        fault=fault,
        parameters=parameters,
        defects=defects,
    )
    if format == "parquet":
        with TraceWriter(out) as writer:
            for batch in made.batches:
                writer.write(batch)
                if progress is not None:
                    progress(writer.rows)
            _check_struck(made)
            writer.finish(made.manifest())
    else:
        from tracekit.synth.trace_dat import write_trace_dat

        write_trace_dat(made, out, most=MOST_RECORDS)
    made.truth.write(truth_path(out))
    return made.truth


def _one_of(what: str, given: str | None, workload: Workload, allowed: tuple[str, ...]) -> str:
    if given is None:
        return allowed[0]
    if given not in allowed:
        raise UsageError(
            f"{workload.name} has no {what} {given}", help=f"one of {', '.join(allowed)}"
        )
    return given


def _applicable(name: str, workload: Workload, generation: str, backend: str) -> Fault:
    fault = fault_named(name)
    why_not = workload.why_not(fault, generation, backend)
    if why_not is not None:
        raise UsageError(f"{workload.name} cannot have the fault {name}: {why_not}")
    return fault


def _check_struck(made: Made) -> None:
    if made.truth.fault is not None and made.world.struck is None:
        raise UsageError(
            f"the fault {made.truth.fault} found nothing to strike",
            help="more --events, or larger buffers",
        )


def _counted(made: Made, source: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in source:
        column = batch.column("event")
        counts = np.bincount(column.indices.to_numpy(), minlength=len(column.dictionary))
        for name, count in zip(column.dictionary.to_pylist(), counts.tolist(), strict=True):
            if count:
                made.counts[name] = made.counts.get(name, 0) + count
        made.truth.events += batch.num_rows
        yield batch
    made.truth.violations = list(made.world.violations)
