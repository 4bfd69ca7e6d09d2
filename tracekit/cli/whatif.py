"""``tracekit whatif``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import progress, write_output
from tracekit.errors import TracekitError

__all__ = ("whatif",)


class Generation(Enum):
    """Which QEMU serves the requests."""

    V4 = "v4"
    MERGED = "merged"
    SOURCES = "11.1"


class Granularity(Enum):
    """How large the pieces are in which memory is mapped."""

    PAGE = "4k"
    CUT = "cut"
    NATURAL = "natural"


class Iommu(Enum):
    """The kernel's interface."""

    TYPE1 = "type1"
    IOMMUFD = "iommufd"


class Plot(Enum):
    """What is drawn over time."""

    ENTRIES = "entries"
    MAPS = "maps"
    UNMAPS = "unmaps"
    FLUSHES = "flushes"
    DOUBLED = "doubled"


class Format(Enum):
    """How the answer is written."""

    TEXT = "text"
    JSON = "json"


def whatif(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace made by import")],
    generation: Annotated[
        Generation | None, typer.Option(help="The QEMU that serves the requests; else merged")
    ] = None,
    granularity: Annotated[
        Granularity | None,
        typer.Option(
            help="Pieces of maps: 4 KiB, whole and split before an unmap, or whole; else 4k"
        ),
    ] = None,
    iommu: Annotated[Iommu | None, typer.Option(help="The kernel's interface; else type1")] = None,
    dma_entry_limit: Annotated[
        int | None, typer.Option(metavar="N", help="type1's limit; else 65535, the kernel's own")
    ] = None,
    vfio_priority: Annotated[
        int | None,
        typer.Option(metavar="N", help="v4: VFIO's place among listeners; the attribute's is 0"),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Private and shared memory are the same pages")
    ] = False,
    plot: Annotated[
        Plot,
        typer.Option(help="Drawn over time: entries live, or calls, flushes, memory held twice"),
    ] = Plot.ENTRIES,
    format: Annotated[Format, typer.Option(help="How to write the answer")] = Format.TEXT,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here, not to stdout"),
    ] = None,
) -> None:
    """Put a trace's requests to another QEMU, IOMMU interface or limit, and compare.

    With no option: to all that are usually asked about. With options: to QEMU 10.1 as it comes,
    and to the one that they describe.

    Example: tracekit whatif trace.parquet --granularity cut --dma-entry-limit 4096
    """
    from replay.whatif import Granularity as Pieces
    from replay.whatif import Iommu as Interface
    from replay.whatif import World, requests_of, standard_worlds, what_if
    from replay.whatif.json import json_of
    from replay.whatif.text import text_of
    from tracekit.report.escape import visible
    from tracekit.store import open_trace

    asked = (generation, granularity, iommu, dma_entry_limit, vfio_priority)
    usual = World()
    if all(option is None for option in asked) and not in_place:
        worlds = standard_worlds()
    else:
        chosen = World(
            generation=generation.value if generation else usual.generation,
            granularity=Pieces(granularity.value) if granularity else usual.granularity,
            iommu=Interface(iommu.value) if iommu else usual.iommu,
            dma_entry_limit=usual.dma_entry_limit if dma_entry_limit is None else dma_entry_limit,
            in_place=in_place,
            vfio_priority=usual.vfio_priority if vfio_priority is None else vfio_priority,
        )
        worlds = (usual,) if chosen == usual else (usual, chosen)
    opened = open_trace(trace)
    with progress(f"reading {trace.name}", opened.manifest.rows) as told:
        processes = requests_of(opened, progress=told)
    if not processes:
        raise TracekitError(
            f"{trace} holds no conversions, maps or unmaps", help="tracekit info says what it holds"
        )
    answers = []
    for requests in processes:
        with progress(f"playing {len(worlds)} worlds") as told:
            answers.append((requests, what_if(requests, worlds, progress=told)))
    if format is Format.JSON:
        write_output(json_of(str(trace), answers), out)
        return
    texts = [text_of(requests, told_of, plot.value) for requests, told_of in answers]
    write_output("\n\n".join([visible(str(trace)), *texts]) + "\n", out)
