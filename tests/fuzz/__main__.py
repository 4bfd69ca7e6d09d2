"""Hostile inputs for every parser, in processes of their own; prints a table.

The input with a number is the same in every run with the same seed: --target rows --case 17 tries
one again and shows what it does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fuzz.run import HEADING, Summary, Workers
from fuzz.targets import TARGETS


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="in all (default: 1800)")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other inputs")
    parser.add_argument("--target", action="append", choices=[*TARGETS], help="repeatable")
    parser.add_argument("--case", type=int, help="try one input of one target again")
    parser.add_argument("--first", type=int, default=0, help="the number to begin with")
    parser.add_argument(
        "--keep", type=Path, default=Path("build/fuzz"), help="where inputs with findings are put"
    )
    given = parser.parse_args()
    targets, keep = given.target or [*TARGETS], given.keep.resolve()
    if given.case is not None:
        return _again(targets[0], given.seed, given.case, keep)
    print(HEADING, flush=True)
    everything, summaries = Summary("all"), []
    for target in targets:
        with Workers(seed=given.seed, keep=keep) as workers:
            share = given.seconds / len(targets)
            summary = workers.fuzz(target, first=given.first, seconds=share)
        print(summary.row(), flush=True)
        summaries.append(summary)
        everything.add(vars(summary))
    print(everything.row())
    found = [s.findings() for s in summaries if s.found]
    print("\n".join(found) or "nothing was found")
    return int(bool(found))


def _again(target: str, seed: int, number: int, keep: Path) -> int:
    """Try one input here, and say where its files are."""
    from fuzz import limits, worker

    case, folder = worker.case_of(target, seed, number), keep / f"{target}-{seed}-{number}"
    worker.keep(case, folder)
    print(f"the input is in {folder}", flush=True)
    limits.keep_limits()
    memory = limits.Memory()
    with tempfile.TemporaryDirectory(prefix="tracekit-fuzz-") as place:
        memory.forget()
        began = time.process_time()
        limits.start_timer()
        outcome = worker.try_case(target, case, Path(place))
        limits.stop_timer()
    print(f"{outcome}: {time.process_time() - began:.2f} s, {memory.most() >> 20} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
