"""The smallest trace that still shows a finding: of every check, and where it is easy to slip."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from judging import events_of, example_of
from shrinking import assert_minimal, shown

from replay.checks import CHECKS
from replay.shrink import Options, Shrunk, shrink
from replay.shrink.explanation import explanation
from tracekit.errors import UsageError
from tracekit.findings import Finding
from tracekit.store import Trace, open_trace, write_events

MEMORY = [code for code in CHECKS if "TK100" < code < "TK300"]
SOCKETS = [code for code in CHECKS if code.startswith("TK3")]


def written(text: str, folder: Path) -> Trace:
    path = folder / "t.parquet"
    write_events(path, events_of(text))
    return open_trace(path)


def findings(trace: Trace, options: Options | None = None) -> list[Finding]:
    return (options or Options()).run(trace).findings


def of_code(trace: Trace, code: str, options: Options | None = None) -> Shrunk:
    found = next(f for f in findings(trace, options) if f.code == code)
    return shrink(trace, found.id, options=options)


@pytest.mark.parametrize("code", MEMORY + SOCKETS)
def test_the_finding_of_every_checks_page_is_shrunk_to_the_least(code: str, tmp_path: Path) -> None:
    options = Options(in_place=code == "TK111")
    trace = written(example_of(code), tmp_path)
    own = [f for f in findings(trace, options) if f.code == code]
    assert own
    for finding in own:
        small = shrink(trace, finding.id, options=options)
        assert_minimal(small)
        most = 30 if code != "TK201" else 32  # a conversion, and what says who listens to it
        assert small.trace.manifest.rows <= min(most, trace.manifest.rows)
        assert len(small.seqs) == len(small.frames) == small.trace.manifest.rows


LATE = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
    3us    vmm  slot 0 0x0+16M gmem
    10us   vmm  map 0x100000+64K each=4K
    30us   vmm  map 0x200000+64K each=4K
    50us   vmm  private 0x200000+64K
    52us   vmm  unmap 0x200000+64K
    54us   vmm  punch 0x200000+64K
    60us   vmm  run
    70us   vmm  private 0x100000+64K
    75us   vmm  punch 0x100000+64K
    80us   vmm  run
    95us   vmm  unmap 0x100000+64K
    100us  end
"""


def test_no_other_pages_are_made_to_show_it(tmp_path: Path) -> None:
    """Without its unmap the first conversion would break the same promise: that is not the one."""
    trace = written(LATE, tmp_path)
    small = of_code(trace, "TK101")
    assert_minimal(small)
    assert {row["gpa"] for row in small.trace.table.to_pylist()} & {0x200000} == set()
    assert small.finding.occurrences[0].gpa == 0x100000
    assert [s for s in small.seqs if s not in range(trace.manifest.rows)] == []


def test_calls_that_took_care_of_other_pages_go_and_the_page_says_so(tmp_path: Path) -> None:
    small = of_code(written(example_of("TK101"), tmp_path), "TK101")
    assert_minimal(small)
    page = explanation(small, "", Path("small.parquet"))
    assert "There it was 1 MiB of these 2 MiB" in page


def test_equal_traces_become_equal_small_ones(tmp_path: Path) -> None:
    trace = written(LATE, tmp_path)
    first, second = of_code(trace, "TK101"), of_code(trace, "TK101")
    assert first.seqs == second.seqs
    assert first.trace.table.equals(second.trace.table)
    assert first.tried == second.tried


def test_what_is_tried_is_what_is_written(tmp_path: Path) -> None:
    small = of_code(written(LATE, tmp_path), "TK101")
    manifest = small.trace.write(tmp_path / "small.parquet")
    opened = open_trace(tmp_path / "small.parquet")
    assert manifest == small.trace.manifest == opened.manifest
    assert (
        pa.Table.from_batches(list(opened.batches())).to_pylist() == small.trace.table.to_pylist()
    )
    assert Options().run(opened).findings == Options().run(small.trace).findings
    some = list(range(0, manifest.rows, 2))
    assert opened.rows(some).to_pylist() == small.trace.rows(some).to_pylist()
    event = small.trace.table.column("event")[0].as_py()
    assert opened.events(event).collect().equals(small.trace.events(event).collect())


LOSSY = LATE.replace("    60us   vmm  run\n", "    60us   vmm  run\n    lost cpu3 61us..62us\n")


