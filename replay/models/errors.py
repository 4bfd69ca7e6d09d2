# SPDX-License-Identifier: Apache-2.0
"""What a model raises.

::

    ModelError
     +-- UpstreamError            upstream refuses and goes on: ``errno`` is upstream's
     |    +-- InvalidRangeError       a range that is unaligned, empty or past the end
     |    +-- BusyError               EBUSY: somebody else has it already
     |    +-- NotFoundError           ENOENT: nothing there to take away
     |    +-- EntryExistsError        EEXIST: a DMA entry overlaps
     |    +-- EntryLimitError         ENOSPC: dma_entry_limit is used up
     |    +-- BisectedEntryError      EINVAL (type1) or ENOENT (iommufd): an unmap cuts an entry
     |    +-- SetAttributesError      KVM_SET_MEMORY_ATTRIBUTES failed
     |    +-- DiscardError            punch hole or madvise failed
     |    +-- ConvertError            kvm_convert_memory() refuses before it touches anything
     |    +-- ListenerError           a listener refuses a populate (or, in v4, a discard)
     +-- DmaLimitError            VFIO registration fails; upstream returns false, no errno
     +-- FatalEnd                 QEMU is gone
          +-- AbortError              assert() or abort()
          +-- ExitError               exit(1)
          +-- UndefinedBehaviourError the C code leaves the language here; no prediction follows

Misuse of the Python API is a ``TypeError`` or a ``ValueError``, never one of these.
"""

import errno as _errno
from typing import ClassVar

__all__ = (
    "AbortError",
    "BisectedEntryError",
    "BusyError",
    "ConvertError",
    "DiscardError",
    "DmaLimitError",
    "EntryExistsError",
    "EntryLimitError",
    "ExitError",
    "FatalEnd",
    "InvalidRangeError",
    "ListenerError",
    "ModelError",
    "NotFoundError",
    "SetAttributesError",
    "UndefinedBehaviourError",
    "UpstreamError",
)


class ModelError(Exception):
    """Everything that a model predicts will go wrong."""


class UpstreamError(ModelError):
    """Upstream refuses: ``errno`` is positive as in ``OSError``, ``returned`` is what C returns."""

    default_errno: ClassVar[int] = _errno.EINVAL

    def __init__(self, message: str, errno: int | None = None) -> None:
        code = self.default_errno if errno is None else errno
        if code <= 0:
            raise ValueError(f"errno is positive, as in OSError.errno; got {code}")
        super().__init__(message)
        self.errno = code

    @property
    def returned(self) -> int:
        """What the C function returns, ``-errno``."""
        return -self.errno

    @property
    def errno_name(self) -> str:
        """``EINVAL`` and the like; the number where the platform has no name."""
        return _errno.errorcode.get(self.errno, str(self.errno))

    def __str__(self) -> str:
        return f"{super().__str__()} (-{self.errno_name})"


class InvalidRangeError(UpstreamError):
    """The range is unaligned, empty, wraps, or ends past the region."""


class BusyError(UpstreamError):
    """Somebody else has it already."""

    default_errno = _errno.EBUSY


class NotFoundError(UpstreamError):
    """Nothing there to take away."""

    default_errno = _errno.ENOENT


class EntryExistsError(UpstreamError):
    """A DMA entry already covers part of the range."""

    default_errno = _errno.EEXIST


class EntryLimitError(UpstreamError):
    """The container has no DMA entry left."""

    default_errno = _errno.ENOSPC


class BisectedEntryError(UpstreamError):
    """An unmap would cut a DMA entry in two."""


class SetAttributesError(UpstreamError):
    """KVM refuses to change memory attributes."""


class DiscardError(UpstreamError):
    """Backing memory could not be thrown away."""


class ConvertError(UpstreamError):
    """The conversion request is refused before anything changes."""


class ListenerError(UpstreamError):
    """A listener refuses; raise it from a listener to make a notification fail."""


class DmaLimitError(ModelError):
    """VFIO refuses a registration because DMA mappings might run out.

    Upstream's function returns false and fills an Error, so there is no errno.
    """


class FatalEnd(ModelError):
    """QEMU does not survive this; ``function`` is the C function that ends it."""

    def __init__(self, message: str, function: str) -> None:
        super().__init__(message)
        self.function = function

    def __str__(self) -> str:
        return f"{self.function}(): {super().__str__()}"


class AbortError(FatalEnd):
    """assert(), abort() or hw_error()."""


class ExitError(FatalEnd):
    """exit(``status``)."""

    def __init__(self, message: str, function: str, status: int = 1) -> None:
        super().__init__(message, function)
        self.status = status


class UndefinedBehaviourError(FatalEnd):
    """The C code reads or writes where it must not; a model predicts nothing after it."""
