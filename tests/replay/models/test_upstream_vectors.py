"""Every effect of every script that the real C code ran, in order, against the models.

``TRACEKIT_VECTORS`` names a folder of ``*.jsonl.gz``; without it the sample in
tests/data/vectors is used.
"""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from replay.models import (
    CoordinatedDiscard,
    DiscardRequest,
    DmaLimitError,
    FlatView,
    KvmMemoryAttributes,
    MemoryRegion,
    MemoryRegionSection,
    RegionKind,
    Type1Container,
    Type1Iommu,
    merged,
    sources,
    v4,
)
from replay.models.block_bitmap import BlockBitmap
from replay.models.errors import (
    AbortError,
    ExitError,
    ListenerError,
    UndefinedBehaviourError,
    UpstreamError,
)

SAMPLE = Path(__file__).parents[2] / "data" / "vectors"
FOLDER = Path(os.environ.get("TRACEKIT_VECTORS") or SAMPLE)
GENERATIONS = ("g1", "g2", "g3")
PIECE = 4096
KINDS = {
    1: RegionKind.MMIO,
    2: RegionKind.RAM,
    3: RegionKind.ROM,
    4: RegionKind.RAM_DEVICE,
    5: RegionKind.ROMD,
}
Effect = list[Any]


def scripts(generation: str) -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                script = json.loads(line)
                if script["gen"] == generation:
                    yield script


class LoggedType1(Type1Container):
    """Writes down what it was asked, with neighbouring 4 KiB pieces in one line."""

    def __init__(self, cid: int, dma_avail: int, dma_max_mappings: int, log: list[Effect]) -> None:
        super().__init__(iommu=Type1Iommu(dma_avail, pgsize=1), dma_max_mappings=dma_max_mappings)
        self.cid, self.log = cid, log
        self.open_run: Effect | None = None

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        try:
            super().dma_map(iova, size, vaddr, readonly)
        except UpstreamError as error:
            self.log.append(["map", self.cid, iova, vaddr, size, 1, error.returned])
            raise
        run = self.log[-1] if self.log else [""]
        if (
            size == PIECE
            and run is self.open_run
            and (run[2] + run[4], run[3] + run[4]) == (iova, vaddr)
        ):
            run[4] += size
            run[5] += 1
            return
        self.log.append(["map", self.cid, iova, vaddr, size, 1, 0])
        self.open_run = self.log[-1] if size == PIECE else None

    def dma_unmap(self, iova: int, size: int) -> int:
        before = len(self.entries)
        result = 0
        try:
            return super().dma_unmap(iova, size)
        except UpstreamError as error:
            result = error.returned
            raise
        finally:
            removed = before - len(self.entries)
            self.log.append(["unmap", self.cid, iova, size, removed, result])


class LoggedKvm(KvmMemoryAttributes):
    def __init__(self, log: list[Effect]) -> None:
        super().__init__()
        self.log = log

    def _set(self, gpa: int, size: int, private: bool) -> None:
        try:
            super()._set(gpa, size, private)
        finally:
            self.log.append(["attr", gpa, size, int(private), -self.calls[-1].errno])


class Logged:
    """Mixed into a listener: a line for each notification, written when it is finished."""

    def note(self, lid: int, log: list[Effect]) -> None:
        self.lid, self.log = lid, log

    def logged(self, kind: str, section: MemoryRegionSection, call: Any) -> None:
        result = 0
        try:
            call(section)
        except UpstreamError as error:
            result = error.returned
            raise
        finally:
            self.log.append([kind, self.lid, *section[1:], result])


class Refusing:
    """Refuses its n-th populate (and, in v4, its n-th discard) with an error."""

    def plan(self, fail_at: int, ferr: int, fail_dis_at: int) -> None:
        self.left = {"pop": fail_at, "dis": fail_dis_at}
        self.ferr = ferr

    def refuse(self, kind: str) -> None:
        self.left[kind] -= 1
        if self.left[kind] == 0:
            raise ListenerError("as the script says", -self.ferr)


class V4Logged(Logged):
    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        self.logged("pop", section, super().notify_to_state_set)  # type: ignore[misc]

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        self.logged("dis", section, super().notify_to_state_clear)  # type: ignore[misc]


class V4Vfio(V4Logged, v4.VfioPrivateSharedListener):
    pass


class V4Kvm(V4Logged, v4.CVMPrivateSharedListener):
    pass


