"""Every fault in every workload, every workload correct, and both with events lost.

Writes docs/matrix.md and ends with `matrix: F faults, W workloads, R runs, M misses, A false
alarms`; exit status 1 if M or A is not 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from matrix import cases, loss, sockets
from matrix.judge import score
from matrix.page import Lossy, Table, written

PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
In = TypeVar("In")
Out = TypeVar("Out")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m matrix", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="of each correct workload")
    parser.add_argument("--fault-seeds", type=int, default=20, help="of each fault in a workload")
    parser.add_argument("--loss", type=int, default=10_000, help="correct traces that lost events")
    parser.add_argument("--recall-seeds", type=int, default=5, help="of each fault, with loss")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", type=Path, default=PAGE, help="where the tables are written")
    given = parser.parse_args()
    began = time.monotonic()
    with get_context("spawn").Pool(given.processes) as pool:

        def each(work: Callable[[In], Out], todo: Sequence[In], what: str) -> Iterator[Out]:
            yield from _told(pool.imap(work, todo, chunksize=16), len(todo), what)

        table, lossy = Table(), Lossy()
        for correct in (True, False):
            name = "correct" if correct else "broken"
            seeds = given.seeds if correct else given.fault_seeds
            made = (cases.correct if correct else cases.broken)(seeds)
            for case, said in zip(made, each(score, made, name), strict=True):
                table.add(case.workload, case.fault, said)
            talk = (sockets.correct if correct else sockets.broken)(seeds)
            for (workload, _, fault), said in zip(
                talk, each(sockets.score, talk, f"{name}, vsock"), strict=True
            ):
                table.add(f"vsock-{workload}", fault and f"vsock: {fault}", said)
        examples = cases.lossy(given.loss)
        for one, (marks, wrong) in zip(
            examples, each(loss.errors_of, examples, "lossy"), strict=True
        ):
            lossy.add(one, marks, wrong)
        recalled = cases.recalled(given.recall_seeds)
        for found in each(loss.recall, recalled, "recall"):
            lossy.recalled(found)
    arguments = (
        f"--seeds {given.seeds} --fault-seeds {given.fault_seeds} --loss {given.loss}"
        f" --recall-seeds {given.recall_seeds}"
    )
    given.page.write_text(written(table, lossy, arguments), encoding="utf-8")
    for line in (*table.details(), *lossy.details()):
        print(line)
    print(f"{time.monotonic() - began:.0f} s; {given.page.name} is written")
    print(lossy.summary())
    print(table.summary())
    return int(bool(table.missed or table.false or lossy.wrong))


def _told(results: Iterable[Out], count: int, what: str) -> Iterator[Out]:
    """The results, and how far it is, on standard error."""
    for number, one in enumerate(results, 1):
        if number % 1000 == 0 or number == count:
            print(f"{what}: {number:,} of {count:,}", file=sys.stderr, flush=True)
        yield one


if __name__ == "__main__":
    sys.exit(main())
