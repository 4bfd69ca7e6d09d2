"""One side of a connection, or packets alone: what cannot be decided says so, and why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_sockets import alarms, judged, unjudged
from recorded.recordings import Stream

from replay import run
from replay.linger.judge import Lingering
from replay.linger.models import model_of
from replay.linger.run import judge_batches
from replay.linger.stream import COLUMNS
from tracekit.findings import Verdict
from tracekit.importers import import_files
from tracekit.store import Manifest, open_trace, write_events
from tracekit.synth.vsock.generate import generate
from tracekit.synth.vsock.workloads import WORKLOADS

SAMPLE = Path(__file__).parents[2] / "data" / "traces"
FOLDER = Path(os.environ.get("TRACEKIT_TRACES") or SAMPLE) / "vsock"
KERNELS = ("6.12", "7.3")
GUEST, HOST = 3, 2
PACKETS = {"vsock.packet_allocated", "vsock.packet_received"}
WAITS = ("TK301", "TK302", "TK304")
"""Checks of which nothing can be said without the unsent bytes."""
AT_THE_END = ("TK301", "TK302", "TK303", "TK304", "TK305")


# -- made ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["guest", "host"])
@pytest.mark.parametrize("workload", ["bulk", "linger-on", "shutdowns", "resets"])
def test_one_side_with_every_probe_decides_everything(workload: str, side: str) -> None:
    for model in ("legacy", "v1", "merged"):
        lingering = judged(generate(workload, seed=5, model=model, side=side))
        assert alarms(lingering) == []
        assert unjudged(lingering) == {}
        assert lingering.judged["TK303"].decided > 0


@pytest.mark.parametrize("side", ["guest", "host"])
def test_one_side_without_bytes_handed_over_is_one_sided(side: str) -> None:
    made = generate("linger-on", seed=5, side=side, fault="early-return")
    assert {b.code for b in alarms(judged(made))} == {"TK301"}
    blind = judged(made, without={"vsock.sent"})
    assert alarms(blind) == []
    for code in ("TK301", "TK304"):  # what ran into its timeout is decided without
        assert set(blind.judged[code].reasons) == {"one_sided"}
        assert blind.judged[code].undecided > 1
    assert blind.judged["TK303"].decided > 0
    assert blind.judged["TK305"].decided > 0


def test_one_side_of_a_legacy_kernel_needs_no_bytes() -> None:
    """It waits for the peer's end, which one side sees."""
    made = generate("slow-reader", seed=5, model="legacy", side="guest", fault="early-return")
    blind = judged(made, without={"vsock.sent"})
    assert {b.code for b in alarms(blind)} == {"TK301"}
    assert set(blind.judged["TK304"].reasons) == {"one_sided"}