class V4Refusing(Refusing, v4.PrivateSharedListener):
    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        self.refuse("pop")

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        self.refuse("dis")


class V4Generic(V4Logged, V4Refusing):
    pass


class MergedLogged(Logged):
    def notify_populate(self, section: MemoryRegionSection) -> None:
        self.logged("pop", section, super().notify_populate)  # type: ignore[misc]

    def notify_discard(self, section: MemoryRegionSection) -> None:
        self.logged("dis", section, super().notify_discard)  # type: ignore[misc]


class MergedVfio(MergedLogged, merged.VfioListener):
    pass


class MergedRefusing(Refusing, merged.RamDiscardListener):
    def notify_populate(self, section: MemoryRegionSection) -> None:
        self.refuse("pop")

    def notify_discard(self, section: MemoryRegionSection) -> None:
        pass


class MergedGeneric(MergedLogged, MergedRefusing):
    pass


class SecondSource(sources.RamDiscardSource):
    """What virtio-mem is to the manager: partial blocks round outwards."""

    def __init__(self, mr: MemoryRegion, granularity: int) -> None:
        self.mr = mr
        self.bitmap = BlockBitmap(mr.size, granularity)

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        return self.bitmap.block_size

    def is_populated(self, section: MemoryRegionSection) -> bool:
        first, last = self.blocks(section[1], section[2])
        return last <= len(self.bitmap.bits) and 0 not in self.bitmap.bits[first:last]

    def replay_populated(self, section: MemoryRegionSection, callback: Any) -> None:
        for part in self.bitmap.sections(section, 1):
            callback(part)

    def replay_discarded(self, section: MemoryRegionSection, callback: Any) -> None:
        for part in self.bitmap.sections(section, 0):
            callback(part)

    def blocks(self, offset: int, size: int) -> tuple[int, int]:
        block = self.bitmap.block_size
        return offset // block, -(-(offset + size) // block)

    def write(self, offset: int, size: int, value: int) -> None:
        first, last = self.blocks(offset, size)
        last = min(last, len(self.bitmap.bits))
        for bit in range(first, last):
            self.bitmap.bits[bit] = value


