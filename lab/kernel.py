"""Builds the lab's kernel from Debian's source package: ``python -m lab.kernel``.

Needs neither root nor a Debian of the same age: the package comes from the mirror that the
machine's apt is configured with, through a source list and lists of its own.  Everything is below
``build/lab``; the result is ``build/lab/bzImage``, which ``lab.boot`` finds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lab.tools import BUILT
from tracekit.errors import TracekitError

__all__ = ("build", "configure", "download", "main")

PACKAGE = "linux-source-7.3"
SUITES = ("trixie-backports", "sid")
"""Where the package may be, in this order."""
FRAGMENT = Path(__file__).parent / "kernel-7.3.config-fragment"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = ("make", "gcc", "bc", "bison", "flex", "pahole", "xz", "tar", "dpkg")
"""Programs that the build runs; libelf's and openssl's headers come on top."""


def download(folder: Path) -> Path:
    """The source package's file, in ``folder``.

    :raises TracekitError: apt cannot get it
    """
    found = sorted(folder.glob(f"{PACKAGE}_*.deb"))
    if found:
        return found[-1]
    said = ""
    for suite in SUITES:
        options = _own_apt(folder / f"apt-{suite}", suite)
        for command in (["update"], ["download", PACKAGE]):
            done = subprocess.run(
                ["apt-get", "-q", *options, *command],
                cwd=folder, capture_output=True, text=True, check=False,
            )  # fmt: skip
            said = done.stderr or done.stdout
            if done.returncode:
                break
        found = sorted(folder.glob(f"{PACKAGE}_*.deb"))
        if found:
            return found[-1]
    last = said.strip().splitlines()[-1:] or ["apt-get said nothing"]
    raise TracekitError(f"cannot download {PACKAGE}: {last[0]}")


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
        _run(["dpkg", "-x", str(package), str(folder / "package")])
        (archive,) = (folder / "package" / "usr" / "src").glob(f"{PACKAGE}.tar.*")
        _run(["tar", "-xf", str(archive), "-C", str(folder)])
    _run(["make", "-s", "-C", str(tree), "allnoconfig"], KCONFIG_ALLCONFIG=str(FRAGMENT))
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
    _run(["make", "-s", "-C", str(tree), f"-j{jobs}", "bzImage"])
    image = BUILT / "bzImage"
    temporary = image.with_suffix(".part")
    shutil.copyfile(tree / "arch" / "x86" / "boot" / "bzImage", temporary)
    os.replace(temporary, image)
    return image


def _own_apt(folder: Path, suite: str) -> list[str]:
    """Options with which apt uses one suite of the configured mirror, and folders of its own."""
    mirror = _mirror()
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
    (folder / "sources.list").write_text(f"deb {signed}{mirror} {suite} main\n", encoding="utf-8")
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def _mirror() -> str:
    """The address of Debian's archive, as the machine's apt knows it.

    :raises TracekitError: it knows none
    """
    try:
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(SUITE)|$(ORIGIN)|$(COMPONENT)"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        raise TracekitError("this machine has no apt: set TRACEKIT_LAB_KERNEL instead") from None
    rows = [line.split("|") for line in done.stdout.splitlines()]
    for uri, _, origin, component in (row for row in rows if len(row) == 4):
        if origin == "Debian" and component == "main" and not uri.rstrip("/").endswith("security"):
            return uri
    raise TracekitError("apt is not configured with Debian's archive, or apt-get update never ran")


def _run(command: list[str], **environment: str) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise TracekitError(f"{command[0]} failed: " + "\n".join(last))


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lab.kernel", description=__doc__)
    parser.add_argument("--configure-only", action="store_true", help="stop before the build")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    try:
        BUILT.mkdir(parents=True, exist_ok=True)
        tree = configure(download(BUILT), BUILT)
        print(tree if given.configure_only else build(tree, given.jobs))
    except TracekitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.help:
            print(f"  help: {error.help}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
