"""Four counters, who takes them, and what is thrown away in the end."""

import errno
from collections.abc import Callable
from itertools import combinations_with_replacement

import pytest

from replay.models import CoordinatedDiscard, DiscardUser, MemoryRegion, RamBlock
from replay.models.coordinated_discard import DiscardRequest
from replay.models.errors import BusyError, DiscardError
from replay.models.ram_block import Discard, DiscardSide

PAGE = 4096

#: Pairs of users that exclude each other, in whichever order they come.
EXCLUSIVE = {
    frozenset(pair)
    for pair in (
        (DiscardUser.GUEST_MEMFD_UNTIL_10_0, DiscardUser.VFIO_TYPE1),
        (DiscardUser.GUEST_MEMFD_UNTIL_10_0, DiscardUser.VFIO_IOMMUFD),
        (DiscardUser.GUEST_MEMFD_UNTIL_10_0, DiscardUser.VFIO_SPAPR),
        (DiscardUser.GUEST_MEMFD_UNTIL_10_0, DiscardUser.KVM_WITHOUT_SYNC_MMU),
        (DiscardUser.GUEST_MEMFD, DiscardUser.VFIO_SPAPR),
        (DiscardUser.GUEST_MEMFD, DiscardUser.KVM_WITHOUT_SYNC_MMU),
        (DiscardUser.VIRTIO_MEM, DiscardUser.VFIO_SPAPR),
        (DiscardUser.VIRTIO_MEM, DiscardUser.KVM_WITHOUT_SYNC_MMU),
    )
}


@pytest.mark.parametrize(
    ("first", "second"), [*combinations_with_replacement(DiscardUser, 2)], ids=lambda u: u.name
)
def test_users_exclude_each_other_in_both_orders(first: DiscardUser, second: DiscardUser) -> None:
    for holder, comer in ((first, second), (second, first)):
        discard = CoordinatedDiscard()
        discard.take(holder)
        if frozenset((holder, comer)) in EXCLUSIVE:
            with pytest.raises(BusyError) as refused:
                discard.take(comer)
            assert refused.value.errno == errno.EBUSY
            discard.release(holder)
        discard.take(comer)


def test_each_function_takes_and_gives_back_its_counter() -> None:
    discard = CoordinatedDiscard()
    functions: dict[DiscardRequest, Callable[[bool], None]] = {
        DiscardRequest.DISABLE: discard.discard_disable,
        DiscardRequest.UNCOORDINATED_DISABLE: discard.uncoordinated_discard_disable,
        DiscardRequest.REQUIRE: discard.discard_require,
        DiscardRequest.COORDINATED_REQUIRE: discard.coordinated_discard_require,
    }
    for request, function in functions.items():
        function(True)
        assert discard.counts[request] == 1
        disables = request in (DiscardRequest.DISABLE, DiscardRequest.UNCOORDINATED_DISABLE)
        assert discard.is_disabled is disables
        assert discard.is_required is not disables
        function(False)
    assert set(discard.counts.values()) == {0}


def test_a_file_backed_block_punches_a_hole_and_an_anonymous_one_does_not() -> None:
    for fd_backed in (True, False):
        seen: list[Discard] = []
        block = RamBlock("ram0", 4 * PAGE, fd_backed=fd_backed, on_discard=seen.append)
        block.discard_shared_range(0, PAGE)
        block.discard_guest_memfd_range(PAGE, PAGE)
        assert seen == [
            Discard(DiscardSide.SHARED, 0, PAGE, fd_backed, True),
            Discard(DiscardSide.GUEST_MEMFD, PAGE, PAGE, True, False),
        ]


@pytest.mark.parametrize(("offset", "size"), [(100, PAGE), (0, 100), (3 * PAGE, 2 * PAGE)])
def test_a_discard_outside_or_across_pages_is_minus_one(offset: int, size: int) -> None:
    with pytest.raises(DiscardError) as failed:
        RamBlock("ram0", 4 * PAGE).discard_shared_range(offset, size)
    assert failed.value.returned == -1


def test_the_block_of_a_region_with_guest_memfd_can_be_private() -> None:
    assert MemoryRegion.ram("ram0", PAGE).has_guest_memfd
    assert not MemoryRegion.ram("ram0", PAGE, guest_memfd=False).has_guest_memfd
