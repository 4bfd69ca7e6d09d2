"""TK305: the packets that end a connection."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import judge

from tracekit.findings import Severity, Verdict

CONNECTED = """
    0s    sock  socket
    2us   sock  connect
    2ms   sock  send 4096
    3ms   sock  sent 4096
"""
END = "\n1s sock peer-reset read=4096\n9s end"


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("4ms sock vclose silent", "neither"),
        ("4ms sock vclose twice", "packets"),
        ("4ms sock vclose reset", "packets"),
        ("4ms sock vclose flags=1", "flags"),
        ("4ms sock shutdown 2\n5ms sock vclose", "packets"),
    ],
)
def test_finds_packets_that_are_missing_or_too_many(lines: str, cause: str, tmp_path: Path) -> None:
    (finding,) = judge(CONNECTED + lines + END, tmp_path)["TK305"].findings
    assert (finding.severity, finding.cause) == (Severity.ERROR, cause)


def test_finds_data_after_the_end_of_sending(tmp_path: Path) -> None:
    text = CONNECTED + "4ms sock shutdown 1\n5ms sock send 10\n6ms sock vclose flags=3"
    (finding,) = judge(text + END, tmp_path)["TK305"].findings
    assert finding.cause == "data after shutdown"


def test_finds_data_that_a_peer_sends_after_it_ended(tmp_path: Path) -> None:
    text = CONNECTED.replace("connect", "connect guest").replace("4096", "4096 guest")
    text += "4ms sock peer-shutdown 2 guest\n5ms sock peer-data 10 guest\n9s end"
    (finding,) = judge(text, tmp_path)["TK305"].findings
    assert finding.cause == "data after shutdown"


def test_finds_a_reset_in_answer_to_a_reset(tmp_path: Path) -> None:
    text = CONNECTED + "4ms sock vclose\n1s sock reset-for-reset\n9s end"
    (finding,) = judge(text, tmp_path)["TK305"].findings
    assert finding.cause == "reset for reset"


@pytest.mark.parametrize("lines", ["19s end", "3s sock timer\n19s end", "12s sock timer\n19s end"])
def test_finds_a_close_timer_that_is_not_8_s(lines: str, tmp_path: Path) -> None:
    (finding,) = judge(f"{CONNECTED}4ms sock vclose\n{lines}", tmp_path)["TK305"].findings
    assert finding.cause == "timer"


@pytest.mark.parametrize(
    "lines",
    [
        "4ms sock vclose" + END,
        "4ms sock shutdown 1\n5ms sock vclose" + END,
        "4ms sock shutdown 2\n5ms sock vclose all-shut" + END,
        "4ms sock peer-shutdown 3\n5ms sock vclose peer-shut\n9s end",
        "4ms sock vclose\n8100ms sock timer\n19s end",
        "4ms sock vclose\n5s end",
    ],
)
def test_holds_when_the_packets_are_right(lines: str, tmp_path: Path) -> None:
    outcome = judge(CONNECTED + lines, tmp_path)["TK305"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


def test_not_checked_without_packets(tmp_path: Path) -> None:
    packets = {"vsock.packet_allocated", "vsock.packet_received"}
    outcome = judge(f"{CONNECTED}4ms sock vclose{END}", tmp_path, without=packets)["TK305"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert "no_event:vsock.packet_allocated" in outcome.judged.reasons


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    text = CONNECTED + "4ms sock vclose silent" + END.replace("\n9s end", "")
    text += "\n2s sock socket\n2.1s sock connect\n3s sock vclose silent\n4s sock peer-reset\n9s end"
    (finding,) = judge(text, tmp_path)["TK305"].findings
    assert finding.count == 2


def test_boundary_the_peers_end_comes_while_close_begins(tmp_path: Path) -> None:
    text = CONNECTED + "3999us sock peer-shutdown 3\n4ms sock vclose reset\n9s end"
    assert judge(text, tmp_path)["TK305"].findings == ()
