"""What the models would have called: one column of a divergence, and the kernel's definition.

The request goes to the generation's own ``kvm_convert_memory()``, in the state that the memory had;
each call that the model makes gets the result that the trace recorded for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replay.conformance.kernel import layout as K
from replay.conformance.matcher import Call, Deviation
from replay.models import FlatView, MemoryRegion, Type1Container, Type1Iommu, merged, sources, v4
from replay.models.errors import FatalEnd, ListenerError, ModelError, SetAttributesError
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.ram_block import Discard, DiscardSide

__all__ = ("predicted", "same_until")

PAGE = 4096
HUGE_PAGE = 2 << 20
PACKAGES: dict[str, Any] = {"v4": v4, "merged": merged, "11.1": sources}
MOST_PAGES = 1 << 18


class _Observed:
    """The calls of the trace, taken one by one while they are those that the model makes."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._left = [
            (c.kind, (c.address or 0) + i * PAGE, PAGE if c.count > 1 else c.size, c.ret, c.space)
            for c in calls
            for i in range(c.count)
        ]
        self._left.reverse()
        self.made: list[Call] = []

    def __call__(
        self, kind: str, address: int, size: int, private: bool | None, space: int | None
    ) -> int:
        """The recorded result of a call that the model makes; 0 from the first difference on."""
        ret = 0
        if self._left:
            seen = self._left.pop()
            where = kind in ("punch", "discard") or seen[1] == address
            if kind in ("map", "unmap"):
                where = where and seen[4] == space
            if (seen[0], seen[2]) == (kind, size) and where:
                ret = seen[3]
            else:
                self._left.clear()
        last = self.made[-1] if self.made else None
        if (
            kind == "map"
            and not ret
            and last is not None
            and (last.kind, last.space, last.ret) == ("map", space, 0)
            and last.address is not None
            and last.address + last.size == address
        ):
            self.made[-1] = Call(
                "map", last.address, last.size + size, count=last.count + 1, space=space
            )
        else:
            self.made.append(Call(kind, address, size, private=private, ret=ret, space=space))
        return ret


class _Kvm(KvmMemoryAttributes):
    def __init__(self, observed: _Observed) -> None:
        super().__init__(keep_calls=False)
        self._observed = observed

    def _set(self, gpa: int, size: int, private: bool) -> None:
        ret = self._observed("attribute", gpa, size, private, None)
        if ret < 0:
            raise SetAttributesError("as recorded", -ret)


class _Iommu(Type1Iommu):
    """Answers what was recorded."""

    def __init__(self, observed: _Observed, space: int) -> None:
        super().__init__()
        self._observed, self._space = observed, space

    def map_dma(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        ret = self._observed("map", iova, size, None, self._space)
        if ret < 0:
            raise ListenerError("as recorded", -ret)

    def unmap_dma(self, iova: int, size: int) -> int:
        ret = self._observed("unmap", iova, size, None, self._space)
        iommufd = self._space >= 1 << 20
        if ret < 0 and not (iommufd and ret == -2):  # ENOENT is a success there
            raise ListenerError("as recorded", -ret)
        return size


def predicted(generation: str, d: Deviation) -> list[Call]:
    """The calls that the generation makes for a conversion; empty where that cannot be told."""
    pages = d.size // PAGE
    if not 0 < pages <= MOST_PAGES or d.size % PAGE or d.gpa % PAGE:
        return []
    covered = sum(hi - lo for lo, hi, _ in d.before)
    if covered != d.size or any(value == 0 for _, _, value in d.before):
        return []
    package = PACKAGES[generation]
    observed = _Observed(d.calls)
    region = MemoryRegion.ram("ram", d.size)
    view = FlatView()
    view.add(d.gpa, region)
    section = region.section(address=d.gpa)
    kvm = _Kvm(observed)
    assert region.ram_block is not None
    if d.huge:
        region.ram_block.page_size = HUGE_PAGE

    def discarded(discard: Discard) -> None:
        kind = "punch" if discard.side is DiscardSide.GUEST_MEMFD else "discard"
        observed(kind, d.gpa + discard.offset, discard.size, None, None)

    region.ram_block.on_discard = discarded
    name = "RamBlockAttribute" if generation == "v4" else "RamBlockAttributes"
    attributes = getattr(package, name)(region)
    if generation == "v4":
        package.CVMPrivateSharedListener(kvm).register(section)
    for space in d.spaces:
        container = Type1Container(iommu=_Iommu(observed, space), dma_max_mappings=0)
        package.VfioMemoryListener(container).region_add(section)
    for lo, hi, value in d.before:
        if value in (K.SHARED, K.UNMAPPED):
            attributes.bitmap.set((lo - d.gpa) // PAGE, (hi - lo) // PAGE)
    try:
        if generation == "v4":
            package.kvm_convert_memory(view, d.gpa, d.size, d.private)
        else:
            merged.kvm_convert_memory(view, kvm, d.gpa, d.size, d.private)
    except (ModelError, FatalEnd):
        pass  # what came before it was called
    return observed.made


def same_until(made: Sequence[Call], seen: Sequence[Call]) -> int | None:
    """The place in ``made`` of the first call that differs from ``seen``; None: none does."""
    seen = [c for c in seen if c.kind != "other"]
    for i, call in enumerate(made):
        if i >= len(seen):
            return i
        other = seen[i]
        where = call.kind in ("punch", "discard") or call.address == other.address
        if call.kind in ("map", "unmap"):
            where = where and call.space == other.space
        if (call.kind, call.size, call.count) != (other.kind, other.size, other.count) or not where:
            return i
    rest = [c for c in seen[len(made) :] if c.kind != "discard"]
    return len(made) if rest else None
