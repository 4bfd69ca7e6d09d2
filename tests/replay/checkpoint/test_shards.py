"""A trace that is replayed in pieces, each from the checkpoint before it, gives the same findings.

The same: ids, occurrences, intervals, chains with their event numbers, notes, and how much was
judged and why not.
"""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from further_examples import EXAMPLES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging import events_of
from matrix.cases import broken, lossy
from matrix.judge import Case, make
from recorded.recordings import FOLDER, Recording, recordings
from shards import chained, cuts_of, differences, shards, together

from replay import run
from replay.checkpoint import Checkpoint
from replay.checks import CHECKS
from tracekit.errors import UsageError
from tracekit.findings import Severity
from tracekit.importers import import_files
from tracekit.store import Trace, open_trace, write_events
from tracekit.synth.generate import generate
from tracekit.synth.vsock.workloads import WORKLOADS as SOCKETS
from tracekit.synth.vsock.write import PREFIX

VSOCK = FOLDER / "vsock" if (FOLDER / "vsock").is_dir() else FOLDER
_OUT = tempfile.TemporaryDirectory(prefix="tracekit-shards-")


def same_in_shards(trace: Trace, cuts: list[int], **options: Any) -> None:
    assert differences(together(trace, cuts, **options), chained(trace, cuts, **options)) == []


def written(text: str) -> Trace:
    """A trace in the tests' language."""
    path = Path(_OUT.name) / f"{abs(hash(text)):x}.parquet"
    if not path.exists():
        write_events(path, events_of(text))
    return open_trace(path)


def example_of(code: str) -> str:
    page = inspect.cleandoc(CHECKS[code].__doc__ or "")
    return inspect.cleandoc("\n" + page.split("\nExample\n")[1].split("\nWhat to look at\n")[0])


@pytest.mark.parametrize("code", list(CHECKS))
def test_the_example_of_a_check_cut_anywhere(code: str) -> None:
    trace = written(example_of(code))
    same_in_shards(trace, cuts_of(trace, 4, code), in_place=code == "TK111")
    for place in cuts_of(trace, 2, code):
        same_in_shards(trace, [place], in_place=code == "TK111")


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_a_written_example_cut_anywhere(name: str) -> None:
    example = EXAMPLES[name]
    trace = written(example.text)
    same_in_shards(trace, cuts_of(trace, 1, name), in_place=example.in_place)


OVERLAPPING = {
    "maps during a discard": """
        10us    vmm   map 0x100000+64K
        20us    vmm2  punch 0x100000+8K for=30us
        35us    vmm   unmap 0x101000+4K
        37us    vmm   map 0x101000+4K
        60us    vmm2  run
    """,
    "changes during a map": """
        10us    vmm   private 0x101000+4K for=2ms
        1010us  vmm2  map 0x101000+4K for=2ms silent
        2011us  vmm   private 0x104000+4K
        4000us  vmm   run
    """,
    "a refused change": """
        10us  vmm   map 0x100000+8K
        12us  vmm   unmap 0x100000+8K
        14us  vmm   private 0x100000+8K ret=-12
        16us  vmm   private 0x101000+4K
        20us  vmm   run
    """,
}


@pytest.mark.parametrize("calls", list(OVERLAPPING.values()), ids=list(OVERLAPPING))
def test_calls_that_overlap_cut_at_every_event(calls: str) -> None:
    begin = "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n"
    trace = written(begin + inspect.cleandoc(calls))
    assert together(trace, []).findings
    for place in range(1, len(trace)):
        same_in_shards(trace, [place])


@functools.cache
def made(case: Case) -> tuple[Path, bool]:
    path = Path(_OUT.name) / f"{abs(hash(case)):x}.parquet"
    return path, make(case, path).in_place


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([*broken(1)[::5], *lossy(12)]), st.integers(0, 1 << 30), st.integers(1, 4))
def test_a_made_trace_in_up_to_five_shards(case: Case, seed: int, cuts: int) -> None:
    path, in_place = made(case)
    trace = open_trace(path)
    same_in_shards(trace, cuts_of(trace, cuts, seed), in_place=in_place)


