"""The engine: events in, findings out.  Pure: no files written, no clocks, no root."""

from __future__ import annotations

from typing import Any

__all__ = ("run",)


def __getattr__(name: str) -> Any:
    # replay.models is used without the engine, and the engine's imports are heavy
    if name == "run":
        from replay.pipeline import run

        return run
    raise AttributeError(name)
