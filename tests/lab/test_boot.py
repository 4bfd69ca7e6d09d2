"""The lab's command: what it says where something is missing, and that it brings answers back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.boot import boot, main
from lab.stock import MODULES, stock_kernel
from lab.tools import missing
from tracekit.errors import TracekitError


def test_a_machine_without_qemu_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TRACEKIT_LAB_KERNEL", __file__)
    monkeypatch.setattr("lab.boot.busybox", lambda: Path(__file__))
    assert main(["true"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: qemu-system-x86_64 is not installed\n  help: ")


def test_a_kernel_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACEKIT_LAB_KERNEL", str(tmp_path / "bzImage"))
    assert main(["true"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: no kernel for the lab at {tmp_path / 'bzImage'}\n  help: ")


def test_a_shared_folder_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["true", "--shared", __file__]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_the_kernel_s_builder_names_the_tools_it_lacks(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from lab.kernel import configure;"
        f"configure(Path('x.deb'), Path({str(tmp_path)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be built without make, gcc, bc, bison, flex" in done.stderr


@pytest.mark.lab
def test_output_and_exit_status_come_back(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    ran = boot("echo said; echo warned >&2; id -u; exit 7", shared=tmp_path)
    assert (ran.status, ran.stdout, ran.stderr) == (7, "said\n0\n", "warned\n")


@pytest.mark.lab
def test_a_guest_that_does_not_end_is_ended(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with pytest.raises(TracekitError, match="did not end within 8 s"):
        boot("sleep 100", shared=tmp_path, timeout=8)


@pytest.mark.lab
def test_a_kernel_that_patches_itself_under_both_processors_lives(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    stock = stock_kernel("6.12")
    ran = boot(
        f"sh {Path(__file__).parent / 'patching.sh'}",
        shared=tmp_path,
        kernel=stock.image,
        modules=stock.modules(*MODULES),
    )
    assert (ran.status, ran.stdout) == (0, "8\n")
