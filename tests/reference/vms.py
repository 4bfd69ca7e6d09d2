"""Whose pages: VMs, their slots and attributes (J6)."""

from __future__ import annotations

from reference.arguments import CallArguments
from reference.state import Arguments, Container, Frame, Key, Process, Slot, Vm
from reference.words import PAGE, SHARED


class Vms(CallArguments):
    """Which VM a call or a page is about, and when nobody can say."""

    def vm_of(self, frame: Frame) -> Vm | None:
        """The VM behind a call's descriptor; None: one of several, nobody can say which."""
        process = frame.thread.process
        named = frame.entered if frame.fd is not None else frame.eprobe
        fd = named.get("fd") if named is not None else None
        pointer = frame.callee.get("object") if frame.callee is not None else None
        vms = process.live_vms
        known = process.vm_of_object.get(pointer) if pointer else None
        if fd is not None:
            if fd not in process.vms:
                process.vms[fd] = known if known in vms else self.vm_met(process)
            vm = process.vms[fd]
        elif known in vms:
            return known
        elif len(vms) == 1 and (not pointer or vms[0] not in process.vm_of_object.values()):
            vm = vms[0]
        elif vms and not pointer:
            return None
        else:
            vm = process.vms["object", pointer] = self.vm_met(process)
        if pointer:
            process.vm_of_object[pointer] = vm
        return vm

    def vm_met(self, process: Process) -> Vm:
        """A VM whose creation was not seen."""
        if process.live_vms:
            return Vm(process.unknown_since)
        vm, process.nobody = process.nobody, Vm(process.nobody.unknown_since)
        return vm

    def vm_of_page(self, process: Process, key: Key) -> Vm | None:
        """Whose page this is; None: no VM's."""
        vms = process.live_vms
        if len(vms) < 2:
            return vms[0] if vms else process.nobody
        state = key[0].look(key[1])
        entry = state.entry or state.last_entry
        if entry is None or entry.vaddr is None:
            return None
        iova = key[1] * PAGE
        vaddr = entry.vaddr + iova - entry.iova
        for vm in vms:
            for slot in vm.slots.values():
                if slot.holds_vaddr(vaddr) and slot.vaddr - slot.gpa == vaddr - iova:
                    return vm
        return None

    def vm_created(self, process: Process, fd: int) -> None:
        """J3: all shared, and nothing mapped, from the VM's creation on."""
        process.vms.pop(fd, None)
        first = not process.live_vms
        process.vms[fd] = Vm(
            "gmem_attributes" if process.gmem_attributes else process.unknown_since,
            None if process.gmem_attributes else SHARED,
        )
        if not first:
            return  # J6: what the process mapped for its other VM is not known to be nothing
        process.unmapped_known = True
        for container in process.every_container():
            container.unmapped_known = True
            if container.uncounted == "late_start":
                container.uncounted = None  # J8 TK107: counted from here on

    def gmem_created(self, frame: Frame, fd: int) -> None:
        rows = [row for row in (frame.callee, frame.gmem, frame.eprobe) if row is not None]
        told = [row["size"] for row in rows if row.get("size") is not None]
        frame.thread.process.gmems[fd] = told[0] if told else None

    def slot_set(self, frame: Frame) -> None:
        vm = self.vm_of(frame)
        rows = [row for row in (frame.callee, frame.memslot, frame.eprobe) if row is not None]
        whole = [row for row in rows if all(row.get(c) is not None for c in ("id", "gpa", "size"))]
        if vm is None or not whole:
            return
        best = whole[0]
        vm.slots.pop(best["id"], None)
        if not best["size"] or best.get("vaddr") is None:
            return
        fd = next((row["file_fd"] for row in rows if row.get("file_fd") is not None), None)
        offset = next((row["offset"] for row in rows if row.get("offset") is not None), 0)
        slot = Slot(best["gpa"], best["size"], best["vaddr"], best.get("flags"), fd, offset)
        if not slot.has_gmem:
            slot.file_fd = None
        vm.slots[best["id"]] = slot

    def gmem_decides(self, process: Process) -> None:
        """Attributes of a guest_memfd were set: those of its VMs say nothing from now on."""
        process.gmem_attributes = True
        self.forget_attributes(process, None, "gmem_attributes")
        for tid in process.tids:
            if self.threads[tid].hand is not None:
                self.threads[tid].hand = None
                self.judge("TK108", "gmem_attributes")
        self.judge("TK101", "gmem_attributes")
        self.judge("TK104", "gmem_attributes")

    def forget_attributes(
        self, process: Process, vm: Vm | None, why: str = "unknown_arguments"
    ) -> None:
        """J2: some range was changed to something."""
        if vm is None:
            process.forget_attributes(why)
        else:
            vm.forget(why)
        only = vm if process.several else None
        for conversion in list(process.conversions):
            for key in list(conversion.open_pages):
                if only is None or conversion.vm is only:
                    del process.candidate[key]
                    self.settle(conversion, key, why)
        for sharing in list(process.sharings):
            for key in list(sharing.open_pages):
                if only is None or sharing.vm is only:
                    del process.missing[key]
                    self.settle(sharing, key, why)

    def behind_viommu(self, container: Container) -> bool:
        return container.viommu or self.has_notify

    def viommu_seen(self, process: Process, container: Container, args: Arguments) -> None:
        """A map of guest memory at another address than the guest's physical one."""
        if self.behind_viommu(container):
            return
        at = [args.vaddr] if args.vaddr is not None else []
        if args.vaddr is None and args.file_fd is not None:
            offset = args.offset or 0
            at = [
                m.vaddr + offset - m.offset
                for m in process.files
                if m.fd == args.file_fd and m.offset <= offset < m.offset + m.size
            ]
        slots = [slot for vm in process.live_vms for slot in vm.slots.values()]
        # Only slots with a guest_memfd: QEMU maps a BAR that moves before it moves the BAR's slot.
        inside = any(slot.has_gmem and slot.holds_vaddr(vaddr) for slot in slots for vaddr in at)
        same = any(
            slot.holds_gpa(args.iova) and slot.vaddr - slot.gpa == vaddr - args.iova
            for slot in slots
            for vaddr in at
        )
        if not inside or same:
            return
        container.viommu = True
        for key in [k for k in process.candidate if k[0] is container]:
            self.settle(process.candidate.pop(key), key, "viommu")
        for key in [k for k in process.missing if k[0] is container]:
            self.settle(process.missing.pop(key), key, "viommu")

    def not_judged(self, process: Process, vm: Vm) -> str | None:
        """Why no conversion of this VM can be judged."""
        if process.gmem_attributes:
            return "gmem_attributes"
        if process.several and not vm.slots:
            return "several_vms"
        containers = process.every_container()
        if containers and all(self.behind_viommu(c) for c in containers):
            return "viommu"
        return None
