"""The order in which a kernel's modules are loaded, and packages laid out as a system."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.modules import content, load_order
from lab.packages import unpack
from lab.stock import stock_kernel
from tracekit.errors import TracekitError


def module(path: Path, depends: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"\x7fELF..\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)


def test_a_module_comes_after_what_it_needs(tmp_path: Path) -> None:
    module(tmp_path / "kernel/fs/9p/9p.ko.xz", "9pnet,netfs")
    module(tmp_path / "kernel/net/9p/9pnet.ko", "")
    module(tmp_path / "kernel/net/9p/9pnet_virtio.ko", "9pnet,virtio-ring")
    (tmp_path / "modules.builtin").write_text("kernel/fs/netfs/netfs.ko\nkernel/virtio_ring.ko\n")
    order = load_order(tmp_path, ["9p", "9pnet-virtio"])
    assert [p.name for p in order] == ["9pnet.ko", "9p.ko.xz", "9pnet_virtio.ko"]
    assert content(order[1]).startswith(b"\x7fELF")


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    module(tmp_path / "a.ko", "b")
    with pytest.raises(TracekitError, match=f"the kernel of {tmp_path.name} has no module b"):
        load_order(tmp_path, ["a"])


def test_a_kernel_that_is_not_offered_is_refused() -> None:
    with pytest.raises(TracekitError, match=r"no stock kernel 5\.10; there are 6\.1, 6\.12, 7"):
        stock_kernel("5.10")


def test_packages_are_laid_out_with_merged_usr(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    for name, place in (("one", "lib/modules/x"), ("two", "usr/lib/modules/y")):
        (tmp_path / name / "DEBIAN").mkdir(parents=True)
        (tmp_path / name / "DEBIAN" / "control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@b>\n"
            "Description: nothing\n"
        )
        (tmp_path / name / place).parent.mkdir(parents=True)
        (tmp_path / name / place).write_text(name)
        subprocess.run(["dpkg-deb", "-b", tmp_path / name], check=True, capture_output=True)
    tree = unpack([tmp_path / "one.deb", tmp_path / "two.deb"], tmp_path / "tree")
    assert (tree / "lib").is_symlink()
    assert (tree / "usr/lib/modules/x").read_text() == "one"
    assert (tree / "lib/modules/y").read_text() == "two"
    (tmp_path / "broken.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(TracekitError, match=r"cannot unpack broken\.deb"):
        unpack([tmp_path / "broken.deb"], tmp_path / "other")
    assert not (tmp_path / "other").exists()