@pytest.mark.parametrize("side", ["loopback", "guest", "host"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_packets_alone_show_no_socket_that_closes(workload: str, side: str) -> None:
    made = generate(workload, seed=2, side=side)
    lingering = judged(made, without=made.recorded - PACKETS)
    assert alarms(lingering) == []
    for code in AT_THE_END:
        assert lingering.judged[code].decided == 0
        assert lingering.judged[code].reasons == {"no_event:close": 1}
    assert lingering.judged["TK306"].reasons == {"no_event:vsock.credit": 1}


def test_packets_alone_still_show_packets_out_of_place() -> None:
    made = generate("shutdowns", seed=4, fault="data-after-shutdown")
    lingering = judged(made, without=made.recorded - PACKETS)
    assert [b.rule for b in alarms(lingering)] == ["L14"]


def test_a_report_of_packets_alone_names_the_reason(tmp_path: Path) -> None:
    made = generate("bulk", seed=1)
    path = tmp_path / "t.parquet"
    packets = [e for e in made.events if e.name_ in PACKETS]
    write_events(path, packets, Manifest(kernel=made.kernel))
    outcomes = {o.code: o for o in run(open_trace(path)).outcomes}
    for code in AT_THE_END:
        assert outcomes[code].verdict is Verdict.NOT_CHECKED
        assert outcomes[code].judged.reasons == {"no_event:close": 1}


# -- cut from recordings of loopback ---------------------------------------------------------------


class Cut:
    """What one of two machines would have recorded of a loopback recording.

    ``near``: the client's process and its packets (``client``), or the server's.
    """

    def __init__(self, kernel: str, near: str, folder: Path) -> None:
        (path,) = FOLDER.glob(f"trace-vsock-{kernel}*.dat")
        self.name = path.name.removeprefix("trace-vsock-").removesuffix(".dat")
        truth = path.with_name(f"truth-vsock-{self.name}.json")
        self.sockets = json.loads(truth.read_text("utf-8"))["sockets"]
        out = folder / "t.parquet"
        import_files([path], out)
        trace = open_trace(out)
        self.manifest = trace.manifest
        table = pa.Table.from_batches(list(trace.batches((*COLUMNS, "cpu"))))
        self.near = near
        self.stream = Stream(self._of_one_machine(table.unify_dictionaries().combine_chunks()))

    def lingering(self) -> int:
        return sum(bool(s["linger_s"]) and s["pre_close"] != "exit" for s in self.sockets)

    def judged(self, *without: str) -> Lingering:
        table = self.stream.base
        kept = [n not in without for n in table["event"].cast(pa.string()).to_pylist()]
        table = table.filter(pa.array(kept))
        order = pa.array(np.arange(len(table)))
        table = table.set_column(table.schema.get_field_index("seq"), "seq", order)
        return judge_batches(
            table.select(list(COLUMNS)).combine_chunks().to_batches(),
            model_of(self.name, ()),
            events={n: c for n, c in self.stream.events().items() if n not in without},
            recorded={r.event for r in self.manifest.recorded if r.event} - set(without),
        )

    def _of_one_machine(self, table: pa.Table) -> pa.Table:
        """Rows of the near end, with the CIDs that a guest and its host have."""
        ports = {int(s["client"]["local"][1]) for s in self.sockets}
        rows = table.to_pylist()
        near_is_client = self.near == "client"
        mine = {
            row["tid"]
            for row in rows
            if row["event"] == "vsock.transport_release"
            and ((row["local"] & 0xFFFFFFFF) in ports) == near_is_client
        }
        kept = [i for i in range(len(rows)) if self._is_near(rows, i, ports, mine)]
        cids = (GUEST, HOST) if near_is_client else (HOST, GUEST)

        def moved(row: dict[str, Any], column: str) -> int | None:
            value: int | None = row[column]
            if value is None:
                return None
            is_client = (value & 0xFFFFFFFF) in ports
            return cids[is_client != near_is_client] << 32 | value & 0xFFFFFFFF

        out = table.take(pa.array(kept))
        for column in ("local", "peer"):
            values = [moved(rows[i], column) for i in kept]
            at = out.schema.get_field_index(column)
            out = out.set_column(at, column, pa.array(values, out.schema.field(at).type))
        return out.combine_chunks()

    def _is_near(self, rows: list[dict[str, Any]], i: int, ports: set[int], mine: set[int]) -> bool:
        row = rows[i]
        event = row["event"]
        if event in PACKETS:
            is_ours = ((row["local"] & 0xFFFFFFFF) in ports) == (self.near == "client")
            return is_ours == (event == "vsock.packet_allocated")
        if event in ("vsock.sent", "vsock.done"):
            # The packet that it is about is received just after it is handed over; the one that
            # ended the connection was received, or made, just before.
            step = 1 if event == "vsock.sent" else -1
            packets = {"vsock.packet_received"} if event == "vsock.sent" else PACKETS
            j = i
            while 0 <= j < len(rows) and not (
                rows[j]["event"] in packets and rows[j]["tid"] == row["tid"]
            ):
                j += step
            if not 0 <= j < len(rows):
                return False
            sender_is_ours = ((rows[j]["local"] & 0xFFFFFFFF) in ports) == (self.near == "client")
            is_senders = event == "vsock.sent" or rows[j]["event"] == "vsock.packet_allocated"
            return sender_is_ours == is_senders
        return row["tid"] in mine or event.startswith(("signal.", "process.", "trace."))


@pytest.fixture(params=KERNELS)
def client_side(request: pytest.FixtureRequest, tmp_path: Path) -> Cut:
    return Cut(request.param, "client", tmp_path)


@pytest.fixture(params=KERNELS)
def server_side(request: pytest.FixtureRequest, tmp_path: Path) -> Cut:
    return Cut(request.param, "server", tmp_path)


def test_a_guests_recording_decides_every_close_of_its_own(client_side: Cut) -> None:
    lingering = client_side.judged()
    assert alarms(lingering) == []
    assert lingering.judged["TK302"].decided == client_side.lingering()
    assert unjudged(lingering) == {}


def test_a_guests_recording_without_bytes_says_one_sided(client_side: Cut) -> None:
    lingering = client_side.judged("vsock.sent")
    assert alarms(lingering) == []
    codes = ("TK304",) if client_side.name.startswith("6.12") else ("TK301", "TK304")
    for code in codes:
        assert set(lingering.judged[code].reasons) == {"one_sided"}
        assert lingering.judged[code].undecided >= client_side.lingering() - 1
    assert lingering.judged["TK303"].undecided == 0


def test_the_hosts_recording_has_sockets_that_never_linger(server_side: Cut) -> None:
    lingering = server_side.judged()
    assert alarms(lingering) == []
    assert lingering.judged["TK303"].decided == server_side.stream.events()["vsock.release"]
    assert server_side.stream.events()["vsock.transport_release"] == len(server_side.sockets)
    assert [lingering.judged[code].decided for code in WAITS] == [0, 0, 0]
    assert unjudged(lingering) == {}


def test_a_cut_recordings_packets_alone_show_no_close(client_side: Cut) -> None:
    others = {e for e in client_side.stream.events() if e not in PACKETS}
    others |= {r.event for r in client_side.manifest.recorded if r.event} - PACKETS
    lingering = client_side.judged(*others)
    assert alarms(lingering) == []
    for code in AT_THE_END:
        assert lingering.judged[code].reasons == {"no_event:close": 1}


def test_credit_that_never_fired_is_not_checked(client_side: Cut, server_side: Cut) -> None:
    for cut in (client_side, server_side):
        assert cut.judged().judged["TK306"].reasons == {"no_event:vsock.credit": 1}
