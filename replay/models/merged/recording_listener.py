# SPDX-License-Identifier: Apache-2.0
"""A listener that writes down what it hears, and refuses what it is told to."""

from collections.abc import Mapping

from replay.models.counted import counted
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.merged.ram_discard_manager import RamDiscardListener
from replay.models.notification import Notification, NotificationKind, Refusals

__all__ = ("RecordingListener",)


class RecordingListener(RamDiscardListener):
    """Ours.  Give several the same ``log`` to see the order among them.

    ``refuse_populate`` maps the number of a call to the errno it gets.
    """

    def __init__(
        self,
        name: str = "listener",
        log: list[Notification] | None = None,
        *,
        double_discard_supported: bool = True,
        refuse_populate: Mapping[int, int] | None = None,
    ) -> None:
        self.name = name
        self.log: list[Notification] = [] if log is None else log
        self.double_discard_supported = double_discard_supported
        self._populate = Refusals(refuse_populate)

    def notify_populate(self, section: MemoryRegionSection) -> None:
        """Write down that the section is populated."""
        errno = self._populate.next()
        self.log.append(Notification(self.name, NotificationKind.POPULATE, section, errno))
        self._populate.answer(errno)

    def notify_discard(self, section: MemoryRegionSection) -> None:
        """Write down that the section is discarded."""
        self.log.append(Notification(self.name, NotificationKind.DISCARD, section))

    def __repr__(self) -> str:
        return f"RecordingListener({self.name!r}, {counted(len(self.log), 'notification')})"
