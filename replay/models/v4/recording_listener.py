# SPDX-License-Identifier: Apache-2.0
"""A listener that writes down what it hears, and refuses what it is told to."""

from collections.abc import Mapping

from replay.models.counted import counted
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.notification import Notification, NotificationKind, Refusals
from replay.models.v4.private_shared_manager import PRIORITY_COMMON, PrivateSharedListener

__all__ = ("RecordingListener",)


class RecordingListener(PrivateSharedListener):
    """Ours.  Give several the same ``log`` to see the order among them.

    ``refuse_populate`` and ``refuse_discard`` map the number of a call to the errno it gets.
    """

    def __init__(
        self,
        name: str = "listener",
        log: list[Notification] | None = None,
        *,
        priority: int = PRIORITY_COMMON,
        refuse_populate: Mapping[int, int] | None = None,
        refuse_discard: Mapping[int, int] | None = None,
    ) -> None:
        self.name = name
        self.log: list[Notification] = [] if log is None else log
        self.priority = priority
        self._populate = Refusals(refuse_populate)
        self._discard = Refusals(refuse_discard)

    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        """Write down that the section is shared."""
        errno = self._populate.next()
        self.log.append(Notification(self.name, NotificationKind.POPULATE, section, errno))
        self._populate.answer(errno)

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        """Write down that the section is private."""
        errno = self._discard.next()
        self.log.append(Notification(self.name, NotificationKind.DISCARD, section, errno))
        self._discard.answer(errno)

    def __repr__(self) -> str:
        return f"RecordingListener({self.name!r}, {counted(len(self.log), 'notification')})"
