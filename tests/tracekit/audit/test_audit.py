"""A small fleet over three nights, by the command: verdicts, comparison, outputs, exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest
from junitparser import JUnitXml
from made_fleet import NIGHTS, place_of, small_fleet, write_config

from tracekit.cli import main

FLEET = small_fleet()


def audited(config: Path, *nights: str) -> list[int]:
    """The exit status of each night's audit."""
    return [main(["audit", str(config), "--night", night]) for night in nights or NIGHTS]


def written(folder: Path) -> dict[str, bytes]:
    """Every file that people read, by name."""
    kinds = ("nights/**/*", "history/**/*", "reports/**/*", "*.*")
    paths = {p for kind in kinds for p in folder.glob(kind) if p.is_file()}
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def told(folder: Path, night: int) -> dict[str, dict[str, object]]:
    """By stream, what the night's JSON says of its trace."""
    document = json.loads((folder / f"nights/{NIGHTS[night]}/audit.json").read_text())
    return {t["stream"]: t for t in document["traces"]}


@pytest.fixture(scope="module")
def done(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights audited in this process: the audit's folder."""
    folder = tmp_path_factory.mktemp("done")
    config = write_config(
        folder / "audit.toml",
        str(made),
        executor={"kind": "in-process"},
        outputs={"folder": "out", "trace_reports": "findings"},
    )
    assert audited(config) == [1, 1, 1]
    return folder / "out"


@pytest.mark.parametrize("night", range(3))
def test_every_verdict_is_right(done: Path, night: int) -> None:
    traces = told(done, night)
    document = json.loads((done / f"nights/{NIGHTS[night]}/audit.json").read_text())
    wrong = {f["stream"] for f in document["findings"] if f["severity"] == "error" and f["count"]}
    for member in FLEET:
        kind = member.kind(night)
        if kind == "missing":
            assert {"host": member.host, "stream": member.stream} in document["missing"]
            continue
        trace = traces[member.stream]
        assert trace["status"] == ("bad" if kind == "bad" else "judged"), member
        assert (member.stream in wrong) == (kind == "violated"), member
        assert bool(trace["lost_events"]) == (member.lossy and kind != "bad")
    assert len(document["missing"]) == sum(m.kind(night) == "missing" for m in FLEET)


def test_the_comparison_is_right(done: Path) -> None:
    states = {}
    for night in range(3):
        document = json.loads((done / f"nights/{NIGHTS[night]}/audit.json").read_text())
        for f in document["findings"]:
            if f["severity"] == "error":
                states.setdefault(f["stream"], ["", "", ""])[night] = f["state"]
    assert states == {
        "vm-00": ["new", "still", "still"],
        "vm-01": ["", "", "new"],
        "vm-02": ["new", "gone", "flapping"],
        "vm-03": ["new", "still", "gone"],
        "vm-08": ["new", "unjudged", "still"],
    }


def test_the_trend_has_the_nights_before(done: Path) -> None:
    trend = json.loads((done / "audit.json").read_text())["trend"]
    assert [row["night"] for row in trend] == list(NIGHTS)
    assert [row["bad"] for row in trend] == [0, 1, 1]
    assert [row["traces"] for row in trend] == [9, 9, 8]
    for row in trend:
        one = json.loads((done / f"nights/{row['night']}/audit.json").read_text())
        assert one["trend"][-1] == row


def test_verdicts_are_counted_by_kernel_and_qemu(done: Path) -> None:
    versions = json.loads((done / "audit.json").read_text())["versions"]
    assert {(v["kernel"], v["qemu"]): v["violated"] for v in versions} == {
        ("6.12.95", "10.1.2"): 3,
        ("7.3.4", "11.0.0"): 1,
    }


def test_processes_say_the_same_byte_for_byte(made: Path, tmp_path: Path) -> None:
    folders = []
    for kind in ("in-process", "processes"):
        config = write_config(
            tmp_path / f"{kind}.toml",
            str(made),
            executor={"kind": kind},
            outputs={"folder": kind, "trace_reports": "findings"},
        )
        assert audited(config, NIGHTS[2]) == [1]
        folders.append(written(tmp_path / kind))
    assert len(folders[0]) > 10
    assert folders[0] == folders[1]


def test_once_more_judges_nothing_and_writes_the_same(
    done: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(done)
    stamps = {p: p.stat().st_mtime_ns for p in done.glob("results/**/*.json")}
    assert audited(done.parent / "audit.toml") == [1, 1, 1]
    assert capsys.readouterr().out.count("0 traces judged, ") == 3
    assert written(done) == before
    assert {p: p.stat().st_mtime_ns for p in done.glob("results/**/*.json")} == stamps


def test_only_what_changed_is_judged_again(
    copied: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = copied()
    config = write_config(
        tmp_path / "audit.toml",
        "traces",
        executor={"kind": "in-process"},
        outputs={"trace_reports": "none"},
    )
    assert audited(config, NIGHTS[2]) == [1]
    assert "8 traces judged, 0 kept" in capsys.readouterr().out
    sound = FLEET[6]
    broken = place_of(traces, FLEET[5], 2)
    broken.write_bytes(place_of(traces, sound, 2).read_bytes())
    assert audited(config, NIGHTS[2]) == [1]
    out = capsys.readouterr().out
    assert "1 trace judged, 7 kept" in out
    assert "damaged" not in out
    config.write_text(config.read_text() + "[checks]\ngrace = '2ms'\n")
    assert audited(config, NIGHTS[2]) == [1]
    assert "8 traces judged, 0 kept" in capsys.readouterr().out


def test_the_newest_night_is_the_usual_one(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(done.parent / "audit.toml")]) == 1
    assert capsys.readouterr().out.startswith(f"audit {NIGHTS[2]}: 8 traces: ")


def test_an_older_night_does_not_replace_the_front_page(done: Path) -> None:
    before = (done / "index.html").read_bytes()
    assert NIGHTS[2].encode() in before
    assert audited(done.parent / "audit.toml", NIGHTS[0]) == [1]
    assert (done / "index.html").read_bytes() == before


def test_the_history_is_one_line_of_duckdb_and_of_polars(done: Path) -> None:
    history = done / "history"
    (rows,) = duckdb.sql(
        f"select count(*) from '{history}/findings/*.parquet' where state = 'new'"
    ).fetchall()
    frame = pl.scan_parquet(history / "findings" / "*.parquet").collect()
    assert rows[0] == frame.filter(pl.col("state") == "new").height > 0
    assert set(frame["night"].cast(pl.String)) == set(NIGHTS)
    (lossy,) = duckdb.sql(
        f"select sum(undecided), sum(map_extract(reasons, 'loss')[1]) from"
        f" '{history}/checks/*.parquet' where stream = 'vm-04'"
    ).fetchall()
    assert min(lossy) > 0
    bad = duckdb.sql(f"from '{history}/traces/*.parquet' where status = 'bad'").fetchall()
    assert len(bad) == 2


def test_junit_fails_where_the_audit_does(done: Path) -> None:
    document = JUnitXml.fromfile(str(done / "junit.xml"))
    top = (done / "junit.xml").read_text(encoding="utf-8").partition("<testsuite ")[0]
    assert "skipped" not in top  # Jenkins' schema has it for a suite only
    cases = {case.name: case for suite in document for case in suite}
    kinds = {name: [type(r).__name__ for r in case.result] for name, case in cases.items()}
    assert kinds["vm-00"] == ["Failure"]
    assert kinds["vm-05"] == ["Error"]
    assert kinds["vm-06"] == []
    assert kinds["vm-07"] == ["Error"]
    assert kinds[NIGHTS[2]] == ["Failure"]
    assert (document.tests, document.failures, document.errors) == (10, 5, 2)
    assert "TK101" in (cases["vm-00"].result[0].text or "")


def test_metrics_are_prometheus_text(done: Path) -> None:
    lines = (done / "metrics.prom").read_text().splitlines()
    sample = re.compile(r'tracekit_audit_\w+\{audit="nightly"(,\w+="[^"\\]*")*\} -?[\d.e+]+')
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        assert line.startswith("#") or sample.fullmatch(line), line
        assert line.startswith("#") or line.partition("{")[0] in names
    assert 'tracekit_audit_failed{audit="nightly"} 1' in lines
    assert 'tracekit_audit_traces{audit="nightly",status="bad"} 1' in lines
    assert 'tracekit_audit_streams{audit="nightly",verdict="violated"} 4' in lines


def test_the_summary_says_what_changed(done: Path) -> None:
    text = (done / "summary.md").read_text()
    assert text.startswith(f"## nightly {NIGHTS[2]}: fails\n")
    for title in ("### New (3)", "### Flapping (2)", "### Gone (3)", "### Still there (7)"):
        assert title in text
    assert "`host-01 vm-05`: vm=vm-05/trace.parquet is damaged" in text


def test_links_of_the_front_page_lead_to_the_reports(done: Path) -> None:
    for page in (done / "index.html", done / "nights" / NIGHTS[2] / "index.html"):
        links = set(re.findall(r'href="([^"#]+)(?:#[^"]*)?"', page.read_text()))
        assert len(links) == 4
        for link in links:
            assert (page.parent / link).is_file(), link


def test_thresholds_decide_the_exit_status(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(night: str, **thresholds: object) -> int:
        config = write_config(
            tmp_path / "audit.toml",
            str(made),
            executor={"kind": "in-process"},
            outputs={"trace_reports": "none"},
            thresholds=thresholds,
        )
        with config.open("a") as file:
            for number in range(9):
                file.write(
                    f'[[ignore]]\nstream = "vm-0{number}"\nreason = "known"\nuntil = 2026-11-21\n'
                )
        return audited(config, night)[0]

    assert status(NIGHTS[0]) == 0
    assert "ignored" in capsys.readouterr().out
    assert status(NIGHTS[1]) == 1
    assert "fails: 1 trace could not be read" in capsys.readouterr().out
    assert status(NIGHTS[1], max_bad_traces=1) == 0
    assert status(NIGHTS[1], max_bad_traces=1, max_undecided=0.2) == 1
    assert "TK102: 42.9% could not be judged, more than 20.0%" in capsys.readouterr().out
    assert status(NIGHTS[1], max_bad_traces=1, max_undecided_rise=0.01) == 1
    assert "what could not be judged rose by" in capsys.readouterr().out
    # The rules have expired on the third night.
    assert status(NIGHTS[2], max_bad_traces=1, max_missing=1) == 1
    out = capsys.readouterr().out
    assert "fails: 7 findings of severity error or worse" in out
    assert "ignore rule expired on 2026-11-21: the rule for stream vm-00 (known)" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.toml"], "error: cannot read none.toml"),
        (["audit.toml", "--night", "yesterday"], "error: --night 'yesterday' is not a date"),
        (["audit.toml", "--night", "2026-02-30"], "error: --night '2026-02-30' is not a date"),
        (["audit.toml"], "error: there is no host= folder in"),
        (["lost.toml"], "error: cannot list"),
        (["dask.toml"], "error: the scheduler tcp://127.0.0.1:9 does not answer"),
    ],
)
def test_bad_usage_is_one_line(made: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    write_config(tmp_path / "audit.toml", "empty")
    write_config(tmp_path / "lost.toml", "nowhere")
    dask = {"kind": "dask", "scheduler": "tcp://127.0.0.1:9"}
    write_config(tmp_path / "dask.toml", str(made), executor=dask)
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "audit", *arguments],
        cwd=tmp_path,
        env={**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "audit").exists()
