"""Builds the lab's kernel from Debian's source package: ``python -m lab.kernel``.

Needs neither root nor a Debian of the same age: the package comes from the mirror that the
machine's apt is configured with, through a source list and lists of its own.  Everything is below
``build/lab``; the result is ``build/lab/bzImage``, which ``lab.boot`` finds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from lab.packages import Suite, run
from lab.tools import BUILT
from tracekit.errors import TracekitError

__all__ = ("build", "configure", "download", "main")

PACKAGE = "linux-source-7.3"
SUITES = ("trixie-backports", "sid")
"""Where the package may be, in this order."""
FRAGMENT = Path(__file__).parent / "kernel-7.3.config-fragment"
TOOLS = ("make", "gcc", "bc", "bison", "flex", "pahole", "xz", "tar", "dpkg")
"""Programs that the build runs; libelf's and openssl's headers come on top."""


def download() -> Path:
    """The source package's file.

    :raises TracekitError: no suite has it
    """
    last: TracekitError | None = None
    for suite in SUITES:
        try:
            return Suite(suite).download(PACKAGE)
        except TracekitError as error:
            last = error
    assert last is not None
    raise last


def configure(package: Path, folder: Path) -> Path:
    """The unpacked and configured source tree.

    :raises TracekitError: a tool is missing, or the configuration lacks what the fragment asks for
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise TracekitError(
            f"the kernel cannot be built without {', '.join(missing)}",
            help="Debian: apt-get install build-essential bc bison flex dwarves xz-utils"
            " libelf-dev libssl-dev",
        )
    tree = folder / PACKAGE
    if not (tree / "Makefile").is_file():
        run(["dpkg", "-x", str(package), str(folder / "package")])
        (archive,) = (folder / "package" / "usr" / "src").glob(f"{PACKAGE}.tar.*")
        run(["tar", "-xf", str(archive), "-C", str(folder)])
    run(
        ["make", "-s", "-C", str(tree), "allnoconfig"],
        environment={"KCONFIG_ALLCONFIG": str(FRAGMENT)},
    )
    have = set((tree / ".config").read_text(encoding="utf-8").splitlines())
    lost = [
        line
        for line in FRAGMENT.read_text(encoding="utf-8").splitlines()
        if line.endswith("=y") and line not in have
    ]
    if lost:
        raise TracekitError(f"the kernel's configuration dropped {', '.join(lost[:5])}")
    return tree


def build(tree: Path, jobs: int) -> Path:
    """The kernel image of a configured tree, put where ``lab.boot`` looks."""
    run(["make", "-s", "-C", str(tree), f"-j{jobs}", "bzImage"], timeout=None)
    image = BUILT / "bzImage"
    temporary = image.with_suffix(".part")
    shutil.copyfile(tree / "arch" / "x86" / "boot" / "bzImage", temporary)
    os.replace(temporary, image)
    return image


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lab.kernel", description=__doc__)
    parser.add_argument("--configure-only", action="store_true", help="stop before the build")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    try:
        BUILT.mkdir(parents=True, exist_ok=True)
        tree = configure(download(), BUILT)
        print(tree if given.configure_only else build(tree, given.jobs))
    except TracekitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.help:
            print(f"  help: {error.help}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
