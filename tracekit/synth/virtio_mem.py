"""A virtio-mem device of a machine: the guest plugs and unplugs, the models decide the calls."""

from __future__ import annotations

from typing import Any

from replay.models.memory_region import MemoryRegion
from replay.models.ram_block import Discard
from replay.models.virtio_mem_device import THP_SIZE
from tracekit.synth.calls import Call, Op
from tracekit.synth.guest import GENERATIONS, container_of
from tracekit.synth.render import Renderer
from tracekit.synth.vmm import Region
from tracekit.synth.world import SIGNAL_MSI, Machine

__all__ = ("BLOCK", "Device")

BLOCK = THP_SIZE


class Device:
    """Blocks of ``region``, none plugged at first; each of the machine's containers hears of it."""

    def __init__(self, machine: Machine, region: Region) -> None:
        package: Any = GENERATIONS[machine.world.generation]
        self._chance = machine.world.chance
        self._region = region
        self._rendered = Renderer(machine.vmm, tid=machine.vmm.tid)
        mr = MemoryRegion.ram("vmem0", region.size, guest_memfd=False, host=region.host)
        assert mr.ram_block is not None
        mr.ram_block.on_discard = self._discarded
        self._model: Any = package.VirtioMem(mr, block_size=BLOCK, address=region.gpa)
        for space in machine.spaces:
            container = container_of(machine.vmm, self._rendered, space, 1 << 30)
            section = mr.section(address=region.gpa)
            package.VfioMemoryListener(container).region_add(section)

    def next_request(self) -> list[Call]:
        """Plug the lowest blocks that are not, or unplug the highest ones, as Linux does."""
        first = len(self._rendered.calls)
        plugged = [i for i, bit in enumerate(self._model.bitmap.bits) if bit]
        blocks = self._region.size // BLOCK
        count = self._chance.randint(1, 4)
        if len(plugged) + count <= blocks and (len(plugged) < count or self._chance.random() < 0.6):
            start = len(plugged)
            self._model.plug_request(self._region.gpa + start * BLOCK, count)
        else:
            for index in plugged[: -count - 1 : -1]:
                self._model.unplug_request(self._region.gpa + index * BLOCK, 1)
        # The guest is told.
        return [*self._rendered.calls[first:], Call(Op.IOCTL, value=SIGNAL_MSI, space=-1)]

    def _discarded(self, discard: Discard) -> None:
        self._rendered.discard_shared(
            self._region.gpa + discard.offset,
            discard.size,
            fallocate=discard.fallocate,
            madvise=discard.madvise,
        )
