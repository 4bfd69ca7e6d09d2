"""A night goes on from the night before, and a long trace is cut: neither changes a verdict."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from judging import events_of
from made_fleet import write_config
from matrix.judge import SMALL
from often import write_often

from tracekit.audit.config import Checks, Reports
from tracekit.audit.judging import judge_one
from tracekit.audit.results import Kept
from tracekit.audit.sources import Found
from tracekit.audit.task import Settings, Task
from tracekit.cli import main
from tracekit.store import Manifest, TraceWriter, open_trace, write_events
from tracekit.store.schema import batch_schema
from tracekit.synth.generate import generate

NIGHTS = ("2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23")
# A mapping of the first night whose page becomes private on the second, and is unmapped on the
# fourth.  The third night says nothing of it.
STORY = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  map 0x100000+2M
    10us  vmm  run
    100us vmm  private 0x100000+1M
    110us vmm  run
    200us vmm  run
    300us vmm  unmap 0x100000+2M
    310us vmm  run
"""
CUTS = (50, 150, 250)


def nights_of(folder: Path, story: str = STORY, cuts: tuple[int, ...] = CUTS) -> Path:
    """The story as one trace a night, cut at those microseconds."""
    whole = folder / "whole.parquet"
    write_events(whole, events_of(story), Manifest(host="a", kernel="7.3"))
    schema = batch_schema()
    (batch,) = open_trace(whole).batches(schema.names)
    times = [t // 1000 for t in batch.column("ts_ns").to_pylist()]
    edges = [0, *(next(i for i, t in enumerate(times) if t >= cut) for cut in cuts), len(times)]
    for night, (a, b) in enumerate(pairwise(edges)):
        out = folder / "traces" / "host=a" / f"date={NIGHTS[night]}" / "vm=web" / "0.parquet"
        out.parent.mkdir(parents=True)
        with TraceWriter(out) as writer:
            writer.write(batch.slice(a, b - a))
            writer.finish(Manifest(host="a", kernel="7.3"))
    return folder / "traces"


def audited(folder: Path, sources: Path, count: int, **checks: object) -> list[dict[str, object]]:
    config = write_config(
        folder / "audit.toml",
        str(sources),
        executor={"kind": "in-process"},
        checks={"recorded": sorted(open_trace(folder / "whole.parquet").manifest.events), **checks},
    )
    documents = []
    for night in NIGHTS[:count]:
        main(["audit", str(config), "--night", night])
        documents.append(json.loads((folder / f"audit/nights/{night}/audit.json").read_text()))
    return documents


def states(document: dict[str, object], code: str = "TK101") -> list[str]:
    rows = document["findings"]
    assert isinstance(rows, list)
    return [row["state"] for row in rows if row["code"] == code]


def test_a_mapping_of_yesterday_is_found_today_until_it_is_removed(tmp_path: Path) -> None:
    documents = audited(tmp_path, nights_of(tmp_path), 4)
    assert [states(d) for d in documents] == [[], ["new"], ["still"], ["still"]]
    last = audited(tmp_path, tmp_path / "traces", 4)[-1]
    assert last == documents[-1]
    traces = [d["traces"][0] for d in documents]  # type: ignore[index]
    assert [t["since"] for t in traces] == [False, True, True, True]
    assert sum(t["events"] for t in traces) == len(open_trace(tmp_path / "whole.parquet"))


def test_it_is_gone_on_the_night_after_it_was_removed(tmp_path: Path) -> None:
    story = STORY + "    400us vmm  private 0x300000+1M\n    410us vmm  run\n"
    cuts = (50, 150, 350)
    documents = audited(tmp_path, nights_of(tmp_path, story, cuts), 4)
    assert [states(d) for d in documents] == [[], ["new"], ["still"], ["gone"]]


def test_without_the_chain_nobody_could_know(tmp_path: Path) -> None:
    documents = audited(tmp_path, nights_of(tmp_path), 2, chain=False)
    assert [states(d) for d in documents] == [[], []]
    assert not (tmp_path / "audit" / "checkpoints").exists()


def test_the_report_of_a_chained_night_is_made_and_says_how_to_see_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = audited(tmp_path, nights_of(tmp_path), 3)
    trace = documents[2]["traces"][0]  # type: ignore[index]
    assert trace["notes"] == []
    page = (tmp_path / "audit" / trace["report"]).read_text()
    assert "--from " in page
    state = next((tmp_path / "audit" / "checkpoints" / NIGHTS[1]).iterdir())
    capsys.readouterr()
    assert main(["replay", trace["trace"], "--from", str(state), "--only", "TK101"]) == 1
    assert "error[TK101]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: p.unlink(), "begins anew: the state before is not there"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "begins anew: "),
        (lambda p: p.write_bytes(b"x" * 100), "begins anew: "),
    ],
)
def test_a_state_that_is_gone_or_damaged_is_told_and_done_without(
    tmp_path: Path, spoil: object, said: str
) -> None:
    sources = nights_of(tmp_path)
    audited(tmp_path, sources, 1)
    (state,) = (tmp_path / "audit" / "checkpoints" / NIGHTS[0]).iterdir()
    spoil(state)  # type: ignore[operator]
    config = tmp_path / "audit.toml"
    assert main(["audit", str(config), "--night", NIGHTS[1]]) == 0
    document = json.loads((tmp_path / "audit" / "audit.json").read_text())
    (trace,) = document["traces"]
    assert trace["status"] == "judged"
    assert trace["since"] is False
    assert trace["notes"][0].startswith(said)


