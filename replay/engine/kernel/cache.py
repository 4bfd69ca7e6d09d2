"""Where the compiled kernel is kept between runs."""

from __future__ import annotations

import functools
import hashlib
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ("cache_folder", "is_cached")


@functools.cache
def cache_folder() -> Path:
    """A folder of this version of the kernel's sources; ``NUMBA_CACHE_DIR`` goes before it.

    numba looks only at the file that a cached function stands in, but an entry point has all of the
    kernel compiled into it; and the checkout or the wheel may be read-only.
    """
    digest = hashlib.sha256()
    try:
        digest.update(version("numba").encode())
    except PackageNotFoundError:
        digest.update(b"?")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path(os.path.expanduser("~/.cache"))
    return home / "tracekit" / f"kernel-{digest.hexdigest()[:16]}"


def is_cached() -> bool:
    """True if an earlier run left the compiled kernel."""
    return any(cache_folder().glob("**/*.nbi"))
