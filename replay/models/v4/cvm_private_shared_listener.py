# SPDX-License-Identifier: Apache-2.0
"""KVM's attributes change inside a listener (patch 11 of v4)."""

from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.v4.private_shared_manager import (
    PRIORITY_MIN,
    PrivateSharedListener,
    PrivateSharedManager,
)

__all__ = ("CVMPrivateSharedListener",)


class CVMPrivateSharedListener(PrivateSharedListener):
    """Changes the attributes of the guest addresses of its section, and of no others.

    One per memory section, at the lowest priority: first on the way to shared, last on the way
    to private.  A range outside every such section changes the bitmap and no attribute.

    C: ``CVMPrivateSharedListener``, accel/kvm/kvm-all.c.
    """

    priority = PRIORITY_MIN

    def __init__(self, kvm: KvmMemoryAttributes) -> None:
        self.kvm = kvm

    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        """C: ``kvm_private_shared_notify_to_shared()``, accel/kvm/kvm-all.c."""
        self.kvm.set_memory_attributes_shared(section.offset_within_address_space, section.size)

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        """C: ``kvm_private_shared_notify_to_private()``, accel/kvm/kvm-all.c."""
        self.kvm.set_memory_attributes_private(section.offset_within_address_space, section.size)

    def register(self, section: MemoryRegionSection) -> None:
        """Called from the region_add hook, before the memory slot is committed.

        C: ``kvm_region_add()``, accel/kvm/kvm-all.c.
        """
        manager = section.mr.manager
        if not isinstance(manager, PrivateSharedManager):
            raise ValueError(f"{section.mr!r} is not managed by a PrivateSharedManager")
        manager.register_listener(self, section)

    def unregister(self) -> None:
        """Parts that are still shared become private in KVM on the way out.

        C: ``kvm_region_del()``, accel/kvm/kvm-all.c.
        """
        if self.section is None:
            raise ValueError(f"{self!r} is not registered")
        manager = self.section.mr.manager
        assert isinstance(manager, PrivateSharedManager)
        manager.unregister_listener(self)

    def __repr__(self) -> str:
        return f"CVMPrivateSharedListener({self.section!r})"
