"""``tracekit collect``: what it refuses, what it says, how it exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import collectors.session
from collectors.plans import PLANS
from collectors.session import Collected, Options, Progress
from collectors.tracefs.install import Installed, LeftOut
from tracekit.cli import main
from tracekit.errors import TracekitError

Say = Callable[[Progress], None]
Ready = Callable[[Installed], None]


def a_recording(
    signal_number: int = 0, **more: object
) -> Callable[[Options, Say, Ready], Collected]:
    """What a recording would be, without one."""

    def collect(options: Options, tell: Say, ready: Ready) -> Collected:
        made = Installed(left_out=[LeftOut("iommu:map", "no events of iommu")])
        ready(made)
        progress = Progress(seconds=2.0, events=1000, lost=3, moved=40_960, cpu_s=0.1)
        tell(progress)
        return Collected(progress=progress, installed=made, signal=signal_number, **more)  # type: ignore[arg-type]

    return collect


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--purpose", "dna"], "there is no purpose 'dna'"),
        (["--only", "perf"], "there is no source 'perf'"),
        (["--clock", "local"], "there is no clock 'local'"),
        (["--purpose", "none"], "--purpose none records nothing"),
        (["--spool", "--max-segments", "3"], "--spool makes no segments"),
        (["--buffer", "12"], "--buffer '12' is not a size"),
        (["--buffer", "4G"], "--buffer 4G is not between 16K and 1G"),
        (["--max-size", "0M"], "--max-size '0M' is nothing"),
        (["--flush", "1ms"], "--flush 1ms is too often"),
        (["--duration", "5"], "--duration '5' has no unit"),
    ],
)
def test_what_cannot_be_meant_is_one_error_and_makes_nothing(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", "-o", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectors.session, "find_tracefs", lambda: None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    assert main(["collect", "-o", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_where_nothing_could_be_recorded_no_folder_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, tell: Say, ready: Ready) -> Collected:
        raise TracekitError("another tracekit collect records for this purpose")

    monkeypatch.setattr(collectors.session, "find_tracefs", lambda: None)
    monkeypatch.setattr(collectors.session._Session, "run", fail)
    assert main(["collect", "-o", str(tmp_path / "out")]) == 2
    assert "another tracekit collect" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "status"), [(0, 0), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_asked_to_end_it_is_130(
    number: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectors.session, "collect", a_recording(number))
    assert main(["collect", "-o", str(tmp_path / "out")]) == status


def test_in_a_pipe_it_says_what_is_left_out_and_how_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"silent": ["get_credit never fired, vsock:virtio_transport_alloc_pkt 812 times"]}
    monkeypatch.setattr(collectors.session, "collect", a_recording(**more))
    assert main(["collect", "--spool", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err == (
        "left out: iommu:map: no events of iommu\nready: recording; Ctrl-C ends it\n"
    )
    out = tmp_path / "out"
    assert said.out == (
        f"{out}: 1,000 events in 2.0 s, 3 lost, 0.0 MB of pages moved with 5.0% of a CPU\n"
        "blind: get_credit never fired, vsock:virtio_transport_alloc_pkt 812 times\n"
        f"next: tracekit import {out} -o trace.parquet\n"
    )


def test_on_a_terminal_there_is_a_line_that_goes_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectors.session, "collect", a_recording())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["collect", "-o", str(tmp_path / "out")]) == 0
    line = capsys.readouterr().err.split("\n")[-1]
    assert "2 s  0 events/s  3 lost  0.0 MB" in line
    assert line.endswith("\r")


def test_what_stays_in_the_kernel_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        collectors.session, "collect", a_recording(problems=["cannot remove the probe a:b"])
    )
    assert main(["collect", "-o", str(tmp_path / "out")]) == 2
    assert "doctor --clean" in capsys.readouterr().err


def test_every_probe_names_others_of_its_plan_as_fired_with() -> None:
    for plan in PLANS.values():
        known = {p.name for p in plan.probes} | {
            i.source
            for i in plan.items
            if i not in plan.probes  # type: ignore[union-attr]
        }
        for probe in plan.probes:
            assert set(probe.fires_with) <= known - {probe.name}, probe.name


def test_without_root_it_is_one_error_that_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = tmp_path / "tracing"
    (tracing / "events").mkdir(parents=True)
    (tracing / "instances").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    real = collectors.session.find_tracefs
    monkeypatch.setattr(collectors.session, "find_tracefs", lambda: real((tracing,)))
    assert main(["collect", "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "may be used by root only" in said
    assert "sudo" in said


def test_spooling_loads_nothing_heavy() -> None:
    program = (
        "import sys, tracekit.cli.collect, collectors.session, collectors.snapshot;"
        "print([m for m in ('polars', 'numba', 'pyarrow', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr
