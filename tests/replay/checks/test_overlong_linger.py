"""TK302: a lingering close that stayed too long."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import judge

from tracekit.findings import Severity, Verdict

CONNECTED = """
    0s    sock  socket
    2us   sock  connect
    1ms   sock  linger 1 5
    2ms   sock  send 4096
"""
SENT = CONNECTED + "3ms sock sent 4096\n"


def test_finds_a_close_that_waited_for_the_reader(tmp_path: Path) -> None:
    outcome = judge(SENT + "4ms sock vclose for=2s\n9s end", tmp_path)["TK302"]
    (finding,) = outcome.findings
    assert (finding.severity, finding.title) == (
        Severity.ERROR,
        "waited for what the peer had not read",
    )
    assert finding.occurrences[0].waited_ns == pytest.approx(2_000_000_000, abs=1000)
    assert "slack: 250 ms" in finding.notes


def test_finds_a_close_that_stayed_after_all_was_sent(tmp_path: Path) -> None:
    text = CONNECTED + "4ms sock vclose for=2s\n1s sock sent 4096\n9s end"
    (finding,) = judge(text, tmp_path)["TK302"].findings
    assert finding.title == "waited on after everything was sent"


def test_finds_a_close_that_outlived_its_timeout(tmp_path: Path) -> None:
    (finding,) = judge(CONNECTED + "4ms sock vclose for=8s\n19s end", tmp_path)["TK302"].findings
    assert (finding.severity, finding.title) == (Severity.ERROR, "waited past its timeout")


def test_finds_a_legacy_close_that_stayed_after_its_peer_was_done(tmp_path: Path) -> None:
    text = SENT + "4ms sock vclose for=2s legacy\n1s sock peer-reset read=4096\n9s end"
    (finding,) = judge(text, tmp_path, linger_model="legacy")["TK302"].findings
    assert finding.title == "waited on after the peer was done"


def test_holds_when_a_starved_worker_makes_it_really_wait(tmp_path: Path) -> None:
    text = CONNECTED + "4ms sock vclose for=1520ms\n1519ms sock sent 4096\n9s end"
    outcomes = judge(text, tmp_path)
    assert {c for c, o in outcomes.items() if o.findings} == set()
    assert outcomes["TK302"].verdict is Verdict.HELD


def test_holds_when_a_device_reset_makes_it_run_to_its_timeout(tmp_path: Path) -> None:
    text = CONNECTED + "4ms sock vclose for=5012ms\n1s sock reset-device\n19s end"
    outcomes = judge(text, tmp_path)
    assert {c for c, o in outcomes.items() if o.findings} == set()


def test_holds_when_legacy_waits_for_its_peer(tmp_path: Path) -> None:
    text = SENT + "4ms sock vclose for=2s legacy\n2s sock peer-reset read=4096\n9s end"
    outcome = judge(text, tmp_path, linger_model="legacy")["TK302"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


def test_a_late_timer_is_a_warning(tmp_path: Path) -> None:
    """3 s are 750 ticks of 4 ms: the timer wheel rounds them up by as many as 64."""
    text = CONNECTED.replace("1 5", "1 3")
    close = "vclose for=3300ms flagged=1 ticks=750"
    (finding,) = judge(f"{text}4ms sock {close}\n19s end", tmp_path)["TK302"].findings
    assert finding.severity is Severity.WARNING


def test_not_checked_without_vsock_events(tmp_path: Path) -> None:
    outcome = judge("0us vmm log\n5us end", tmp_path)["TK302"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.judged.reasons == {"no_event:vsock": 1}


def test_not_checked_where_the_trace_began_too_late(tmp_path: Path) -> None:
    outcome = judge("4ms sock vclose for=2s\n9s end", tmp_path)["TK302"]
    assert outcome.findings == ()
    assert outcome.verdict is Verdict.NOT_CHECKED


def test_not_checked_where_nothing_says_which_model(tmp_path: Path) -> None:
    outcome = judge(SENT + "4ms sock vclose for=2s legacy\n9s end", tmp_path)["TK302"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"unknown_model": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    again = SENT.replace("connect", "connect from=1002 sk=2").replace("4096", "4096 from=1002 sk=2")
    later = "\n".join(
        f"{n + 10}s {line.split(maxsplit=1)[1]}"
        for n, line in enumerate(again.split("\n"))
        if line.strip()
    )
    text = f"{SENT}4ms sock vclose for=2s\n{later}\n20s sock vclose for=2s from=1002 sk=2\n29s end"
    (finding,) = judge(text, tmp_path)["TK302"].findings
    assert finding.count == 2
    assert [o.local[1] for o in finding.occurrences if o.local] == [1001, 1002]


@pytest.mark.parametrize(("takes", "found"), [("249ms", 0), ("252ms", 1)])
def test_boundary_the_slack(takes: str, found: int, tmp_path: Path) -> None:
    text = f"{SENT}4ms sock vclose for={takes}\n9s end"
    assert len(judge(text, tmp_path)["TK302"].findings) == found


def test_boundary_a_slack_of_ones_own(tmp_path: Path) -> None:
    text = f"{SENT}4ms sock vclose for=100ms\n9s end"
    assert not judge(text, tmp_path)["TK302"].findings
    (finding,) = judge(text, tmp_path, slack_ns=20_000_000)["TK302"].findings
    assert "slack: 20 ms" in finding.notes


def test_boundary_the_trace_ends_while_it_waits(tmp_path: Path) -> None:
    outcome = judge(f"{SENT}4ms sock vclose no-exit\n3s end", tmp_path)["TK302"]
    (finding,) = outcome.findings
    assert finding.occurrences[0].until_ns is None


def test_boundary_a_linger_time_without_end(tmp_path: Path) -> None:
    text = CONNECTED.replace("1 5", "1 2147483648") + "4ms sock vclose for=60s\n99s end"
    assert not judge(text, tmp_path)["TK302"].findings
