"""``tracekit generate``."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tracekit.cli.console import progress, write_output
from tracekit.cli.duration import parse_duration
from tracekit.errors import UsageError

__all__ = ("GenerateCommand", "generate")


class Generation(Enum):
    """Whose QEMU's conversions are made."""

    V4 = "v4"
    MERGED = "merged"
    SOURCES = "11.1"


class Backend(Enum):
    """How devices are given their memory."""

    TYPE1 = "type1"
    IOMMUFD = "iommufd"


class Format(Enum):
    """How the trace is written."""

    PARQUET = "parquet"
    TRACE_DAT = "trace.dat"


class GenerateCommand(TyperCommand):
    """Help that lists the scenarios and faults there are, a line each."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """After the options."""
        from tracekit.synth.faults import FAULTS
        from tracekit.synth.vsock.faults import FAULTS as SOCKET_FAULTS
        from tracekit.synth.vsock.workloads import WORKLOADS as SOCKET_WORKLOADS
        from tracekit.synth.workloads import WORKLOADS

        with formatter.section("Scenarios"):
            formatter.write_dl([(w.name, w.summary) for w in WORKLOADS.values()])
        with formatter.section("Scenarios of vsock (--set model=legacy, v1 or merged)"):
            formatter.write_dl([(f"vsock-{w.name}", w.summary) for w in SOCKET_WORKLOADS.values()])
        with formatter.section("Faults"):
            formatter.write_dl(
                [(f.name, f"{f.summary} ({' '.join(f.codes)})") for f in FAULTS.values()]
            )
        with formatter.section("Faults of vsock"):
            formatter.write_dl(
                [(f.name, f"{f.summary} ({' '.join(f.codes)})") for f in SOCKET_FAULTS.values()]
            )


def generate(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="What happens; listed below")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The trace to write")],
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="The same seed makes the same bytes")
    ] = 0,
    fault: Annotated[
        str | None, typer.Option(metavar="NAME", help="Break it in this way, once; listed below")
    ] = None,
    events: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="About how many; whole requests are made")
    ] = None,
    generation: Annotated[
        Generation | None, typer.Option(help="Of QEMU; the scenario's usual one if absent")
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="Of device mappings; the scenario's usual one if absent")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A scenario's parameter; --parameters"),
    ] = None,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="List the scenario's parameters and stop")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to write the trace")] = Format.PARQUET,
    late_start: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Recorded from so long after its beginning on"),
    ] = None,
    stop_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Cut off so long after its beginning")
    ] = None,
    lose: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="Lose events in bursts on one CPU, marked: 1%"),
    ] = None,
    clock_skew: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Odd CPUs' clocks are ahead by so much")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="EVENT", help="An event type that was not recorded, repeatable"),
    ] = None,
) -> None:
    """Make a trace of hosts that QEMU's models drive, correct or with one planted fault.

    OUT.truth.json says what is wrong in it, and when.

    Example: tracekit generate tdx-boot --fault missing-unmap --seed 7 -o x.parquet
    """
    if parameters and scenario.startswith("vsock-"):
        from tracekit.synth.vsock.workloads import workload_named as socket_workload

        for name, number in socket_workload(scenario.removeprefix("vsock-")).parameters.items():
            write_output(f"{name:<14} {number:>8}\n", None)
        return
    if parameters:
        from tracekit.synth.workloads import workload_named

        for name, one in workload_named(scenario).parameters.items():
            write_output(f"{name:<12} {one.default:>8}  {one.meaning}\n", None)
        return
    from tracekit.synth.defects import Defects
    from tracekit.synth.generate import generate as write

    defects = Defects(
        seed=seed,
        late_start_ns=_duration(late_start, "--late-start") or 0,
        end_ns=_duration(stop_after, "--stop-after"),
        lose=0.0 if lose is None else _share(lose),
        skew_ns=_duration(clock_skew, "--clock-skew") or 0,
        without=tuple(without or ()),
    )
    with progress(f"generating {scenario}", events) as told:
        truth = write(
            scenario,
            out,
            format=format.value,
            progress=told,
            seed=seed,
            events=events,
            generation=generation.value if generation else None,
            backend=backend.value if backend else None,
            fault=fault,
            parameters=dict(_pair(p) for p in parameter or ()),
            defects=defects,
        )
    planted = ", ".join(v.code for v in truth.violations) or "nothing"
    write_output(f"{out}: {truth.events:,} events, planted: {planted}\n", None)


def _duration(text: str | None, option: str) -> int | None:
    return None if text is None else parse_duration(text, option)


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?) ?%", text.strip())
    if found is None:
        raise UsageError(f"--lose {text!r} is not a percentage", help="for example 0.1%")
    return float(found[1]) / 100


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text!r} is not NAME=VALUE", help="for example ring=4MiB")
    return name, value
