"""Debian's packages, of any of its suites, unpacked into a folder and never installed.

The packages come from the mirror that the machine's apt is configured with, through a source list
and lists of their own, so that neither root nor a Debian of the same age is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.tools import BUILT
from tracekit.errors import TracekitError

__all__ = ("Suite", "run", "unpack")

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
EVERYWHERE = frozenset(
    ("libc6", "libgcc-s1", "libstdc++6", "gcc-12-base", "zlib1g", "libtinfo6", "python3")
)
"""Never unpacked: the guest takes these from the host."""
PATIENCE = 900
"""Seconds that one command of apt may take."""


class Suite:
    """One suite of Debian's archive, and what was downloaded of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = BUILT / "debian" / name
        self._options: list[str] = []

    def depends(self, package: str) -> list[str]:
        """What a package needs, without alternatives and versions.

        :raises TracekitError: the suite has no such package, or there is no apt
        """
        shown = self._apt("apt-cache", "show", "--no-all-versions", package)
        found = re.search(r"^Depends: (.*)$", shown, re.MULTILINE)
        if found is None:
            return []
        return [re.split(r"[ (|:]", part.strip())[0] for part in found[1].split(",")]

    def closure(self, *packages: str) -> list[str]:
        """Packages and all that they need, but for what every Debian has."""
        found: list[str] = []
        open = list(packages)
        while open:
            package = open.pop(0)
            if package not in found and package not in EVERYWHERE:
                found.append(package)
                open += self.depends(package)
        return found

    def download(self, package: str) -> Path:
        """The package's file.

        :raises TracekitError: it cannot be had
        """
        found = sorted(self.folder.glob(f"{package}_*.deb"))
        if not found:
            self._apt("apt-get", "-q", "download", package)
            found = sorted(self.folder.glob(f"{package}_*.deb"))
        if not found:
            raise TracekitError(f"apt did not download {package} of {self.name}")
        return found[-1]

    def _apt(self, *command: str) -> str:
        if not self._options:
            self._options = self._own_lists()
        program, *words = command
        return run([program, *self._options, *words], folder=self.folder)

    def _own_lists(self) -> list[str]:
        """Options with which apt uses this suite only, and folders of its own."""
        mirror = _mirror()
        folder = self.folder / "apt"
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        signed = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
        source = f"deb {signed}{mirror} {self.name} main\n"
        (folder / "sources.list").write_text(source, encoding="utf-8")
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        run(["apt-get", "-q", *options, "update"], folder=self.folder)
        return options


def unpack(packages: list[Path], folder: Path) -> Path:
    """The files of packages as one tree, laid out as a system with merged /usr; ``folder``.

    A tree that is there already is taken as it is.

    :raises TracekitError: a package cannot be unpacked
    """
    if folder.is_dir():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (part / "usr" / name).mkdir(parents=True)
        (part / name).symlink_to(Path("usr") / name)
    for package in packages:
        archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        with archive:
            done = subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", part],
                stdin=archive.stdout, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode or archive.returncode:
            raise TracekitError(f"cannot unpack {package.name}: {done.stderr.strip()}")
    os.replace(part, folder)
    return folder


def run(
    command: list[str],
    *,
    folder: Path | None = None,
    timeout: float | None = PATIENCE,
    environment: dict[str, str] | None = None,
) -> str:
    """What a command printed.

    :raises TracekitError: it is not there, fails or takes too long; with its last words
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except OSError as why:
        raise TracekitError(f"cannot run {command[0]}: {why.strerror}") from None
    except subprocess.TimeoutExpired:
        raise TracekitError(f"{command[0]} took longer than {timeout:g} s") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise TracekitError(f"{command[0]} failed: " + "\n".join(last))
    return done.stdout


def _mirror() -> str:
    """The address of Debian's archive, as the machine's apt knows it.

    :raises TracekitError: it knows none
    """
    said = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(SUITE)|$(ORIGIN)|$(COMPONENT)"]
    )
    rows = [line.split("|") for line in said.splitlines()]
    for uri, _, origin, component in (row for row in rows if len(row) == 4):
        if origin == "Debian" and component == "main" and not uri.rstrip("/").endswith("security"):
            return uri
    raise TracekitError("apt is not configured with Debian's archive, or apt-get update never ran")
