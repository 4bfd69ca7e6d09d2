"""One file per finding code, named by the bad thing that it finds.

Adding one: write the file, import it here (sorted), and add its five tests.
"""

from replay.checks._define import CHECKS, Check, Need
from replay.checks.bisected_unmap import BisectedUnmap
from replay.checks.clock_trouble import ClockTrouble
from replay.checks.close_handshake import CloseHandshake
from replay.checks.diverging_conversion import DivergingConversion
from replay.checks.dma_entry_limit import DmaEntryLimit
from replay.checks.double_map import DoubleMap
from replay.checks.early_linger_return import EarlyLingerReturn
from replay.checks.in_place_order import InPlaceOrder
from replay.checks.invalid_conversion import InvalidConversion
from replay.checks.lost_events import LostEvents
from replay.checks.lost_rollback import LostRollback
from replay.checks.mapping_leak import MappingLeak
from replay.checks.missing_iommu_mapping import MissingIommuMapping
from replay.checks.overlong_linger import OverlongLinger
from replay.checks.premature_map import PrematureMap
from replay.checks.stale_iommu_mapping import StaleIommuMapping
from replay.checks.unexpected_linger import UnexpectedLinger
from replay.checks.unsent_bytes_dropped import UnsentBytesDropped
from replay.checks.use_after_discard import UseAfterDiscard
from replay.checks.vsock_accounting import VsockAccounting
from replay.checks.wrong_side_discard import WrongSideDiscard

__all__ = (
    "CHECKS",
    "BisectedUnmap",
    "Check",
    "ClockTrouble",
    "CloseHandshake",
    "DivergingConversion",
    "DmaEntryLimit",
    "DoubleMap",
    "EarlyLingerReturn",
    "InPlaceOrder",
    "InvalidConversion",
    "LostEvents",
    "LostRollback",
    "MappingLeak",
    "MissingIommuMapping",
    "Need",
    "OverlongLinger",
    "PrematureMap",
    "StaleIommuMapping",
    "UnexpectedLinger",
    "UnsentBytesDropped",
    "UseAfterDiscard",
    "VsockAccounting",
    "WrongSideDiscard",
)
