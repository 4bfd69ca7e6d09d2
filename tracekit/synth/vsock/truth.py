"""What was planted in a made recording."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Planted",)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One broken rule: the finding's code, whose socket, and an interval that holds the finding's.

    ``local`` and ``peer``: CID and port; null where no event tells them.
    """

    code: str
    local: tuple[int, int] | None
    peer: tuple[int, int] | None
    from_ns: int
    until_ns: int
    known_ns: int
    """When the socket was made: what is recorded from here on is all that one must know of it."""
