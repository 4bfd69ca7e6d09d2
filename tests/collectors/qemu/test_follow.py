"""A copy of QEMU's trace while it is written: whole lines, whole records, from files and pipes."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from collectors.qemu.events import arguments, offered
from collectors.qemu.follow import follow
from tracekit.errors import ImportFormatError, TracekitError

SAMPLES = Path(__file__).parents[2] / "data" / "qemu"
ROOT = Path(__file__).parents[3]


def in_pieces(path: Path, data: bytes, size: int) -> threading.Thread:
    """Somebody writes ``data`` to ``path``, ``size`` bytes at a time."""

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for at in range(0, len(data), size):
                file.write(data[at : at + size])
                time.sleep(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("sample", "format"), [("log-sample-10.2.2.txt", "log"), ("simpletrace.bin", "simple")]
)
def test_a_pipe_is_copied_until_its_writer_ends(tmp_path: Path, sample: str, format: str) -> None:
    data = (SAMPLES / sample).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = in_pieces(pipe, data, 700)
    told = follow(pipe, tmp_path / "copy", lambda: False)
    thread.join()
    assert (tmp_path / "copy").read_bytes() == data
    assert (told.format, told.bytes, told.cut) == (format, len(data), 0)
    assert told.events > 10


@pytest.mark.parametrize("sample", ["log-sample-11.1.3.txt", "simpletrace.bin"])
@pytest.mark.parametrize("cut", [1, 9, 100])
def test_the_copy_ends_with_a_whole_event(tmp_path: Path, sample: str, cut: int) -> None:
    data = (SAMPLES / sample).read_bytes()
    growing = tmp_path / "growing"
    growing.write_bytes(data[:-cut])
    told = follow(growing, tmp_path / "copy", lambda: True)
    copy = (tmp_path / "copy").read_bytes()
    assert data.startswith(copy)
    assert len(copy) + told.cut == len(data) - cut
    assert told.cut > 0
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def test_a_file_that_grows_is_copied_on(tmp_path: Path) -> None:
    data = (SAMPLES / "log-sample-10.0.2.txt").read_bytes()
    growing = tmp_path / "growing"
    growing.touch()
    thread = in_pieces(growing, data, 500)
    told = follow(growing, tmp_path / "copy", lambda: not thread.is_alive())
    thread.join()
    assert (tmp_path / "copy").read_bytes() == data
    assert told.events == data.count(b"\n")


def test_a_file_that_is_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    growing = tmp_path / "growing"
    growing.write_bytes(b"1@2.000003:virtio_mem_unplugged_all \n" * 3)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            growing.write_bytes(b"1@3.000003:virtio_mem_unplugged_all \n")
        return asked > 1

    told = follow(growing, tmp_path / "copy", stop)
    assert (told.again, told.events) == (1, 4)


def test_what_cannot_be_copied_is_said(tmp_path: Path) -> None:
    with pytest.raises(TracekitError, match="cannot open"):
        follow(tmp_path / "nothing", tmp_path / "copy", lambda: True)
    with pytest.raises(TracekitError, match="neither a file nor a named pipe"):
        follow(Path("/dev/null"), tmp_path / "copy", lambda: True)
    (tmp_path / "log").write_text("1@2.000003:virtio_mem_unplugged_all \n")
    (tmp_path / "there").touch()
    with pytest.raises(TracekitError, match="cannot make"):
        follow(tmp_path / "log", tmp_path / "there", lambda: True)


@pytest.mark.parametrize("record", [struct.pack("=Q", 7), struct.pack("=QQQI", 1, 2, 3, 1 << 30)])
def test_damaged_simpletrace_is_refused(tmp_path: Path, record: bytes) -> None:
    data = (SAMPLES / "simpletrace.bin").read_bytes()[:24]
    (tmp_path / "bin").write_bytes(data + record + bytes(32))
    with pytest.raises(ImportFormatError, match="a record of simpletrace"):
        follow(tmp_path / "bin", tmp_path / "copy", lambda: True)


def test_a_real_qemu_is_followed_and_imported(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    copier = subprocess.Popen(
        [sys.executable, "-m", "collectors.qemu", "follow", pipe, "-o", tmp_path / "qemu.log"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    machine = subprocess.Popen(
        [
            qemu, *arguments(offered(qemu), str(pipe)),
            "-nodefaults", "-display", "none", "-machine", "q35", "-m", "64M,maxmem=192M,slots=1",
            "-object", "memory-backend-ram,id=more,size=64M",
            "-device", "virtio-mem-pci,id=mem,memdev=more,requested-size=0",
            "-qmp", "stdio",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert machine.stdin is not None
    assert machine.stdout is not None
    assert copier.stderr is not None
    for command in ("qmp_capabilities", "system_reset", "quit"):
        machine.stdin.write(f'{{"execute": "{command}"}}\n')
        machine.stdin.flush()
    machine.stdout.read()
    machine.wait(60)
    said = copier.stderr.read()
    assert copier.wait(60) == 0, said
    assert "ready" in said
    assert " 0 lines" not in said
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "import", tmp_path / "qemu.log", "-o", tmp_path / "t"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_signal_ends_a_copy_with_130(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes((SAMPLES / "log-sample-10.0.2.txt").read_bytes())
    copier = subprocess.Popen(
        [sys.executable, "-m", "collectors.qemu", "follow", log, "-o", tmp_path / "copy"],
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert copier.stderr is not None
    assert copier.stderr.readline() == "ready\n"
    copier.send_signal(signal.SIGTERM)
    said = copier.stderr.read()
    assert copier.wait(30) == 130
    assert f"{log.read_bytes().count(10)} lines" in said
    assert (tmp_path / "copy").read_bytes() == log.read_bytes()
