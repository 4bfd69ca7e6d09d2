# SPDX-License-Identifier: Apache-2.0
"""Memory slots of KVM, as far as they touch attributes (patch 11 of v4).

How sure: [D], read in the series, not run.
"""

from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.v4.cvm_private_shared_listener import CVMPrivateSharedListener
from replay.models.v4.private_shared_manager import PrivateSharedManager

__all__ = ("KvmMemorySlots",)


class KvmMemorySlots:
    """One slot for each section of RAM, and an attribute listener for each with guest_memfd.

    C: ``KVMMemoryListener``, accel/kvm/kvm-all.c of the v4 series.
    """

    def __init__(self, kvm: KvmMemoryAttributes) -> None:
        self.kvm = kvm
        self.slots: dict[MemoryRegionSection, CVMPrivateSharedListener | None] = {}

    def region_add(self, section: MemoryRegionSection) -> None:
        """Register the listener, whose replay makes shared blocks shared; then create the slot.

        Bug kept: creating the slot makes all of it private in KVM and undoes the replay.

        C: ``kvm_region_add()`` and ``kvm_set_phys_mem()``, accel/kvm/kvm-all.c.
        """
        listener = None
        if isinstance(section.mr.manager, PrivateSharedManager):
            listener = CVMPrivateSharedListener(self.kvm)
            listener.register(section)
        self.slots[section] = listener
        if section.mr.has_guest_memfd:
            self.kvm.set_memory_attributes_private(
                section.offset_within_address_space, section.size
            )

    def region_del(self, section: MemoryRegionSection) -> None:
        """Unregister the listener, which makes shared blocks private, and remove the slot.

        C: ``kvm_region_del()``, accel/kvm/kvm-all.c.
        """
        if section not in self.slots:
            raise ValueError(f"no slot for {section!r}")
        listener = self.slots.pop(section)
        if listener is not None:
            listener.unregister()

    def __repr__(self) -> str:
        return f"KvmMemorySlots({len(self.slots)} slots)"
