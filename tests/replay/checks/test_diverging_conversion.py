"""TK201: conversions that are not QEMU's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from judging import events_of

from replay import run
from tracekit.events import Event
from tracekit.findings import Outcome, Severity, Verdict
from tracekit.store import open_trace, write_events
from tracekit.synth.guest import Guest

SETUP = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
    3us    vmm  slot 0 0x0+16M gmem
    10us   vmm  private 0x0+16M
    20us   vmm  shared 0x100000+4K
    22us   vmm  map 0x100000+4K
    24us   vmm  punch-private 0x100000+4K
    26us   vmm  run
    30us   vmm  private 0x100000+4K
    32us   vmm  unmap 0x100000+4K
    34us   vmm  punch 0x100000+4K
    36us   vmm  run
    40us   vmm  shared 0x200000+4K
    42us   vmm  map 0x200000+4K
    44us   vmm  punch-private 0x200000+4K
    46us   vmm  run
    50us   vmm  shared 0x300000+4K
    52us   vmm  map 0x300000+4K
    54us   vmm  punch-private 0x300000+4K
    56us   vmm  run
"""


def outcome_of(
    events: Iterable[Event], folder: Path, generation: str = "merged", **options: int
) -> Outcome:
    path = folder / "t.parquet"
    path.unlink(missing_ok=True)
    write_events(path, events)
    result = run(open_trace(path), generation=generation, **options)
    return next(o for o in result.outcomes if o.code == "TK201")


def told(text: str, folder: Path, generation: str = "merged") -> list[tuple[str, str]]:
    """Severity and cause of each finding after the conversions of ``SETUP``."""
    outcome = outcome_of(events_of(SETUP + text), folder, generation)
    return [(f.severity.value, f.cause) for f in outcome.findings]


WAYS = {
    "missing-punch": "60us vmm shared 0x400000+4K\n62us vmm map 0x400000+4K\n70us vmm run",
    "punch-for-map": (
        "60us vmm shared 0x400000+4K\n62us vmm punch-private 0x400000+4K\n70us vmm run"
    ),
    "map-pieces": (
        "60us vmm shared 0x400000+8K\n62us vmm map 0x400000+8K\n"
        "64us vmm punch-private 0x400000+8K\n70us vmm run"
    ),
    "map-range": (
        "60us vmm shared 0x400000+4K\n62us vmm map 0x401000+4K\n"
        "64us vmm punch-private 0x400000+4K\n70us vmm run"
    ),
    "discard-for-unmap": "60us vmm private 0x200000+4K\n62us vmm punch 0x200000+4K\n70us vmm run",
    "unmap-range": (
        "60us vmm private 0x200000+4K\n62us vmm unmap 0x200000+8K\n"
        "64us vmm punch 0x200000+4K\n70us vmm run"
    ),
    "unmap-for-attribute": (
        "60us vmm unmap 0x200000+4K\n62us vmm private 0x200000+4K\n"
        "64us vmm punch 0x200000+4K\n70us vmm run"
    ),
    "missing-unmap": (
        "60us vmm shared 0x400000+4K\n62us vmm map 0x400000+4K ret=-28\n70us vmm run"
    ),
    "extra-attribute": "60us vmm private 0x400001+4K ret=-22\n70us vmm run",
}


@pytest.mark.parametrize("way", WAYS)
def test_finds_the_first_call_that_differs(way: str, tmp_path: Path) -> None:
    assert ("error", f"merged:{way}") in told(WAYS[way], tmp_path)


def test_both_sequences_stand_side_by_side(tmp_path: Path) -> None:
    outcome = outcome_of(events_of(SETUP + WAYS["discard-for-unmap"]), tmp_path)
    (finding,) = outcome.findings
    assert finding.title == "a conversion is not QEMU's (merged): discard for unmap"
    assert finding.notes[:3] == (
        "1. merged: private 0x200000+4 KiB | seen: private 0x200000+4 KiB",
        "2. merged: unmap 0x200000+4 KiB | seen: discard 4 KiB   <-- differs",
        "3. merged: discard 4 KiB | seen: nothing",
    )
    assert finding.notes[3].startswith("it leaves the range private, and as mapped as it was")
    assert [row.what for row in finding.occurrences[0].chain] == ["private", "discard"]


def test_holds_when_every_call_is_the_models(tmp_path: Path) -> None:
    outcome = outcome_of(events_of(SETUP), tmp_path, "auto")
    assert outcome.findings == ()
    assert outcome.verdict is Verdict.HELD
    assert (outcome.judged.decided, outcome.judged.undecided) == (4, 0)


def test_not_checked_without_conversions_and_maps(tmp_path: Path) -> None:
    outcome = outcome_of(events_of("0us vmm log\n5us end"), tmp_path, "auto")
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert any(reason.startswith("no_event:") for reason in outcome.judged.reasons)


