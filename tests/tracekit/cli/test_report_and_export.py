"""`report`, `export` and the formats of `replay`, as a user runs them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from judging import events_of
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

from tracekit.cli import main
from tracekit.store import open_trace, write_events

STALE = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  map 0x100000+2M
    9us   vmm  private 0x100000+2M
    12us  vmm  punch 0x100000+2M
    15us  vmm  unmap 0x101000+4K ret=-22
    20us  vmm  run
    90us  end
"""


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in an empty folder, in this process: what is tested is what it says."""

    def command(*arguments: str | Path) -> Done:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return command


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trace with a stale mapping, and an unmap that was refused."""
    path = tmp_path_factory.mktemp("stale") / "t.parquet"
    write_events(path, events_of(STALE))
    return path


FORMATS = ("text", "json", "junit", "sarif", "markdown")


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if ".part" in p.name]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_holds_what_stdout_shows(run: Run, stale: Path, tmp_path: Path, format: str) -> None:
    trace = stale
    shown = run("replay", trace, "--format", format)
    written = run("replay", trace, "--format", format, "-o", "r")
    assert (shown.returncode, written.returncode) == (1, 1)
    assert shown.stdout == (tmp_path / "r").read_text(encoding="utf-8")
    assert written.stdout == ""
    assert shown.stderr == ""


def test_junit_fails_as_the_exit_status_says(run: Run, stale: Path) -> None:
    trace = stale
    given = {
        "--only TK105": 0,
        "--only TK105 --fail-on warning": 1,
        "--only TK301": 0,
        "--only TK301 --strict": 1,
    }
    for options, status in given.items():
        done = run("replay", trace, "--format", "junit", *options.split())
        assert done.returncode == status, options
        assert ET.fromstring(done.stdout).get("failures") == str(status), options


def test_a_limit_keeps_the_worst(run: Run, stale: Path) -> None:
    done = run("replay", stale, "--limit", "1")
    assert done.stdout.count("error[TK") + done.stdout.count("warning[TK") == 1
    assert "not shown because of --limit 1: " in done.stdout
    assert done.returncode == 1
    assert run("replay", stale, "--limit", "-1").returncode == 2


def test_report_writes_one_page_and_says_so(run: Run, stale: Path, tmp_path: Path) -> None:
    done = run("report", stale, "-o", "r.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("r.html: 0.")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert left_behind(tmp_path) == []


def test_the_demo_says_where_its_page_is(demo: Path) -> None:
    assert (demo / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_repeats_the_options_that_decided(run: Run, stale: Path, tmp_path: Path) -> None:
    assert run("report", stale, "-o", "r.html", "--grace", "2ms").returncode == 0
    assert "--only TK101 --grace 2ms" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_exports_hold_every_event(run: Run, stale: Path, tmp_path: Path) -> None:
    trace = stale
    rows = len(open_trace(trace))
    for name in ("t.csv", "t.arrow", "t.pftrace"):
        done = run("export", trace, "-o", name)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{rows:,} events" in done.stdout
    table = pl.read_csv(tmp_path / "t.csv", infer_schema_length=None)
    assert table.height == rows
    with pa.ipc.open_file(tmp_path / "t.arrow") as file:
        arrow = file.read_all()
    assert arrow.num_rows == rows
    assert arrow.column("iova").to_pylist() == table["iova"].to_list()
    parsed = Trace()
    parsed.ParseFromString((tmp_path / "t.pftrace").read_bytes())
    assert len(parsed.packet) > rows // 2
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "T"], "missing option '-o' / '--output'"),
        (["report", "nothing.parquet", "-o", "r.html"], "nothing.parquet"),
        (["report", "T", "-o", "none/r.html"], "cannot write none/r.html: No such file"),
        (["report", "T", "-o", "r.html", "--grace", "soon"], "--grace"),
        (["export", "T", "-o", "t.xls"], "t.xls does not say which format is meant"),
        (["export", "T", "-o", "none/t.csv"], "cannot write none/t.csv: No such file"),
        (["export", "T", "-o", "none/t.arrow"], "cannot write none/t.arrow: No such file"),
        (["export", "T", "-o", "none/t.pftrace"], "cannot write none/t.pftrace: No such file"),
        (["export", "bad.parquet", "-o", "t.csv"], "bad.parquet"),
        (["replay", "T", "--format", "xml"], "xml"),
    ],
)
def test_errors_are_one_screen_and_leave_nothing(
    run: Run, stale: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "bad.parquet").write_bytes((stale).read_bytes()[:-100])
    given = [str(stale) if a == "T" else a for a in arguments]
    done = run(*given)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.parquet"]


def test_a_trace_that_breaks_off_leaves_no_half_export(
    run: Run, stale: Path, tmp_path: Path
) -> None:
    raw = bytearray((stale).read_bytes())
    raw[200:600] = bytes(400)
    (tmp_path / "bad.parquet").write_bytes(raw)
    for name in ("t.csv", "t.arrow", "t.pftrace"):
        done = run("export", "bad.parquet", "-o", name)
        assert done.returncode == 2, done.stdout
        assert done.stderr.startswith("error: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.parquet"]


def test_sarif_has_the_finding(run: Run, stale: Path) -> None:
    done = run("replay", stale, "--format", "sarif", "--only", "TK101")
    (found,) = json.loads(done.stdout)["runs"][0]["results"]
    assert found["ruleId"] == "TK101"
    assert found["partialFingerprints"]["tracekitFindingId/v1"].startswith("TK101-")