class Machine:
    """One script's world; a method for each operation, called ``op_`` and its name."""

    generation: ClassVar[str]

    def __init__(self) -> None:
        self.log: list[Effect] = []
        self.view = FlatView()
        self.kvm = LoggedKvm(self.log)
        self.discard = CoordinatedDiscard()
        self.containers: dict[int, LoggedType1] = {}
        self.listeners: dict[int, tuple[str, Any, MemoryRegionSection]] = {}
        self.sources: dict[int, SecondSource] = {}
        self.mr: MemoryRegion
        self.attributes: Any

    def run(self, op: list[Any]) -> list[Effect]:
        self.log.clear()
        try:
            result = getattr(self, f"op_{op[0]}")(*op[1:])
            if result is not None:
                self.log.append(["ret", int(result)])
        except UpstreamError as error:
            self.log.append(["ret", error.returned])
        except DmaLimitError:
            self.log.append(["ret", 0])
        except AbortError as end:
            self.log.append(["abort", end.function])
        except ExitError as end:
            self.log.append(["exit", end.status])
        except UndefinedBehaviourError:
            self.log[:] = [["ub"]]
        return [list(effect) for effect in self.log]

    def section(self, off: int, size: int, as_off: int) -> MemoryRegionSection:
        return self.mr.section(off, size, address=as_off)

    def op_init(self, region_size: int, ram_page_size: int) -> int:
        self.mr = MemoryRegion.ram("ram0", region_size, page_size=ram_page_size)
        assert self.mr.ram_block is not None
        self.mr.ram_block.on_discard = lambda d: self.log.append(
            ["dsc", d.side.value, d.offset, d.size, 0]
        )
        self.create()
        self.manager: Any = self.mr.manager
        return 0

    def create(self) -> None:
        raise NotImplementedError

    def op_fr(self, gpa: int, size: int, kind: int, region_off: int) -> None:
        if kind == 0:
            self.view.add(gpa, self.mr, offset=region_off, size=size)
        else:
            self.view.add(gpa, MemoryRegion(f"kind{kind}", size, kind=KINDS[kind]))

    def op_cont(self, cid: int, dma_avail: int, dma_max_mappings: int) -> None:
        self.containers[cid] = LoggedType1(cid, dma_avail, dma_max_mappings, self.log)

    def op_lim(self, cid: int, dma_avail: int) -> None:
        self.containers[cid].iommu.dma_avail = dma_avail

    def op_chg(self, off: int, size: int, to_private: int) -> int:
        self.attributes.state_change(off, size, bool(to_private))
        return 0

    def trace_convert(self, event: Any) -> None:
        self.log.append(["tr_cvt", *event])

    def trace_change(self, event: Any) -> None:
        self.log.append(["tr", *event])

    def op_cvt(self, gpa: int, size: int, to_private: int) -> int:
        merged.kvm_convert_memory(
            self.view, self.kvm, gpa, size, bool(to_private), trace=self.trace_convert
        )
        return 0

    def op_kfail(self, n: int, errno: int) -> None:
        self.kvm.fail(n, -errno)

    def op_rep(self, state: str, off: int, size: int, as_off: int, fail_at: int, errno: int) -> int:
        count = 0

        def callback(section: MemoryRegionSection) -> None:
            nonlocal count
            count += 1
            self.log.append(["rp", *section[1:], errno if count == fail_at else 0])
            if count == fail_at:
                raise ListenerError("as the script says", -errno)

        self.replay(state == "pop", self.section(off, size, as_off), callback)
        return 0

    def replay(self, populated: bool, section: MemoryRegionSection, callback: Any) -> None:
        replay = self.manager.replay_populated if populated else self.manager.replay_discarded
        replay(section, callback)

    def op_qry(self, off: int, size: int) -> bool:
        return bool(self.manager.is_populated(self.section(off, size, 0)))

    def op_gran(self) -> int:
        return int(self.manager.get_min_granularity(self.mr))

    def op_bmp(self) -> None:
        self.log.append(["bmp", [list(r) for r in self.attributes.shared_ranges()]])

    def op_maps(self, cid: int) -> None:
        container = self.containers[cid]
        ranges = [list(r) for r in container.entries.ranges()]
        self.log.append(["maps", cid, container.iommu.dma_avail, ranges])

    def op_disc(self, which: int, state: int) -> int:
        request = list(DiscardRequest)[which]
        (self.discard.take if state else self.discard.release)(request)
        return 0

    def op_isect(self, s_off: int, s_size: int, s_as_off: int, off: int, size: int) -> None:
        section = MemoryRegionSection(self.mr, s_off, s_size, s_as_off)
        part = section.intersect_range(off, size)
        self.log.append(["isect", int(part is not None), *(part or section)[1:]])

    def op_add(
        self, lid: int, kind: str, prio: int, off: int, size: int, as_off: int, dds: int,
        cid: int, fail_at: int, ferr: int, fail_dis_at: int,
    ) -> int:  # fmt: skip
        section = self.section(off, size, as_off)
        listener: MergedVfio | MergedGeneric
        listener = MergedVfio(self.containers[cid]) if kind == "vfio" else MergedGeneric()
        listener.note(lid, self.log)
        self.listeners[lid] = (kind, listener, section)
        if isinstance(listener, MergedVfio):
            listener.register(section)
        else:
            listener.plan(fail_at, ferr, fail_dis_at)
            listener.double_discard_supported = bool(dds)
            self.manager.register_listener(listener, section)
        return 1

    def op_del(self, lid: int) -> int:
        kind, listener, section = self.listeners.pop(lid)
        if kind == "vfio":
            merged.VfioListener.unregister(listener.container, section)
        else:
            self.manager.unregister_listener(listener)
        return 0


class MergedMachine(Machine):
    generation = "g2"

    def create(self) -> None:
        self.attributes = merged.RamBlockAttributes(self.mr, trace=self.trace_change)


class SourcesMachine(Machine):
    generation = "g3"

    def create(self) -> None:
        self.attributes = sources.RamBlockAttributes(self.mr, trace=self.trace_change)

    def op_srcnew(self, sid: int, gran: int) -> None:
        self.sources[sid] = SecondSource(self.mr, gran)

    def op_srcset(self, sid: int, off: int, size: int, value: int) -> None:
        self.sources[sid].write(off, size, value)

    def op_srcadd(self, sid: int) -> int:
        self.manager.add_source(self.sources[sid])
        return 0

    def op_srcdel(self, sid: int) -> int:
        self.manager.del_source(self.sources[sid])
        return 0

    def op_srcpop(self, sid: int, off: int, size: int) -> int:
        self.manager.notify_populate(self.sources[sid], off, size)
        self.sources[sid].write(off, size, 1)
        return 0

    def op_srcdis(self, sid: int, off: int, size: int) -> int:
        self.manager.notify_discard(self.sources[sid], off, size)
        self.sources[sid].write(off, size, 0)
        return 0

    def op_srcdisall(self, sid: int) -> int:
        self.manager.notify_discard_all(self.sources[sid])
        self.sources[sid].write(0, self.mr.size, 0)
        return 0

    def op_repall(self) -> int:
        self.manager.replay_populated_to_listeners()
        return 0


