"""The state of a replay at the end of a trace, from which the next trace is taken up."""

from replay.checkpoint.checkpoint import MOST_GAP_NS, Checkpoint, Options

__all__ = ("MOST_GAP_NS", "Checkpoint", "Options")
