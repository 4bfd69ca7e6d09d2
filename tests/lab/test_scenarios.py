"""How a replay is held against a workload's own log, without booting anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.boot import main as boot_main
from lab.scenarios import GUESTS, Judgement
from lab.workloads import linger, mini_vmm

ROOT = Path(__file__).parents[2]


def test_what_was_found_too_often_is_another() -> None:
    judged = Judgement(
        expected=("TK101 error 0x0+0x1000", "TK105 warning 0x1000+0x1000"),
        found=("TK101 error 0x0+0x1000", "TK101 error 0x0+0x1000"),
        document={},
    )
    assert judged.others == ("TK101 error 0x0+0x1000",)


def test_every_kernel_and_way_of_the_issue_is_there() -> None:
    by_name = {g.name: {w.name for w in g.workloads} for g in GUESTS}
    assert {"linger", "type1"} <= by_name["stock 6.12"] & by_name["stock 7"]
    assert {"linger", "type1", "iommufd"} <= by_name["lab"]
    assert by_name["lab, one processor"] == {"qemu"}
    assert [g.name for g in GUESTS if g.bcc] == ["stock 6.1"]


def test_every_mistake_of_the_mini_vmm_has_its_own_pages() -> None:
    last = mini_vmm.MISTAKES_AT + 8 * mini_vmm.PAGE * len(mini_vmm.MISTAKES)
    assert last <= 16 * mini_vmm.MiB
    assert set(mini_vmm.WITHOUT_KVM) < set(mini_vmm.MISTAKES)


@pytest.mark.parametrize(
    ("release", "case", "waited", "legacy", "merged"),
    [
        ("6.12.95", "read", 0.7, [], ["TK302"]),
        ("7.3.4", "read", 0.0, ["TK301"], []),
        ("7.3.4", "starved", 1.0, ["TK301"], []),
        ("7.3.4", "starved to the end", 1.0, [], []),
        ("7.3.4", "starved and interrupted", 0.5, [], []),
        ("6.12.95", "starved and interrupted", 0.5, [], []),
        ("6.12.95", "zero", 0.0, [], []),
    ],
)
def test_what_a_linger_is_by_the_other_model(
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    case: str,
    waited: float,
    legacy: list[str],
    merged: list[str],
) -> None:
    uname = os.uname_result(("Linux", "lab", release, "", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: uname)
    found = linger.expected(linger.CASES[case], 10**9, 10**9 + int(waited * 1e9))
    assert found == {"legacy": legacy, "merged": merged}


def test_a_guest_that_does_not_start_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "qemu-system-x86_64"
    shared = tmp_path / "shared"
    shared.mkdir()
    fake.write_text(
        f"#!/bin/sh\ncd {shared}\necho once >> ../starts\n"
        '[ "$(wc -l < ../starts)" -gt 1 ] || exec sleep 100\n'
        "echo running > state; echo hello > stdout; echo 3 > status\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr("lab.boot.qemu", lambda: fake)
    monkeypatch.setattr("lab.boot.busybox", lambda: Path(__file__))
    monkeypatch.setattr("lab.boot.START_S", 1.0)
    assert boot_main(["true", "--shared", str(shared), "--kernel", __file__]) == 3
    said = capsys.readouterr()
    assert said.out == "hello\n"
    assert "the guest did not start; once more" in said.err


def test_where_nothing_boots_the_tests_end_with_2(tmp_path: Path) -> None:
    emulator = tmp_path / "qemu-system-x86_64"  # so that it is the kernel that is missing
    emulator.write_text("")
    emulator.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "TRACEKIT_LAB_KERNEL": str(tmp_path / "bzImage")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "lab", "tests/lab/test_boot.py"],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the lab cannot boot: no kernel for the lab" in done.stdout + done.stderr
    ready = subprocess.run(
        [sys.executable, "-m", "lab.tools"],
        env=env, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ready.returncode, ready.stdout[:20]) == (2, "no kernel for the la")


def test_a_log_of_the_mini_vmm_can_be_read_back() -> None:
    row = {"start_ns": 1, "stop_ns": 2}
    found = mini_vmm.expect("TK101", "error", 0x1000, 4096, row, row)
    assert json.loads(json.dumps(found))["from_ns"] == [1, 2]
