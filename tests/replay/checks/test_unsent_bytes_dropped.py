"""TK304: bytes that did not arrive."""

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


@pytest.mark.parametrize(
    ("model", "severity"),
    [("merged", Severity.ERROR), ("v1", Severity.ERROR), ("legacy", Severity.NOTE)],
)
def test_finds_bytes_that_were_never_handed_over(
    model: str, severity: Severity, tmp_path: Path
) -> None:
    text = CONNECTED + "4ms sock vclose for=1ms\n1s sock peer-reset no-done\n9s end"
    (finding,) = judge(text, tmp_path, linger_model=model)["TK304"].findings
    assert finding.severity is severity
    assert finding.occurrences[0].unsent_bytes == 4096


@pytest.mark.parametrize("model", ["legacy", "v1", "merged"])
def test_finds_what_the_peer_threw_away(model: str, tmp_path: Path) -> None:
    text = SENT + "4ms sock vclose for=1ms\n1s sock peer-reset read=1024\n9s end"
    (finding,) = judge(text, tmp_path, linger_model=model)["TK304"].findings
    assert finding.severity is Severity.NOTE
    assert finding.occurrences[0].unsent_bytes == 3072


def test_holds_when_the_peer_read_everything(tmp_path: Path) -> None:
    text = SENT + "4ms sock vclose for=1ms\n1s sock peer-reset read=4096\n9s end"
    outcome = judge(text, tmp_path)["TK304"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


@pytest.mark.parametrize("why", ["for=5010ms", "for=900ms\n300ms sock signal"])
def test_holds_when_the_wait_was_cut_short(why: str, tmp_path: Path) -> None:
    text = CONNECTED + f"4ms sock vclose {why}\n6s sock peer-reset no-done\n9s end"
    assert judge(text, tmp_path)["TK304"].findings == ()


def test_not_checked_without_packets(tmp_path: Path) -> None:
    packets = {"vsock.packet_allocated", "vsock.packet_received"}
    text = CONNECTED + "4ms sock vclose for=1ms\n9s end"
    outcome = judge(text, tmp_path, without=packets)["TK304"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.judged.decided == 0


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    one = """
        {0}s   sock{0} socket fd={0}
        {0}.01s sock{0} connect fd={0} from=100{0} sk={0}
        {0}.02s sock{0} linger 1 5 fd={0}
        {0}.1s sock{0} send 4096 fd={0} from=100{0}
        {0}.2s sock{0} sent 4096 from=100{0} sk={0}
        {0}.3s sock{0} vclose for=1ms fd={0} from=100{0} sk={0}
        {0}.4s sock{0} peer-reset read=0 from=100{0} sk={0}
    """
    text = "".join(one.format(n) for n in (1, 2))
    (finding,) = judge(text + "9s end", tmp_path)["TK304"].findings
    assert finding.count == 2


def test_boundary_the_connections_end_is_not_in_the_trace(tmp_path: Path) -> None:
    outcome = judge(CONNECTED + "4ms sock vclose for=1ms\n1s end", tmp_path)["TK304"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"trace_end": 1}


def test_boundary_read_bytes_are_counted_in_32_bits(tmp_path: Path) -> None:
    text = SENT + f"4ms sock vclose for=1ms\n1s sock peer-reset read={(1 << 32) - 5}\n9s end"
    (finding,) = judge(text, tmp_path)["TK304"].findings
    assert finding.occurrences[0].unsent_bytes == 4101
