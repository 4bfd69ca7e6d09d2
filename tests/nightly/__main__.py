"""The project audits itself: recordings of real kernels, the matrix, losses, fuzzers, the oracle,
long tests.

Fails on anything new.  Recordings and made traces with faults go through `tracekit audit`: what it
finds and tests/data/nightly.json does not know is new (`--update` writes that file), and so is what
is not found any more.  The last line counts what ran.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from made_fleet import NIGHTS, write_config
from matrix.cases import broken
from matrix.judge import make
from recorded.recordings import FOLDER, recordings

ROOT = Path(__file__).parents[2]
KNOWN = ROOT / "tests" / "data" / "nightly.json"
NIGHT = NIGHTS[0]


@dataclass
class Ran:
    """What ran, in words, and what is wrong."""

    words: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m nightly", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="of fuzzing")
    parser.add_argument("--hunt", type=int, default=2000, help="traces a scene of the oracle's")
    parser.add_argument("--matrix", default="", help="arguments of the matrix, instead of its own")
    parser.add_argument("--only", action="append", choices=[*PARTS], help="a part, repeatable")
    parser.add_argument("--update", action="store_true", help="what the audit finds is known now")
    given = parser.parse_args()
    ran = Ran()
    for name in given.only or PARTS:
        print(f"--- {name}", flush=True)
        PARTS[name](ran, given)
    for one in ran.wrong:
        print(f"new: {one}")
    print(f"nightly: {', '.join(ran.words)}; {len(ran.wrong):,} new")
    return int(bool(ran.wrong))


def audit(ran: Ran, given: argparse.Namespace) -> None:
    """Recordings and made traces, audited; findings compared with those that are known."""
    with tempfile.TemporaryDirectory(prefix="tracekit-nightly-") as place:
        folder = Path(place)
        recorded = sum(1 for _ in _recorded(folder / "traces"))
        made = sum(1 for _ in _made(folder / "traces"))
        config = write_config(
            folder / "audit.toml",
            "traces",
            outputs={"folder": "out", "trace_reports": "none"},
            checks={"chain": False},
        )
        done = _command("tracekit", "audit", str(config), "--night", NIGHT)
        print(done.stdout.splitlines()[0] if done.stdout else done.stderr)
        if done.returncode == 2:
            ran.wrong.append(f"the audit: {done.stderr.strip()}")
            return
        document = json.loads((folder / "out" / "audit.json").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for trace in document["traces"]:
        found[trace["stream"]] = [] if trace["status"] == "judged" else [trace["status"]]
    for row in document["findings"]:
        if row["severity"] != "note":
            found[row["stream"]].append(row["id"])
    known: dict[str, list[str]] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    if given.update:
        known = {**known, **{stream: sorted(ids) for stream, ids in sorted(found.items())}}
        KNOWN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    new = [(s, i) for s, ids in sorted(found.items()) for i in ids if i not in known.get(s, ())]
    gone = [(s, i) for s in sorted(found) for i in known.get(s, ()) if i not in found[s]]
    ran.wrong += [f"{stream}: {id}" for stream, id in new]
    # What should be found and is not is as wrong.
    ran.wrong += [f"{stream}: {id} is not found any more" for stream, id in gone]
    count = sum(map(len, found.values()))
    ran.words += [f"{recorded:,} recordings and {made:,} made traces audited ({count:,} findings)"]


def _recorded(root: Path) -> Iterator[Path]:
    for recording in recordings():
        if recording.is_long:
            continue
        out = root / "host=lab" / f"date={NIGHT}" / f"vm={recording.group}-{recording.path.stem}"
        out.mkdir(parents=True)
        shutil.copy(recording.imported(probes=True), out / "trace.parquet")
        yield out


def _made(root: Path) -> Iterator[Path]:
    for case in broken(1)[::7]:
        name = f"{case.workload}-{case.fault}-{case.generation}-{case.backend}"
        out = root / "host=made" / f"date={NIGHT}" / f"vm={name}"
        out.mkdir(parents=True)
        make(case, out / "trace.parquet")
        yield out


def matrix(ran: Ran, given: argparse.Namespace) -> None:
    """Every fault and workload, and both with losses."""
    page = ROOT / "build" / "nightly-matrix.md"
    page.parent.mkdir(exist_ok=True)
    done = _command("matrix", *given.matrix.split(), "--page", str(page))
    lines = done.stdout.splitlines()
    print("\n".join(lines[-2:]))
    ran.words += [line for line in lines if line.startswith(("matrix:", "loss:"))]
    if done.returncode:
        ran.wrong.append("the matrix: " + "; ".join(lines[:5] or [done.stderr.strip()[-300:]]))


def fuzz(ran: Ran, given: argparse.Namespace) -> None:
    """Hostile inputs for every parser."""
    done = _command("fuzz", "--seconds", str(given.seconds))
    lines = done.stdout.splitlines()
    total = next((line for line in lines if line.startswith("all ")), "all 0")
    ran.words.append(f"{total.split()[1]} fuzzed inputs")
    if done.returncode or "nothing was found" not in lines:
        ran.wrong.append("the fuzzers: " + "; ".join(lines[-5:] or [done.stderr.strip()[-300:]]))


def hunt(ran: Ran, given: argparse.Namespace) -> None:
    """Traces that nobody thought of: the engine and its oracle say the same of them, and what is
    doubtful is so for some choice of moments."""
    paths = "tests/test_engine_against_reference.py", "tests/replay/engine/test_moments.py"
    which = "they_agree_on_ or every_choice"
    done = _command("pytest", "-q", *paths, "-k", which, "-rN", TRACEKIT_HUNT=str(given.hunt))
    if done.returncode:
        ran.wrong.append(f"the hunt: {done.stdout[-3000:]}")
    ran.words.append(f"{given.hunt:,} traces a scene hunted")


def long_tests(ran: Ran, given: argparse.Namespace) -> None:
    """The tests that take minutes."""
    done = _command("pytest", "-q", "-m", "nightly", jit=True)
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()[-300:]]
    print(last[0])
    passed = re.search(r"(\d+) passed", last[0])
    ran.words.append(f"{passed[1] if passed else 0} long tests")
    if done.returncode:
        ran.wrong += re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, flags=re.M) or last


def _command(*arguments: str, jit: bool = False, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's programs; small traces are judged faster without compiling."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TRACEKIT_TRACES": str(FOLDER)}
    env |= more
    if not jit:
        env["NUMBA_DISABLE_JIT"] = "1"
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


PARTS: dict[str, Callable[[Ran, argparse.Namespace], None]] = {
    "audit": audit,
    "matrix": matrix,
    "fuzz": fuzz,
    "hunt": hunt,
    "long-tests": long_tests,
}

if __name__ == "__main__":
    sys.exit(main())
