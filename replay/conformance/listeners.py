"""Calls outside conversions: a region comes or goes, virtio-mem plugs and unplugs.

The requests are inferred from the calls, or are those of QEMU's own trace where it was recorded:

- A memory slot whose whole backing is discarded while the device is made or reset is virtio-mem's,
  and so is one for which QEMU tells a plug request.
- A map of a block there that is not plugged is a plug request; a discard of a block's backing and
  an unmap by the same thread an unplug request; of everything, a reset.
- A map of a block that is plugged, by a container that hears of it for the first time or again, is
  a listener's registration, which replays all that is plugged.
- Elsewhere a region's listener maps it with one call and unmaps it with one: an unmap of other
  than what one call mapped is none of VFIO's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from replay.conformance.kernel import layout as K
from replay.conformance.regions import Regions
from replay.conformance.requests import PLUG, UNPLUG, Requests
from replay.conformance.tallies import Departure, ListenerTally
from replay.conformance.virtio_mem import VirtioMemFollower

__all__ = ("Departure", "ListenerTally", "Listeners")

RECENT = 8
"""Discards of a thread that are remembered, because their unmap may come."""
BLOCK_AT_LEAST = 1 << 20
GUEST_MEMFD = 4


class _Device:
    """A virtio-mem device, under each generation."""

    def __init__(self, gpa: int, size: int, vaddr: int, *, guest_memfd: bool) -> None:
        self.gpa, self.size, self.vaddr = gpa, size, vaddr
        self.guest_memfd = guest_memfd
        self.under: dict[str, VirtioMemFollower] = {}

    def holds(self, lo: int, size: int) -> bool:
        return self.gpa <= lo and lo + size <= self.gpa + self.size


class Listeners:
    """Feed it, in the order of the trace, the calls that no conversion took, all changes of
    attributes and what QEMU says; ``finish`` for one generation.

    ``events``: how many of each type were recorded; QEMU's own are compared with what was done.
    """

    def __init__(
        self,
        generations: Sequence[str] = ("merged",),
        events: Mapping[str, int] | None = None,
    ) -> None:
        self._tally = ListenerTally()
        self._managed = {name: ListenerTally() for name in generations}
        self._devices: dict[int, list[_Device]] = {}
        self._private = False
        """Whether the memory of a device among them can be private."""
        self._slots: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self._whole: dict[int, list[tuple[int, int]]] = {}
        self._entries: dict[tuple[int, int], dict[int, int]] = {}
        self._recent: dict[int, deque[tuple[int | None, int | None, int, bool]]] = {}
        self._regions = Regions()
        self._lost = False
        self._events = events or {}
        self._requests = Requests(self._events) if Requests.are_in(self._events) else None
        self._block: int | None = None

    def feed(self, calls: Any) -> None:
        """Take more calls."""
        while len(calls):
            every = self._needs_attributes()
            wanted = every | (calls[:, K.C_KIND] != K.K_ATTR)
            some = np.flatnonzero(wanted).tolist()
            done = len(calls)
            for i, row in zip(some, calls[some].tolist(), strict=True):
                self._take(row)
                if not every and self._needs_attributes():
                    done = i + 1
                    break
            calls = calls[done:]

    def _needs_attributes(self) -> bool:
        """Whether changes of attributes matter here: they are many."""
        return self._private or self._requests is not None

    def _take(self, row: list[int]) -> None:
        kind, proc = row[K.C_KIND], row[K.C_PROC]
        if kind == K.K_DISCARD or kind == K.K_PUNCH:
            self._discard(row)
        elif kind == K.K_MAP or kind == K.K_UNMAP:
            if not row[K.C_KNOWN]:
                self._tally.say("unknown_arguments")
            elif kind == K.K_MAP:
                self._map(row)
            else:
                self._unmap(row)
        elif kind == K.K_SLOT:
            self._slot(row)
        elif kind == K.K_CLOSE:
            self._close(proc, row[K.C_SPACE])
        elif kind == K.K_DIRTY:
            self._dirty(row)
        elif kind == K.K_LOST:
            self._lose()
        elif kind in (K.K_ATTR, K.K_REQUEST, K.K_VIRTIO_MEM, K.K_REGION):
            if self._requests is not None:
                self._watched(row)
            if kind == K.K_ATTR:
                self._change_hands(row)

    def _lose(self) -> None:
        for of in (self._devices, self._slots, self._entries, self._recent, self._whole):
            of.clear()
        self._private = False
        self._regions.lost()
        self._lost = True
        if self._requests is not None:
            self._requests.lost()

    def finish(self, generation: str | None = None) -> ListenerTally:
        """The counts under one generation, by default the first that was named."""
        name = next(iter(self._managed)) if generation is None else generation
        requests = ListenerTally()
        if self._requests is not None:
            self._requests.finish(requests, self._block, conversions=name != "v4")
        self._tally.like, self._tally.unlike = self._regions.like, self._regions.unlike
        return ListenerTally.sum((self._tally, self._managed[name], requests))

    # -- what there is ------------------------------------------------------------------------

    def _slot(self, row: list[int]) -> None:
        if not row[K.C_KNOWN] or row[K.C_VADDR] == K.NULL:
            return
        proc, gpa, size = row[K.C_PROC], row[K.C_ADDR], row[K.C_SIZE]
        self._regions.slot(row[K.C_SPACE], (proc, gpa, size, row[K.C_VADDR]))
        if size <= 0:
            self._slots.pop((proc, row[K.C_SPACE]), None)
            return
        slot = (gpa, size, row[K.C_VADDR], row[K.C_FLAG])
        self._slots[proc, row[K.C_SPACE]] = slot
        if (row[K.C_VADDR], size) in self._whole.get(proc, ()):
            self._found(proc, slot)

    def _found(self, proc: int, slot: tuple[int, int, int, int]) -> None:
        gpa, size, vaddr, flags = slot
        devices = self._devices.setdefault(proc, [])
        if gpa & 4095 or size & 4095 or size <= 0 or size > 1 << 40 or gpa < 0:
            return
        if any(d.gpa < gpa + size and gpa < d.gpa + d.size for d in devices):
            return
        device = _Device(gpa, size, vaddr, guest_memfd=bool(flags & GUEST_MEMFD))
        for name, tally in self._managed.items():
            device.under[name] = VirtioMemFollower(
                name, gpa, size, tally, guest_memfd=device.guest_memfd
            )
        devices.append(device)
        self._private |= device.guest_memfd

    def _watched(self, row: list[int]) -> None:
        """A row of QEMU's own trace, or a change of attributes, against which it is held."""
        requests = self._requests
        assert requests is not None
        kind, lo, size = row[K.C_KIND], row[K.C_ADDR], row[K.C_SIZE]
        if kind == K.K_ATTR:
            if row[K.C_KNOWN]:
                requests.did("private" if row[K.C_FLAG] else "shared", lo, size, row)
            return
        devices = [d for ds in self._devices.values() for d in ds if d.holds(lo, 1)]
        if kind == K.K_VIRTIO_MEM and row[K.C_FLAG] in (PLUG, UNPLUG) and not devices:
            for (proc, _), slot in list(self._slots.items()):
                if slot[0] <= lo < slot[0] + slot[1]:
                    self._found(proc, slot)
                    devices = self._devices[proc]
        listening = any(f.listens() for d in devices for f in d.under.values())
        requests.says(row, listening=listening)

    def _change_hands(self, row: list[int]) -> None:
        if row[K.C_RET] < 0 or not row[K.C_KNOWN]:
            return
        for device in self._devices.get(row[K.C_PROC], ()):
            for follower in device.under.values():
                follower.set_attribute(row[K.C_ADDR], row[K.C_SIZE], bool(row[K.C_FLAG]))

    def _discard(self, row: list[int]) -> None:
        proc, size = row[K.C_PROC], row[K.C_SIZE]
        if row[K.C_RET] < 0 or size < BLOCK_AT_LEAST:
            return
        vaddr = None if row[K.C_VADDR] == K.NULL else row[K.C_VADDR]
        offset = None if row[K.C_ADDR] == K.NULL else row[K.C_ADDR]
        recent = self._recent.setdefault(row[K.C_THREAD], deque(maxlen=RECENT))
        recent.append((vaddr, offset, size, row[K.C_KIND] == K.K_PUNCH))
        if vaddr is None or any(
            d.vaddr <= vaddr < d.vaddr + d.size for d in self._devices.get(proc, ())
        ):
            return
        whole = self._whole.setdefault(proc, [])
        whole.append((vaddr, size))
        del whole[:-RECENT]
        for (of, _), slot in list(self._slots.items()):
            if of == proc and (slot[2], slot[1]) == (vaddr, size):
                self._found(proc, slot)

    def _device(self, proc: int, lo: int, size: int) -> _Device | None:
        return next((d for d in self._devices.get(proc, ()) if d.holds(lo, size)), None)

    def _close(self, proc: int, fd: int) -> None:
        if self._entries:
            for key in [k for k in self._entries if k[0] == proc and k[1] & 0xFFFFF == fd]:
                del self._entries[key]
        for device in self._devices.get(proc, ()):
            for follower in device.under.values():
                follower.close(fd)

    # -- calls --------------------------------------------------------------------------------

    def _map(self, row: list[int]) -> None:
        proc, space = row[K.C_PROC], row[K.C_SPACE]
        lo, size = row[K.C_ADDR], row[K.C_SIZE]
        device = self._device(proc, lo, size)
        if device is None:
            self._regions.map((proc, lo, size, row[K.C_VADDR]))
            if row[K.C_RET] >= 0:
                self._entries.setdefault((proc, space), {})[lo] = size
                self._tally.regions += 1
            if self._requests is not None:
                self._requests.did("region", lo, size, row)  # a refused map answers as well
            self._tally.explained += row[K.C_COUNT]
            return
        self._recent.pop(row[K.C_THREAD], None)  # what the thread unplugged is over
        first = next(iter(device.under.values()))
        plugs = first.tally.plugs
        for follower in device.under.values():
            follower.map(row)
        self._block = first.block_size() or self._block
        if self._requests is not None and first.tally.plugs > plugs:
            self._requests.did("plug", lo, size, row)

    def _unmap(self, row: list[int]) -> None:
        proc, space = row[K.C_PROC], row[K.C_SPACE]
        lo, size = row[K.C_ADDR], row[K.C_SIZE]
        if size < 0:  # everything
            self._entries.pop((proc, space), None)
            self._tally.explained += 1
            return
        if self._requests is not None:
            self._requests.did("region_del", lo, size, row)
        device = self._device(proc, lo, size)
        if device is None:
            self._unmap_region(row)
            return
        discarded = self._was_discarded(row[K.C_THREAD], device, lo, size)
        told = [f.unmap(row, discarded) for f in device.under.values()]
        private = device.guest_memfd and told[0] is not None
        if private and not self._was_discarded(row[K.C_THREAD], device, lo, size, private=True):
            kept = Departure.at("unplug-kept-private", row, None, (told[0] or "", lo, size))
            self._tally.hazard(kept)
        if self._requests is not None and told[0] == "unplug":
            self._requests.did("unplug", lo, size, row)

    def _was_discarded(
        self, thread: int, device: _Device, lo: int, size: int, *, private: bool = False
    ) -> bool:
        """Whether the thread threw the block's shared side away just before, or the other."""
        recent = self._recent.get(thread, deque())
        wanted = lo - device.gpa
        for vaddr, offset, length, of_private in reversed(recent):
            if of_private != private or length < size:
                continue
            if length == size and (vaddr == device.vaddr + wanted or offset == wanted):
                return True
            if vaddr is not None and device.guest_memfd:  # a shared run of the block is unmapped
                at = vaddr - device.vaddr
                if at <= wanted and wanted + size <= at + length:
                    return True
            if private:
                return True  # an offset of the guest_memfd
        return False

    def _unmap_region(self, row: list[int]) -> None:
        """A region without a manager goes: what one call mapped, or nothing."""
        lo, size = row[K.C_ADDR], row[K.C_SIZE]
        entries = self._entries.get((row[K.C_PROC], row[K.C_SPACE]))
        if entries is None or row[K.C_RET] < 0:
            self._tally.explained += row[K.C_RET] < 0
            if row[K.C_RET] >= 0:
                self._tally.say("late_start" if not self._lost else "loss")
            return
        if entries.get(lo) == size:
            del entries[lo]
            self._tally.explained += 1
            return
        inside = [at for at in entries if lo <= at < lo + size]
        over = any(at + entries[at] > lo + size for at in inside)
        if over or (inside and sum(entries[at] for at in inside) < size):
            self._tally.say("unknown_mapping")
        else:
            self._tally.explained += 1
        for at in inside:
            del entries[at]

    def _dirty(self, row: list[int]) -> None:
        """11.1 replays a plugged run without its address: the query goes to address 0."""
        tally = self._managed.get("11.1")
        if tally is None or row[K.C_ADDR] != 0:
            return
        for device in (d for ds in self._devices.values() for d in ds if d.gpa):
            runs = device.under["11.1"].plugged_runs()
            if any(size == row[K.C_SIZE] for _, size in runs):
                seen = ("query", 0, row[K.C_SIZE])
                tally.hazard(Departure.at("dirty-query-at-0", row, None, seen))
                return
