"""The matrix as tables: docs/matrix.md."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from matrix.judge import Case, Score
from matrix.loss import Recall

from tracekit.synth.faults import FAULTS
from tracekit.synth.vsock.faults import FAULTS as SOCKET_FAULTS

__all__ = ("Lossy", "Table", "written")

MOST = 20
"""Details of one kind that are printed."""


@dataclass
class Row:
    """Of a fault or of a correct workload."""

    runs: int = 0
    struck: int = 0
    events: int = 0
    found: int = 0
    missed: int = 0
    false: int = 0
    undecided: int = 0
    workloads: set[str] = field(default_factory=set)


@dataclass
class Table:
    """What came of the runs: by fault, by workload (correct ones), and by code."""

    faults: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    workloads: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    found: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    possible: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def add(self, workload: str, fault: str | None, score: Score) -> None:
        """One run."""
        row = self.workloads[workload] if fault is None else self.faults[fault]
        row.runs += 1
        row.struck += score.struck
        row.events += score.events
        row.found += score.found.total()
        row.missed += len(score.missed)
        row.false += len(score.false)
        row.undecided += sum(sum(why.values()) for why in score.undecided.values())
        row.workloads.add(workload)
        self.found += score.found
        self.missed += Counter(one.split()[0] for one in score.missed)
        self.false += Counter(one.split()[0] for one in score.false)
        self.possible += Counter(one.split()[0] for one in score.possible)
        self.said += [f"only possible: {one}\n  in {score.case}" for one in score.possible]
        self.said += [f"missed: {one}\n  in {score.case}" for one in score.missed]
        self.said += [f"false alarm: {one}\n  in {score.case}" for one in score.false]
        if fault is None and score.undecided:
            self.said.append(f"undecided: {score.undecided}\n  in {score.case}")

    def details(self) -> list[str]:
        """Some of what went wrong."""
        return self.said[:MOST]

    def summary(self) -> str:
        """The last line."""
        rows = [*self.faults.values(), *self.workloads.values()]
        return (
            f"matrix: {len(self.faults)} faults, {len(self.workloads)} workloads,"
            f" {sum(r.runs for r in rows):,} runs, {self.missed.total()} misses,"
            f" {self.false.total()} false alarms"
        )


@dataclass
class Lossy:
    """By share: examples, marks of loss, errors; and what was found of planted violations."""

    examples: Counter[float] = field(default_factory=Counter)
    marks: Counter[float] = field(default_factory=Counter)
    wrong: Counter[float] = field(default_factory=Counter)
    recall: Recall = field(default_factory=Recall)
    said: list[str] = field(default_factory=list)

    def add(self, case: Case, marks: int, wrong: list[str]) -> None:
        """A correct trace that lost events."""
        self.examples[case.lose] += 1
        self.marks[case.lose] += marks
        self.wrong[case.lose] += len(wrong)
        self.said += [f"error under loss: {one}\n  in {case}" for one in wrong]
        self.wrong += Counter()  # without zeros

    def recalled(self, one: Recall) -> None:
        """A broken trace that lost events."""
        self.recall.planted += one.planted
        self.recall.qualified += one.qualified
        self.recall.found += one.found
        self.said += [f"missed under loss: {m}\n  in {one.case}" for m in one.missed]

    def details(self) -> list[str]:
        """Some of what went wrong."""
        return self.said[:MOST]

    def summary(self) -> str:
        """One line."""
        r = self.recall
        share = r.found.total() / max(1, r.qualified.total())
        return (
            f"loss: {self.examples.total():,} correct traces, {self.wrong.total()} errors;"
            f" at 1 % {r.qualified.total():,} of"
            f" {r.planted.total():,} violations qualified, {share:.1%} of them found"
        )


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "-"


def written(table: Table, lossy: Lossy, arguments: str) -> str:
    """The page."""
    f, m, a = table.found, table.missed, table.false
    lines = [
        "# The matrix",
        "",
        "Made traces (docs/synthetic.md), replayed, and what was found beside what was planted.",
        f"Written by `make matrix MATRIX='{arguments}'`, which ends with",
        "",
        "```",
        lossy.summary(),
        table.summary(),
        "```",
        "",
        "A violation is *found* if code, severity, VM and range are those that were planted, and",
        "both of its moments lie within the calls that begin and end it (TK201: within its",
        "conversion). A *false alarm* is an error or a warning that was not planted. Generations",
        "of QEMU and kinds of container take turns from seed to seed.",
        "",
        "*Only possible* is a warning where an error was planted: when the guest was entered,",
        "another thread had begun an unmap, and the event that says of what came a microsecond",
        "later. It could have been of these pages, and the engine does not go back. Such a one is",
        "found, once `an_unmap_had_begun` (`tests/matrix/judge.py`) has seen that in the trace.",
        "",
        "## By code",
        "",
    ]
    lines += _table(
        (
            "code",
            "planted",
            "found",
            "only possible",
            "missed",
            "false alarms",
            "precision",
            "recall",
        ),
        (
            (
                c,
                f[c] + m[c],
                f[c],
                table.possible[c],
                m[c],
                a[c],
                _share(f[c], f[c] + a[c]),
                _share(f[c], f[c] + m[c]),
            )
            for c in sorted({*f, *m, *a})
        ),
    )
    lines += ["## Faults", ""]
    codes = {name: fault.codes for name, fault in FAULTS.items()}
    codes |= {f"vsock: {name}": fault.codes for name, fault in SOCKET_FAULTS.items()}
    lines += _table(
        ("fault", "codes", "workloads", "runs", "struck", "planted", "missed", "false alarms"),
        (
            (name, " ".join(codes[name]), len(r.workloads), r.runs, r.struck, r.found + r.missed,
             r.missed, r.false)
            for name, r in table.faults.items()
        ),
    )  # fmt: skip
    lines += ["## Correct workloads", ""]
    lines += _table(
        ("workload", "runs", "events", "errors and warnings", "undecided"),
        (
            (name, r.runs, r.events, r.false, r.undecided)
            for name, r in table.workloads.items()
        ),
    )  # fmt: skip
    lines += [
        "## With events lost",
        "",
        "In bursts on one CPU, marked as a ring buffer marks them. Correct traces:",
        "",
    ]
    none = sum(r.runs for r in table.workloads.values())
    lines += _table(
        ("lost", "traces", "marks", "errors"),
        [
            ("0 %", none, 0, sum(r.false for r in table.workloads.values())),
            *(
                (f"{share:.1%}", lossy.examples[share], lossy.marks[share], lossy.wrong[share])
                for share in sorted(lossy.examples)
            ),
        ],
    )
    lines += [
        "Planted violations at 1 %. One *qualifies* if nothing was lost between the conversion",
        "that made its pages' state known and its own end (where it has none: its thread's way",
        "back into the guest).",
        "",
    ]
    r = lossy.recall
    rows = [
        (c, r.planted[c], r.qualified[c], r.found[c], _share(r.found[c], r.qualified[c]))
        for c in sorted(r.planted)
    ]
    total = r.found.total(), r.qualified.total()
    rows.append(("all", r.planted.total(), total[1], total[0], _share(*total)))
    lines += _table(("code", "planted", "qualified", "found", "recall"), rows)
    return "\n".join(lines)
