# SPDX-License-Identifier: Apache-2.0
"""One small guest in any generation, with everything that happens written down as text.

Ours: the generated page about the generations and its tests are made with it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from replay.models import merged, sources, v4
from replay.models.errors import DmaLimitError, FatalEnd, UpstreamError
from replay.models.flat_view import FlatView
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region import MemoryRegion
from replay.models.notification import Notification
from replay.models.ram_block import Discard
from replay.models.type1_container import Type1Container
from replay.models.type1_iommu import Type1Iommu

__all__ = ("BASE", "GENERATIONS", "PAGE", "Scenario")

PAGE = 4096
#: Where the RAM is in the guest's address space.
BASE = 0x1_0000_0000
#: Names for people, and the packages.
GENERATIONS: Mapping[str, Any] = {"G1": v4, "G2": merged, "G3": sources}


class _Log(list[Notification]):
    """A log of notifications that turns each into a line of text."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def append(self, notification: Notification) -> None:
        super().append(notification)
        _, offset, size, _ = notification.section
        answer = " -> refused" if notification.errno else ""
        self.lines.append(
            f"{notification.listener}: {notification.kind.value} {_blocks(offset, size)}{answer}"
        )


class _Kvm(KvmMemoryAttributes):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def _set(self, gpa: int, size: int, private: bool) -> None:
        try:
            super()._set(gpa, size, private)
        finally:
            state = "private" if private else "shared"
            answer = " -> refused" if self.calls[-1].errno else ""
            self.lines.append(f"KVM: {state} {_blocks(gpa - BASE, size)}{answer}")


class _Container(Type1Container):
    def __init__(self, lines: list[str], name: str, entries: int, limit: int | None) -> None:
        super().__init__(iommu=Type1Iommu(entries), name=name, dma_max_mappings=limit)
        self.lines = lines

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        self._say("map", iova, size, lambda: super(_Container, self).dma_map(iova, size, vaddr))

    def dma_unmap(self, iova: int, size: int) -> int:
        return int(
            self._say("unmap", iova, size, lambda: super(_Container, self).dma_unmap(iova, size))
            or 0
        )

    def _say(self, what: str, iova: int, size: int, call: Callable[[], int | None]) -> int | None:
        answer = ""
        try:
            return call()
        except UpstreamError as error:
            answer = f" -> {error.errno_name}"
            raise
        finally:
            self.lines.append(f"{self.name}: {what} {_blocks(iova - BASE, size)}{answer}")


class Scenario:
    """Eight blocks of guest memory at ``BASE``; ``lines`` is what happened."""

    def __init__(self, generation: str, *, page_size: int = PAGE, blocks: int = 8) -> None:
        self.generation = generation
        self.package = GENERATIONS[generation]
        self.lines: list[str] = []
        self.ended = False
        self.log = _Log(self.lines)
        self.kvm = _Kvm(self.lines)
        self.mr = MemoryRegion.ram("ram0", blocks * PAGE, page_size=page_size)
        self.section = self.mr.section(address=BASE)
        self.view = FlatView()
        self.view.add(BASE, self.mr)
        assert self.mr.ram_block is not None
        self.mr.ram_block.on_discard = self._discarded
        name = "RamBlockAttribute" if generation == "G1" else "RamBlockAttributes"
        self.ram: Any = getattr(self.package, name)(self.mr)
        self.manager: Any = self.ram.manager if generation == "G3" else self.ram

    def listen(
        self, name: str, *, refuse: Mapping[int, int] | None = None, priority: int = 10
    ) -> Any:
        """Register a recording listener for all of the memory."""
        listener = self.package.RecordingListener(name, self.log, refuse_populate=refuse)
        if self.generation == "G1":
            listener.priority = priority
        self.attempt(lambda: self.manager.register_listener(listener, self.section))
        return listener

    def plug_device(
        self, name: str = "VFIO", *, entries: int = 65535, limit: int | None = 0
    ) -> Type1Container:
        """Give the guest a device: a container and VFIO's listener."""
        container = _Container(self.lines, name, entries, limit)
        self.attempt(lambda: self.package.VfioMemoryListener(container).region_add(self.section))
        return container

    def follow_attributes(self) -> None:
        """Let KVM's attributes follow; from G2 on they are part of the conversion."""
        if self.generation == "G1":
            self.package.CVMPrivateSharedListener(self.kvm).register(self.section)

    def state_change(self, first: int, count: float, *, to_private: bool) -> None:
        """Change the state of ``count`` blocks (not necessarily whole ones) from ``first``."""
        size = int(count * PAGE)
        self.attempt(lambda: self.ram.state_change(first * PAGE, size, to_private))

    def convert(self, first: int, count: int, *, to_private: bool) -> None:
        """What the guest asks KVM for: ``count`` blocks from ``first``, which may be negative."""
        start, size = BASE + first * PAGE, count * PAGE
        if self.generation == "G1":
            self.attempt(
                lambda: self.package.kvm_convert_memory(self.view, start, size, to_private)
            )
        else:
            self.attempt(
                lambda: self.package.kvm_convert_memory(
                    self.view, self.kvm, start, size, to_private
                )
            )

    def attempt(self, call: Callable[[], object]) -> None:
        """Do it, and write down how it ends; nothing is done once QEMU has ended."""
        if self.ended:
            return
        try:
            call()
        except UpstreamError as error:
            code = "-1" if error.errno == 1 else f"-{error.errno_name}"
            self.lines.append(f"returns {code}")
        except DmaLimitError:
            self.lines.append("fails, without an errno")
        except FatalEnd as end:
            kind = type(end).__name__.removesuffix("Error")
            self.lines.append(f"QEMU ends: {kind} in {end.function}()")
            self.ended = True

    def say(self, line: str) -> None:
        """A line of one's own, unless QEMU has ended."""
        if not self.ended:
            self.lines.append(line)

    def say_shared(self) -> None:
        """Write down which blocks are shared."""
        ranges = [_blocks(start, end - start) for start, end in self.ram.shared_ranges()]
        self.say(f"shared now: {', '.join(ranges) or 'nothing'}")

    def say_mapped(self, container: Type1Container) -> None:
        """Write down what a device can reach."""
        ranges = [_blocks(r.iova - BASE, r.end - r.iova) for r in container.entries.ranges()]
        self.say(f"mapped now: {', '.join(ranges) or 'nothing'}")

    def clear(self) -> None:
        """Forget what was written down so far: it was preparation."""
        self.lines.clear()

    def _discarded(self, discard: Discard) -> None:
        self.lines.append(f"discard {discard.side.name}: {_blocks(discard.offset, discard.size)}")

    def __repr__(self) -> str:
        return f"Scenario({self.generation!r}, {self.ram!r})"


def _blocks(offset: int, size: int) -> str:
    """``2..4`` for blocks 2, 3 and 4; bytes where it is not whole blocks."""
    if offset % PAGE or size % PAGE:
        return f"[{offset:#x}, +{size:#x})"
    first, last = offset // PAGE, (offset + size) // PAGE - 1
    return f"{first}" if first == last else f"{first}..{last}"
