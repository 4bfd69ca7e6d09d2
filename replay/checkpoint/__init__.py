"""The state of a replay at the end of a trace, from which the next trace is taken up."""

from replay.checkpoint.checkpoint import Checkpoint, Options

__all__ = ("Checkpoint", "Options")
