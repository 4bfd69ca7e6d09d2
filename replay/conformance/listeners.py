"""Calls outside conversions: a region comes or goes, virtio-mem plugs and unplugs.

The requests are inferred from the calls, and put to the models in replay/models, ``VirtioMem`` and
``VfioListener``, whose calls are compared with the next ones that are seen:

- A memory slot whose whole backing is discarded while the device is made or reset is virtio-mem's.
- A map of a block there that is not plugged is a plug request; a discard of a block's backing and
  an unmap by the same thread an unplug request; of everything, a reset.
- A map of a block that is plugged, by a container that hears of it for the first time or again, is
  a listener's registration, which replays all that is plugged.
- Elsewhere a region's listener maps it with one call and unmaps it with one: an unmap of other
  than what one call mapped is none of VFIO's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from replay.conformance.kernel import layout as K
from replay.models import MemoryRegion, Type1Container, merged
from replay.models.errors import ModelError

__all__ = ("Departure", "ListenerTally", "Listeners")

KEPT_DEPARTURES = 1000
RECENT = 8
"""Discards of a thread that are remembered, because their unmap may come."""
BLOCK_AT_LEAST = 1 << 20

Pair = tuple[str, int, int]


@dataclass(frozen=True)
class Departure:
    """A call of a managed region that differs from the model's.  ``what``: expected, or extra."""

    what: str
    process: int
    thread: int
    space: int
    expected: Pair | None
    seen: Pair
    ts_ns: int
    seq: int


@dataclass
class ListenerTally:
    """How many of the calls outside conversions were compared."""

    explained: int = 0
    undecided: int = 0
    plugs: int = 0
    unplugs: int = 0
    resets: int = 0
    replays: int = 0
    regions: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    departures: list[Departure] = field(default_factory=list)
    departed: int = 0

    def say(self, reason: str, count: int = 1) -> None:
        """That many could not be compared."""
        self.undecided += count
        self.reasons[reason] = self.reasons.get(reason, 0) + count


class _Recorder(Type1Container):
    """A container that writes down what it is asked and refuses nothing."""

    def __init__(self) -> None:
        super().__init__(name="container", dma_max_mappings=0)
        self.asked: deque[Pair] = deque()

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        self.asked.append(("map", iova, size))

    def dma_unmap(self, iova: int, size: int) -> int:
        self.asked.append(("unmap", iova, size))
        return size


