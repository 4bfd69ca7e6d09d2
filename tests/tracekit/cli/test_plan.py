"""``tracekit plan`` prints a script and writes nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tracekit.cli.plan import serves

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("purpose", ["dma", "linger"])
@pytest.mark.parametrize("form", ["trace-cmd", "sh", "bpftrace"])
def test_a_script_is_printed_and_nothing_written(
    run: Run, tmp_path: Path, purpose: str, form: str
) -> None:
    done = run("plan", "--purpose", purpose, "--format", form)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/sh\n# Records ")
    assert f"tracekit plan --purpose {purpose} --format {form}" in done.stdout
    assert "exit $status\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_s_version_leaves_out_what_it_cannot_have(run: Run) -> None:
    assert "kvm:kvm_vm_set_mem_attributes" in run("plan").stdout
    assert "kvm:kvm_vm_set_mem_attributes" not in run("plan", "--kernel", "6.12.95").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--purpose", "dmaa"), "did you mean dma"),
        (("--format", "trace_cmd"), "did you mean trace-cmd"),
        (("--kernel", "newest"), "'newest' is no kernel version"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("plan", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_sections_name_the_checks_that_need_them(run: Run) -> None:
    codes = serves()
    assert "TK101" in codes["iommu.map"]
    script = run("plan").stdout
    needed = {code for line in script.splitlines() if "needed by" in line for code in line.split()}
    needed |= {w for line in script.splitlines() if line.startswith("# TK") for w in line.split()}
    assert {c for cs in codes.values() for c in cs if c < "TK3"} <= needed


def test_a_script_without_tracefs_or_root_changes_nothing(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "record.sh"
    text = run("plan", "--format", "sh").stdout
    script.write_text(text.replace("/sys/kernel", str(tmp_path / "nowhere")))
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no tracefs at ")
    assert [p.name for p in tmp_path.iterdir()] == ["record.sh"]
