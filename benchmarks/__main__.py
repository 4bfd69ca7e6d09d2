"""Run the benchmarks and write down what they measured: ``python -m benchmarks [NAME...]``.

Each runs in a process of its own.  What it says (:mod:`benchmarks.figures`) replaces what
``benchmarks/results.json`` had of it, and the tables of README.md and docs/performance.md are made
from that file; with ``--table`` only these are.  A benchmark that fails, or finds something else
than what is there, leaves what was known of it, and the exit status is 1.  Those of :data:`OTHERS`
run when they are named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.figures import VARIABLE, Figure
from benchmarks.processes import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"

USUAL = (
    "import", "perf_script", "replay", "checkpoint", "stages", "conversions", "slot", "start",
    "conformance", "linger", "synth", "models", "bandwidth",
)  # fmt: skip
OTHERS = ("audit", "shrink", "collect")
"""Minutes long, or recording on this machine's own kernel."""
PACKAGES = ("numba", "numpy", "polars", "pyarrow")


def main() -> int:
    """Run, write, and return 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(USUAL + OTHERS))
    parser.add_argument("--table", action="store_true", help="write only the tables anew")
    options = parser.parse_args()
    if unknown := set(options.names) - {*USUAL, *OTHERS}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"benchmarks": {}}
    failed = []
    for name in () if options.table else options.names or USUAL:
        print(f"== {name}", flush=True)
        lines = run(name)
        if lines is None:
            failed.append(name)
            continue
        every = in_order({**results["benchmarks"], name: lines})
        results = {"machine": machine(), "benchmarks": every}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    README.write_text(with_table(README.read_text(), table(results), README.name))
    PAGE.write_text(with_table(PAGE.read_text(), stages(results), PAGE.name))
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, *words: str) -> dict[str, Any] | None:
    """The date, and the lines that a benchmark says; None if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        said.touch()
        environment = {**os.environ, VARIABLE: str(said), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *words],
            cwd=ROOT,
            env=environment,
            check=False,
        )
        if done.returncode:
            return None
        lines = [json.loads(line) for line in said.read_text().splitlines()]
    return {"date": datetime.now(UTC).date().isoformat(), "said": lines}


def in_order(benchmarks: dict[str, Any]) -> dict[str, Any]:
    """As they are listed here."""
    return {name: benchmarks[name] for name in USUAL + OTHERS if name in benchmarks}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def with_table(text: str, made: str, name: str) -> str:
    """A page's text with the table between its marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert (begin, end) == (BEGIN, END), f"{name} has no {BEGIN.strip()} ... {END.strip()}"
    return head + BEGIN + made + END + tail


def table(results: dict[str, Any]) -> str:
    """The figures that are shown, as a Markdown table, below a line about the machine."""
    about = results.get("machine", {})
    packages = ", ".join(f"{name} {about[name]}" for name in PACKAGES if name in about)
    lines = [
        f"{about.get('cpus')} CPUs ({about.get('cpu')}), Python {about.get('python')}, {packages}.",
        "A second is one of CPU time, user and system; *wall* says where it is not.",
        "",
        "| benchmark | what | measured | at least, at most | stretch |",
        "|---|---|---:|---:|---:|",
    ]
    for name, entry in results["benchmarks"].items():
        for said in entry["said"]:
            if why := said.get("skipped"):
                lines.append(f"| {name} | skipped: {why} | | | |")
            elif (figure := Figure(**said)).shown:
                lines.append(row(name, figure))
    return "\n".join(lines) + "\n"


def stages(results: dict[str, Any]) -> str:
    """What each stage of import and replay costs, as a Markdown table."""
    lines = ["| command | stage | ns of CPU an event | alone, M events/s |", "|---|---|---:|---:|"]
    for said in results["benchmarks"].get("stages", {}).get("said", ()):
        if why := said.get("skipped"):
            lines.append(f"| skipped: {why} | | | |")
            continue
        command, _, stage = said["name"].partition(": ")
        alone = f"{1e3 / said['value']:.3g}" if said["value"] else ""
        lines.append(f"| {command} | {stage} | {said['value']:.3g} | {alone} |")
    return "\n".join(lines) + "\n"


def row(benchmark: str, figure: Figure) -> str:
    """A line of the table."""
    target = ""
    if figure.least is not None:
        target = f"≥ {figure.least:g}"
    elif figure.most is not None:
        target = f"≤ {figure.most:g}"
    if figure.holds is not None:
        target += ", reached" if figure.holds else ", not reached"
    stretch = "" if figure.stretch is None else f"{figure.stretch:g}"
    value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:g}"
    measured = f"{value} {figure.unit}".strip()
    return f"| {benchmark} | {figure.name} | {measured} | {target} | {stretch} |"


if __name__ == "__main__":
    raise SystemExit(main())
