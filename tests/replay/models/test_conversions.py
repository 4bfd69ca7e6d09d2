"""kvm_convert_memory() of each generation, and the guests that end up in it."""

import errno
from collections.abc import Callable

import pytest

from replay.models import (
    DiscardSide,
    FlatView,
    KvmMemoryAttributes,
    MemoryRegion,
    PageStateChange,
    RegionKind,
    TdxMapGpa,
    merged,
    sources,
    v4,
)
from replay.models.errors import (
    BisectedEntryError,
    ConvertError,
    DiscardError,
    InvalidRangeError,
    SetAttributesError,
    UpstreamError,
)
from replay.models.kvm_conversion import ConvertTrace
from replay.models.kvm_exits import (
    KVM_MEMORY_EXIT_FLAG_PRIVATE,
    HcMapGpaRange,
    handle_hc_map_gpa_range,
    handle_memory_fault,
)
from replay.models.ram_block import Discard
from replay.models.range_set import RangeSet
from replay.models.snp_page_state_change import PscEntry, PscOperation, PscResult
from replay.models.tdx_map_gpa import MapGpaResult, TdvmcallStatus

PAGE = 4096
MIB = 1 << 20
BASE = 1 << 32
GENERATIONS = ["v4", "merged", "sources"]


class Guest:
    """8 MiB of RAM at BASE, then device memory, ROM and plain RAM."""

    def __init__(self, generation: str, size: int = 8 * MIB) -> None:
        self.mr = MemoryRegion.ram("ram0", size)
        self.kvm = KvmMemoryAttributes()
        self.view = FlatView()
        self.view.add(BASE, self.mr)
        self.view.add(0x1000, MemoryRegion("bios", PAGE, kind=RegionKind.ROM))
        self.view.add(0x2000, MemoryRegion("bar", PAGE, kind=RegionKind.MMIO))
        self.view.add(0x3000, MemoryRegion.ram("plain", PAGE, guest_memfd=False))
        self.view.add(0x4000, MemoryRegion("vram", PAGE, kind=RegionKind.RAM_DEVICE))
        self.view.add(0x5000, MemoryRegion("flash", PAGE, kind=RegionKind.ROMD))
        self.discards: list[Discard] = []
        self.traced: list[ConvertTrace] = []
        assert self.mr.ram_block is not None
        self.mr.ram_block.on_discard = self.discards.append
        self.ram: v4.RamBlockAttribute | merged.RamBlockAttributes | sources.RamBlockAttributes
        if generation == "v4":
            self.ram = v4.RamBlockAttribute(self.mr)
            v4.CVMPrivateSharedListener(self.kvm).register(self.mr.section(address=BASE))
        else:
            package = merged if generation == "merged" else sources
            self.ram = package.RamBlockAttributes(self.mr)
        self.generation = generation

    def convert(self, start: int, size: int, to_private: bool) -> None:
        if self.generation == "v4":
            v4.kvm_convert_memory(self.view, start, size, to_private, trace=self.traced.append)
        else:
            merged.kvm_convert_memory(
                self.view, self.kvm, start, size, to_private, trace=self.traced.append
            )


@pytest.fixture(params=GENERATIONS)
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(request.param)


def test_each_direction_throws_the_other_backing_away(guest: Guest) -> None:
    guest.convert(BASE, 2 * PAGE, False)
    guest.convert(BASE, PAGE, True)
    assert [(d.side, d.offset, d.size) for d in guest.discards] == [
        (DiscardSide.GUEST_MEMFD, 0, 2 * PAGE),
        (DiscardSide.SHARED, 0, PAGE),
    ]
    assert guest.ram.shared_ranges() == [(PAGE, 2 * PAGE)]


@pytest.mark.parametrize(("start", "size"), [(1, PAGE), (BASE, 100), (BASE, 0)])
def test_unaligned_and_empty_requests_are_traced_and_refused(
    guest: Guest, start: int, size: int
) -> None:
    with pytest.raises(ConvertError) as refused:
        guest.convert(start, size, False)
    assert refused.value.errno == errno.EINVAL
    assert guest.traced == [ConvertTrace(start, size, "private_to_shared")]
    assert guest.kvm.calls == []


def test_holes_and_device_memory_may_become_shared_and_not_private(guest: Guest) -> None:
    for address in (0x2000, 0x10000):
        guest.convert(address, PAGE, False)
        with pytest.raises(ConvertError):
            guest.convert(address, PAGE, True)
    assert guest.kvm.calls == []
    assert guest.discards == []


@pytest.mark.parametrize("address", [0x1000, 0x3000, 0x4000, 0x5000])
def test_memory_without_a_private_side_cannot_be_converted(guest: Guest, address: int) -> None:
    for to_private in (False, True):
        with pytest.raises(ConvertError):
            guest.convert(address, PAGE, to_private)


@pytest.mark.parametrize(("generation", "code"), [("v4", 1), ("merged", 22), ("sources", 22)])
def test_a_request_past_the_end_is_refused_before_or_after_the_attribute(
    generation: str, code: int
) -> None:
    guest = Guest(generation)
    with pytest.raises(InvalidRangeError) as refused:
        guest.convert(BASE + 7 * MIB, 2 * MIB, False)
    assert refused.value.errno == code
    assert len(guest.kvm.calls) == (0 if generation == "v4" else 1)


