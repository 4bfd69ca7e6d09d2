"""The optional BPF source: what tracefs cannot read, where Debian's python3-bpfcc is installed."""

from __future__ import annotations

from collectors.bcc.source import BccSource, available, record

__all__ = ("BccSource", "available", "record")