def test_a_vmm_that_follows_no_generation_is_not_checked_unless_one_is_named(
    tmp_path: Path,
) -> None:
    in_place = "".join(
        f"{60 + 20 * i}us vmm unmap {0x200000 + 0x1000 * i:#x}+4K\n"
        f"{62 + 20 * i}us vmm private {0x200000 + 0x1000 * i:#x}+4K\n"
        f"{66 + 20 * i}us vmm shared {0x200000 + 0x1000 * i:#x}+4K\n"
        f"{68 + 20 * i}us vmm punch-private {0x200000 + 0x1000 * i:#x}+4K\n"
        f"{70 + 20 * i}us vmm map {0x200000 + 0x1000 * i:#x}+4K\n"
        for i in range(8)
    )
    events = list(events_of(SETUP.partition("20us")[0] + in_place))
    outcome = outcome_of(events, tmp_path, "auto")
    assert outcome.findings == ()
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert "no_generation" in outcome.judged.reasons
    assert outcome_of(events, tmp_path, "merged").verdict is Verdict.VIOLATED


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    text = "".join(
        f"{60 + 10 * i}us vmm shared {0x400000 + 0x2000 * i:#x}+4K\n"
        f"{62 + 10 * i}us vmm map {0x400000 + 0x2000 * i:#x}+4K\n"
        f"{66 + 10 * i}us vmm run\n"
        for i in range(5)
    )
    outcome = outcome_of(events_of(SETUP + text), tmp_path)
    (finding,) = outcome.findings
    assert (finding.count, len(finding.occurrences)) == (5, 5)


def test_a_divergence_is_told_once_and_the_model_goes_on_from_what_was_seen(
    tmp_path: Path,
) -> None:
    text = WAYS["discard-for-unmap"] + (
        "\n80us vmm unmap 0x200000+4K\n82us vmm run"  # the late unmap is the same cause
        "\n90us vmm shared 0x200000+4K\n92us vmm map 0x200000+4K"
        "\n94us vmm punch-private 0x200000+4K\n96us vmm run"
    )
    assert told(text, tmp_path) == [("error", "merged:discard-for-unmap")]


def test_with_auto_what_is_an_error_of_another_code_is_a_note_beside_it(tmp_path: Path) -> None:
    text = SETUP + WAYS["discard-for-unmap"]
    (finding,) = outcome_of(events_of(text), tmp_path, "auto").findings
    assert finding.severity is Severity.NOTE
    assert finding.related
    assert all(i.startswith(("TK101", "TK102")) for i in finding.related)
    assert outcome_of(events_of(text), tmp_path, "merged").findings[0].severity is Severity.ERROR


def test_boundary_a_conversion_at_the_traces_end_is_not_compared(tmp_path: Path) -> None:
    text = SETUP + "60us vmm shared 0x400000+4K\n62us vmm map 0x400000+4K"
    outcome = outcome_of(events_of(text), tmp_path)
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"trace_end": 1}


def test_boundary_a_conversion_that_a_loss_hits_is_not_compared(tmp_path: Path) -> None:
    text = SETUP + (
        "60us vmm shared 0x400000+4K\nlost cpu0 61us..63us\n64us vmm punch-private 0x400000+4K\n"
        "70us vmm run\n80us vmm private 0x200000+4K\n82us vmm punch 0x200000+4K\n90us vmm run"
    )
    outcome = outcome_of(events_of(text), tmp_path)
    assert outcome.findings == ()
    assert outcome.judged.reasons["loss"] == 1
    assert outcome.judged.reasons["late_start"] == 1  # nothing is known after it


def test_boundary_the_last_block_of_the_memory(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    guest.plug_device()
    for first in (15, 0, 14):
        guest.convert(first, 1, private=False)
    guest.convert(15, 1, private=True)
    outcome = outcome_of(guest.events, tmp_path)
    assert outcome.findings == ()
    assert outcome.judged.decided == 4


def test_without_probes_the_eprobes_arguments_do(tmp_path: Path) -> None:
    events = list(
        events_of(SETUP.replace("K\n", "K no-callee\n") + WAYS["discard-for-unmap"])
    )  # fmt: skip
    outcome = outcome_of(events, tmp_path)
    assert [f.cause for f in outcome.findings] == ["merged:discard-for-unmap"]
    assert outcome.judged.decided == 5


def test_unknown_arguments_are_not_compared(tmp_path: Path) -> None:
    text = SETUP + "60us vmm shared 0x400000+4K\n62us vmm map 0x400000+4K bare\n70us vmm run"
    outcome = outcome_of(events_of(text), tmp_path)
    assert outcome.findings == ()
    assert "unknown_arguments" in outcome.judged.reasons


def test_an_id_holds_neither_address_nor_time(tmp_path: Path) -> None:
    one = outcome_of(events_of(SETUP + WAYS["missing-punch"]), tmp_path).findings[0]
    moved = WAYS["missing-punch"].replace("0x400000", "0x500000").replace("60us", "65us")
    other = outcome_of(events_of(SETUP + moved.replace("62us", "67us")), tmp_path).findings[0]
    assert one.id == other.id
