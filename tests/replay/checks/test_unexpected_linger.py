"""TK303: a close or shutdown that waited although it must not."""

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
LINGER = CONNECTED.replace("2ms   sock  send", "1ms sock linger 1 5\n    2ms   sock  send")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CONNECTED + "4ms sock vclose for=2s", "SO_LINGER is off"),
        (CONNECTED + "3ms sock linger 0 5\n4ms sock vclose for=2s", "SO_LINGER is off"),
        (CONNECTED + "3ms sock linger 1 0\n4ms sock vclose for=2s", "its linger time is 0"),
        (LINGER + "3ms sock exit\n4ms sock vclose for=2s", "its process exits"),
        (LINGER + "4ms sock vclose for=2s hyperv", "its transport never lingers"),
        (LINGER + "4ms sock vclose for=2s vmci", "its transport never lingers"),
        (LINGER + "4ms sock vclose for=2s bare", "it is not connected"),
        (LINGER + "4ms sock vclose for=2s peer-shut", "its peer has shut down both directions"),
        ("0s sock socket type=2\n1ms sock linger 1 5\n4ms sock vclose for=2s silent",
         "datagrams never linger"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["legacy", "v1", "merged"])
def test_finds_a_wait_where_none_may_be(text: str, why: str, model: str, tmp_path: Path) -> None:
    other = "\n8s sock2 vclose fd=5 from=1002 sk=2\n9s end"  # transports are probed
    outcome = judge(text + other, tmp_path, linger_model=model)["TK303"]
    (finding,) = outcome.findings
    assert (finding.severity, finding.cause) == (Severity.ERROR, why)


@pytest.mark.parametrize(("model", "found"), [("legacy", 1), ("v1", 0), ("merged", 1)])
def test_finds_a_shutdown_that_waited(model: str, found: int, tmp_path: Path) -> None:
    text = LINGER.replace("3ms   sock  sent", "2s sock sent") + "4ms sock shutdown 1 for=2s linger"
    outcome = judge(text + "\n9s end", tmp_path, linger_model=model)["TK303"]
    assert len(outcome.findings) == found


@pytest.mark.parametrize("kind", ["1", "5"])
def test_holds_when_streams_and_seqpackets_linger(kind: str, tmp_path: Path) -> None:
    text = LINGER.replace("socket", f"socket type={kind}").replace(
        "3ms   sock  sent", "2s sock sent"
    )
    outcome = judge(text + "4ms sock vclose for=1996ms\n9s end", tmp_path)["TK303"]
    assert (outcome.findings, outcome.verdict) == ((), Verdict.HELD)


@pytest.mark.parametrize("line", ["linger 1 0", "linger 0 5", "exit"])
def test_holds_when_it_did_not_wait(line: str, tmp_path: Path) -> None:
    text = LINGER + f"3ms sock {line}\n4ms sock vclose for=1ms\n9s end"
    outcomes = judge(text, tmp_path)
    assert {c for c, o in outcomes.items() if o.findings} == set()


def test_an_accepted_socket_inherits_nothing(tmp_path: Path) -> None:
    text = "0s sock accepted fd=5\n4ms sock vclose fd=5 for=2s\n9s end"
    (finding,) = judge(text, tmp_path)["TK303"].findings
    assert finding.cause == "SO_LINGER is off"


def test_a_descriptor_that_is_used_again_is_another_socket(tmp_path: Path) -> None:
    text = (
        LINGER
        + """
        4ms  sock  vclose for=1ms
        1s   sock  peer-reset read=4096
        2s   sock  socket
        2.1s sock  connect from=1002 sk=2
        3s   sock  vclose from=1002 sk=2 for=2s
        9s   end
    """
    )
    (finding,) = judge(text, tmp_path)["TK303"].findings
    assert finding.cause == "SO_LINGER is off"


def test_a_port_and_a_kernel_socket_that_are_used_again_are_others(tmp_path: Path) -> None:
    text = (
        LINGER
        + """
        4ms  sock  vclose for=1ms
        1s   sock  peer-reset read=4096
        2s   sock  socket
        2.1s sock  connect
        3s   sock  vclose for=2s
        9s   end
    """
    )
    (finding,) = judge(text, tmp_path)["TK303"].findings
    assert finding.occurrences[0].from_ns > 2_999_000_000


