"""What loss does to a verdict: never an error of what is right, and most of what is wrong found."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
from matrix.judge import Case, is_same, judged, make

from tracekit.findings import ReplayResult, Severity
from tracekit.store import open_trace
from tracekit.synth.truth import Violation

__all__ = ("Recall", "errors_of", "recall")

SET_ATTRIBUTES, RUN = 0x4020AED2, 0xAE80


@dataclass
class Recall:
    """By code: ``planted``, ``qualified`` (no loss where it matters) and of these ``found``."""

    case: str = ""
    planted: Counter[str] = field(default_factory=Counter)
    qualified: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


def errors_of(case: Case) -> tuple[int, list[str]]:
    """Marks of loss in a correct trace, and what the replay calls an error there."""
    with tempfile.TemporaryDirectory(prefix="tracekit-matrix-") as place:
        _, result = judged(case, Path(place))
        marks = open_trace(Path(place) / "x.parquet").manifest.loss_marks
    wrong = [f"{f.code} {f.title}" for f in result.findings if f.severity is Severity.ERROR]
    return marks, wrong


def recall(case: Case) -> Recall:
    """How much of what a fault planted is found although events were lost."""
    with tempfile.TemporaryDirectory(prefix="tracekit-matrix-") as place:
        folder = Path(place)
        truth, result = judged(case, folder)
        losses = _losses(folder / "x.parquet")
        whole = _whole(case, folder / "whole")
    out = Recall(str(case))
    for planted in truth.violations:
        out.planted[planted.code] += 1
        since, until = _matters(whole, planted)
        if any(begin <= until and since <= end for begin, end in losses):
            continue
        out.qualified[planted.code] += 1
        if _is_found(planted, result, losses):
            out.found[planted.code] += 1
        else:
            out.missed.append(f"{planted.code} {planted}")
    return out


def _losses(path: Path) -> list[tuple[int, int]]:
    frame = pl.read_parquet(path, columns=["ts_ns", "event", "until_ns"])
    lost = frame.filter(pl.col("event").cast(pl.Utf8) == "trace.lost")
    return list(lost.select("ts_ns", "until_ns").iter_rows())


def _whole(case: Case, path: Path) -> pl.DataFrame:
    """The same trace without loss."""
    make(replace(case, lose=0.0), path)
    columns = ["ts_ns", "event", "tid", "cmd", "gpa", "size", "flags"]
    return pl.read_parquet(path, columns=columns).with_columns(pl.col("event").cast(pl.Utf8))


def _matters(whole: pl.DataFrame, planted: Violation) -> tuple[int, int]:
    """From the event that made the pages' state known until the violation's end.

    Known since their conversion before this one began, or since the trace did.  One that lasts
    until the trace ends is over, as far as it can be told, when its thread enters the guest.
    """
    change = (pl.col("event") == "kvm.vm_ioctl") & (pl.col("cmd") == SET_ATTRIBUTES)
    covers = (pl.col("gpa") < planted.gpa + planted.size) & (
        pl.col("gpa") + pl.col("size") > planted.gpa
    )
    # This conversion began when its vCPU came back from the guest.
    back = whole.filter(
        (pl.col("event") == "kvm.userspace_exit") & (pl.col("ts_ns") <= planted.from_ns[0])
    )
    begins = {tid: ts for ts, tid in back.select("ts_ns", "tid").iter_rows()}
    thread = _thread(whole, planted)
    began = begins.get(thread, int(whole["ts_ns"][0]))
    earlier = whole.filter(change & covers & (pl.col("ts_ns") < began))
    since = int(whole["ts_ns"][0])
    if len(earlier):
        last = earlier.row(-1, named=True)
        exits = back.filter((pl.col("tid") == last["tid"]) & (pl.col("ts_ns") < last["ts_ns"]))
        if len(exits):
            since = int(exits["ts_ns"][-1])
    if planted.until_ns is not None:
        return since, planted.until_ns[1]
    entered = whole.filter(
        (pl.col("tid") == thread) & (pl.col("cmd") == RUN) & (pl.col("ts_ns") > planted.from_ns[1])
    )
    return since, int(entered["ts_ns"][0]) if len(entered) else int(whole["ts_ns"][-1])


def _thread(whole: pl.DataFrame, planted: Violation) -> int:
    """The thread whose call begins the violation."""
    at = whole.filter(pl.col("ts_ns") == planted.from_ns[0])
    return int(at["tid"][0])


def _is_found(planted: Violation, result: ReplayResult, losses: list[tuple[int, int]]) -> bool:
    """Its end may be unknown where a loss came before it."""
    for finding in result.findings:
        if finding.code != planted.code:
            continue
        for one in finding.occurrences:
            if is_same(planted, finding.severity.value, finding.vm.pid, one):
                return True
    return False