def test_a_loss_that_does_not_matter_goes_and_the_manifest_says_so(tmp_path: Path) -> None:
    again = """
        64us  vmm  map 0x300000+4K
        65us  vmm  private 0x300000+4K
        66us  vmm  punch 0x300000+4K
        67us  vmm  run
    """
    trace = written(LOSSY + again, tmp_path)
    assert trace.manifest.loss_marks == 1
    small = of_code(trace, "TK101")
    assert_minimal(small)
    assert small.trace.manifest.loss_marks == 0
    assert small.trace.manifest.events.get("trace.lost") is None


def test_a_loss_that_a_finding_is_about_stays(tmp_path: Path) -> None:
    small = of_code(written(LOSSY, tmp_path), "TK901")
    assert small.trace.manifest.events == {"trace.lost": 1}
    assert small.trace.manifest.loss_marks == 1


def test_a_clock_that_ran_back_is_shrunk_too(tmp_path: Path) -> None:
    small = of_code(written(LATE + "clock-back cpu0 71us said=20us", tmp_path), "TK902")
    assert small.trace.manifest.events == {"trace.clock_back": 1}


def test_the_second_container_of_a_vm_stays_the_second_one(tmp_path: Path) -> None:
    """The id says which container it is: what makes that known is kept."""
    trace = written(
        """
        0us   vmm  set-iommu
        2us   vmm  set-iommu fd=19
        4us   vmm  private 0x0+16M
        10us  vmm  shared 0x100000+8K
        20us  vmm  map 0x100000+4K
        22us  vmm  map 0x100000+4K fd=19
        30us  vmm  private 0x100000+4K
        31us  vmm  unmap 0x100000+4K
        33us  vmm  punch 0x100000+4K
        40us  vmm  run
        50us  end
        """,
        tmp_path,
    )
    small = of_code(trace, "TK101")
    assert_minimal(small)
    assert 19 in {row["fd"] for row in small.trace.table.to_pylist()}


def test_a_finding_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    trace = written(LATE, tmp_path)
    known = findings(trace)
    for wrong in ("TK101-00000000", "TK999-1", "", "nonsense"):
        with pytest.raises(UsageError) as error:
            shrink(trace, wrong)
        for finding in known:
            assert f"{finding.id}  {finding.severity.value}: " in error.value.message


def test_a_trace_without_findings_says_that_there_are_none(tmp_path: Path) -> None:
    trace = written("0us vmm set-iommu\n5us end", tmp_path)
    with pytest.raises(UsageError, match="nor any other"):
        shrink(trace, "TK101-00000000")


def test_a_divergence_names_the_generation_that_a_small_trace_cannot_tell(tmp_path: Path) -> None:
    trace = written(example_of("TK201"), tmp_path)
    small = of_code(trace, "TK201")
    assert small.options.generation == small.original.cause.partition(":")[0]
    assert shown(small.trace, small.original, Options()) is None
    page = explanation(small, "", Path("small.parquet"))
    assert f"--generation {small.options.generation}" in page
    assert f"here it is named: {small.options.generation}." in page
    assert small.asked == Options()


def test_progress_counts_what_is_cut_away(tmp_path: Path) -> None:
    trace = written(LATE, tmp_path)
    told: list[int] = []
    found = next(f for f in findings(trace) if f.code == "TK101")
    small = shrink(trace, found.id, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == trace.manifest.rows - small.trace.manifest.rows


def test_the_page_tells_each_call_and_how_to_see_it_again(tmp_path: Path) -> None:
    small = of_code(written(LATE, tmp_path), "TK101")
    page = explanation(small, "REPORT\n", Path("small.parquet"))
    assert page.startswith(f"# {small.finding.id}: ")
    assert "KVM_SET_MEMORY_ATTRIBUTES private gpa 0x100000+0x10000 = 0" in page
    assert f"tracekit replay small.parquet --only {small.finding.code}" in page
    assert "REPORT" in page
    assert "There it ended after" in page
    assert "here it is named" not in page
    mapped = next(line for line in page.splitlines() if " mmap " in line)
    assert " = 0x" in mapped
    assert len(page.splitlines()) < 60


def test_names_in_a_trace_cannot_break_the_page(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [e.__class__(**{**e.__dict__, "comm": "a```\n# b<"}) for e in events_of(LATE)]
    write_events(path, rows)
    small = of_code(open_trace(path), "TK101")
    page = explanation(small, "x ``` y", Path("a`b.parquet"))
    assert page.count("```") == 6
    assert "a????# b<" in page
    assert "\n# " not in page[1:]
