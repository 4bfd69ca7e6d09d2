"""What libraries do for programs that live long, and a command spares itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ("spare",)

UNUSED = frozenset(("pandas", "cffi"))
"""pyarrow imports pandas to know whether what it is given is of it; numba does so with cffi.  Where
both are installed they are a third of a small replay's time, and 40 MB."""


class _Absent:
    """Says of some modules that they are not installed: a finder of ``sys.meta_path``."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """None, which leaves the name to others; of the unused, ModuleNotFoundError."""
        if name in UNUSED:
            raise ModuleNotFoundError(f"{name} is left out of tracekit's commands", name=name)


def spare() -> None:
    """Let this process do without them: a command's own process, never a library's user.

    Nor does Arrow keep memory that it has freed: a trace in pieces needs little at a time.
    """
    sys.meta_path.insert(0, _Absent())
    # typer's own pydantic would look through all that is installed for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if sys.platform == "linux":  # where Arrow is always built with it; elsewhere it would warn
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
