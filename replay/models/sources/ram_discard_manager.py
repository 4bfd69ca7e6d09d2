# SPDX-License-Identifier: Apache-2.0
"""One manager for each region, which asks all its sources (QEMU 11.1).

Read at two commits of June 2026, in no release yet.  What it does with listeners and sources was
run; what its consumers make of it was not.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from replay.models.block_bitmap import SectionCallback
from replay.models.counted import counted
from replay.models.errors import AbortError, BusyError, NotFoundError, UpstreamError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_section, check_u64
from replay.models.merged import ram_discard_manager as merged
from replay.models.merged.ram_discard_manager import RamDiscardListener
from replay.models.sources.ram_discard_source import RamDiscardSource

__all__ = ("RamDiscardManager",)


class RamDiscardManager(merged.RamDiscardManager):
    """Populated is what **all** sources have populated.

    C: ``RamDiscardManager``, system/ram-discard-manager.c.
    """

    def __init__(self, mr: MemoryRegion) -> None:
        mr.set_manager(self)
        self.mr = mr
        self._sources: list[RamDiscardSource] = []
        self._listeners: list[RamDiscardListener] = []

    @classmethod
    def of(cls, mr: MemoryRegion) -> "RamDiscardManager":
        """The manager of a region, made when the first source comes.

        C: ``memory_region_add_ram_discard_source()``, system/memory.c.
        """
        return mr.manager if isinstance(mr.manager, cls) else cls(mr)

    @property
    def listeners(self) -> tuple[RamDiscardListener, ...]:
        """Registered listeners, newest first: the order of every notification."""
        return tuple(self._listeners)

    @property
    def sources(self) -> tuple[RamDiscardSource, ...]:
        """Its sources, newest first."""
        return tuple(self._sources)

    def add_source(self, source: RamDiscardSource) -> None:
        """Add a source; what is populated so far and not in it is discarded first.

        C: ``ram_discard_manager_add_source()``.

        :raises BusyError: it is a source of this manager already
        """
        if not isinstance(source, RamDiscardSource):
            raise TypeError(f"expected a RamDiscardSource, not {type(source).__name__}")
        if source in self._sources:
            raise BusyError(f"{source!r} is a source already")
        for listener in self._listeners:
            for part in self._only_the_others(listener, source):
                listener.notify_discard(part)
        self._sources.insert(0, source)

    def del_source(self, source: RamDiscardSource) -> None:
        """Take a source away; what only it had discarded is populated first.

        When a listener refuses, discards go to the listeners up to it, itself included, and the
        source stays.

        C: ``ram_discard_manager_del_source()``.

        :raises NotFoundError: it is no source of this manager
        :raises UpstreamError: what the listener answered
        """
        if source not in self._sources:
            raise NotFoundError(f"{source!r} is no source of {self!r}")
        for index, listener in enumerate(self._listeners):
            try:
                for part in self._only_the_others(listener, source):
                    listener.notify_populate(part)
            except UpstreamError:
                for told in self._listeners[: index + 1]:
                    for part in self._only_the_others(told, source):
                        told.notify_discard(part)
                raise
        self._sources.remove(source)

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """The smallest of its sources' granularities.

        C: ``ram_discard_manager_get_min_granularity()``.
        """
        if mr is not self.mr:
            raise AbortError("another region", "ram_discard_manager_get_min_granularity")
        return min((s.get_min_granularity(mr) for s in self._sources), default=4096)

    def is_populated(self, section: MemoryRegionSection) -> bool:
        """Whether all sources have populated the section.

        C: ``ram_discard_manager_is_populated()``.
        """
        check_section(section, self.mr)
        return all(source.is_populated(section) for source in self._sources)

    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each populated run; raising in it stops the replay.

        Bug kept: the sections passed on carry **address 0**, whatever ``section`` says.
        Listeners are re-clipped from their own section and are right; VFIO's dirty sync, the CPR
        remap and a guest dump would use the wrong addresses [D].

        C: ``ram_discard_manager_replay_populated()``.
        """
        for part in self._runs(check_section(section, self.mr), True, None):
            callback(part)

    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each run that is not populated; address 0 as above.

        C: ``ram_discard_manager_replay_discarded()``.
        """
        for part in self._runs(check_section(section, self.mr), False, None):
            callback(part)

    def register_listener(self, listener: RamDiscardListener, section: MemoryRegionSection) -> None:
        """Insert at the head, then tell it what is populated; a refusal is only printed about.

        Without a source that is one call for the whole section.

        C: ``ram_discard_manager_register_listener()``.
        """
        if not isinstance(listener, RamDiscardListener):
            raise TypeError(f"expected a RamDiscardListener, not {type(listener).__name__}")
        if listener.section is not None:
            raise ValueError(f"{listener!r} is registered already")
        listener.section = check_section(section, self.mr)
        self._listeners.insert(0, listener)
        with suppress(UpstreamError):  # error_report() only
            self._tell_populated(listener)

    def unregister_listener(self, listener: RamDiscardListener) -> None:
        """Tell it that the whole section is discarded, and forget it.

        C: ``ram_discard_manager_unregister_listener()``.
        """
        if listener not in self._listeners:
            raise ValueError(f"{listener!r} is not registered here")
        assert listener.section is not None
        listener.notify_discard(listener.section)
        listener.section = None
        self._listeners.remove(listener)

    def notify_populate(self, source: RamDiscardSource, offset: int, size: int) -> None:
        """``source`` populated a range: tell the listeners where all others have it populated.

        When one refuses, discards go to the listeners up to it, itself included.

        C: ``ram_discard_manager_notify_populate()``.

        :raises UpstreamError: what the listener answered
        :raises AbortError: not a source of this manager
        """
        self._check_change(source, offset, size, "ram_discard_manager_notify_populate")
        for index, listener in enumerate(self._listeners):
            try:
                for part in self._clipped(listener, source, offset, size):
                    listener.notify_populate(part)
            except UpstreamError:
                for told in self._listeners[: index + 1]:
                    for part in self._clipped(told, source, offset, size):
                        told.notify_discard(part)
                raise

    def notify_discard(self, source: RamDiscardSource, offset: int, size: int) -> None:
        """``source`` discarded a range: tell the listeners where all others have it populated.

        C: ``ram_discard_manager_notify_discard()``.

        :raises AbortError: not a source of this manager
        """
        self._check_change(source, offset, size, "ram_discard_manager_notify_discard")
        for listener in self._listeners:
            for part in self._clipped(listener, source, offset, size):
                listener.notify_discard(part)

    def notify_discard_all(self, source: RamDiscardSource) -> None:
        """``source`` discarded everything.

        C: ``ram_discard_manager_notify_discard_all()``.

        :raises AbortError: not a source of this manager
        """
        if source not in self._sources:
            raise AbortError("no such source", "ram_discard_manager_notify_discard_all")
        for listener in self._listeners:
            assert listener.section is not None
            listener.notify_discard(listener.section)

    def replay_populated_to_listeners(self) -> None:
        """Tell every listener what is populated, after an incoming migration; no undo.

        C: ``ram_discard_manager_replay_populated_to_listeners()``.

        :raises UpstreamError: what the first listener answered that refused
        """
        for listener in self._listeners:
            self._tell_populated(listener)

    def _tell_populated(self, listener: RamDiscardListener) -> None:
        assert listener.section is not None
        for part in _in_section(listener.section, self._runs(listener.section, True, None)):
            listener.notify_populate(part)

    def _check_change(
        self, source: RamDiscardSource, offset: int, size: int, function: str
    ) -> None:
        if source not in self._sources:
            raise AbortError("no such source", function)
        check_u64("offset", offset)
        check_u64("size", size)

    def _clipped(
        self, listener: RamDiscardListener, source: RamDiscardSource, offset: int, size: int
    ) -> Iterable[MemoryRegionSection]:
        """Runs that all sources but one have populated, inside a range and the listener."""
        section = listener.section
        assert section is not None
        part = section.intersect_range(offset, size)
        if part is None:
            return ()
        if len(self._sources) == 1:
            return (part,)  # nobody else to ask: one run, as _runs() would find
        return _in_section(section, self._runs(part, True, source))

    def _only_the_others(
        self, listener: RamDiscardListener, source: RamDiscardSource
    ) -> Iterator[MemoryRegionSection]:
        """Runs discarded in ``source`` that all the others have populated."""
        assert listener.section is not None
        discarded: list[MemoryRegionSection] = []
        source.replay_discarded(listener.section, discarded.append)
        for part in discarded:
            yield from _in_section(listener.section, self._runs(part, True, source))

    def _runs(
        self, section: MemoryRegionSection, populated: bool, skip: RamDiscardSource | None
    ) -> Iterator[MemoryRegionSection]:
        """Runs of ``section`` that all sources but ``skip`` have (or have not) populated.

        Asked block by block from the start of the section, so a section that starts unaligned
        shifts the grid.  The sections carry no address.

        C: ``replay_by_populated_state()``.
        """
        mr, offset, size, _ = section
        if not self._sources:
            if populated:
                yield section
            return
        asked = [source for source in self._sources if source is not skip]
        granularity = self.get_min_granularity(mr)
        end = offset + size
        run_start = -1
        while offset < end:
            block = MemoryRegionSection(mr, offset, min(granularity, end - offset), 0)
            included = all(source.is_populated(block) for source in asked) == populated
            if included and run_start < 0:
                run_start = offset
            elif not included and run_start >= 0:
                yield MemoryRegionSection(mr, run_start, offset - run_start, 0)
                run_start = -1
            offset = min(
                (source.unchanged_until(offset, granularity, end) for source in asked),
                default=end,
            )
        if run_start >= 0:
            yield MemoryRegionSection(mr, run_start, end - run_start, 0)

    def __repr__(self) -> str:
        return (
            f"RamDiscardManager({self.mr.name!r}: {counted(len(self._sources), 'source')}, "
            f"{counted(len(self._listeners), 'listener')})"
        )


def _in_section(
    section: MemoryRegionSection, found: Iterable[MemoryRegionSection]
) -> Iterator[MemoryRegionSection]:
    """Runs clipped once more, which is what gives them the listener's address."""
    for run in found:
        part = section.intersect_range(run.offset_within_region, run.size)
        if part is not None:
            yield part
