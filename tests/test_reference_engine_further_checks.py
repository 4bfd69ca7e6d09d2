"""The oracle on written traces: docs/judging.md, sections 6 to 8."""

from __future__ import annotations

import pytest
from further_examples import EXAMPLES
from reference import containers
from reference_engine import Replayed, replay
from trace_language import trace_of

NEW = ("TK104", "TK107", "TK108", "TK110", "TK111")
NEAR = """
    0us    vmm   create-vm
    2us    vmm   set-iommu
    5us    vmm   map 0x100000+4K
    7us    vmm   map 0x101000+4K
    9us    vmm   unmap 0x100000+4K
    11us   vmm   map 0x103000+4K
    13us   vmm   map 0x105000+4K
"""


def judged_of(name: str, replayed: Replayed) -> dict[str, tuple[int, int]]:
    counts = replayed.judged
    return {code: (counts[code].decided, counts[code].undecided) for code in EXAMPLES[name].judged}


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_oracle_says_what_was_worked_out_by_hand(name: str) -> None:
    example = EXAMPLES[name]
    rows = trace_of(example.text)
    replayed = replay(rows, example.grace_ns, in_place=example.in_place)
    found = sorted((v[:3] + v[4:8] for v in replayed.violations), key=str)
    assert found == sorted(example.expected, key=str)
    assert judged_of(name, replayed) == example.judged


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_wherever_the_trace_ends_there_is_an_answer(name: str) -> None:
    example = EXAMPLES[name]
    rows = trace_of(example.text)
    whole = replay(rows, example.grace_ns, in_place=example.in_place).violations
    certain = {v[:3] + v[4:7] for v in whole}
    for events in range(0, len(rows), 3):
        cut = replay(rows[:events], example.grace_ns, in_place=example.in_place)
        for v in cut.violations:
            # What is certain at some time stays so; its range is known by then.
            if v.severity == "error" and v.code in ("TK104", "TK107", "TK108", "TK110"):
                assert v[:3] + v[4:7] in certain


def test_every_code_has_an_example_that_trips_and_one_that_is_not_checked() -> None:
    for code in NEW:
        mine = [e for name, e in EXAMPLES.items() if name.startswith(code)]
        assert any(v[0] == code for e in mine for v in e.expected)
        assert any(e.judged.get(code, (0, 0))[1] for e in mine)
        assert any(not e.expected and e.judged[code][0] for e in mine if code in e.judged)


def test_the_evidence_of_a_missing_map_is_the_change_and_what_ended_it() -> None:
    rows = trace_of(EXAMPLES["TK104: mapped after the guest ran"].text)
    (found,) = replay(rows).violations
    events = [rows[seq]["event"] for seq in found.events]
    assert events.count("kvm.vm_ioctl") == 1
    assert rows[found.events[0]]["event"] == "ioctl.entered"
    assert [rows[s]["cmd"] for s in found.events if rows[s]["event"] == "ioctl.entered"] == [
        0x4020AED2,
        0xAE80,
    ]


def test_a_container_that_comes_near_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "NEAR_LIMIT", 3)
    monkeypatch.setattr(containers, "ENTRY_LIMIT", 3)
    replayed = replay(trace_of(NEAR))
    assert [v[:3] + v[4:8] for v in replayed.violations] == [
        ("TK107", "warning", "likely", None, None, 14_000, None)
    ]


def test_a_container_that_stays_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "NEAR_LIMIT", 4)
    assert replay(trace_of(NEAR)).violations == []


def test_a_container_that_passes_it_has_another_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "NEAR_LIMIT", 2)
    monkeypatch.setattr(containers, "ENTRY_LIMIT", 2)
    assert replay(trace_of(NEAR)).violations == []


def test_entries_are_not_counted_over_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "NEAR_LIMIT", 3)
    replayed = replay(trace_of(NEAR + "    lost cpu0 20us..22us\n    30us vmm log\n"))
    assert [v.code for v in replayed.violations] == ["TK901"]
    assert replayed.judged["TK107"].reasons == {"loss": 1}


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("several VMs: no slot of this one is known", "TK101", "several_vms"),
        ("vIOMMU: what was open then", "TK101", "viommu"),
        ("guest_memfd attributes: nobody knows any more", "TK104", "gmem_attributes"),
        ("TK110: no slot is known", "TK110", "unknown_backing"),
        ("TK108: the trace ends before anything else", "TK108", "trace_end"),
        ("TK107: a call whose arguments nobody tells", "TK107", "unknown_arguments"),
        ("TK104: the trace starts late", "TK104", "late_start"),
    ],
)
def test_what_is_not_judged_says_why(name: str, code: str, reason: str) -> None:
    assert set(replay(trace_of(EXAMPLES[name].text)).judged[code].reasons) == {reason}
