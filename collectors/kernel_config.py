"""The running kernel's configuration, where it tells: /proc/config.gz or /boot/config-RELEASE."""

from __future__ import annotations

import gzip
import os
import re
from functools import cache
from pathlib import Path

__all__ = ("kernel_config",)

_SET = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)


@cache
def kernel_config(root: Path = Path("/")) -> dict[str, str]:
    """Options that are set, by name; empty where the kernel does not tell.

    An option that is not in a configuration that is known is not set.
    """
    for path in (
        root / "proc" / "config.gz",
        root / "boot" / f"config-{os.uname().release}",
        root / "lib" / "modules" / os.uname().release / "config",
    ):
        try:
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(
                "utf-8", "replace"
            )
        except (OSError, EOFError, ValueError):
            continue
        return {name: value.strip('"') for name, value in _SET.findall(text)}
    return {}
