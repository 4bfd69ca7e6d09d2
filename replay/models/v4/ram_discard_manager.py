# SPDX-License-Identifier: Apache-2.0
"""The manager of populated and discarded memory, as a child of the generic one (patch 04)."""

from replay.models.v4.generic_state_manager import GenericStateManager, StateChangeListener

__all__ = ("RamDiscardListener", "RamDiscardManager")


class RamDiscardListener(StateChangeListener):
    """Set means populated, clear means discarded.

    With ``double_discard_supported`` an unregistration sends one discard for the whole section,
    parts included that are discarded already.

    C: ``RamDiscardListener``, include/exec/memory.h.
    """

    double_discard_supported: bool = True


class RamDiscardManager(GenericStateManager):
    """Adds nothing to its parent but its type, which is what migration code looks for.

    C: ``RamDiscardManagerClass``, include/exec/memory.h.
    """
