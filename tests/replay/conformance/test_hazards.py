"""Upstream's known bugs (docs/models/README.md), each told by name when a recording shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conforming import followed, hazards, ways

from replay import run
from tracekit.findings import Severity
from tracekit.store import open_trace
from tracekit.synth.guest import BASE, PAGE, Guest
from tracekit.synth.render import Renderer

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
