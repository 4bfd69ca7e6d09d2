"""What an input and a target are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

__all__ = ("COMPILED", "Case", "Check", "Target")

COMPILED = os.environ.get("TRACEKIT_FUZZ_COMPILED", "0") != "0"
"""Run the kernels as machine code whatever the input's size: with NUMBA_BOUNDSCHECK=1."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Files by their names, which of them are given, and what else is said.

    ``deep``: what is imported is also written again and replayed, which takes most of the time.
    """

    files: Mapping[str, bytes]
    inputs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    deep: bool = True

    def write(self, folder: Path) -> None:
        """Put the files there."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


Check = Callable[[Case, Path], str]
"""Tries an input whose files are in a folder; what came of it: ``read`` or ``refused``."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """``make``: an input of some randomness.  ``check``: try it; an exception is a finding.

    ``cases``: so many inputs are tried by `make check`, which take it one or two seconds.
    """

    make: Callable[[Random], Case]
    check: Check
    cases: int
