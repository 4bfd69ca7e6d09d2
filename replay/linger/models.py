"""Which model of lingering a trace is judged by."""

from __future__ import annotations

import re
from collections.abc import Iterable

from replay.models.vsock_linger_core import VsockLingerCore
from replay.models.vsock_linger_series import VsockLingerSeries
from replay.models.vsock_linger_virtio import VsockLingerVirtio

__all__ = ("MODELS", "LingerModel", "model_of")

LingerModel = VsockLingerVirtio | VsockLingerSeries | VsockLingerCore
MODELS: dict[str, LingerModel] = {
    m.name: m for m in (VsockLingerVirtio(), VsockLingerSeries(), VsockLingerCore())
}
"""By the name that ``--linger-model`` takes."""


def model_of(kernel: str | None, probed: Iterable[str | None]) -> LingerModel | None:
    """The model of a kernel by its version; ``None``: nothing says which.

    ``probed``: the functions that the recording's probes were on: vsock_linger() is in none before
    the merged form.
    """
    if "vsock_linger" in probed:
        return MODELS["merged"]
    found = re.match(r"(\d+)\.(\d+)", kernel or "")
    if found is None:
        return None
    return MODELS["merged" if (int(found[1]), int(found[2])) >= (6, 16) else "legacy"]
