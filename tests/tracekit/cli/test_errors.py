"""Bad input and bad usage: exit 2, one screen that starts with ``error:``, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def refused(done: subprocess.CompletedProcess[str], said: str = "") -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4
    assert done.stdout == ""
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "missing command"),
        (["nonsense"], "no such command 'nonsense'"),
        (["replay"], "missing argument 'TRACE'"),
        (["replay", "x", "--nonsense"], "--nonsense"),
        (["replay", "x", "--grace", "1"], "has no unit"),
        (["replay", "x", "--grace", "1 fortnight"], "fortnight"),
        (["replay", "x", "--grace", "-1ms"], "not a duration"),
        (["replay", "x", "--grace", "9999999999s"], "more than a year"),
        (["replay", "x", "--fail-on", "big"], "is not one of"),
        (["replay", "x", "--max-undecided", "7"], "not between 0 and 1"),
        (["replay", "x", "--max-undecided", "nan"], "not between 0 and 1"),
        (["replay", "x", "--only", "TK1O1"], "TK101"),
        (["replay", "nothing.parquet"], "cannot read nothing.parquet: No such file"),
        (["explain", "stale-iomu-mapping"], "stale-iommu-mapping"),
        (["import", "nothing.dat"], "--output"),
        (["info", "/dev/zero"], "not a regular file"),
        (["replay", "/dev/zero"], "not a regular file"),
        (["replay", "a\x1b]0;title\x07"], "\\x1b]0;title\\x07"),
    ],
)
def test_bad_usage(run: Run, arguments: list[str], said: str) -> None:
    refused(run(*arguments), said)


@pytest.mark.parametrize("command", ["replay", "info"])
def test_files_that_are_no_trace(run: Run, tmp_path: Path, command: str, trace: Path) -> None:
    good = trace.read_bytes()
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "text.parquet").write_text("hello\n" * 100)
    (tmp_path / "cut.parquet").write_bytes(good[: len(good) // 2])
    flipped = bytearray(good)
    flipped[len(good) - 1000] ^= 4
    (tmp_path / "flipped.parquet").write_bytes(flipped)
    (tmp_path / "folder").mkdir()
    for name in ("empty.parquet", "text.parquet", "cut.parquet", "flipped.parquet", "folder"):
        refused(run(command, name), name)


@pytest.mark.parametrize(
    "content", [b"", b"hello\n" * 100, b"\x17\x08\x44tracing7\0" + b"\xff" * 99]
)
def test_files_that_are_no_recording_leave_nothing_behind(
    run: Run, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.dat").write_bytes(content)
    refused(run("import", "x.dat", "-o", "out.parquet"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.dat"]


@pytest.mark.parametrize("place", ["/dev/zero", ".", "nothing"])
def test_places_that_are_no_recording_leave_nothing_behind(
    run: Run, tmp_path: Path, place: str
) -> None:
    refused(run("import", place, "-o", "out.parquet"))
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_leaves_nothing_behind(
    run: Run, tmp_path: Path, trace: Path
) -> None:
    refused(run("replay", trace, "-o", "no/such/folder.txt"), "cannot write")
    assert sorted(p.name for p in tmp_path.iterdir()) == [trace.name]


def test_a_demo_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(run("demo", "-o", "file"), "cannot write")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(run: Run, tmp_path: Path, trace: Path) -> None:
    trace.chmod(0)
    refused(run("replay", trace), "Permission denied")


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = "exec 3>&1; { tracekit_ schema; echo $? >&3; } 2>&3 | head -n 1 >/dev/null"
    program = program.replace("tracekit_", f"{sys.executable} -m tracekit")
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception" not in done.stdout + done.stderr


def test_an_interrupt_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracekit.cli
    from tracekit.cli import main

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracekit.cli, "app", interrupted)
    assert main(["schema"]) == 130


def test_our_own_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracekit.cli
    from tracekit.cli import main

    def wrong(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(tracekit.cli, "app", wrong)
    with pytest.raises(AssertionError):
        main(["schema"])
