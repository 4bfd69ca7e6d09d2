"""TK306: counters that do not add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import judge

from tracekit.findings import Severity, Verdict

CONNECTED = """
    0s    sock  socket
    2us   sock  connect
"""
END = "\n300ms sock sent 4096\n1s sock vclose\n2s sock peer-reset read=4096\n9s end"


@pytest.mark.parametrize(
    ("credit", "cause"),
    [
        ("want=4096 got=1024", "credit unused"),
        ("want=4096 got=4096 put=10", "credit unused"),
        ("want=4096 got=4096 buf=1024", "credit"),
        ("want=4096 got=4096 buf=8192 tx=6000 read=1000", "credit"),
        ("want=4096 got=4096 unsent=7", "unsent bytes"),
    ],
)
def test_finds_counters_that_do_not_add_up(credit: str, cause: str, tmp_path: Path) -> None:
    text = f"{CONNECTED}100ms sock credit {credit}\n200ms sock send 4096{END}"
    (finding,) = judge(text, tmp_path)["TK306"].findings
    assert (finding.severity, finding.cause) == (Severity.ERROR, cause)


def test_finds_more_bytes_than_the_peer_has_room_for(tmp_path: Path) -> None:
    text = f"{CONNECTED}1ms sock credit want=300000 got=300000\n2ms sock send 300000\n9s end"
    (finding,) = judge(text, tmp_path)["TK306"].findings
    assert finding.cause == "overrun"


def test_holds_when_they_add_up(tmp_path: Path) -> None:
    credit = "want=4096 got=4096 unsent=0 buf=8192 tx=5000 read=5000"
    text = f"{CONNECTED}100ms sock credit {credit}\n200ms sock send 4096{END}"
    outcome = judge(text, tmp_path)["TK306"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "credit",
    [
        f"want=4096 got=0 put={(1 << 63) - 1}",
        f"want=4096 got=0 put={1 << 62}",
    ],
)
def test_more_given_back_than_was_taken_is_one_finding_however_much(
    credit: str, tmp_path: Path
) -> None:
    text = f"{CONNECTED}100ms sock credit {credit}\n200ms sock send 4096{END}"
    (finding,) = judge(text, tmp_path)["TK306"].findings
    assert finding.cause == "credit unused"


def test_not_checked_without_credit(tmp_path: Path) -> None:
    outcome = judge(f"{CONNECTED}200ms sock send 4096{END}", tmp_path)["TK306"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.judged.reasons == {"no_event:vsock.credit": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    text = (
        CONNECTED
        + """
        1ms sock credit want=10 got=5
        2ms sock send 10
        3ms sock credit want=10 got=5
        4ms sock send 10
        9s  end
    """
    )
    (finding,) = judge(text, tmp_path)["TK306"].findings
    assert finding.count == 2


def test_boundary_tx_counts_wrap_at_32_bits(tmp_path: Path) -> None:
    credit = f"want=4096 got=4096 buf=8192 tx=10 read={(1 << 32) - 100}"
    text = f"{CONNECTED}100ms sock credit {credit}\n200ms sock send 4096{END}"
    assert judge(text, tmp_path)["TK306"].findings == ()


def test_boundary_after_a_loss_nothing_is_compared(tmp_path: Path) -> None:
    text = f"{CONNECTED}lost cpu0 10ms..20ms\n100ms sock credit want=4096 got=4096 unsent=7"
    text += f"\n200ms sock send 4096{END}"
    assert judge(text, tmp_path)["TK306"].findings == ()