def test_a_clock_that_began_anew_is_another_boot(tmp_path: Path) -> None:
    sources = nights_of(tmp_path)
    first = sources / "host=a" / f"date={NIGHTS[0]}"
    second = sources / "host=a" / f"date={NIGHTS[1]}"
    first.rename(first.with_name("date=later"))
    second.rename(first)
    first.with_name("date=later").rename(second)
    documents = audited(tmp_path, sources, 2)
    trace = documents[1]["traces"][0]  # type: ignore[index]
    assert trace["since"] is False
    assert "begins before the checkpoint's trace ended" in trace["notes"][0]


def test_a_night_long_after_the_last_one_begins_anew_unless_the_host_was_silent(
    tmp_path: Path,
) -> None:
    sources = nights_of(tmp_path, STORY.replace("    100us vmm", "    100s vmm  run\n    101s vmm")
                        .replace("110us", "102s").replace("200us", "200s")
                        .replace("300us", "300s").replace("310us", "310s"),
                        (50, 150_000_000, 250_000_000))  # fmt: skip
    trace = audited(tmp_path, sources, 2)[1]["traces"][0]  # type: ignore[index]
    assert trace["since"] is False
    assert "nobody knows what happened meanwhile" in trace["notes"][0]
    (tmp_path / "audit.toml").unlink()
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "whole.parquet").rename(again / "whole.parquet")
    documents = audited(again, sources, 2, gap="5min")
    assert [d["traces"][0]["since"] for d in documents] == [False, True]  # type: ignore[index]
    assert [states(d) for d in documents] == [[], ["new"]]


def test_a_night_on_which_less_came_is_begun_anew_unless_it_was_recorded(tmp_path: Path) -> None:
    documents = audited(tmp_path, nights_of(tmp_path), 2, recorded=[])
    trace = documents[1]["traces"][0]  # type: ignore[index]
    assert trace["status"] == "judged"
    assert trace["since"] is False
    assert "is of a trace without kvm.attributes" in trace["notes"][0]


def test_old_states_are_removed(tmp_path: Path) -> None:
    sources = nights_of(tmp_path)
    config = write_config(
        tmp_path / "audit.toml",
        str(sources),
        executor={"kind": "in-process"},
        outputs={"folder": "audit", "checkpoint_nights": 2},
    )
    for night in NIGHTS:
        main(["audit", str(config), "--night", night])
    kept = sorted(p.name for p in (tmp_path / "audit" / "checkpoints").iterdir())
    assert kept == list(NIGHTS[2:])


# --- shards ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trace as a folder of many segments, as a long capture is."""
    folder = tmp_path_factory.mktemp("long")
    whole = folder / "whole.parquet"
    generate("parallel-vcpus", whole, seed=5, events=2400, fault="missing-unmap",
             parameters=SMALL["parallel-vcpus"])  # fmt: skip
    out = folder / "segments"
    out.mkdir()
    trace = open_trace(whole)
    schema = batch_schema()
    for number, batch in enumerate(trace.batches(schema.names, rows=200)):
        with TraceWriter(out / f"{number:06}.parquet", first_seq=number * 200) as writer:
            writer.write(batch)
            writer.finish(Manifest(host=trace.manifest.host, kernel=trace.manifest.kernel))
    return out


def task(trace: Path, folder: Path, events: int) -> Task:
    found = Found(host="a", stream="web", night=NIGHTS[0], trace=str(trace), size=1, stamp="x")
    settings = Settings(
        folder=str(folder), checks=Checks(), reports=Reports.NONE, shard_events=events
    )
    return Task(found=found, settings=settings)


