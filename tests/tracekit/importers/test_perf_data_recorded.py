"""What perf recorded on a real kernel, against what ``perf script`` says is in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import TracekitError
from tracekit.ftrace.tracepoints import TRACEPOINTS
from tracekit.importers import import_files, perf_data
from tracekit.store import Manifest

FOLDER = Path(__file__).parents[2] / "data" / "perf"
SAMPLES = sorted(FOLDER.glob("*.data"))
SHOWN = ("-F", "comm,tid,cpu,time,event,trace", "--ns")
LOST = {"lost": (78, 1)}
"""Events and LOST records, by ``perf script --show-lost-events``."""
_LINE = re.compile(
    r"^ *(.+?) +(\d+) \[(\d+)\] +(\d+)\.(\d{9}): +([\w-]+:\w+): *(.*)$", re.MULTILINE
)
_FIELD = re.compile(r"(\w+)(?:: |=)(0x[0-9a-f]+|-?\d+)")


def imported(path: Path, folder: Path, **options: bool) -> tuple[Manifest, list[dict[str, Any]]]:
    manifest = import_files([path], folder / "t.parquet", **options)  # type: ignore[arg-type]
    return manifest, pq.read_table(folder / "t.parquet").to_pylist()


def check(text: str, manifest: Manifest, rows: list[dict[str, Any]]) -> None:
    """Every line of the text is a row, and says the same."""
    lines = _LINE.findall(text)
    assert len(lines) == len(text.splitlines()) > 0
    assert Counter(line[5] for line in lines) == {
        r.name: r.count for r in manifest.recorded if r.count
    }
    known = [r for r in rows if r["event"] != "trace.lost"]
    where = [(r["ts_ns"], r["cpu"], r["tid"], r["comm"], r["source"]) for r in known]
    said = [(int(s + ns), int(cpu), int(tid), comm, event)
            for comm, tid, cpu, s, ns, event, _ in lines]  # fmt: skip
    assert where == sorted(said, key=lambda row: row[:2])
    of_place = dict(zip(where, known, strict=True))
    compared = 0
    for place, (*_, event, trace) in zip(said, lines, strict=True):
        if event not in TRACEPOINTS:
            continue
        fields = dict(_FIELD.findall(trace))
        for column, name in TRACEPOINTS[event].columns.items():
            value = fields.get(name, trace if column == "ret" else None)
            if value is not None:
                assert of_place[place][column] == int(value, 0), (event, column)
                compared += 1
    assert compared or all(line[5] not in TRACEPOINTS for line in lines)


@pytest.mark.parametrize("small", [True, False], ids=["plain", "compiled"])
@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_every_row_is_a_line_of_perf_script(
    path: Path, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf_data, "SMALL", 1 << 30 if small else 0)
    manifest, rows = imported(path, tmp_path)
    check(path.with_suffix(".txt").read_text(encoding="utf-8"), manifest, rows)
    assert (manifest.host, manifest.kernel, manifest.machine, manifest.cpus) == (
        "lab", "7.3.4-tracekit-lab", "x86_64", 2,
    )  # fmt: skip
    assert manifest.clock == ("perf" if path.stem == "default" else "mono")
    assert (manifest.lost_events, manifest.loss_marks) == LOST.get(path.stem, (0, 0))


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_perf_script_says_here_what_it_said_when_it_was_recorded(
    path: Path, tmp_path: Path
) -> None:
    run = subprocess.run(
        ["perf", "script", "-i", str(path), *SHOWN], capture_output=True, check=False
    )
    if run.returncode or not run.stdout:
        said = run.stderr.decode("utf-8", "replace").strip()
        pytest.skip(f"this machine's perf cannot read it: {said.splitlines()[-1:]}")
    check(run.stdout.decode("utf-8", "replace"), *imported(path, tmp_path))


def test_there_are_samples_of_all_kinds(tmp_path: Path) -> None:
    kinds = set()
    for path in SAMPLES:
        source = imported(path, tmp_path)[0].sources[0]
        kinds.add((source["format"], source["compression"], str(source["recorder"])[:6]))
    assert kinds >= {
        ("perf.data", "none", "perf 6"), ("perf.data", "zstd", "perf 6"),
        ("perf.data, pipe mode", "none", "perf 6"), ("perf.data", "zstd", "perf 7"),
    }  # fmt: skip


def test_the_moment_on_both_clocks_is_kept(tmp_path: Path) -> None:
    """What brings the recording together with files on the other clock."""
    manifest, rows = imported(FOLDER / "z.data", tmp_path)
    source = manifest.sources[0]
    mono, realtime = source["clock_pair_mono_ns"], source["clock_pair_realtime_ns"]
    assert isinstance(mono, int)
    assert isinstance(realtime, int)
    assert 0 < rows[0]["ts_ns"] - mono < 10**10
    assert realtime > 1_600_000_000 * 10**9


DEFINITIONS = """\
p:probe/kvm_vm_ioctl _text+164144 cmd=%si:u32 arg=%dx:u64
r10:probe/kvm_vm_ioctl__return _text+164144 ret=$retval:s32
"""
"""``dynamic_events`` of the guest where the probes were recorded."""


@pytest.mark.parametrize("definitions", ["", DEFINITIONS])
def test_probes_are_known_by_the_names_that_perf_probe_gave_them(
    tmp_path: Path, definitions: str
) -> None:
    (tmp_path / "dynamic_events").write_text(definitions)
    manifest = import_files(
        [FOLDER / "probes.data"], tmp_path / "t.parquet", probes=tmp_path / "dynamic_events"
    )
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert len(manifest.probes) == len(definitions.splitlines())
    assert {r["event"] for r in rows} == {"kvm.vm_ioctl", "kvm.vm_ioctl_returned"}
    assert {r["cmd"] for r in rows if r["event"] == "kvm.vm_ioctl"} == {0xAE03}
    assert "probe:kvm_vm_ioctl" in str(manifest.sources[0]["functions_by_event_name"])


@pytest.mark.parametrize("name", ["pipe.data", "z.data"])
@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    st.integers(0, 1 << 20) | st.just(0),
)
@settings(max_examples=40, deadline=None)
def test_damaged_files_give_a_trace_or_one_error(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    salvage: bool,
    flips: list[tuple[int, int]],
    cut: int,
) -> None:
    raw = bytearray((FOLDER / name).read_bytes())
    for at, value in flips:
        raw[at % len(raw)] = value
    folder = tmp_path_factory.mktemp("f")
    (folder / "f.data").write_bytes(bytes(raw[: len(raw) - cut % len(raw)]))
    try:
        manifest, rows = imported(folder / "f.data", folder, salvage=salvage)
    except TracekitError:
        assert not (folder / "t.parquet").exists()
        return
    assert len(rows) == manifest.rows


def test_every_cut_of_a_pipes_file_is_salvaged_to_its_last_whole_record(tmp_path: Path) -> None:
    raw = (FOLDER / "pipe.data").read_bytes()
    whole = {r["ts_ns"] for r in imported(FOLDER / "pipe.data", tmp_path)[1]}
    kept = set()
    for size in range(len(raw) * 2 // 3, len(raw), 997):
        (tmp_path / "cut.data").write_bytes(raw[:size])
        manifest, rows = imported(tmp_path / "cut.data", tmp_path, salvage=True)
        events = [r for r in rows if r["event"] != "trace.lost"]
        kept.add(len(events))
        assert {r["ts_ns"] for r in events} <= whole
        assert manifest.lost_unknown == (len(rows) > len(events))
        assert "cut off" in str(manifest.sources[0]["salvaged"])
    assert len(kept) > 2
