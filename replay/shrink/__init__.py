"""The smallest trace that still shows a finding (docs/shrinking.md)."""

from replay.shrink.shrink import Options, Shrunk, shrink
from replay.shrink.table_trace import TableTrace

__all__ = ("Options", "Shrunk", "TableTrace", "shrink")