def test_aliases_work_when_they_continue_in_the_block_and_only_then(guest: Guest) -> None:
    guest.view = FlatView()
    guest.view.add(BASE, guest.mr, size=PAGE)
    guest.view.add(BASE + PAGE, guest.mr, offset=PAGE, size=PAGE)
    guest.convert(BASE, 2 * PAGE, False)
    assert guest.ram.shared_ranges() == [(0, 2 * PAGE)]
    guest.convert(BASE, 2 * PAGE, True)
    guest.view = FlatView()
    guest.view.add(BASE, guest.mr, offset=4 * PAGE, size=PAGE)
    guest.view.add(BASE + PAGE, guest.mr, offset=0, size=PAGE)
    guest.convert(BASE, 2 * PAGE, False)
    assert guest.ram.shared_ranges() == [(4 * PAGE, 6 * PAGE)]


def test_a_discard_that_fails_is_reported_and_nothing_is_undone(guest: Guest) -> None:
    assert guest.mr.ram_block is not None

    def fail(_: Discard) -> None:
        raise DiscardError("no space to punch", errno.ENOSPC)

    guest.mr.ram_block.on_discard = fail
    with pytest.raises(DiscardError) as failed:
        guest.convert(BASE, PAGE, False)
    assert failed.value.errno == errno.ENOSPC
    assert guest.ram.shared_ranges() == [(0, PAGE)]


def test_a_failed_attribute_stops_the_merged_conversion_before_anything_else() -> None:
    guest = Guest("merged")
    guest.kvm.fail(1, errno.ENOMEM)
    with pytest.raises(SetAttributesError) as failed:
        guest.convert(BASE, PAGE, False)
    assert failed.value.errno == errno.ENOMEM
    assert guest.ram.shared_ranges() == []
    assert guest.discards == []


def test_v4_changes_attributes_page_by_page_in_a_mixture_and_merged_at_once() -> None:
    calls = {}
    for generation in ("v4", "merged"):
        guest = Guest(generation)
        guest.convert(BASE + PAGE, PAGE, False)
        guest.kvm.calls.clear()
        guest.convert(BASE, 3 * PAGE, False)
        calls[generation] = [(c.gpa - BASE, c.size) for c in guest.kvm.calls]
    assert calls["v4"] == [(0, PAGE), (2 * PAGE, PAGE)]
    assert calls["merged"] == [(0, 3 * PAGE)]


def test_a_memory_fault_stops_the_vcpu_when_the_conversion_fails(guest: Guest) -> None:
    assert handle_memory_fault(BASE, PAGE, 0, guest.convert)
    assert handle_memory_fault(BASE, PAGE, KVM_MEMORY_EXIT_FLAG_PRIVATE, guest.convert)
    assert not handle_memory_fault(0x10000, PAGE, KVM_MEMORY_EXIT_FLAG_PRIVATE, guest.convert)
    assert not handle_memory_fault(BASE, PAGE, 1, guest.convert)


def test_a_hypercall_gets_the_error_back(guest: Guest) -> None:
    assert handle_hc_map_gpa_range(HcMapGpaRange(BASE, 1, 0), guest.convert) == 0
    assert handle_hc_map_gpa_range(HcMapGpaRange(0x10000, 1, 16), guest.convert) == -errno.EINVAL


def test_a_tdx_guest_converts_in_pieces_of_at_most_2_mib(guest: Guest) -> None:
    tdx = TdxMapGpa(guest.convert)
    result = tdx.map_gpa(BASE + PAGE | tdx.shared_bit, 5 * MIB)
    assert result == MapGpaResult(TdvmcallStatus.SUCCESS)
    assert [(e.gpa - BASE, e.npages) for e in tdx.exits] == [
        (PAGE, 512),
        (2 * MIB + PAGE, 512),
        (4 * MIB + PAGE, 256),
    ]
    assert guest.ram.shared_ranges() == [(PAGE, 5 * MIB + PAGE)]
    assert tdx.map_gpa(BASE, 8 * MIB).status is TdvmcallStatus.SUCCESS
    assert guest.ram.shared_ranges() == []


def test_a_tdx_guest_is_told_to_retry_when_an_interrupt_waits(guest: Guest) -> None:
    tdx = TdxMapGpa(guest.convert, has_events=lambda: len(tdx.exits) == 2)
    first = tdx.map_gpa(BASE | tdx.shared_bit, 6 * MIB)
    assert first == MapGpaResult(TdvmcallStatus.RETRY, BASE + 4 * MIB | tdx.shared_bit)
    assert guest.ram.shared_ranges() == [(0, 4 * MIB)]
    always = TdxMapGpa(guest.convert, has_events=lambda: True)
    done = always.map_gpa_until_done(BASE | tdx.shared_bit, 8 * MIB)
    assert done.status is TdvmcallStatus.SUCCESS
    assert guest.ram.shared_ranges() == [(0, 8 * MIB)]


