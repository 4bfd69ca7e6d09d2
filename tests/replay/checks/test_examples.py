"""Every check's page holds an example, and the example raises exactly that code."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from judging import judge
from trace_language import trace_of

from replay.checks import CHECKS
from tracekit.events import COLUMNS
from tracekit.findings import Outcome, Severity, Verdict

SECTIONS = ("What it finds", "Why it matters", "Example", "What to look at", "Known limits")


def example_of(code: str) -> str:
    """The trace in the check's docstring."""
    page = inspect.cleandoc(CHECKS[code].__doc__ or "")
    inside = page.split("\nExample\n")[1].split("\nWhat to look at\n")[0]
    return inspect.cleandoc("\n" + inside)


def outcomes_of(text: str, folder: Path, code: str = "") -> dict[str, Outcome]:
    """What the replay says of a written trace; TK111 is asked only where it is meant."""
    return judge(text, folder, in_place=code == "TK111")


@pytest.mark.parametrize("code", list(CHECKS))
def test_the_page_has_its_five_sections_in_order(code: str) -> None:
    page = inspect.cleandoc(CHECKS[code].__doc__ or "")
    places = [page.index(f"\n{section}\n") for section in SECTIONS]
    assert places == sorted(places)


@pytest.mark.parametrize("code", list(CHECKS))
def test_the_example_raises_this_code_and_no_other_error(code: str, tmp_path: Path) -> None:
    outcomes = outcomes_of(example_of(code), tmp_path, code)
    assert outcomes[code].findings, "the example shows nothing"
    errors = {f.code for o in outcomes.values() for f in o.findings if f.severity is Severity.ERROR}
    assert errors <= {code}


@pytest.mark.parametrize("code", [c for c in CHECKS if CHECKS[c].needs])
def test_without_its_events_the_check_says_which_it_lacks(code: str, tmp_path: Path) -> None:
    outcome = outcomes_of("0us vmm log\n5us end", tmp_path, code)[code]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert any(r.startswith("no_event:") for r in outcome.judged.reasons)


QEMUS_ORDER = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
    3us    vmm  slot 0 0x0+16M gmem
    10us   vmm  private 0x0+16M
    40us   vmm  shared 0x100000+2M
    50us   vmm  map 0x100000+2M each=4K
    70us   vmm  punch-private 0x100000+2M
    90us   vmm  run
    100us  vmm  private 0x100000+2M
    110us  vmm  unmap 0x100000+2M
    130us  vmm  punch 0x100000+2M
    150us  vmm  run
    170us  vmm  exit
    180us  vmm  iommu-unmap 0x0+4K
    9ms    other log
"""


IN_PLACE = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
    10us   vmm  private 0x0+16M
    40us   vmm  shared 0x100000+2M
    50us   vmm  map 0x100000+2M
    90us   vmm  run
    100us  vmm  unmap 0x100000+2M
    110us  vmm  private 0x100000+2M
    150us  vmm  run
"""


A_SOCKET = """
    0s    sock  socket
    2us   sock  connect
    1ms   sock  linger 1 5
    2ms   sock  credit want=4096 got=4096 buf=262144 unsent=0
    3ms   sock  send 4096
    10ms  sock  vclose for=1ms
    10ms  sock  sent 4096
    1s    sock  peer-reset read=4096
    2s    end
"""


IN_BLOCKS = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
    3us    vmm  slot 0 0x0+16M gmem
    10us   vmm  private 0x0+16M
    40us   vmm  shared 0x100000+8K
    50us   vmm  map 0x100000+4K
    52us   vmm  map 0x101000+4K
    70us   vmm  punch-private 0x100000+8K
    90us   vmm  run
    100us  vmm  private 0x100000+8K
    110us  vmm  unmap 0x100000+8K
    130us  vmm  punch 0x100000+8K
    150us  vmm  run
    160us  vmm  shared 0x200000+4K
    170us  vmm  map 0x200000+4K
    180us  vmm  punch-private 0x200000+4K
    190us  vmm  run
"""

CORRECT = {"TK111": IN_PLACE, "TK201": IN_BLOCKS}


@pytest.mark.parametrize("code", list(CHECKS))
def test_a_correct_host_holds(code: str, tmp_path: Path) -> None:
    vsock = A_SOCKET if code.startswith("TK3") else QEMUS_ORDER
    outcome = outcomes_of(CORRECT.get(code, vsock), tmp_path, code)[code]
    assert outcome.findings == ()
    assert outcome.verdict is Verdict.HELD


def test_the_events_of_the_test_language_are_the_schemas() -> None:
    names = {c.name for c in COLUMNS}
    assert all(set(row) <= names for row in trace_of(QEMUS_ORDER))


def test_an_unmap_whose_exit_was_not_recorded_came_before_another_threads_map(
    tmp_path: Path,
) -> None:
    # virtio-mem unplugs (discard, unmap), and another thread plugs the block again
    outcomes = outcomes_of(
        """
        0us    vmm   create-vm
        1us    vmm   memory
        2us    vmm   set-iommu
        5us    vmm   map 0x200000+2M
        20us   vmm   punch 0x200000+2M
        30us   vmm   unmap 0x200000+2M no-return
        60us   vmm2  map 0x200000+2M
        90us   vmm2  run
        """,
        tmp_path,
    )
    assert {f.severity for f in outcomes["TK102"].findings} == {Severity.NOTE}
