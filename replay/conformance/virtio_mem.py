"""One virtio-mem device under one generation, and the VFIO listeners of its region.

The models ``VirtioMem`` and ``VfioListener`` of that generation are asked; their calls are compared
with the next ones that are seen.  A refused map is put to them as well, so that what is undone is
the generation's own: v4 and 10.1 tell the containers before the one that refused, 11.1 that one
too.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from replay.conformance.kernel import layout as K
from replay.conformance.tallies import Departure, ListenerTally, Pair
from replay.models import MemoryRegion, Type1Container, merged, sources, v4
from replay.models.errors import ListenerError, ModelError, UpstreamError
from replay.models.virtio_mem_device import THP_SIZE

__all__ = ("VirtioMemFollower",)

DEVICES: dict[str, Any] = {
    "v4": v4.VirtioMem,
    "merged": merged.VirtioMem,
    "11.1": sources.VirtioMem,
}
LISTENERS: dict[str, Any] = {
    "v4": v4.VfioRamDiscardListener,
    "merged": merged.VfioListener,
    "11.1": merged.VfioListener,
}


MOST_PRIVATE = 1 << 37
"""Bytes of memory that can be private whose every page is remembered."""


class _Recorder(Type1Container):
    """A container that writes down what it is asked, and refuses what it was seen to refuse."""

    def __init__(self) -> None:
        super().__init__(name="container", dma_max_mappings=0)
        self.asked: deque[Pair] = deque()
        self.refused: tuple[int, int, int] | None = None

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        self.asked.append(("map", iova, size))
        if self.refused is not None and self.refused[:2] == (iova, size):
            raise ListenerError("as recorded", self.refused[2])

    def dma_unmap(self, iova: int, size: int) -> int:
        self.asked.append(("unmap", iova, size))
        return size


class VirtioMemFollower:
    """Feed it the maps and unmaps of the device's memory.

    ``guest_memfd``: the memory can be private.  Only 11.1 has that, with the conversions' bitmap as
    a second source: a block is mapped where it is shared as well.
    """

    def __init__(
        self, generation: str, gpa: int, size: int, tally: ListenerTally, *, guest_memfd: bool
    ) -> None:
        self.gpa, self.size = gpa, size
        self.tally = tally
        self._generation = generation
        both = guest_memfd and generation == "11.1" and size <= MOST_PRIVATE
        self._mr = MemoryRegion.ram("virtio-mem", size, guest_memfd=both)
        self._attributes = sources.RamBlockAttributes(self._mr) if both else None
        self._model: Any = None
        self._listening: dict[int, _Recorder] = {}
        self._made: list[tuple[int, Pair]] = []
        """What was seen of the request that is going on."""
        self._going: tuple[int, int] | None = None
        """The block that it plugs."""

    def block_size(self) -> int | None:
        """Of the device, once a piece has shown it."""
        return None if self._model is None else int(self._model.block_size)

    def listens(self) -> bool:
        """Whether a container hears of the device."""
        return bool(self._listening)

    def plugged_runs(self) -> list[tuple[int, int]]:
        """(first byte in the region, bytes) of each run of plugged blocks."""
        if self._model is None:
            return []
        whole = self._mr.section(address=self.gpa)
        return [(s.offset_within_region, s.size) for s in self._model.bitmap.sections(whole, 1)]

    def set_attribute(self, gpa: int, size: int, private: bool) -> None:
        """Memory of the device changed hands; the conversion's own calls are compared elsewhere."""
        if self._attributes is None:
            return
        lo, hi = max(gpa, self.gpa), min(gpa + size, self.gpa + self.size)
        if lo < hi:
            bits = self._attributes.bitmap
            change = bits.clear if private else bits.set
            change((lo - self.gpa) // K.PAGE, (hi - lo) // K.PAGE)

    def plug(self, lo: int, size: int) -> bool:
        """The guest plugs a block, as QEMU says or a map shows; false: that is impossible."""
        try:
            model = self._block(size)
            if model.bitmap.bits[(lo - self.gpa) // model.block_size]:
                return True
            if self._attributes is not None:  # pieces are pages
                lo, size = lo - (lo - self.gpa) % model.block_size, model.block_size
            self._made.clear()
            self._going = (lo, size)
            model.set_block_state(lo - self.gpa, size, True)
        except (ModelError, ValueError, IndexError):
            return False
        self.tally.plugs += 1
        return True

    def map(self, row: list[int]) -> None:
        """A map of a block, or of part of one."""
        space, lo, size = row[K.C_SPACE], row[K.C_ADDR], row[K.C_SIZE]
        seen: Pair = ("map", lo, size)
        try:
            if space not in self._listening:
                self._register(space, size)
                self.tally.replays += bool(self._listening[space].asked)
        except (ModelError, ValueError):
            self.tally.depart(Departure.at("extra", row, None, seen))
            return
        recorder = self._listening[space]
        if not recorder.asked and not self._is_plugged(lo) and not self.plug(lo, size):
            self.tally.depart(Departure.at("extra", row, None, seen))
            return
        if row[K.C_RET] < 0 and seen in recorder.asked:
            self._refuse(recorder, lo, size, -row[K.C_RET])
        self._compare(recorder, row, seen)

    def unmap(self, row: list[int], discarded: bool) -> str | None:
        """An unmap there; ``discarded``: its backing was, just before.  Tells what it was."""
        space, lo, size = row[K.C_SPACE], row[K.C_ADDR], row[K.C_SIZE]
        seen: Pair = ("unmap", lo, size)
        if space not in self._listening and self._model is not None:
            self._register(space, self._model.block_size)
            self._listening[space].asked.clear()  # it was registered, and mapped nothing to see
        if space not in self._listening:
            self.tally.explained += 1  # nothing was ever plugged: an empty section goes
            return None
        recorder = self._listening[space]
        was = None if recorder.asked else self._request(row, recorder, discarded)
        self._compare(recorder, row, seen)
        return was

    def unregister(self, space: int) -> None:
        """The container is gone, and its mappings with it."""
        recorder = self._listening.pop(space, None)
        if recorder is not None and self._model is not None:
            section = self._mr.section(address=self.gpa)
            LISTENERS[self._generation].unregister(recorder, section)

    def close(self, fd: int) -> None:
        """A descriptor was closed, and containers with it."""
        for space in [s for s in self._listening if s & 0xFFFFF == fd]:
            self.unregister(space)

    def _request(self, row: list[int], recorder: _Recorder, discarded: bool) -> str | None:
        """What asks for an unmap that nothing has asked for yet."""
        lo, size = row[K.C_ADDR], row[K.C_SIZE]
        try:
            model = self._block(size)
            if (lo, size) == (self.gpa, self.size):
                if discarded and model.size:
                    model.unplug_all_request()
                    self.tally.resets += 1
                    return "reset"
                self.unregister(row[K.C_SPACE])
                return None
            if not discarded:
                return None
            block = model.block_size
            first = (lo - self.gpa) // block * block
            last = -(-(lo + size - self.gpa) // block) * block
            if not self._is_plugged(lo):
                return None
            model.set_block_state(first, last - first, False)
        except (ModelError, ValueError):
            return None
        self.tally.unplugs += 1
        return "unplug"

    def _block(self, size: int) -> Any:
        """The model, made when the first piece shows how large a block is.

        Where the memory can be private pieces are pages; then it is the size that QEMU chooses.
        """
        if self._model is None:
            if self._attributes is not None:
                size = max(size, THP_SIZE)
            device = DEVICES[self._generation]
            self._model = device(self._mr, block_size=size, address=self.gpa)
        return self._model

    def _register(self, space: int, block: int) -> None:
        """A container is heard of: a new one, which replays all, or one that was there all along.

        The latter if the very first block is being plugged: then it is older than those that were
        told before it.
        """
        model = self._block(block)
        section, listener = self._mr.section(address=self.gpa), LISTENERS[self._generation]
        recorder = _Recorder()
        others = list(self._listening.items())
        first = self._going is not None and model.size == self._going[1] and bool(self._made)
        if first:
            kept = [list(other.asked) for _, other in others]
            for _, other in others:
                listener.unregister(other, section)
            listener(recorder).register(section)
            for (_, other), asked in zip(others, kept, strict=True):
                listener(other).register(section)
                other.asked = deque(asked)
            self._listening = {space: recorder, **self._listening}
        else:
            listener(recorder).register(section)
            self._listening[space] = recorder

    def _is_plugged(self, lo: int) -> bool:
        model = self._model
        return model is not None and bool(model.bitmap.bits[(lo - self.gpa) // model.block_size])

    def _refuse(self, recorder: _Recorder, lo: int, size: int, errno: int) -> None:
        """A plug that was refused: ask the model again, and leave out what was seen already."""
        if self._going is None or not (
            self._going[0] <= lo and lo + size <= self._going[0] + self._going[1]
        ):
            return
        model = self._model
        first, count = (self._going[0] - self.gpa) // model.block_size, self._going[1]
        model.bitmap.clear(first, count // model.block_size)
        for other in self._listening.values():
            other.asked.clear()
        recorder.refused = (lo, size, errno)
        try:
            model.set_block_state(first * model.block_size, count, True)
        except UpstreamError:
            self.tally.plugs -= 1
        recorder.refused = None
        for space, pair in self._made:
            told = self._listening.get(space)
            if told is not None and told.asked and told.asked[0] == pair:
                told.asked.popleft()

    def _compare(self, recorder: _Recorder, row: list[int], seen: Pair) -> None:
        if not recorder.asked:
            if row[K.C_SPACE] in self._listening:
                self.tally.depart(Departure.at("extra", row, None, seen))
            else:
                self.tally.explained += 1
            return
        expected = recorder.asked[0]
        kind, lo, size = seen
        count = row[K.C_COUNT]
        for i in range(count):  # neighbouring maps of one page are one row
            piece = (kind, lo + i * (size // count), size // count)
            expected = recorder.asked.popleft() if recorder.asked else ("nothing", lo, 0)
            if expected != piece:
                break
            self.tally.explained += 1
            self._made.append((row[K.C_SPACE], piece))
        else:
            return
        recorder.asked.clear()
        self.tally.depart(Departure.at("expected", row, expected, seen))
