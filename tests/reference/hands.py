"""A thread's conversion in hand: half done (TK108), both populated (TK110) (J8)."""

from __future__ import annotations

from reference.arguments import sane, unmaps_all
from reference.backing import Backing
from reference.state import (
    Arguments,
    Container,
    Frame,
    Hand,
    Key,
    PageViolation,
    Process,
    Slot,
    Thread,
    Vm,
)
from reference.words import PAGE, PRIVATE, SHARED, common, pages_of


class Hands(Backing):
    """What a thread has begun to convert and has not finished."""

    # ---- a thread's conversion in hand, TK108 ----

    def hands_of(self, process: Process) -> list[Hand]:
        threads = [self.threads[tid] for tid in process.tids]
        return [thread.hand for thread in threads if thread.hand is not None]

    def hand_breaks(self, frame: Frame, container: Container | None, args: Arguments) -> None:
        """A call of the conversion failed."""
        hand = frame.thread.hand
        if hand is None or hand.failed is not None or container is None or not sane(args):
            return
        if self.behind_viommu(container):
            return
        if frame.operation != ("MAP" if hand.wanted == SHARED else "UNMAP"):
            return
        everything = frame.operation == "UNMAP" and unmaps_all(frame.cmd, args)
        if everything or common(hand.pages, pages_of(args.iova, args.size)):
            hand.failed, hand.failed_in, hand.over = frame, container, False

    def failed_after_unmaps(self, frame: Frame, args: Arguments, vm: Vm | None) -> None:
        """The change to private itself failed, and what it was for is unmapped already."""
        thread, process, hand = frame.thread, frame.thread.process, frame.thread.hand
        valid = sane(args) and not (args.iova % PAGE or args.size % PAGE)
        pages = pages_of(args.iova, args.size) if args.attributes & 8 and valid else range(0)
        unmaps = [(c, {p for p in unmapped if p in pages}) for c, unmapped in thread.unmaps]
        held = {p for _, unmapped in unmaps for p in unmapped}
        if process.gmem_attributes:
            self.judge("TK108", "gmem_attributes")
        elif hand is not None:  # tried again in vain
            self.judge("TK108")
            hand.unmapped += unmaps
            hand.left = set(range(min(hand.left | held), max(hand.left | held) + 1))
        elif vm is None or not held:
            self.judge("TK108")
        else:
            left = set(range(min(held), max(held) + 1))
            thread.hand = Hand(
                vm,
                PRIVATE,
                pages,
                frame.entry_ns,
                frame.entry_seq,
                failed=frame,
                left=left,
                after_unmaps=True,
                unmapped=unmaps,
            )

    def tried_in_vain(self, thread: Thread, args: Arguments, vm: Vm | None) -> bool:
        """The change in hand, which failed after unmaps, fails once more."""
        hand = thread.hand
        if hand is None or not hand.after_unmaps or hand.vm is not vm:
            return False
        valid = sane(args) and not (args.iova % PAGE or args.size % PAGE)
        pages = pages_of(args.iova, args.size) if args.attributes & 8 and valid else range(0)
        return any(p in hand.left for p in pages)

    def hand_meets(self, frame: Frame, pages: range, wanted: str, vm: Vm) -> tuple[set[int], bool]:
        """Another change succeeds: the pages that it rolls back, and whether the broken
        conversion stays in hand; else that conversion ends here."""
        thread, hand = frame.thread, frame.thread.hand
        if hand is None:
            return set(), False
        if hand.failed is not None and hand.vm is vm:
            again = {p for p in pages if p in hand.left}
            if again and wanted != hand.wanted:
                hand.rolled_back |= again
                return set(hand.left), True
            if again and hand.after_unmaps:
                rest = hand.left - again  # tried again, and done
                if rest:
                    hand.left = set(range(min(rest), max(rest) + 1))
                    return set(), True
                thread.hand = None
                self.judge("TK108")
                return set(), False
            if again:
                return set(), True  # tried again: what is missing is still missing
        self.hand_ends(thread, frame.entry_ns, frame.entry_seq)
        return set(), False

    def left_behind(self, process: Process, hand: Hand) -> list[Key]:
        """What a broken conversion left half-done."""
        out = []
        for container in process.containers.values():
            if container.closed or self.behind_viommu(container):
                continue
            for page in sorted(hand.left):
                key = (container, page)
                if process.several and self.vm_of_page(process, key) is not hand.vm:
                    continue
                known, back = hand.vm.attribute(page), page in hand.rolled_back
                missed = self.known_unmapped(key)
                covered = container.look(page).covered
                if hand.wanted == SHARED and not back:
                    # Another container need not map it, if it never did.
                    concerned = container is hand.failed_in or covered
                    left = known == SHARED and missed and concerned
                elif hand.wanted == SHARED:
                    left = known == PRIVATE and self.mapped(key)
                else:
                    own = any(c is container and page in u for c, u in hand.unmapped)
                    own |= back and not hand.after_unmaps
                    left = own and known != PRIVATE and missed and covered
                if left:
                    out.append(key)
        return out

    def hand_ends(self, thread: Thread, when: int, seq: int) -> None:
        """The thread turns to something else: its conversion is as it is."""
        process, hand, thread.hand = thread.process, thread.hand, None
        if hand is None:
            return
        self.judge("TK108")
        if hand.failed is None:
            self.both_populated(process, hand, when, seq)
            return
        for key in self.left_behind(process, hand):
            self.half_done(process, hand, key, "error", "certain", {seq}, when)

    def half_done(
        self,
        process: Process,
        hand: Hand,
        key: Key,
        severity: str,
        confidence: str,
        events: set[int],
        until: int | None,
    ) -> None:
        assert hand.failed is not None
        told = self.violate(
            "TK108",
            severity,
            confidence,
            process,
            key,
            hand.failed.entry_ns,
            ("HAND", hand),
            {hand.failed.entry_seq, *events},
        )
        for v in told:
            v.until_ns = until

    def hand_at_the_end(self, thread: Thread) -> None:
        process, hand = thread.process, thread.hand
        if hand is None:
            return
        silent = hand.wanted == PRIVATE and not hand.rolled_back and not hand.after_unmaps
        if hand.failed is None or silent or hand.over:
            self.judge("TK108")
        else:
            self.judge("TK108", "trace_end")
        if hand.failed is not None and hand.over:
            for key in self.left_behind(process, hand):
                self.half_done(process, hand, key, "warning", "likely", set(), None)

    # ---- TK110 ----

    def discarded_in_hand(self, frame: Frame, when: int, seq: int) -> None:
        """A successful discard: of the side that the thread's conversion is for?"""
        process, hand = frame.thread.process, frame.thread.hand
        at, file = self.addresses(frame)
        if hand is None or (not at and file is None):
            return
        private = frame.call == "fallocate" and (frame.fd in process.gmems or bool(frame.gmem))
        hand.discarded |= not private
        if hand.failed is not None:
            return
        shown: list[tuple[Slot, range]] = []
        if private:
            assert file is not None
            shown = self.gmem_pages(process, hand.vm, file)
        else:
            for slot in hand.vm.slots.values():
                for low, high in at:
                    low, high = max(low, slot.vaddr), min(high, slot.vaddr + slot.size)
                    if low < high:
                        gpa = low - slot.vaddr + slot.gpa
                        shown.append((slot, pages_of(gpa, high - low)))
        self.judge("TK110", None if shown else "unknown_backing")
        side = PRIVATE if private else SHARED
        wrong = {
            page
            for slot, pages in shown
            if slot.has_gmem and hand.wanted == side
            for page in common(pages, hand.pages)
            if hand.vm.attribute(page) == side
        }
        severity, confidence = ("warning", "possible") if hand.over else ("error", "certain")
        events = {hand.entry_seq, frame.entry_seq, seq}
        run = ("RUN", frame.thread, frame.run)
        for page in sorted(wrong):
            self.vm_page_violation(
                severity, confidence, process, hand, page, (frame.entry_ns, when), run, events
            )

    def gmem_pages(
        self, process: Process, vm: Vm, file: tuple[int, int, int]
    ) -> list[tuple[Slot, range]]:
        """Guest physical pages of a range of a guest_memfd, by slot."""
        fd, first, last = file
        every = [slot for other in process.live_vms for slot in other.slots.values()]
        own = [slot for slot in vm.slots.values() if slot.file_fd == fd]
        if all(slot.file_fd is None for slot in every):
            # Nobody tells a descriptor: if there is one slot and one file, and they are as large.
            with_gmem = [slot for slot in every if slot.has_gmem]
            if len(with_gmem) == 1 and process.gmems == {fd: with_gmem[0].size}:
                own = [slot for slot in vm.slots.values() if slot in with_gmem]
        shown = []
        for slot in own:
            low, high = max(first, slot.offset), min(last, slot.offset + slot.size)
            if low < high:
                shown.append((slot, pages_of(low - slot.offset + slot.gpa, high - low)))
        return shown

    def both_populated(self, process: Process, hand: Hand, when: int, seq: int) -> None:
        """D15: a change to private whose shared backing nobody discarded."""
        if hand.wanted != PRIVATE or hand.discarded or not self.has_discard or self.in_place:
            return
        containers = [
            c for c in process.containers.values() if not c.closed and not self.behind_viommu(c)
        ]
        for page in hand.pages if hand.changed else ():
            gpa = page * PAGE
            if hand.vm.attribute(page) != PRIVATE or not hand.vm.turned.get(page, False):
                continue
            slots = [s for s in hand.vm.slots.values() if s.has_gmem and s.holds_gpa(gpa)]
            small = [
                slot
                for slot in slots
                if not any(
                    m.vaddr <= gpa - slot.gpa + slot.vaddr < m.vaddr + m.size for m in process.huge
                )
            ]
            covered = any(
                c.look(page).covered
                and (not process.several or self.vm_of_page(process, (c, page)) is hand.vm)
                for c in containers
            )
            if small and covered:
                self.vm_page_violation(
                    "note", "likely", process, hand, page, (hand.commit_ns, when), hand,
                    {hand.entry_seq, seq},
                )  # fmt: skip

    def vm_page_violation(
        self,
        severity: str,
        confidence: str,
        process: Process,
        hand: Hand,
        page: int,
        span: tuple[int, int],
        cause: object,
        events: set[int],
    ) -> None:
        """TK110: of a page of a VM, whichever container maps it."""
        if self.blind:
            return
        made = PageViolation(
            "TK110", severity, confidence, process, (hand.vm, page), span[0], cause, set(events),
            span[1],
        )  # fmt: skip
        self.pages.append(made)
