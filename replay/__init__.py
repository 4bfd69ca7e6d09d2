"""The engine: events in, findings out.  Pure: no clocks, no root, no files but a checkpoint's."""

from __future__ import annotations

from typing import Any

__all__ = ("Checkpoint", "run")


def __getattr__(name: str) -> Any:
    # replay.models is used without the engine, and the engine's imports are heavy
    if name == "run":
        from replay.pipeline import run

        return run
    if name == "Checkpoint":
        from replay.checkpoint import Checkpoint

        return Checkpoint
    raise AttributeError(name)
