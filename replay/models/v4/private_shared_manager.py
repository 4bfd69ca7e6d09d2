# SPDX-License-Identifier: Apache-2.0
"""The manager of private and shared memory, a child of the generic one (patches 05 and 12)."""

from replay.models.v4.generic_state_manager import GenericStateManager, StateChangeListener

__all__ = (
    "PRIORITY_COMMON",
    "PRIORITY_MIN",
    "PrivateSharedListener",
    "PrivateSharedManager",
)

#: The attribute change: first to shared, last to private.
PRIORITY_MIN = 0
#: VFIO.
PRIORITY_COMMON = 10


class PrivateSharedListener(StateChangeListener):
    """Set means shared, clear means private; lower ``priority`` hears first on the way to shared.

    C: ``PrivateSharedListener``, include/exec/memory.h.
    """

    priority: int = PRIORITY_COMMON


class PrivateSharedManager(GenericStateManager):
    """Not a RamDiscardManager: code that looks for one does not see private memory.

    C: ``PrivateSharedManagerClass``, include/exec/memory.h.
    """
