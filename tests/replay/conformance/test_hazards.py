"""Upstream's known bugs (docs/models/README.md), each told by name when a recording shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conforming import followed, hazards, ways

from replay import run
from replay.conformance.told import HAZARDS, MANAGER_HAZARDS
from replay.models import Type1Container
from replay.models.errors import DmaLimitError
from tracekit.events.qemu import QemuDirtyBitmap
from tracekit.findings import Severity
from tracekit.store import open_trace
from tracekit.synth.calls import Op
from tracekit.synth.guest import BASE, GENERATIONS, PAGE, Guest
from tracekit.synth.render import Renderer
from tracekit.synth.vmm import Region, Vmm

QEMUS = ("merged", "11.1")


def full_container(generation: str) -> Guest:
    """A container with room for two maps, and a request for three."""
    guest = Guest(generation, blocks=16)
    guest.plug_device(entries=2)
    guest.convert(0, 3, private=False)
    return guest


@pytest.mark.parametrize("generation", QEMUS)
def test_a_retry_after_a_failed_map_maps_nothing(generation: str, tmp_path: Path) -> None:
    guest = full_container(generation)
    guest.convert(0, 3, private=False)
    c = followed(guest.events, tmp_path, generation)
    assert hazards(c) == ["attribute-not-restored", "retry-maps-nothing"]
    assert ways(c) == []


@pytest.mark.parametrize("generation", QEMUS)
def test_the_attribute_is_not_restored_when_a_map_fails(generation: str, tmp_path: Path) -> None:
    c = followed(full_container(generation).events, tmp_path, generation)
    assert hazards(c) == ["attribute-not-restored"]


def test_v4_undoes_a_failed_conversion(tmp_path: Path) -> None:
    c = followed(full_container("v4").events, tmp_path, "v4")
    assert hazards(c) == ["rolled-back"]
    assert ways(c) == []


def test_containers_before_the_one_that_refused_keep_their_mappings(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    guest.plug_device(entries=2)  # the older hears last
    guest.plug_device()
    guest.convert(0, 3, private=False)
    c = followed(guest.events, tmp_path, "merged")
    assert hazards(c) == ["attribute-not-restored", "listeners-left-apart"]
    assert hazards(followed(guest.events, tmp_path, "11.1")) != hazards(c)


def test_the_rollback_unmaps_what_another_listener_mapped(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    container = guest.plug_device()
    container.dma_map(BASE + 2 * PAGE, PAGE, guest.rendered.host)
    guest.rendered.run()
    guest.convert(0, 3, private=False)
    assert "rollback-unmapped-others" in hazards(followed(guest.events, tmp_path, "merged"))


@pytest.mark.parametrize("generation", QEMUS)
def test_a_failed_unmap_is_ignored(generation: str, tmp_path: Path) -> None:
    guest = Guest(generation, blocks=16)
    container = guest.plug_device()
    guest.convert(0, 2, private=False)
    container.dma_unmap(BASE, 2 * PAGE)
    container.dma_map(BASE, 4 * PAGE, guest.rendered.host)  # an entry that the unmap would cut
    guest.rendered.run()
    guest.convert(0, 2, private=True)
    c = followed(guest.events, tmp_path, generation)
    assert hazards(c) == ["failed-unmap-ignored"]
    assert ways(c) == []


def test_v4_does_not_survive_a_failed_unmap(tmp_path: Path) -> None:
    guest = Guest("v4", blocks=16)
    container = guest.plug_device()
    guest.convert(0, 2, private=False)
    container.dma_unmap(BASE, 2 * PAGE)
    container.dma_map(BASE, 4 * PAGE, guest.rendered.host)
    guest.rendered.run()
    guest.convert(0, 2, private=True)
    assert guest.ended
    assert hazards(followed(guest.events, tmp_path, "v4")) == ["failure-ends-qemu"]


def test_behind_a_hole_the_range_is_shifted(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    guest.plug_device()
    guest.convert(-2, 4, private=False)
    c = followed(guest.events, tmp_path, "merged")
    assert hazards(c) == ["shifted-range"]
    assert ways(c) == []


@pytest.mark.parametrize("generation", QEMUS)
def test_past_the_end_only_the_attribute_changes(generation: str, tmp_path: Path) -> None:
    guest = Guest(generation, blocks=16)
    guest.plug_device()
    guest.convert(14, 4, private=False)
    c = followed(guest.events, tmp_path, generation)
    assert hazards(c) == ["attribute-not-restored", "past-the-end"] or hazards(c) == [
        "past-the-end"
    ]
    assert ways(c) == []


def test_a_slot_that_is_made_again_forgets_what_is_shared(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    guest.plug_device()
    guest.convert(0, 2, private=False)
    guest.rendered.slot(0, BASE, 0)
    guest.rendered.slot(0, BASE, 16 * PAGE)
    guest.rendered.attribute(BASE, 16 * PAGE, private=True)
    guest.rendered.run()
    assert hazards(followed(guest.events, tmp_path, "merged")) == ["slot-forgets-shared"]


@pytest.mark.parametrize(
    ("generation", "name"),
    [
        ("merged", "failed-replay-ends-qemu"),
        ("11.1", "failed-replay-left-short"),
        ("v4", "failed-replay-left-short"),
    ],
)
def test_a_map_that_fails_while_a_device_is_plugged(
    generation: str, name: str, tmp_path: Path
) -> None:
    """Item 16: 10.1 to 11.0 exit, the others keep a listener without the rest."""
    guest = Guest(generation, blocks=16)
    guest.convert(0, 2, private=False)
    guest.convert(4, 4, private=False)
    guest.plug_device(entries=3)
    assert guest.ended == (generation == "merged")
    c = followed(guest.events, tmp_path, generation)
    assert hazards(c) == [name]
    assert ways(c) == []


def test_a_vmm_that_goes_on_after_a_failed_replay_is_not_merged(tmp_path: Path) -> None:
    guest = Guest("11.1", blocks=16)
    guest.convert(0, 2, private=False)
    guest.plug_device(entries=1)
    guest.convert(8, 2, private=False)
    assert ways(followed(guest.events, tmp_path, "merged"))[0] == "registration-goes-on"
    assert ways(followed(guest.events, tmp_path, "11.1")) == []


@pytest.mark.parametrize("generation", QEMUS)
def test_a_refusal_for_the_dma_limit_leaves_everything_mapped(
    generation: str, tmp_path: Path
) -> None:
    """Item 20: the limit is looked at when all is mapped; nothing is undone."""
    guest = Guest(generation, blocks=40_000)
    guest.convert(16, 8, private=False)
    container = guest.plug_device()
    assert isinstance(container, Type1Container)
    container.dma_max_mappings = 65_535
    section = guest.section
    package = GENERATIONS[generation]
    package.VfioMemoryListener(container).region_del(section)
    guest.rendered.calls[-1:] = []  # here the listener is registered by hand
    with pytest.raises(DmaLimitError):
        package.VfioListener(container).register(section, max_memslots=32_764)
    maps = [call for call in guest.rendered.calls if call.op is Op.MAP]
    guest.rendered.calls[:] = [
        call for call in guest.rendered.calls if call.op not in (Op.MAP, Op.UNMAP, Op.RUN)
    ] + maps[-8:]  # fmt: skip
    assert len(container.entries) == 8
    guest.rendered.add(Op.CLOSE, space=0)
    c = followed(guest.events, tmp_path, generation)
    assert hazards(c) == ["dma-limit-left-mapped"]
    assert hazards(followed(guest.events, tmp_path, "v4")) == []


@pytest.mark.parametrize("generation", GENERATIONS)
def test_iommufd_takes_absent_for_unmapped(generation: str, tmp_path: Path) -> None:
    """Item 25: ENOENT is a success, also where an area would have been cut."""
    guest = Guest(
        generation, blocks=16, vmm=Vmm(backend="iommufd", regions=(Region(size=16 * PAGE),))
    )
    container = guest.plug_device()
    guest.convert(0, 2, private=False)
    container.dma_unmap(BASE, 2 * PAGE)
    container.dma_map(BASE, 4 * PAGE, guest.rendered.host)
    guest.rendered.run()
    guest.convert(0, 2, private=True)
    assert not guest.ended
    c = followed(guest.events, tmp_path, generation)
    assert hazards(c) == ["absent-unmap-is-success"]
    assert ways(c) == []


@pytest.mark.parametrize("generation", QEMUS)
def test_a_listener_that_goes_unmaps_what_another_mapped(generation: str, tmp_path: Path) -> None:
    """Item 27; v4 unmaps its own runs only."""
    for of in (generation, "v4"):
        guest = Guest(of, blocks=16)
        container = guest.plug_device()
        guest.convert(0, 2, private=False)
        container.dma_map(BASE + 8 * PAGE, PAGE, guest.rendered.host)
        guest.rendered.run()
        guest.unplug_device(0)
        told = hazards(followed(guest.events, tmp_path, of))
        assert told == (["unregister-unmapped-others"] if of == generation else [])


def test_a_dirty_query_of_a_replayed_range_goes_to_address_0(tmp_path: Path) -> None:
    """Item 21: 11.1 replays a run without its address; the model says where the queries go."""
    for generation, told in (("11.1", ["dirty-query-at-0"]), ("merged", [])):
        guest = Guest(generation, blocks=16)
        container = guest.plug_device()
        guest.convert(4, 3, private=False)
        queries = GENERATIONS[generation].dirty_queries(container, guest.section)
        assert [q.iova for q in queries] == [0 if told else BASE + 4 * PAGE]
        last = guest.events[-1]
        asked = [
            QemuDirtyBitmap(ts_ns=last.ts_ns + 1 + i, iova=q.iova, size=q.size)
            for i, q in enumerate(queries)
        ]
        assert hazards(followed([*guest.events, *asked], tmp_path, "11.1")) == told


def test_the_table_of_hazards_names_all_of_them() -> None:
    """docs/conformance.md has every item of the list of known bugs, and every name told here."""
    page = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [r for r in page.splitlines() if r.startswith("|") and r.split("|")[1].strip().isdigit()]
    assert [int(line.split("|")[1]) for line in rows] == list(range(1, 29))
    names = {name for name, _ in HAZARDS.values()} | set(MANAGER_HAZARDS)
    table = "\n".join(rows)
    assert all(f"`{name}`" in page for name in names)
    assert all(f"`{name}`" in table for name in names - {"rolled-back"})
    shown = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    assert all(f'"{name}"' in shown for name in names)


def test_a_hazard_is_a_note_with_its_name(tmp_path: Path) -> None:
    guest = full_container("merged")
    guest.convert(8, 1, private=False)
    followed(guest.events, tmp_path)
    result = run(open_trace(tmp_path / "conforming.parquet"), generation="merged")
    told = [f for f in result.findings if f.code == "TK201"]
    assert [(f.severity, f.title) for f in told] == [
        (Severity.NOTE, "attribute-not-restored (QEMU merged)")
    ]


def test_a_correct_guest_shows_no_hazard(tmp_path: Path) -> None:
    guest = Guest("merged", blocks=16)
    guest.plug_device()
    for first in range(0, 12, 3):
        guest.convert(first, 4, private=False)
    guest.convert(0, 16, private=True)
    assert hazards(followed(guest.events, tmp_path, "merged")) == []
    assert isinstance(guest.rendered, Renderer)
