"""virtio-mem under each generation: the calls that its own model makes conform, others depart."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from replay.conformance.kernel import layout as K
from replay.conformance.listeners import Listeners
from replay.conformance.tallies import ListenerTally
from replay.conformance.virtio_mem import DEVICES, LISTENERS
from replay.models import MemoryRegion, Type1Container
from replay.models.errors import EntryLimitError, UpstreamError
from replay.models.ram_block import Discard, DiscardSide
from tracekit.synth.guest import GENERATIONS

BASE = 0x1_0000_0000
BLOCK = 2 << 20
SIZE = 16 * BLOCK
HOST = 0x7F00_0000_0000
GUEST_MEMFD = 4
Rows = list[list[int]]


class _Observed(Type1Container):
    """A container whose calls are written down; ``room``: maps that it takes."""

    def __init__(self, device: _Machine, space: int) -> None:
        super().__init__(name=f"container {space}", dma_max_mappings=0)
        self.device, self.space, self.room = device, space, 1 << 20

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        refused = self.room <= 0
        self.device.add(K.K_MAP, self.space, iova, size, ret=-28 if refused else 0)
        if refused:
            raise EntryLimitError("no room")
        self.room -= 1

    def dma_unmap(self, iova: int, size: int) -> int:
        self.device.add(K.K_UNMAP, self.space, iova, size)
        return size


class _Machine:
    """A device of one generation, and the calls that its QEMU makes."""

    def __init__(self, generation: str, *, private: bool = False) -> None:
        self.generation = generation
        self.rows: Rows = []
        self.mr = MemoryRegion.ram("virtio-mem", SIZE, guest_memfd=private)
        block = self.mr.ram_block
        assert block is not None
        self.attributes: Any = None
        if private:
            self.attributes = GENERATIONS[generation].RamBlockAttributes(self.mr)
        self.model = DEVICES[generation](self.mr, block_size=BLOCK, address=BASE)
        block.on_discard = self._discarded
        self.containers: list[_Observed] = []
        self.add(K.K_DISCARD, -1, K.NULL, SIZE, vaddr=HOST, flag=2)
        self.add(K.K_SLOT, 3, BASE, SIZE, vaddr=HOST, flag=GUEST_MEMFD if private else 0)

    def add(
        self, kind: int, space: int, at: int, size: int, *, vaddr: int = K.NULL, flag: int = 0,
        ret: int = 0,
    ) -> None:  # fmt: skip
        row = [0] * K.C_COLS
        row[K.C_KIND], row[K.C_THREAD], row[K.C_PROC], row[K.C_SPACE] = kind, 1, 1, space
        row[K.C_ADDR], row[K.C_SIZE], row[K.C_VADDR], row[K.C_FLAG] = at, size, vaddr, flag
        row[K.C_RET], row[K.C_COUNT], row[K.C_KNOWN] = ret, 1, 1
        row[K.C_TS0] = row[K.C_SEQ0] = len(self.rows)
        self.rows.append(row)

    def plug_device(self) -> _Observed:
        container = _Observed(self, 20 + len(self.containers))
        self.containers.append(container)
        LISTENERS[self.generation](container).register(self.mr.section(address=BASE))
        return container

    def unplug_device(self, container: _Observed) -> None:
        LISTENERS[self.generation].unregister(container, self.mr.section(address=BASE))

    def set(self, first: int, plug: bool) -> None:
        with suppress(UpstreamError):
            self.model.set_block_state(first * BLOCK, BLOCK, plug)

    def _discarded(self, discard: Discard) -> None:
        if discard.side is DiscardSide.GUEST_MEMFD:
            self.add(K.K_PUNCH, -1, discard.offset, discard.size)
        else:
            self.add(K.K_DISCARD, -1, K.NULL, discard.size, vaddr=HOST + discard.offset, flag=2)

    def told(self, generation: str | None = None) -> ListenerTally:
        listeners = Listeners((generation or self.generation,))
        rows = np.array(self.rows, np.int64)
        listeners.feed(rows)
        return listeners.finish()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_plugs_unplugs_resets_and_devices_conform(generation: str) -> None:
    machine = _Machine(generation)
    first = machine.plug_device()
    for block in (3, 4, 9):
        machine.set(block, True)
    machine.set(4, False)
    machine.plug_device()
    machine.set(5, True)
    machine.unplug_device(first)
    machine.set(6, True)
    machine.model.unplug_all_request()
    tally = machine.told()
    assert tally.departed == 0
    assert (tally.plugs, tally.unplugs, tally.resets, tally.replays) == (5, 1, 1, 1)
    assert tally.undecided == 0


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("refuses", [0, 1])
def test_a_refused_plug_is_undone_as_the_generation_does(generation: str, refuses: int) -> None:
    """The newest container is told first; 11.1 tells the one that refused as well."""
    machine = _Machine(generation)
    machine.plug_device()
    machine.plug_device()
    machine.set(1, True)
    machine.containers[refuses].room = 0
    machine.set(2, True)
    undone = [r for r in machine.rows if r[K.C_KIND] == K.K_UNMAP]
    newest = refuses == 1
    assert len(undone) == (1 if newest else 2) + (generation == "11.1")
    tally = machine.told()
    assert tally.departed == 0
    assert tally.plugs == 1
    machine.containers[refuses].room = 9
    machine.set(2, True)
    assert machine.told().departed == 0


def test_other_generations_depart_from_what_11_1_undoes() -> None:
    machine = _Machine("11.1")
    machine.plug_device()
    machine.set(1, True)
    machine.containers[0].room = 0
    machine.set(2, True)
    assert machine.told().departed == 0
    for other in ("v4", "merged"):
        assert machine.told(other).departed == 1


def test_with_private_memory_a_block_is_mapped_where_it_is_shared() -> None:
    """11.1: two sources, and both have to have the page."""
    machine = _Machine("11.1", private=True)
    machine.attributes.bitmap.set(BLOCK // K.PAGE, 4)  # four pages of block 1 were shared before
    machine.add(K.K_ATTR, 6, BASE + BLOCK, 4 * K.PAGE)
    machine.model.bitmap.set(1, 1)
    machine.plug_device()
    assert [r[K.C_SIZE] for r in machine.rows if r[K.C_KIND] == K.K_MAP] == [K.PAGE] * 4
    machine.set(1, False)
    tally = machine.told()
    assert tally.departed == 0
    assert tally.unplugs == 1
    assert tally.explained == 5
    assert tally.hazards == []


def test_private_pages_that_an_unplug_leaves_are_told() -> None:
    """Item 11: until 11.1 only the shared side was discarded."""
    machine = _Machine("11.1", private=True)
    machine.attributes.bitmap.set(BLOCK // K.PAGE, 4)
    machine.add(K.K_ATTR, 6, BASE + BLOCK, 4 * K.PAGE)
    machine.model.bitmap.set(1, 1)
    machine.plug_device()
    machine.set(1, False)
    machine.rows = [r for r in machine.rows if r[K.C_KIND] != K.K_PUNCH]
    assert [h.what for h in machine.told().hazards] == ["unplug-kept-private"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_call_left_out_or_changed_departs(generation: str) -> None:
    machine = _Machine(generation)
    machine.plug_device()
    for block in (3, 4):
        machine.set(block, True)
    machine.set(4, False)
    machine.set(3, False)
    dma = [i for i, r in enumerate(machine.rows) if r[K.C_KIND] == K.K_UNMAP]
    rows = machine.rows
    machine.rows = [list(r) for r in rows]
    machine.rows[dma[0]][K.C_SIZE] = BLOCK // 2
    assert machine.told().departed
    machine.rows = [r for i, r in enumerate(rows) if i != dma[0]]
    machine.rows.append(list(rows[dma[1]]))
    assert machine.told().departed
