"""Where reports take :func:`~tracekit.escape.visible` from."""

from __future__ import annotations

from tracekit.escape import visible

__all__ = ("visible",)
