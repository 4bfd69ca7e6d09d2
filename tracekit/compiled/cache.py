"""Where machine code is kept between runs."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ("Cache", "cache_of")

_SETTINGS = ("NUMBA_OPT", "NUMBA_BOUNDSCHECK", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")


@functools.cache
def cache_of(sources: Path) -> Cache:
    """The cache of the kernel whose functions stand in the folder ``sources``."""
    return Cache(sources)


class Cache:
    """A folder for this version of a kernel's sources; ``NUMBA_CACHE_DIR`` says in which folder.

    Not beside the sources: the checkout or the wheel may be read-only.  A function has all that it
    calls compiled into it, so all of the kernel's sources count, and how they are
    compiled.
    """

    def __init__(self, sources: Path) -> None:
        digest = hashlib.sha256()
        for package in ("numba", "llvmlite"):
            digest.update(_version(package))
        for folder in (Path(__file__).parent, sources):
            for path in sorted(folder.glob("*.py")):
                digest.update(path.read_bytes())
        base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
        home = Path(base) if base else Path(os.path.expanduser("~/.cache"))
        names = "-".join(sources.parts[-2:])
        self.folder = home / "tracekit" / f"{names}-{digest.hexdigest()[:16]}"

    def holds(self, name: str) -> bool:
        """True if an earlier run left machine code of a function, for whatever arguments."""
        return any(self.folder.glob(f"{name}-*.code"))

    def path(self, name: str, key: str) -> Path:
        """Where a function for such arguments, on such a processor, is or would be."""
        settings = "\0".join(os.environ.get(s, "") for s in _SETTINGS)
        digest = hashlib.sha256(f"{key}\0{settings}".encode()).hexdigest()
        return self.folder / f"{name}-{digest[:16]}.code"

    def read(self, path: Path) -> tuple[dict[str, Any], bytes] | None:
        """What was kept, and what is to be known of it; None if it is not there, or not whole."""
        try:
            head, _, code = path.read_bytes().partition(b"\n")
            about = json.loads(head)
        except (OSError, ValueError):
            return None
        if not isinstance(about, dict) or about.get("sha256") != hashlib.sha256(code).hexdigest():
            return None
        return about, code

    def write(self, path: Path, about: dict[str, Any], code: bytes) -> None:
        """Keep it, if there is a place: who finds none compiles again next time."""
        about = {**about, "sha256": hashlib.sha256(code).hexdigest()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            os.fchmod(handle, 0o644)  # users of one machine may share it
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(json.dumps(about).encode() + b"\n" + code)
                os.replace(name, path)
            except OSError:
                os.unlink(name)
        except OSError:
            return


def _version(package: str) -> bytes:
    """What tells a version from others, without importing it or what reads packages' metadata."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return b"?"
    try:
        return Path(spec.origin).with_name("_version.py").read_bytes()
    except OSError:
        return str(os.stat(spec.origin).st_mtime_ns).encode()