@pytest.mark.parametrize("workload", list(SOCKETS))
def test_made_sockets_in_shards(workload: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    generate(PREFIX + workload, path, seed=1)
    trace = open_trace(path)
    same_in_shards(trace, cuts_of(trace, 4, workload))


def each_recording(*, some: bool = False) -> list[object]:
    """All but the long one; ``some``: the first of each group."""
    chosen = [r for r in recordings() if not r.is_long]
    if some:
        chosen = list({r.group: r for r in reversed(chosen)}.values())
    reason = f"no recordings in {FOLDER.name}: TRACEKIT_TRACES names a folder of them"
    none = [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return list(chosen) or list(none)


@pytest.mark.parametrize(
    "recording", each_recording(some=True), ids=lambda r: r.name if r else "none"
)
def test_a_recording_of_a_real_kernel_in_shards(recording: Recording) -> None:
    trace = open_trace(recording.imported(probes=True))
    same_in_shards(trace, cuts_of(trace, 1, recording.name), compiled=None)


@pytest.mark.nightly
@pytest.mark.parametrize("recording", each_recording(), ids=lambda r: r.name if r else "none")
def test_a_recording_of_a_real_kernel_in_five_shards(recording: Recording) -> None:
    trace = open_trace(recording.imported(probes=True))
    for seed in range(3):
        same_in_shards(trace, cuts_of(trace, 4, (recording.name, seed)), compiled=None)


@pytest.mark.parametrize("path", sorted(VSOCK.glob("trace-vsock-*.dat")), ids=lambda p: p.stem[12:])
def test_a_recording_of_sockets_in_shards(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    kernel = path.stem.removeprefix("trace-vsock-")
    import_files([path], out, probes=path.with_name(f"dynamic_events-{kernel}.txt"))
    trace = open_trace(out)
    for count in (1, 4):
        same_in_shards(trace, cuts_of(trace, count, (path.name, count)))


def test_there_are_recordings_of_sockets() -> None:
    assert len(list(VSOCK.glob("trace-vsock-*.dat"))) >= 2


@pytest.mark.nightly
@pytest.mark.skipif(
    not any(r.is_long for r in recordings()),
    reason="the long recording is not there: TRACEKIT_TRACES names a folder with it",
)
def test_the_long_recording_in_shards() -> None:
    for recording in (r for r in recordings() if r.is_long):
        trace = open_trace(recording.imported(probes=False))
        cuts = cuts_of(trace, 4, os.environ.get("TRACEKIT_SEED", "0"))
        same_in_shards(trace, cuts, compiled=None)


# -- what happens at the seam ----------------------------------------------------------------------

YESTERDAY = """
    0us    vmm   create-vm
    1us    vmm   memory
    2us    vmm   set-iommu
    3us    vmm   slot 0 0x0+16M
    5us    vmm   map 0x100000+2M
    8us    vmm   private 0x800000+1M
    10us   vmm   private 0x100000+2M
    12us   vmm   map 0x900000+64K
    14us   vmm   unmap 0x900000+64K
    20us   vmm   log
"""
TODAY = """
    50s    vmm   run
    51s    vmm   unmap 0x100000+2M
    52s    vmm   run
    53s    end
"""


def two_nights(today: str = TODAY) -> tuple[Trace, Trace]:
    both = written(YESTERDAY + today)
    place = len(list(events_of(YESTERDAY)))
    first, second = shards(both, [place])
    return first, second


def kept(trace: Trace, since: Checkpoint | None = None) -> Checkpoint:
    states: list[Checkpoint] = []
    run(trace, since=since, checkpoint=states.append, compiled=False)
    return states[0]


def test_a_mapping_made_yesterday_is_found_today() -> None:
    first, second = two_nights()
    alone = {o.code: o for o in run(second, compiled=False).outcomes}
    assert alone["TK101"].findings == ()
    result = run(second, since=kept(first), compiled=False)
    (finding,) = next(o for o in result.outcomes if o.code == "TK101").findings
    assert finding.severity is Severity.ERROR
    (occurrence,) = finding.occurrences
    assert (occurrence.iova, occurrence.size) == (0x100000, 2 << 20)
    assert occurrence.from_ns < 1_000_000
    assert occurrence.until_ns is not None
    assert occurrence.until_ns > 50_000_000_000
    (mapped, private, *_, unmapped) = occurrence.chain
    assert [mapped.what, private.what, unmapped.what] == ["map", "private", "unmap"]
    assert mapped.seq is not None
    assert mapped.seq < len(first) <= (unmapped.seq or 0)


def test_the_end_of_a_shard_is_not_the_end_of_the_trace() -> None:
    first, second = two_nights()
    ended = {o.code: o for o in run(first, compiled=False).outcomes}["TK101"]
    assert ended.judged.reasons == {"trace_end": 1}
    went_on = {o.code: o for o in run(second, since=kept(first), compiled=False).outcomes}["TK101"]
    assert went_on.judged.undecided == 0


def test_asking_for_a_checkpoint_changes_nothing() -> None:
    first, _ = two_nights()
    states: list[Checkpoint] = []
    plain = run(first, compiled=False)
    assert run(first, checkpoint=states.append, compiled=False) == plain
    assert run(first, only=["TK101"], checkpoint=states.append).outcomes[0] == next(
        o for o in plain.outcomes if o.code == "TK101"
    )


def test_what_was_not_asked_for_yesterday_is_known_today() -> None:
    first, second = two_nights()
    states: list[Checkpoint] = []
    run(first, only=["TK902"], checkpoint=states.append, compiled=False)
    assert run(second, since=states[0], compiled=False) == run(
        second, since=kept(first), compiled=False
    )


@pytest.mark.parametrize("code", ["TK104", "TK305"])
def test_event_types_that_only_the_later_part_has_are_refused_or_make_no_difference(
    code: str,
) -> None:
    trace = written(example_of(code))
    refused: list[UsageError] = []
    for place in range(1, len(trace), 2):
        try:
            result = chained(trace, [place], recorded=())
        except UsageError as why:
            refused.append(why)
        else:
            assert differences(together(trace, [place]), result) == []
    assert 0 < len(refused) < len(trace) // 2
    assert all("which this trace has" in str(why) for why in refused)
    assert all("--recorded" in (why.help or "") for why in refused)


def test_event_types_that_only_the_earlier_part_has_count_as_recorded() -> None:
    first, second = two_nights()
    assert "kvm.attributes_post" in first.manifest.events
    assert "kvm.attributes_post" not in second.manifest.events
    result = run(second, since=kept(first), compiled=False)
    assert all(not any("no_event:kvm" in r for r in o.judged.reasons) for o in result.outcomes)


def test_a_row_that_was_not_kept_is_said_to_lie_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.checkpoint.past.MOST_ROWS", 1)
    first, second = two_nights()
    result = run(second, since=kept(first), compiled=False)
    (finding,) = next(o for o in result.outcomes if o.code == "TK101").findings
    (occurrence,) = finding.occurrences
    kept_rows = [r for r in occurrence.chain if r.ts_ns is not None and (r.seq or 0) < len(first)]
    gone = [row for row in occurrence.chain if row.text.endswith("<-- lies before this trace")]
    assert len(kept_rows) == 1
    assert len(gone) == 1
    assert gone[0].what == "map"
    assert occurrence.chain[0] == gone[0]


def test_pages_whose_last_map_was_forgotten_have_no_other_events_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replay.checkpoint.pages.MOST_SPANS", 1)
    first, second = two_nights()
    result = run(second, since=kept(first), compiled=False)
    (finding,) = next(o for o in result.outcomes if o.code == "TK101").findings
    chain = finding.occurrences[0].chain
    assert chain[0].what == "map"
    assert chain[0].seq is None
    assert chain[0].text.endswith("<-- lies before this trace")


def test_numbers_go_on_where_the_trace_before_ended(tmp_path: Path) -> None:
    first, second = two_nights()
    assert isinstance(second.manifest.first_seq, int)
    whole = together(written(YESTERDAY + TODAY), [len(first)])
    assert differences(whole, run(second, since=kept(first), compiled=False)) == []


def test_an_empty_shard_changes_nothing() -> None:
    first, second = two_nights()
    assert isinstance(first, type(second))
    table = pa.Table.from_batches(list(second.batches())).slice(0, 0)
    nothing = type(shards(first, [1])[0])(table, second.manifest, second.path)
    state = kept(nothing, kept(first))
    plain = run(second, since=kept(first), compiled=False)
    assert differences(plain, run(second, since=state, compiled=False)) == []


def test_faults_and_read_only_slots_of_before_are_told_of_as_well() -> None:
    trace = written(
        """
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  set-iommu
        3us    vmm  slot 0 0x0+1M flags=2
        5us    vmm  map      0x0+64K
        10us   vmm  private  0x0+64K
        30us   vmm  run
        40us   vmm  fault 0x3000+4K
        50us   vmm  unmap 0x0+64K
        60us   end
        """
    )
    for place in range(1, len(trace), 3):
        result = chained(trace, [place])
        assert differences(together(trace, [place]), result) == []
        (finding,) = next(o for o in result.outcomes if o.code == "TK101").findings
        assert "fault" in [row.what for row in finding.occurrences[0].chain]
        assert len(finding.notes) == 1


def test_a_trace_that_begins_much_later_is_no_continuation_unless_that_is_said() -> None:
    first, second = two_nights(TODAY.replace("5", "8"))
    states: list[Checkpoint] = []
    run(first, checkpoint=states.append, compiled=False)
    with pytest.raises(UsageError, match=r"begins 80 s after .* nobody knows what happened"):
        run(second, since=states[0], compiled=False)
    found = run(second, since=states[0], gap_ns=90_000_000_000, compiled=False).findings
    assert "TK101" in {f.code for f in found}
