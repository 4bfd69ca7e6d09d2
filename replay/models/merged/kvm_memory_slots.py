# SPDX-License-Identifier: Apache-2.0
"""Memory slots of KVM, as far as they touch attributes (QEMU 10.1 and later).

How sure: [D], read in QEMU 10.2.2, not run.
"""

from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("KvmMemorySlots",)


class KvmMemorySlots:
    """One slot for each section of RAM.

    C: ``KVMMemoryListener``, accel/kvm/kvm-all.c.
    """

    def __init__(self, kvm: KvmMemoryAttributes) -> None:
        self.kvm = kvm
        self.slots: list[MemoryRegionSection] = []

    def region_add(self, section: MemoryRegionSection) -> None:
        """Create a slot; with guest_memfd all of it becomes private in KVM.

        Bug kept: the bitmap is not asked.  Adding a slot again over shared blocks leaves the
        attribute private, the bitmap shared, and VFIO mapped by the replay.

        C: ``kvm_set_phys_mem()``, accel/kvm/kvm-all.c.
        """
        self.slots.append(section)
        if section.mr.has_guest_memfd:
            self.kvm.set_memory_attributes_private(
                section.offset_within_address_space, section.size
            )

    def region_del(self, section: MemoryRegionSection) -> None:
        """Remove the slot; attributes stay.

        C: ``kvm_set_phys_mem()``, accel/kvm/kvm-all.c.
        """
        if section not in self.slots:
            raise ValueError(f"no slot for {section!r}")
        self.slots.remove(section)

    def __repr__(self) -> str:
        return f"KvmMemorySlots({len(self.slots)} slots)"