class V4Machine(Machine):
    generation = "g1"

    def create(self) -> None:
        self.attributes = v4.RamBlockAttribute(self.mr)

    def op_cvt(self, gpa: int, size: int, to_private: int) -> int:
        v4.kvm_convert_memory(self.view, gpa, size, bool(to_private), trace=self.trace_convert)
        return 0

    def replay(self, populated: bool, section: MemoryRegionSection, callback: Any) -> None:
        manager = self.attributes
        replay = manager.replay_on_state_set if populated else manager.replay_on_state_clear
        replay(section, callback)

    def op_qry(self, off: int, size: int) -> bool:
        return bool(self.attributes.is_state_set(self.section(off, size, 0)))

    def op_add(
        self, lid: int, kind: str, prio: int, off: int, size: int, as_off: int, dds: int,
        cid: int, fail_at: int, ferr: int, fail_dis_at: int,
    ) -> int:  # fmt: skip
        section = self.section(off, size, as_off)
        listener: V4Kvm | V4Vfio | V4Generic
        if kind == "kvm":
            listener = V4Kvm(self.kvm)
        elif kind == "vfio":
            listener = V4Vfio(self.containers[cid])
        else:
            listener = V4Generic()
            listener.priority = prio
            listener.plan(fail_at, ferr, fail_dis_at)
        listener.note(lid, self.log)
        self.listeners[lid] = (kind, listener, section)
        if isinstance(listener, V4Generic):
            self.attributes.register_listener(listener, section)
        else:
            listener.register(section)
        return 0

    def op_del(self, lid: int) -> int:
        kind, listener, section = self.listeners.pop(lid)
        if kind == "vfio":
            v4.VfioPrivateSharedListener.unregister(listener.container, section)
        else:
            self.attributes.unregister_listener(listener)
        return 0


MACHINES = {machine.generation: machine for machine in (V4Machine, MergedMachine, SourcesMachine)}


def first_difference(script: dict[str, Any]) -> tuple[str, int]:
    """What differs first, empty if nothing does, and the number of effects compared."""
    machine = MACHINES[script["gen"]]()
    compared = 0
    for number, (op, wanted) in enumerate(zip(script["ops"], script["effects"], strict=False)):
        got = machine.run(op)
        if got != wanted:
            at = next(
                (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b),
                min(len(got), len(wanted)),
            )
            return (
                f"{script['id']} operation {number} {op}, effect {at}: "
                f"upstream {wanted[at : at + 3]}, model {got[at : at + 3]}"
            ), compared
        compared += len(wanted)
    ends_well = script["end"] == "ok"
    if ends_well != (len(script["effects"]) == len(script["ops"])):
        return f"{script['id']} is not a whole script", compared
    return "", compared


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_effect_of_every_script_is_upstreams(
    generation: str, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    differences: list[str] = []
    count = effects = 0
    for script in scripts(generation):
        difference, compared = first_difference(script)
        count += 1
        effects += compared
        if difference:
            differences.append(difference)
    with capsys.disabled():
        print(f"\n{generation}: {count} scripts, {effects} effects compared, {FOLDER}")
    assert count, f"no script of {generation} in {FOLDER}"
    assert effects, f"no effect of {generation} in {FOLDER}"
    assert not differences, f"{len(differences)} scripts differ:\n" + "\n".join(differences[:20])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_difference_is_noticed_wherever_it_is(generation: str) -> None:
    script = next(s for s in scripts(generation) if s["end"] == "ok" and len(s["ops"]) > 5)
    assert first_difference(script)[0] == ""
    for number, effects in enumerate(script["effects"]):
        changed = {**script, "effects": [list(e) for e in script["effects"]]}
        changed["effects"][number] = [*effects, ["ret", 12345]]
        assert f"operation {number} " in first_difference(changed)[0]
    cut = {**script, "effects": script["effects"][:-1]}
    assert "not a whole script" in first_difference(cut)[0]
