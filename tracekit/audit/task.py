"""One trace to be judged, and how."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from tracekit import __version__
from tracekit.audit.config import Checks, Reports
from tracekit.audit.results import Kept
from tracekit.audit.sources import Found
from tracekit.store import Place, locate

__all__ = ("Settings", "Task", "below")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all tasks of an audit have in common; a worker gets nothing else.

    ``folder``: of the audit, a path or URI that the worker reaches.
    """

    folder: str
    checks: Checks
    reports: Reports
    shard_events: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """One trace.  ``since``: what is kept of the trace before it, if that is to be gone on from."""

    found: Found
    settings: Settings
    since: Kept | None = None

    @property
    def key(self) -> str:
        """Changes with everything that the result depends on."""
        before = self.since.digest if self.since else None
        said = [__version__, asdict(self.found), asdict(self.settings.checks)]
        whole = json.dumps([*said, self.settings.reports.value, before])
        return hashlib.sha256(whole.encode()).hexdigest()


def below(folder: str, name: str) -> Place:
    """A file in the audit's folder."""
    return locate(folder) / name
