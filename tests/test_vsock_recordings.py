"""Recordings of vsock on two kernels: each keeps its own promise, and only that one.

Eleven connections a kernel; the truth is what the workload's own clock said around close().
``$TRACEKIT_TRACES`` may name a folder with more; without it the sample in tests/data.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from recorded.recordings import Stream

from replay import run
from replay.linger.judge import Lingering
from replay.linger.models import MODELS, model_of
from replay.linger.run import judge_batches
from replay.linger.stream import COLUMNS
from tracekit.findings import Finding, Occurrence, Outcome, Severity, Verdict
from tracekit.ftrace.columns import ARROW_SCHEMA
from tracekit.importers import import_files
from tracekit.report.json import render_json
from tracekit.report.terminal import render_terminal
from tracekit.store import TraceWriter, open_trace

SAMPLE = Path(__file__).parent / "data" / "traces" / "vsock"
FOLDER = Path(os.environ.get("TRACEKIT_TRACES") or SAMPLE.parent) / "vsock"
MS = 1_000_000
CODES = tuple(f"TK30{n}" for n in range(1, 7))
_OUT = tempfile.TemporaryDirectory(prefix="tracekit-test-")


@dataclass(frozen=True)
class Sockets:
    """One recording and its truth."""

    path: Path
    probes: bool

    @property
    def kernel(self) -> str:
        return self.path.name.removeprefix("trace-vsock-").removesuffix(".dat")

    @property
    def is_legacy(self) -> bool:
        return self.kernel.startswith("6.12")

    @functools.cached_property
    def sockets(self) -> list[dict[str, Any]]:
        path = self.path.with_name(f"truth-vsock-{self.kernel}.json")
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["sockets"]
        return found

    def imported(self) -> Path:
        return _imported(self.path, self.probes)

    def outcomes(self, model: str | None = None) -> dict[str, Outcome]:
        return _outcomes(self.path, self.probes, model)

    def lingering(self) -> list[dict[str, Any]]:
        """The sockets whose close() may linger."""
        return [s for s in self.sockets if s["linger_s"] and s["pre_close"] != "exit"]


@functools.cache
def _imported(path: Path, probes: bool) -> Path:
    out = Path(_OUT.name) / f"{path.stem}-{probes}-{path.parent.parent.name}.parquet"
    kernel = path.name.removeprefix("trace-vsock-").removesuffix(".dat")
    definitions = path.with_name(f"dynamic_events-{kernel}.txt") if probes else None
    import_files([path], out, probes=definitions)
    return out


@functools.cache
def _outcomes(path: Path, probes: bool, model: str | None) -> dict[str, Outcome]:
    result = run(open_trace(_imported(path, probes)), only=CODES, linger_model=model)
    return {o.code: o for o in result.outcomes}


ALL = [
    Sockets(path, probes)
    for path in sorted((FOLDER if FOLDER.is_dir() else SAMPLE).glob("trace-vsock-*.dat"))
    for probes in (False, True)
]
each = pytest.mark.parametrize(
    "recording", ALL, ids=lambda r: f"{r.kernel}{'-defined' if r.probes else ''}"
)


def test_both_kernels_are_there() -> None:
    assert {r.is_legacy for r in ALL} == {True, False}


def occurrences(outcome: Outcome, severity: Severity) -> list[Occurrence]:
    return [o for f in outcome.findings if f.severity is severity for o in f.occurrences]


def ports(found: list[Occurrence]) -> list[int]:
    return sorted(o.local[1] for o in found if o.local is not None)


def port(socket: dict[str, Any]) -> int:
    return int(socket["client"]["local"][1])


def alarms(outcomes: dict[str, Outcome]) -> list[Finding]:
    return [f for o in outcomes.values() for f in o.findings if f.severity is not Severity.NOTE]


@each
def test_every_record_is_understood(recording: Sockets) -> None:
    manifest = open_trace(recording.imported()).manifest
    assert manifest.unrecognised == ()
    assert manifest.events["vsock.transport_release"] == 22
    assert manifest.events["setsockopt.called"] == 10


@each
def test_a_kernel_keeps_its_own_promise(recording: Sockets) -> None:
    assert alarms(recording.outcomes()) == []
    assert alarms(recording.outcomes("legacy" if recording.is_legacy else "merged")) == []
    for code in CODES[:5]:
        assert recording.outcomes()[code].verdict is Verdict.HELD
        assert recording.outcomes()[code].judged.undecided == 0


@each
def test_every_lingering_close_was_judged(recording: Sockets) -> None:
    expected = len(recording.lingering())
    assert recording.outcomes()["TK301"].judged.decided == expected
    assert recording.outcomes()["TK302"].judged.decided == expected


@each
def test_what_was_thrown_away_unread_is_one_note(recording: Sockets) -> None:
    (finding,) = recording.outcomes()["TK304"].findings
    assert (finding.severity, finding.count) == (Severity.NOTE, 1)
    (one,) = finding.occurrences
    lost = [s for s in recording.sockets if s["lost_bytes"]]
    assert [s["name"] for s in lost] == ["linger5_peerclose1"]
    assert one.local is not None
    assert one.peer is not None
    assert (one.local[1], one.peer[1]) == (port(lost[0]), 7005)
    assert one.unsent_bytes == lost[0]["lost_bytes"]


def waited_for_its_peer(socket: dict[str, Any]) -> bool:
    return bool(socket["client"]["close_blocked_ms"] > 500)


@each
@pytest.mark.parametrize("model", ["merged", "v1"])
def test_under_the_merged_model_6_12_waits_too_long(recording: Sockets, model: str) -> None:
    if not recording.is_legacy:
        assert recording.outcomes(model)["TK302"].findings == ()
        return
    expected = {port(s): s for s in recording.lingering() if waited_for_its_peer(s)}
    assert len(expected) == 7
    outcomes = recording.outcomes(model)
    found = occurrences(outcomes["TK302"], Severity.ERROR)
    assert ports(found) == sorted(expected)
    for one in found:
        assert one.local is not None
        assert one.waited_ns is not None
        truth = expected[one.local[1]]
        wall = truth["client"]["close_stop_ns"] - truth["client"]["close_start_ns"]
        assert wall - 10 * MS <= one.waited_ns <= wall
        assert one.timeout_ns == truth["linger_s"] * 1000 * MS
        assert one.unsent_bytes == 0
    assert {f.code for f in alarms(outcomes)} == {"TK302"}


@each
def test_under_the_legacy_model_7_3_returns_too_early(recording: Sockets) -> None:
    if recording.is_legacy:
        assert recording.outcomes("legacy")["TK301"].findings == ()
        return
    expected = [
        port(s)
        for s in recording.lingering()
        if s["client"]["close_stop_ns"] < s["server"]["close_start_ns"]
    ]
    assert len(expected) == 8
    outcomes = recording.outcomes("legacy")
    assert ports(occurrences(outcomes["TK301"], Severity.ERROR)) == sorted(expected)
    assert {f.code for f in alarms(outcomes)} == {"TK301"}


@each
def test_what_needs_credit_is_not_checked_where_its_probe_never_fired(recording: Sockets) -> None:
    outcome = recording.outcomes()["TK306"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.judged.reasons == {"no_event:vsock.credit": 1}


@each
def test_the_report_shows_the_sockets_life(recording: Sockets) -> None:
    trace = open_trace(recording.imported())
    wrong = "merged" if recording.is_legacy else "legacy"
    result = run(trace, linger_model=wrong)
    text = render_terminal(result, {})
    assert "setsockopt(SO_LINGER)" in text
    assert "close() returns" in text
    assert "the socket from" in text
    assert [s for s in text.splitlines() if len(s) > 80 and ".parquet" not in s] == []
    (finding, *_) = json.loads(render_json(result))["findings"]
    (one, *_) = finding["occurrences"]
    assert one["local"][0] == 1
    assert one["peer"][0] == 1
    assert one["waited_ns"] > 0
    assert set(finding["vm"]) == {"name", "pid", "kvm"}


# -- what the recorder did not see ---------------------------------------------------------------


@functools.cache
def stream_of(path: Path) -> Stream:
    batches = list(open_trace(path).batches((*COLUMNS, "cpu")))
    return Stream(pa.Table.from_batches(batches).unify_dictionaries().combine_chunks())


def judged(recording: Sockets, stream: Stream, model: str | None = None) -> Lingering:
    """The engine's word on some of a recording's events."""
    manifest = open_trace(recording.imported()).manifest
    chosen = MODELS[model] if model else model_of(manifest.kernel, ())
    table = stream.table()
    numbered = table.set_column(
        table.schema.get_field_index("seq"), "seq", pa.array(np.arange(len(table)))
    )
    recorded = {r.event for r in manifest.recorded if r.event}
    return judge_batches(
        numbered.select(list(COLUMNS)).to_batches(),
        chosen,
        events=stream.events(),
        recorded=recorded,
    )


def told(lingering: Lingering) -> Counter[tuple[str, str, tuple[int, int] | None]]:
    return Counter(
        (b.code, b.severity.value, b.closing.local)
        for b in lingering.breaches
        if b.severity is not Severity.NOTE
    )


@each
def test_one_percent_lost_at_random_invents_nothing(recording: Sockets) -> None:
    stream = stream_of(recording.imported())
    for model in (None, "legacy", "v1", "merged"):
        whole = told(judged(recording, stream, model))
        for seed in range(8):
            n = len(stream)
            removed = np.random.default_rng(seed).choice(n, n // 100, replace=False)
            damaged = told(judged(recording, stream.without(removed), model))
            assert damaged <= whole, f"{model}, seed {seed}"


@each
def test_what_a_burst_of_losses_did_not_hit_is_still_told(recording: Sockets) -> None:
    """1 % lost in one burst: a socket whose life it does not touch keeps its finding."""
    stream = stream_of(recording.imported())
    model = "merged" if recording.is_legacy else "legacy"
    whole = judged(recording, stream, model)
    breaches = [b for b in whole.breaches if b.severity is Severity.ERROR]
    asked = found = 0
    for seed in range(30):
        damaged = stream.without(burst(stream, random.Random(seed)))
        still = told(judged(recording, damaged, model))
        assert still <= told(whole)
        for breach in breaches:
            moments = [ts for ts, _ in breach.closing.moments.values()]
            begun = min(moments) - 100 * MS  # socket() is a little earlier than what is shown
            if any(t0 <= max(moments) and begun <= t1 for t0, t1, _ in damaged.lost):
                continue
            asked += 1
            key = (breach.code, breach.severity.value, breach.closing.local)
            found += key in still
    print(f"{recording.kernel}: {found} of {asked} breaches told")
    assert asked > 50
    assert found >= 0.95 * asked


def burst(stream: Stream, random_: random.Random) -> Any:
    """1 % of the events, neighbours on one CPU."""
    n = len(stream) // 100
    here = np.flatnonzero(stream.cpu == random_.choice(np.unique(stream.cpu).tolist()))
    start = random_.randrange(len(here) - n)
    return here[start : start + n]


@each
def test_a_trace_that_ends_anywhere_invents_nothing(recording: Sockets) -> None:
    stream = stream_of(recording.imported())
    for model in (None, "merged" if recording.is_legacy else "legacy"):
        whole = told(judged(recording, stream, model))
        for events in range(0, len(stream), 29):
            cut = told(judged(recording, stream.cut(events), model))
            assert cut <= whole, f"{model}, cut after {events}"


@each
def test_a_trace_that_begins_anywhere_invents_nothing(recording: Sockets) -> None:
    stream = stream_of(recording.imported())
    for model in (None, "merged" if recording.is_legacy else "legacy"):
        whole = told(judged(recording, stream, model))
        for events in range(0, len(stream), 29):
            late = Stream(stream.base.slice(events))
            assert told(judged(recording, late, model)) <= whole, f"{model}, from {events}"


def without(recording: Sockets, tmp_path: Path, *prefixes: str) -> dict[str, Outcome]:
    """The outcomes of a recording that never had these events."""
    source = open_trace(recording.imported())
    manifest = source.manifest
    path = tmp_path / "without.parquet"
    frame = pl.read_parquet(recording.imported())
    kept = frame.filter(
        ~pl.any_horizontal(pl.col("event").cast(pl.String).str.starts_with(p) for p in prefixes)
    )
    with TraceWriter(path) as writer:
        for batch in batches_of(kept):
            writer.write(batch)
        recorded = tuple(
            r for r in manifest.recorded if not (r.event or "").startswith(tuple(prefixes))
        )
        writer.finish(dataclasses.replace(manifest, recorded=recorded))
    result = run(open_trace(path), only=CODES)
    return {o.code: o for o in result.outcomes}


def batches_of(frame: Any) -> Iterator[pa.RecordBatch]:
    arrow = frame.drop("seq").to_arrow()
    yield from arrow.select(ARROW_SCHEMA.names).cast(ARROW_SCHEMA).combine_chunks().to_batches()


@each
def test_without_signals_an_early_return_is_not_checked(recording: Sockets, tmp_path: Path) -> None:
    outcome = without(recording, tmp_path, "signal.")["TK301"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert set(outcome.judged.reasons) == {"no_event:signal"}


@each
def test_with_the_eprobe_alone_linger_is_unknown_and_never_off(
    recording: Sockets, tmp_path: Path
) -> None:
    outcomes = without(recording, tmp_path, "setsockopt.called", "vsock.linger")
    assert alarms(outcomes) == []
    for code in ("TK301", "TK302"):
        reasons = outcomes[code].judged.reasons
        assert "unknown_linger" in reasons or outcomes[code].judged.decided == 0


@each
def test_without_any_vsock_event_nothing_is_checked(recording: Sockets, tmp_path: Path) -> None:
    for code, outcome in without(recording, tmp_path, "vsock.").items():
        assert outcome.verdict is Verdict.NOT_CHECKED, code
        assert outcome.judged.reasons == {"no_event:vsock": 1}


@each
def test_packets_and_system_calls_alone_decide_a_loopback(
    recording: Sockets, tmp_path: Path
) -> None:
    probes = [f"vsock.{n}" for n in ("release", "transport", "linger", "shutdown", "sent", "done")]
    outcomes = without(recording, tmp_path, *probes, "vsock.unsent")
    assert alarms(outcomes) == []
    assert outcomes["TK302"].judged.decided >= len(recording.lingering()) - 1
