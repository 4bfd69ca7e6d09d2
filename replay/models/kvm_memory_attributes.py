# SPDX-License-Identifier: Apache-2.0
"""What KVM believes to be private, and the call that changes it."""

from errno import EINVAL
from typing import NamedTuple

from replay.models.errors import SetAttributesError
from replay.models.memory_region_section import U64_MAX
from replay.models.range_set import RangeSet
from replay.models.shown import shown, size_of

__all__ = ("KvmMemoryAttributes", "SetMemoryAttributes")


class SetMemoryAttributes(NamedTuple):
    """One KVM_SET_MEMORY_ATTRIBUTES call, and the errno it fails with (0: it did not)."""

    gpa: int
    size: int
    private: bool
    errno: int = 0


class KvmMemoryAttributes:
    """One VM's private guest addresses, and the calls made so far, in order.

    ``fail(n, errno)`` makes the n-th call from now on fail once, which is how a what-if asks for
    an ENOMEM.  Set ``keep_calls`` to False where nobody reads ``calls``.

    C: KVM_SET_MEMORY_ATTRIBUTES; the two functions below are in accel/kvm/kvm-all.c.
    """

    def __init__(self, *, keep_calls: bool = True) -> None:
        self.private = RangeSet()
        self.calls: list[SetMemoryAttributes] = []
        self.keep_calls = keep_calls
        self._pending: list[tuple[int, int]] = []
        self._count = 0

    def fail(self, nth: int, errno: int) -> None:
        """Let the ``nth`` call from now on, 1 for the next, fail with ``errno``."""
        if nth < 1:
            raise ValueError(f"nth counts from 1, got {nth}")
        if errno < 1:
            raise ValueError(f"errno is positive, got {errno}")
        self._pending = [(self._count + nth, errno)]

    def set_memory_attributes_private(self, gpa: int, size: int) -> None:
        """C: ``kvm_set_memory_attributes_private()``, accel/kvm/kvm-all.c."""
        self._set(gpa, size, True)

    def set_memory_attributes_shared(self, gpa: int, size: int) -> None:
        """C: ``kvm_set_memory_attributes_shared()``, accel/kvm/kvm-all.c."""
        self._set(gpa, size, False)

    def _set(self, gpa: int, size: int, private: bool) -> None:
        self._count += 1
        errno = 0
        if self._pending and self._pending[0][0] == self._count:
            errno = self._pending.pop()[1]
        elif gpa + size > U64_MAX + 1:
            errno = EINVAL  # what the kernel says to a range that wraps [K]
        if self.keep_calls:
            self.calls.append(SetMemoryAttributes(gpa, size, private, errno))
        if errno:
            to = "private" if private else "shared"
            raise SetAttributesError(f"[{gpa:#x}, +{size:#x}) to {to}", errno)
        if private:
            self.private.add(gpa, size)
        else:
            self.private.remove(gpa, size)

    def _repr_html_(self) -> str:
        ranges = self.private.ranges()
        private = sum(end - start for start, end in ranges)
        return shown("KvmMemoryAttributes", [("private", size_of(private))], ranges)

    def __repr__(self) -> str:
        ranges = ", ".join(f"[{start:#x}, {end:#x})" for start, end in self.private.ranges())
        return f"KvmMemoryAttributes(private: {ranges or 'nothing'})"
