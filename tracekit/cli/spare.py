"""What libraries would import only to ask about it, and no command uses."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

__all__ = ("spare_imports",)

UNUSED = frozenset(("pandas", "cffi"))
"""pyarrow imports pandas to know whether what it is given is of it; numba does so with cffi.  Where
both are installed they are a third of a small replay's time, and 40 MB."""


class _Absent(MetaPathFinder):
    """Says of some modules that they are not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """None, which leaves the name to others; of the unused, ModuleNotFoundError."""
        if name in UNUSED:
            raise ModuleNotFoundError(f"{name} is left out of tracekit's commands", name=name)


def spare_imports() -> None:
    """Let this process do without them: a command's own process, never a library's user."""
    sys.meta_path.insert(0, _Absent())
