"""QEMU's own trace output, while it is written: which events to ask for, and a copy of them."""

from __future__ import annotations

from collectors.qemu.events import EVENTS, arguments, events_of, offered
from collectors.qemu.follow import Followed, follow

__all__ = ("EVENTS", "Followed", "arguments", "events_of", "follow", "offered")