def test_shards_of_segments_say_what_the_whole_trace_does(long: Path, tmp_path: Path) -> None:
    whole = judge_one(task(long, tmp_path / "whole", 1 << 40))
    assert {f.code for f in whole.result.findings} >= {"TK101"}
    for events in (400, 1000):
        shards = list(open_trace(long).shards(events))
        assert len(shards) > 2
        assert sum(len(s) for s in shards) == len(open_trace(long))
        cut = judge_one(task(long, tmp_path / str(events), events))
        assert cut.result == whole.result
        assert cut.totals == whole.totals


def test_row_groups_of_one_file_are_shards_too(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    generate("dma-ring", path, seed=2, events=600_000)
    trace = open_trace(path)
    shards = list(trace.shards(300_000))
    assert [len(s) for s in shards][:-1] == [262_144] * (len(shards) - 1) != []
    assert sum(len(s) for s in shards) == len(trace)
    assert (
        sum((s.manifest.events["iommu.map"] for s in shards), 0)
        == (trace.manifest.events["iommu.map"])
    )
    seqs = [n for s in shards for b in s.batches(["seq"]) for n in b.column(0).to_pylist()]
    assert seqs == list(range(len(trace)))
    assert [len(s.scan().collect()) for s in shards] == [len(s) for s in shards]
    assert shards[1].rows([5, 262_150], ["ts_ns"]).column("seq").to_pylist() == [262_150]
    first, second = shards[0].manifest.span_ns, shards[1].manifest.span_ns
    assert first is not None
    assert second is not None
    assert first[1] <= second[0]


def test_who_goes_on_after_a_killed_worker_goes_on_at_its_shard(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracekit.audit.replaying as replaying

    real, seen = replaying.run, []

    def counted(shard: object, **options: object) -> object:
        seen.append(shard)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(shard, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(replaying, "run", counted)
    one = task(long, tmp_path / "audit", 400)
    with pytest.raises(KeyboardInterrupt):
        judge_one(one)
    every = len(list(open_trace(long).shards(400)))
    before = len(seen)
    again: Kept = judge_one(one)
    assert len(seen) - before == every - 3
    assert again.result == judge_one(task(long, tmp_path / "whole", 1 << 40)).result
    assert not list((tmp_path / "audit" / "checkpoints").rglob("*.shards"))


def test_a_finding_that_occurs_often_is_one_row_and_a_small_page(tmp_path: Path) -> None:
    sizes = {}
    for count in (200, 2000):
        trace = tmp_path / f"{count}.parquet"
        write_often(trace, count)
        one = task(trace, tmp_path / str(count), 1 << 40)
        one = replace(one, settings=replace(one.settings, reports=Reports.ALL))
        result = judge_one(one).result
        (finding,) = (f for f in result.findings if f.code == "TK101")
        assert finding.count == count
        assert result.report is not None
        page = tmp_path / str(count) / result.report
        sizes[count] = page.stat().st_size, page.with_suffix(".json").stat().st_size
    for few, many in zip(*sizes.values(), strict=True):
        assert many < 1.05 * few


def test_parts_of_one_night_are_a_chain_and_only_the_changed_and_later_are_judged_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = nights_of(tmp_path)
    day = sources / "host=a" / f"date={NIGHTS[0]}"
    for number, night in enumerate(NIGHTS):
        out = day / f"web-20261120T0{number}0000"
        (sources / "host=a" / f"date={night}" / "vm=web").rename(out)
        if number:
            (sources / "host=a" / f"date={night}").rmdir()
    (document,) = audited(tmp_path, sources, 1)
    traces = document["traces"]
    assert isinstance(traces, list)
    assert [(t["stream"], t["since"]) for t in traces] == [
        ("web", False), ("web", True), ("web", True), ("web", True),
    ]  # fmt: skip
    assert states(document) == ["new"]
    capsys.readouterr()
    (again,) = audited(tmp_path, sources, 1)
    assert again == document
    assert "0 traces judged, 4 kept" in capsys.readouterr().out
    os.utime(day / "web-20261120T020000" / "0.parquet", ns=(1, 1))
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "audit/checkpoints").rglob("*.checkpoint")}
    (again,) = audited(tmp_path, sources, 1)
    assert again == document
    touched = [p for p, stamp in kept.items() if p.stat().st_mtime_ns != stamp]
    # The first two are as they were.
    assert 1 <= len(touched) <= 2