def test_a_tdx_error_says_where_it_stopped_and_keeps_what_was_done(guest: Guest) -> None:
    tdx = TdxMapGpa(guest.convert)
    shared = tdx.map_gpa(BASE + 6 * MIB | tdx.shared_bit, 3 * MIB)
    assert shared == MapGpaResult(TdvmcallStatus.SUCCESS)  # the hole behind RAM is shared anyway
    assert guest.ram.shared_ranges() == [(6 * MIB, 8 * MIB)]
    private = tdx.map_gpa(BASE + 6 * MIB, 3 * MIB)
    assert private == MapGpaResult(TdvmcallStatus.INVALID_OPERAND, BASE + 8 * MIB)
    assert guest.ram.shared_ranges() == []


@pytest.mark.parametrize(
    ("gpa", "size", "status"),
    [
        (BASE, 0, TdvmcallStatus.INVALID_OPERAND),
        (BASE + 1, PAGE, TdvmcallStatus.ALIGN_ERROR),
        ((1 << 47) - PAGE, 2 * PAGE, TdvmcallStatus.INVALID_OPERAND),
        ((1 << 64) - PAGE, 2 * PAGE, TdvmcallStatus.INVALID_OPERAND),
    ],
)
def test_a_tdx_request_is_checked_before_it_reaches_qemu(
    gpa: int, size: int, status: TdvmcallStatus
) -> None:
    tdx = TdxMapGpa(Guest("merged").convert)
    assert tdx.map_gpa(gpa, size).status is status
    assert tdx.exits == []


def test_an_snp_guest_converts_neighbours_in_one_exit(guest: Guest) -> None:
    snp = PageStateChange(guest.convert)
    assert snp.convert_range(BASE + PAGE, 4 * MIB, False) is PscResult.DONE
    # 511 small pages in requests of 253, then one huge page, then one small page.
    assert [(e.gpa - BASE, e.npages) for e in snp.exits] == [
        (PAGE, 253),
        (254 * PAGE, 253),
        (507 * PAGE, 5),
        (2 * MIB, 512),
        (4 * MIB, 1),
    ]
    assert guest.ram.shared_ranges() == [(PAGE, 4 * MIB + PAGE)]


def test_an_snp_request_breaks_at_another_operation_and_at_a_gap(guest: Guest) -> None:
    snp = PageStateChange(guest.convert)
    gfn = BASE // PAGE
    entries = [
        PscEntry(gfn, PscOperation.SHARED),
        PscEntry(gfn + 1, PscOperation.SHARED),
        PscEntry(gfn + 2, PscOperation.PRIVATE),
        PscEntry(gfn + 4, PscOperation.PRIVATE),
    ]
    assert snp.request(entries) is PscResult.DONE
    assert [(e.npages, e.to_private) for e in snp.exits] == [(2, False), (1, True), (1, True)]


def test_an_snp_request_resumes_a_huge_page_with_small_ones(guest: Guest) -> None:
    snp = PageStateChange(guest.convert)
    entry = PscEntry(BASE // PAGE, PscOperation.SHARED, huge=True, cur_page=510)
    assert snp.request([entry]) is PscResult.DONE
    assert snp.exits == [HcMapGpaRange(BASE + 510 * PAGE, 2, 0)]
    done = PscEntry(BASE // PAGE, PscOperation.SHARED, huge=True, cur_page=512)
    assert snp.request([done]) is PscResult.DONE
    assert len(snp.exits) == 1


def test_an_snp_request_ends_at_the_first_error(guest: Guest) -> None:
    snp = PageStateChange(guest.convert)
    gfn = BASE // PAGE
    assert snp.request([PscEntry(gfn + 1, PscOperation.SHARED, huge=True)]) is (
        PscResult.INVALID_ENTRY
    )
    too_many = [PscEntry(gfn + i, PscOperation.SHARED) for i in range(254)]
    assert snp.request(too_many) is PscResult.INVALID_HEADER
    past_the_end = [PscEntry(gfn, PscOperation.SHARED), PscEntry(0x10, PscOperation.PRIVATE)]
    assert snp.request(past_the_end) is PscResult.GENERIC_ERROR
    assert guest.ram.shared_ranges() == [(0, PAGE)]


def test_a_range_set_joins_and_cuts() -> None:
    ranges = RangeSet()
    ranges.add(0, 10)
    ranges.add(10, 5)
    ranges.add(30, 10)
    ranges.remove(3, 30)
    assert ranges.ranges() == [(0, 3), (33, 40)]
    ranges.add(3, 30)
    assert ranges.ranges() == [(0, 40)]
    ranges.add(5, 0)
    assert ranges.ranges() == [(0, 40)]
    assert 39 in ranges
    assert 40 not in ranges


def test_every_error_has_an_errno_with_a_name() -> None:
    error: UpstreamError = BisectedEntryError("cut", errno.ENOENT)
    assert (error.errno, error.returned, error.errno_name) == (2, -2, "ENOENT")
    assert str(error) == "cut (-ENOENT)"
    refuse: Callable[[], UpstreamError] = lambda: UpstreamError("negative", -22)  # noqa: E731
    with pytest.raises(ValueError, match="positive"):
        refuse()