class _Device:
    """A virtio-mem device, as the model has it, and the listeners of its region."""

    def __init__(self, gpa: int, size: int, vaddr: int) -> None:
        self.gpa, self.size, self.vaddr = gpa, size, vaddr
        self.mr = MemoryRegion.ram("virtio-mem", size, guest_memfd=False)
        self.model: merged.VirtioMem | None = None
        self.listening: dict[int, _Recorder] = {}

    def holds(self, lo: int, size: int) -> bool:
        return self.gpa <= lo and lo + size <= self.gpa + self.size

    def block(self, size: int) -> merged.VirtioMem:
        """The model, made when the first piece shows how large a block is."""
        if self.model is None:
            self.model = merged.VirtioMem(self.mr, block_size=size, address=self.gpa)
        return self.model

    def is_plugged(self, lo: int) -> bool:
        model = self.model
        if model is None:
            return False
        return bool(model.bitmap.bits[(lo - self.gpa) // model.block_size])


class Listeners:
    """Feed it, in order, the calls that no conversion took."""

    def __init__(self) -> None:
        self._tally = ListenerTally()
        self._devices: dict[int, list[_Device]] = {}
        self._slots: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._whole: dict[int, list[tuple[int, int]]] = {}
        self._entries: dict[tuple[int, int], dict[int, int]] = {}
        self._recent: dict[int, deque[tuple[int | None, int | None, int]]] = {}
        self._lost = False

    def feed(self, calls: Any) -> None:
        """Take more calls."""
        for row in calls.tolist():
            kind, proc = row[K.C_KIND], row[K.C_PROC]
            if kind == K.K_DISCARD:
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
            elif kind == K.K_LOST:
                self._devices.clear()
                self._entries.clear()
                self._recent.clear()
                self._whole.clear()
                self._lost = True

    def finish(self) -> ListenerTally:
        """The counts; what the models still wait for is undecided."""
        return self._tally

    def _slot(self, row: list[int]) -> None:
        if not row[K.C_KNOWN] or row[K.C_VADDR] == K.NULL:
            return
        proc, gpa, size = row[K.C_PROC], row[K.C_ADDR], row[K.C_SIZE]
        if size <= 0:
            self._slots.pop((proc, row[K.C_SPACE]), None)
            return
        self._slots[proc, row[K.C_SPACE]] = (gpa, size, row[K.C_VADDR])
        if (row[K.C_VADDR], size) in self._whole.get(proc, ()):
            self._found(proc, gpa, size, row[K.C_VADDR])

    def _found(self, proc: int, gpa: int, size: int, vaddr: int) -> None:
        devices = self._devices.setdefault(proc, [])
        if gpa & 4095 or size & 4095 or size <= 0 or size > 1 << 40 or gpa < 0:
            return
        if not any(d.gpa < gpa + size and gpa < d.gpa + d.size for d in devices):
            devices.append(_Device(gpa, size, vaddr))

    def _discard(self, row: list[int]) -> None:
        proc, size = row[K.C_PROC], row[K.C_SIZE]
        if row[K.C_RET] < 0 or size < BLOCK_AT_LEAST:
            return
        vaddr = None if row[K.C_VADDR] == K.NULL else row[K.C_VADDR]
        offset = None if row[K.C_ADDR] == K.NULL else row[K.C_ADDR]
        recent = self._recent.setdefault(row[K.C_THREAD], deque(maxlen=RECENT))
        recent.append((vaddr, offset, size))
        if vaddr is None or any(
            d.vaddr <= vaddr < d.vaddr + d.size for d in self._devices.get(proc, ())
        ):
            return
        whole = self._whole.setdefault(proc, [])
        whole.append((vaddr, size))
        del whole[:-RECENT]
        for (of, _), (gpa, length, at) in self._slots.items():
            if of == proc and (at, length) == (vaddr, size):
                self._found(proc, gpa, length, at)

    def _device(self, proc: int, lo: int, size: int) -> _Device | None:
        return next((d for d in self._devices.get(proc, ()) if d.holds(lo, size)), None)

    def _close(self, proc: int, fd: int) -> None:
        for key in [k for k in self._entries if k[0] == proc and k[1] & 0xFFFFF == fd]:
            del self._entries[key]
            for device in self._devices.get(proc, ()):
                self._unregister(device, key[1])

    def _unregister(self, device: _Device, space: int) -> None:
        recorder = device.listening.pop(space, None)
        if recorder is not None and device.model is not None:
            section = device.mr.section(address=device.gpa)
            merged.VfioListener.unregister(recorder, section)

    def _register(self, device: _Device, space: int, block: int) -> None:
        device.block(block)
        recorder = device.listening[space] = _Recorder()
        merged.VfioListener(recorder).register(device.mr.section(address=device.gpa))

    def _map(self, row: list[int]) -> None:
        proc, space = row[K.C_PROC], row[K.C_SPACE]
        lo, size = row[K.C_ADDR], row[K.C_SIZE]
        device = self._device(proc, lo, size)
        if device is None or row[K.C_RET] < 0:
            if row[K.C_RET] >= 0:
                self._entries.setdefault((proc, space), {})[lo] = size
                self._tally.regions += 1
            self._tally.explained += row[K.C_COUNT]
            return
        try:
            if space not in device.listening:
                self._register(device, space, size)
                self._tally.replays += bool(device.listening[space].asked)
            if not device.listening[space].asked and not device.is_plugged(lo):
                model = device.block(size)
                model.set_block_state((lo - device.gpa), size, True)
                self._tally.plugs += 1
        except (ModelError, ValueError):
            self._depart("extra", row, None, ("map", lo, size))
            return
        self._compare(device, row, ("map", lo, size))

    def _unmap(self, row: list[int]) -> None:
        proc, space = row[K.C_PROC], row[K.C_SPACE]
        lo, size = row[K.C_ADDR], row[K.C_SIZE]
        if size < 0:  # everything
            self._entries.pop((proc, space), None)
            self._tally.explained += 1
            return
        device = self._device(proc, lo, size)
        if device is None:
            self._unmap_region(row)
            return
        if space not in device.listening and device.model is not None:
            self._register(device, space, device.model.block_size)
            device.listening[space].asked.clear()  # it was registered, and mapped nothing to see
        if space not in device.listening:
            self._tally.explained += 1  # nothing was ever plugged: an empty section goes
            return
        recorder = device.listening[space]
        if not recorder.asked:
            model = device.block(size)
            discarded = self._was_discarded(row[K.C_THREAD], device, lo, size)
            try:
                if (lo, size) == (device.gpa, device.size):
                    if discarded and model.size:
                        model.unplug_all_request()
                        self._tally.resets += 1
                    else:
                        section = device.mr.section(address=device.gpa)
                        merged.VfioListener.unregister(recorder, section)
                        del device.listening[space]
                elif discarded:
                    model.set_block_state(lo - device.gpa, size, False)
                    self._tally.unplugs += 1
                else:
                    self._depart("extra", row, None, ("unmap", lo, size))
                    return
            except (ModelError, ValueError):
                self._depart("extra", row, None, ("unmap", lo, size))
                return
        if not recorder.asked:
            self._depart("extra", row, None, ("unmap", lo, size))
            return
        self._check(recorder, row, ("unmap", lo, size))

    def _was_discarded(self, thread: int, device: _Device, lo: int, size: int) -> bool:
        recent = self._recent.get(thread, deque())
        wanted = lo - device.gpa
        for vaddr, offset, length in reversed(recent):
            if length == size and (vaddr == device.vaddr + wanted or offset == wanted):
                return True
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

    def _compare(self, device: _Device, row: list[int], seen: Pair) -> None:
        recorder = device.listening[row[K.C_SPACE]]
        if not recorder.asked:
            self._depart("extra", row, None, seen)
            return
        self._check(recorder, row, seen)

    def _check(self, recorder: _Recorder, row: list[int], seen: Pair) -> None:
        expected = recorder.asked.popleft()
        if expected == seen:
            self._tally.explained += 1
            return
        recorder.asked.clear()
        self._depart("expected", row, expected, seen)

    def _depart(self, what: str, row: list[int], expected: Pair | None, seen: Pair) -> None:
        tally = self._tally
        tally.departed += 1
        if len(tally.departures) < KEPT_DEPARTURES:
            tally.departures.append(
                Departure(
                    what=what,
                    process=row[K.C_PROC],
                    thread=row[K.C_THREAD],
                    space=row[K.C_SPACE],
                    expected=expected,
                    seen=seen,
                    ts_ns=row[K.C_TS0],
                    seq=row[K.C_SEQ0],
                )
            )
