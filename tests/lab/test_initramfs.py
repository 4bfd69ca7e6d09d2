"""The guest's first file system, as an independent program reads it."""

from __future__ import annotations

import gzip
import stat
import subprocess
from pathlib import Path

import pytest

from lab.initramfs import Entry, cpio, initramfs


def parsed(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Names, modes and contents, by the format's description."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        words = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = archive[at + 110 : at + 110 + words[11] - 1].decode()
        start = (at + 110 + words[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (words[1], archive[start : start + words[6]])
        at = (start + words[6] + 3) // 4 * 4


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4097])
def test_what_goes_in_comes_out(size: int) -> None:
    content = bytes(n % 251 for n in range(size))
    name = "f" * (size % 7 + 1)
    entries = [
        Entry(name="folder", mode=stat.S_IFDIR | 0o755),
        Entry(name=name, mode=stat.S_IFREG | 0o644, content=content),
        Entry(name="after", mode=stat.S_IFREG | 0o600, content=b"x"),
    ]
    found = parsed(cpio(entries))
    assert found[name] == (stat.S_IFREG | 0o644, content)
    assert found["after"] == (stat.S_IFREG | 0o600, b"x")


def test_cpio_reads_it_too(tmp_path: Path) -> None:
    archive = cpio([Entry(name="a", mode=stat.S_IFREG | 0o644, content=b"hello")])
    try:
        done = subprocess.run(
            ["cpio", "-i", "--quiet", "--to-stdout", "a"],
            input=archive, capture_output=True, cwd=tmp_path, check=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("cpio is not installed")
    assert done.stdout == b"hello"


def test_the_script_and_modules_are_in_it(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF")
    module = tmp_path / "9p.ko"
    module.write_bytes(b"module")
    found = parsed(gzip.decompress(initramfs(busybox, b"#!/bin/sh\n", [module])))
    assert found["init"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["modules/000.ko"][1] == b"module"
    assert stat.S_ISCHR(found["dev/console"][0])


def test_the_same_input_makes_the_same_archive(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF")
    assert initramfs(busybox, b"x") == initramfs(busybox, b"x")
