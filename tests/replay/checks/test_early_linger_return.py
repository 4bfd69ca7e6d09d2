"""TK301: a lingering call that returned before its promise was kept."""

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


def test_finds_a_close_that_left_bytes_unsent(tmp_path: Path) -> None:
    outcome = judge(CONNECTED + "3ms sock vclose for=1ms\n9s end", tmp_path)["TK301"]
    (finding,) = outcome.findings
    assert (finding.severity, finding.title) == (
        Severity.ERROR,
        "lingering close() returned with bytes unsent",
    )
    (one,) = finding.occurrences
    assert (one.unsent_bytes, one.timeout_ns) == (4096, 5_000_000_000)
    assert one.local is not None
    assert one.local[1] == 1001


def test_finds_a_legacy_close_that_did_not_wait_for_its_peer(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock sent 4096\n4ms sock vclose for=1ms legacy\n1s sock peer-reset"
    assert judge(text, tmp_path, linger_model="legacy")["TK301"].findings
    assert not judge(text, tmp_path, linger_model="merged")["TK301"].findings


def test_finds_a_shutdown_that_did_not_wait_under_v1_only(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock shutdown 1 for=1ms\n9s end"
    (finding,) = judge(text, tmp_path, linger_model="v1")["TK301"].findings
    assert finding.notes[0].startswith("rule L7")
    assert not judge(text, tmp_path, linger_model="merged")["TK301"].findings


def test_holds_when_everything_was_sent(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock vclose for=300ms\n200ms sock sent 4096\n9s end"
    outcome = judge(text, tmp_path)["TK301"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


@pytest.mark.parametrize("how", ["signal", "delivered"])
def test_holds_when_a_signal_ended_it(how: str, tmp_path: Path) -> None:
    when = "300ms" if how == "signal" else "504ms"
    text = CONNECTED + f"3ms sock vclose for=500ms\n{when} sock {how}\n9s end"
    outcome = judge(text, tmp_path)["TK301"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


def test_holds_when_the_timeout_ended_it(tmp_path: Path) -> None:
    outcome = judge(CONNECTED + "3ms sock vclose for=5010ms\n19s end", tmp_path)["TK301"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


def test_not_checked_without_signals(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock vclose for=1ms\n9s end"
    outcome = judge(text, tmp_path, without={"signal.generated", "signal.delivered"})["TK301"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.judged.reasons == {"no_event:signal": 1}


def test_not_checked_where_a_signal_may_have_been_for_another_thread(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock vclose for=500ms\n300ms sock signal group tid=7\n9s end"
    outcome = judge(text, tmp_path)["TK301"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"signal_unsure": 1}


def test_not_checked_where_one_side_shows_packets_only(tmp_path: Path) -> None:
    text = CONNECTED.replace("connect", "connect guest").replace("4096", "4096 guest")
    text += "3ms sock vclose for=1ms guest\n9s end"
    outcome = judge(text, tmp_path, without={"vsock.sent"})["TK301"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"one_sided": 1}


def test_not_checked_where_the_eprobe_alone_tells(tmp_path: Path) -> None:
    text = CONNECTED.replace("1 5", "1 5 eprobe") + "3ms sock vclose for=1ms\n9s end"
    outcome = judge(text, tmp_path)["TK301"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"unknown_linger": 1}


def test_the_kernels_own_fields_tell_where_the_eprobe_cannot(tmp_path: Path) -> None:
    """With a second socket whose call was seen, jiffies are known to be 4 ms."""
    text = (
        CONNECTED.replace("1 5", "1 5 eprobe")
        + """
        3ms sock vclose for=1ms flagged=1 ticks=1250
        3s  sock2 socket fd=5
        3.1s sock2 connect fd=5 from=1002 sk=2
        4s  sock2 linger 1 2 fd=5
        5s  sock2 vclose fd=5 from=1002 sk=2 flagged=1 ticks=500
        19s end
    """
    )
    (finding,) = judge(text, tmp_path)["TK301"].findings
    assert finding.occurrences[0].timeout_ns == 5_000_000_000


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    one = """
        {0}s  sock{0}  socket fd={0}
        {0}.01s sock{0} connect fd={0} from=100{0} sk={0}
        {0}.02s sock{0} linger 1 5 fd={0}
        {0}.1s sock{0} send 4096 fd={0} from=100{0}
        {0}.2s sock{0} vclose for=1ms fd={0} from=100{0} sk={0}
    """
    text = "".join(one.format(n) for n in (1, 2, 3))
    (finding,) = judge(text + "9s end", tmp_path)["TK301"].findings
    assert finding.count == len(finding.occurrences) == 3


def test_boundary_a_loss_while_it_waits_leaves_it_unjudged(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock vclose for=100ms\nlost cpu0 50ms..60ms\n9s end"
    outcome = judge(text, tmp_path)["TK301"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"loss": 1}


def test_boundary_the_trace_ends_while_it_waits(tmp_path: Path) -> None:
    outcome = judge(CONNECTED + "3ms sock vclose no-exit\n1s end", tmp_path)["TK301"]
    assert outcome.findings == ()
    assert outcome.judged.decided == 0


def test_boundary_unsure_clocks_make_no_error(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock vclose for=1ms\n9s end"
    outcome = judge(text, tmp_path, clock_comparable=False)["TK301"]
    assert [f.severity for f in outcome.findings] == [Severity.WARNING]
