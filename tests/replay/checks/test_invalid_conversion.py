"""TK202: a conversion that no page can make."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

SETUP = "0us vmm create-vm\n"
INVALID = {
    "unaligned address": "0x1001+4K",
    "unaligned size": "0x1000+4097",
    "empty": "0x1000+0",
    "wrapping": "0xfffffffffffff000+8K",
    "wrapping by its size": "0x1000+0xffffffffffffffff",
}


@pytest.mark.parametrize("case", INVALID)
def test_finds_one_that_was_refused(case: str, tmp_path: Path) -> None:
    direction = "shared" if case == "empty" else "private"
    outcomes = judge(f"{SETUP}5us vmm {direction} {INVALID[case]} ret=-22", tmp_path)
    (finding,) = outcomes["TK202"].findings
    assert (finding.severity.value, finding.confidence.value) == ("warning", "certain")
    assert finding.title == "an invalid conversion was refused (EINVAL)"
    assert finding.occurrences[0].errno == 22
    assert set(alarms(outcomes)) == {"TK202"}


@pytest.mark.parametrize("case", INVALID)
def test_finds_one_that_was_taken(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}5us vmm private {INVALID[case]}", tmp_path)
    (finding,) = outcomes["TK202"].findings
    assert (finding.severity.value, finding.confidence.value) == ("error", "certain")
    assert finding.title == "an invalid conversion was taken"
    assert set(alarms(outcomes)) == {"TK202"}


def test_finds_a_refusal_whatever_its_reason(tmp_path: Path) -> None:
    # flags, or an attribute that this machine does not have: the range is in order
    outcomes = judge(SETUP + "5us vmm private 0x1000+4K ret=-22", tmp_path)
    assert alarms(outcomes) == {"TK202": ["warning certain 0x1000+4K"]}


@pytest.mark.parametrize(
    "call",
    ["private 0x1000+4K", "shared 0x1000+4K no-op", "private 0x0+1G", "private 0x1000+4K ret=-12",
     "private 0x1000+4K ret=-4", "shared 0xfffffffffe000+8K"],
)  # fmt: skip
def test_holds_when_the_range_is_whole_pages(call: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}5us vmm {call}\n", tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK202"].verdict is Verdict.HELD


def test_not_checked_without_attribute_changes(tmp_path: Path) -> None:
    outcome = judge(SETUP + "5us vmm run", tmp_path)["TK202"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:kvm.attributes" in outcome.judged.reasons


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(SETUP + "5us vmm private 0x1001+4K bare", tmp_path)["TK202"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())


def test_not_checked_without_the_part_that_a_loss_took(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "5us vmm private 0x1001+4K for=10us ret=-22\nlost cpu0 6us..14us", tmp_path
    )["TK202"]
    assert outcome.findings == ()


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{5 + 2 * i}us vmm private {0x1001 + 0x2000 * i:#x}+4K ret=-22" for i in range(5)
    )
    outcomes = judge(f"{SETUP}{calls}\n50us vmm private 0x9001+4K", tmp_path)
    taken, refused = outcomes["TK202"].findings
    assert (taken.severity.value, taken.count) == ("error", 1)
    assert (refused.severity.value, refused.count) == ("warning", 5)
    assert refused.title == "5 invalid conversions were refused (EINVAL)"


def test_boundary_of_the_last_block_of_64_bits(tmp_path: Path) -> None:
    # address + size is 2^64: it does not wrap past the end for KVM's 64-bit sum, it wraps to 0
    outcomes = judge(SETUP + "5us vmm private 0xfffffffffffff000+4K ret=-22", tmp_path)
    assert said(outcomes["TK202"]) == ["warning certain 0xfffffffffffff000+4K"]
    taken = judge(SETUP + "5us vmm private 0xfffffffffffff000+4K", tmp_path)
    assert said(taken["TK202"]) == ["error certain 0xfffffffffffff000+4K"]


def test_boundary_of_one_block(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "5us vmm private 0x0+4K\n8us vmm private 0x0+4095\n9us vmm private 0xfff+1",
        tmp_path,
    )
    assert said(outcomes["TK202"]) == ["error certain 0x0+4095", "error certain 0xfff+1"]


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "5us vmm private 0x0+4K for=0us\n5us vmm private 0x1+4K ret=-22 for=0us", tmp_path
    )
    assert said(outcomes["TK202"]) == ["warning certain 0x1+4K"]


def test_boundary_of_a_trace_that_ends_in_the_call(tmp_path: Path) -> None:
    outcome = judge(SETUP + "5us vmm private 0x1001+4K no-exit", tmp_path)["TK202"]
    # whether it was taken or refused is not known
    assert outcome.findings == ()