def test_a_copied_descriptor_closes_nothing(tmp_path: Path) -> None:
    """The first close() has no release in it; SO_LINGER was set through the copy."""
    text = (
        CONNECTED.replace("2ms   sock  send", "1ms sock dup 7\n    2ms   sock  send")
        + """
        3ms  sock  linger 1 5 fd=7
        4ms  sock  close 3
        5ms  sock  send 100 fd=7
        6ms  sock  vclose fd=7 for=1s
        999ms sock sent 100
        9s   end
    """
    )
    outcomes = judge(text, tmp_path)
    assert {c for c, o in outcomes.items() if o.findings} == set()
    assert outcomes["TK302"].judged.decided == 1


def test_a_child_closes_what_its_parent_made(tmp_path: Path) -> None:
    """Both have the descriptor, and the child's close() is the last."""
    text = """
        0s   sock  accepted fd=5
        1ms  sock  forks 2
        2ms  sock  close 5
        4ms  sock2 vclose fd=5 for=2s
        9s   end
    """
    (finding,) = judge(text, tmp_path)["TK303"].findings
    assert finding.cause == "SO_LINGER is off"
    (finding,) = judge(text.replace("1ms ", "1ms sock linger 1 0 fd=5\n2ms "), tmp_path)[
        "TK303"
    ].findings
    assert finding.cause == "its linger time is 0"


def test_each_child_has_the_socket_of_its_own_time(tmp_path: Path) -> None:
    """A server gives every connection to a child, under one number, and closes its own copy."""
    text = """
        0s    sock  accepted fd=5 sk=2 to=6001
        1ms   sock  linger 1 0 fd=5
        2ms   sock  forks 2
        3ms   sock  close 5
        4ms   sock  accepted fd=5 sk=3 to=6002
        5ms   sock  forks 3
        6ms   sock  close 5
        7ms   sock  accepted fd=5 sk=4 to=6003
        8ms   sock  linger 1 5 fd=5
        9ms   sock3 send 100 fd=5 to=6002
        10ms  sock3 sent 100 sk=3 to=6002
        11ms  sock3 vclose fd=5 sk=3 to=6002 for=2s
        3s    sock2 vclose fd=5 sk=2 to=6001 for=2s
        9s    end
    """
    found = judge(text, tmp_path)["TK303"].findings
    assert {(f.cause, f.occurrences[0].peer) for f in found} == {
        ("SO_LINGER is off", (1, 6002)),
        ("its linger time is 0", (1, 6001)),
    }


def test_a_child_has_no_socket_that_its_parent_made_later(tmp_path: Path) -> None:
    text = """
        0s   sock  forks 2
        1ms  sock  accepted fd=5
        4ms  sock2 vclose fd=5 for=2s
        9s   end
    """
    outcome = judge(text, tmp_path)["TK303"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"late_start": 1}


def test_not_checked_where_nobody_says_what_so_linger_is(tmp_path: Path) -> None:
    text = CONNECTED + "3ms sock linger 1 5 eprobe\n4ms sock vclose for=2s\n9s end"
    outcome = judge(text, tmp_path)["TK303"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"unknown_linger": 1}


def test_not_checked_where_two_namespaces_use_one_address(tmp_path: Path) -> None:
    text = (
        CONNECTED
        + """
        3ms sock2 socket fd=5
        3.1ms sock2 connect fd=5 sk=2
        4ms sock  vclose for=2s
        9s  end
    """
    )
    outcome = judge(text, tmp_path)["TK303"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"same_addresses": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    text = (
        CONNECTED
        + """
        4ms  sock  vclose for=1s
        2s   sock  peer-reset read=4096
        3s   sock  socket
        3.1s sock  connect
        4s   sock  vclose for=1s
        9s   end
    """
    )
    (finding,) = judge(text, tmp_path)["TK303"].findings
    assert finding.count == 2


@pytest.mark.parametrize(("takes", "found"), [("49ms", 0), ("52ms", 1)])
def test_boundary_the_slack(takes: str, found: int, tmp_path: Path) -> None:
    text = f"{CONNECTED}4ms sock vclose for={takes}\n9s end"
    assert len(judge(text, tmp_path)["TK303"].findings) == found
