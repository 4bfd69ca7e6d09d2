"""What a notebook shows of the models."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from replay.models import MemoryRegion, merged, sources, v4
from replay.models.iommufd_ioas import IommufdIoas
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.shown import WIDTH, shown, size_of
from replay.models.type1_iommu import Type1Iommu
from replay.models.vsock_sock import VsockSock

MIB = 1 << 20


def cells(model: Any) -> list[str]:
    """Every cell's text; the markup is well-formed."""
    table = ElementTree.fromstring(model._repr_html_())
    return ["".join(cell.itertext()) for cell in table.iter("td")]


@pytest.mark.parametrize(
    "made", [v4.RamBlockAttribute, merged.RamBlockAttributes, sources.RamBlockAttributes]
)
def test_each_generation_shows_what_is_shared_and_draws_it_to_scale(made: Any) -> None:
    attributes = made(MemoryRegion.ram("ram0", 64 * MIB))
    attributes.bitmap.set(16 * 256, 32 * 256)
    said = cells(attributes)
    assert said[:2] == ["shared", "32 MiB of 64 MiB"]
    assert said[-2:] == ["0x1000000", "32 MiB"]
    drawn = re.findall(r'<rect x="([\d.]+)" y="1" width="([\d.]+)"', attributes._repr_html_())
    assert drawn == [(f"{WIDTH // 4}", f"{WIDTH // 2}")]


def test_the_kernel_s_sides_show_entries_and_ranges() -> None:
    type1, ioas, kvm = Type1Iommu(100), IommufdIoas(), KvmMemoryAttributes()
    for page in range(20):
        type1.map_dma(page * 8192, 4096, 0x1000000 + page * 4096)
        ioas.map(page * 4096, 4096, page * 4096)
    kvm.set_memory_attributes_private(0x200000, 2 * MIB)
    assert cells(type1)[:4] == ["DMA entries", "20", "left", "80"]
    assert cells(type1)[-1] == "and 14 more"
    assert cells(ioas)[:4] == ["areas", "20", "mapped", "80 KiB"]
    assert cells(kvm)[:2] == ["private", "2 MiB"]


def test_a_socket_shows_how_it_would_close() -> None:
    sock = VsockSock(unsent_bytes=4096)
    sock.setsockopt_linger(1, 5)
    said = dict(zip(cells(sock)[::2], cells(sock)[1::2], strict=True))
    assert (said["SO_LINGER"], said["unsent"]) == ("5 s", "4,096 bytes")


def test_names_are_escaped_and_many_ranges_stay_small() -> None:
    ranges = [(start, start + 1) for start in range(0, 2_000_000, 20)]
    text = shown("<img src=x>", [("<b>", "&")], ranges, (0, 2_000_000))
    assert "<img" not in text
    assert "<b>" not in text
    assert len(text) < 50_000
    assert cells(KvmMemoryAttributes()) == ["private", "0 B"]
    assert [size_of(n) for n in (1, 4096, 3 << 19, 5 << 40)] == [
        "1 B", "4 KiB", "1,536 KiB", "5 TiB",
    ]  # fmt: skip
