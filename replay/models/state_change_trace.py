# SPDX-License-Identifier: Apache-2.0
"""The trace event of a state change, which came with the merged code."""

from typing import NamedTuple

__all__ = ("StateChangeTrace",)


class StateChangeTrace(NamedTuple):
    """Trace event ``ram_block_attributes_state_change``.

    ``before`` is discarded, populated or mixture, ``after`` discarded or populated.  Emitted for
    no-ops too, not for invalid requests, and before anything can fail.  It names no RAM block.
    """

    offset: int
    size: int
    before: str
    after: str
