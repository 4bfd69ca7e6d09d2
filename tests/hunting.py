"""How long properties are hunted: `TRACEKIT_HUNT` examples, others each time, or a usual few."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ("hunted",)

HUNT = int(os.environ.get("TRACEKIT_HUNT", "0"))


def hunted(usual: int) -> settings:
    """Settings of a property that tests hold with ``usual`` examples, the same each time."""
    return settings(
        max_examples=HUNT or usual,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=not HUNT,
        database=None,
    )
