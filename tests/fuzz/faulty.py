"""Targets that are wrong on purpose: what the harness must see and survive."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import numpy as np
from fuzz import limits
from fuzz.define import Case, Target

__all__ = ("FAULTY",)

AT = 4
"""The try that goes wrong: the first input is tried twice, so it is number 2."""


def _make(rng: Random) -> Case:
    return Case(files={"x": rng.randbytes(4)})


class _Every:
    """Passes, but for one input."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._tried = 0

    def __call__(self, case: Case, folder: Path) -> str:
        self._tried += 1
        if self._tried != AT:
            return "read"
        if self._fault == "raises":
            raise KeyError("x")
        if self._fault == "dies":
            os.abort()
        if self._fault == "endless":
            while True:
                pass
        if self._fault == "waits":
            time.sleep(3600)
        np.ones(limits.MEMORY_BYTES + (8 << 20), np.uint8)
        return "read"


FAULTY = {
    f"faulty-{fault}": Target(make=_make, check=_Every(fault), cases=5)
    for fault in ("raises", "dies", "endless", "waits", "memory")
}
