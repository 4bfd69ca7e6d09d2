"""Maps, unmaps, discards and the end of an IO address space (J4)."""

from __future__ import annotations

from collections.abc import Iterable

from reference.arguments import sane, unmaps_all
from reference.conversions import Conversions
from reference.state import Arguments, Container, Entry, Frame, Request, Vm
from reference.words import (
    EEXIST,
    EINVAL,
    ENOENT,
    PAGE,
    PRIVATE,
    SHARED,
    TYPE1_MAP,
    TYPE1_UNMAP,
    pages_of,
)


class Calls(Conversions):
    """What each call does to pages when it returns, and what is wrong with it."""

    def map_returned(self, frame: Frame, ret: int, when: int, seq: int) -> None:
        process, args = frame.thread.process, self.arguments(frame)
        if args is not None and frame.cmd == TYPE1_MAP and args.flags & 4:
            return  # J2: the VADDR flag: no map
        container = self.container_of(frame)
        if args is not None and sane(args):
            # A4, TK102: "when the range is mapped again" while the old mapping is live.
            pages = set(pages_of(args.iova, args.size))
            again = {k for k in process.requested if k[0] is container and k[1] in pages}
            self.populated_again(frame.thread, again, frame)
        if ret < 0:
            if ret == -EEXIST:
                self.call_violation("TK106", "warning", frame, args, when)  # IF TK106: refused
            self.judge("TK106")
            self.map_refused(frame, container, args, ret, when)
            return
        if container is None:
            return
        container.closed = False
        process.last_map = (when, frame.thread)
        if args is None or not sane(args):
            self.judge("TK106", "unknown_arguments")
            self.unknown_call(frame, container)
            mapped = {p for iova, size in frame.maps for p in pages_of(iova, size)}
            self.not_counted(container, "unknown_arguments")
        else:
            self.viommu_seen(process, container, args)
            self.entry_counted(frame, container, args, when, seq)
            mapped = set(pages_of(args.iova, args.size))
            for other in self.frames_of(process):
                if other.operation == "DISCARD":
                    other.mapped_meanwhile |= {(container, page) for page in mapped}
            twice = {p for p in mapped if container.look(p).entry is not None}
            if twice:  # D6: two live entries of one iova
                for page in twice:
                    self.violate(
                        "TK106",
                        "error",
                        "certain",
                        process,
                        (container, page),
                        frame.entry_ns,
                        ("MAP", frame.thread, frame.run),
                        frame.events,
                    )
            known = all(container.look(p).entered_known for p in mapped)
            self.judge("TK106", None if known or twice else container.unknown_since)
            entry = Entry(
                args.iova, args.size, args.vaddr, args.file_fd, args.offset, frame.entry_seq
            )
            for page in mapped:
                container.enter(page, entry)
                state = container.at(page)
                state.covered = True
                if not state.translated_known:  # nothing of it was shown: not translated
                    state.translated_known, state.count = True, 0
        for page in mapped:
            self.candidate_mapped(frame, (container, page))
            # J7: it lasts until a MAP's return holds it
            missed = process.open_violation.pop(("TK104", (container, page)), None)
            if missed is not None:
                if frame.first_map_ns is not None and frame.first_map_seq > missed.ended_seq:
                    missed.severity, missed.confidence = "error", "certain"  # J4: it was too late
                missed.until_ns = when
                missed.events.add(seq)
        self.premature(frame, container, mapped, when)

    def premature(self, frame: Frame, container: Container, mapped: set[int], when: int) -> None:
        """J4 TK103 (D3): pages live after this call that were private since before it."""
        process = frame.thread.process
        if self.behind_viommu(container):
            self.judge("TK103", "viommu")
            self.judge("TK111", "viommu")
            return
        # J4: a map's interval begins at its first event, and ends at its callee's return.
        begins = frame.entry_ns if frame.first_map_ns is None else frame.first_map_ns
        ends = when if frame.callee_return is None else frame.callee_return[1]
        others = [o for o in frame.attr_overlaps if o.thread is not frame.thread]
        unknown: str | None = None
        for page in mapped:
            key = (container, page)
            if not self.live(key):
                continue
            vm = self.vm_of_page(process, key)
            if vm is None:  # J6: nobody's, unless of one whose slots are not known
                slotless = any(not other.slots for other in process.live_vms)
                unknown = unknown or ("several_vms" if slotless else None)
                continue
            if process.gmem_attributes or vm.attribute(page) is None:
                unknown = "gmem_attributes" if process.gmem_attributes else vm.unknown_since
                continue
            if ("TK103", key) in process.open_violation:
                continue
            told = self.too_early(page, vm, others, (begins, ends))
            if told is None:
                continue
            severity, confidence, until = told
            codes = ["TK103"]
            if self.in_place and ("TK111", key) not in process.open_violation:
                codes.append("TK111")
            for code in codes:
                for v in self.violate(
                    code,
                    severity,
                    confidence,
                    process,
                    key,
                    begins,
                    ("MAP", frame.thread, frame.run),
                    frame.events,
                ):
                    v.vm, v.until_ns = vm, until
                    if until is None:
                        process.open_violation[code, key] = v
        self.judge("TK103", unknown)
        self.judge("TK111", unknown)

    def too_early(
        self, page: int, vm: Vm, others: list[Frame], interval: tuple[int, int]
    ) -> tuple[str, str, int | None] | None:
        """J4 TK103: severity, confidence and end of a page's map at a time when it was private.

        :param others: the ATTR frames of other threads that overlap the MAP's
        :param interval: the MAP's
        """
        begins, ends = interval
        error, doubt = ("error", "certain"), ("warning", "possible")
        for other in others:
            was = other.made_shared.get(page)
            if was is None or vm.attr.get(page) != (SHARED, other.commit_seq):
                continue
            if was[0] != PRIVATE:
                return None
            began, ended = self.change_interval(other) or (0, 0)
            if ended is None or ended < begins:
                return None
            return (*(error if began > ends else doubt), ended)
        if vm.attribute(page) != PRIVATE:
            return None
        told = error
        for other in others:
            changing = self.change_interval(other)
            if changing is None:
                continue
            if vm.attr.get(page) == (PRIVATE, other.commit_seq) and changing[0] > ends:
                return None  # it became private when all was over
            args = self.attr_arguments(other, failed=False)
            # A range that is not known yet may be this one.
            if args is not None and not (sane(args) and page in pages_of(args.iova, args.size)):
                continue
            if args is not None and args.attributes & 8 and other.returned_ns is None:
                continue  # it was private before this change, which is still to be seen
            began, ended = changing
            if ended is not None and ended < begins:
                if other.returned_ns is None and args is not None and not args.attributes & 8:
                    return None  # shared already, though its return is still to come
            elif began <= ends:
                told = doubt
        return (*told, None)

    def change_interval(self, frame: Frame) -> tuple[int, int | None] | None:
        """J4: of an ATTR; its end is None where it is still to come; None: it changes nothing."""
        if frame.callee_return is not None and frame.callee_return[0] < 0:
            return None
        if self.has_post and (frame.committed is None or not frame.hooked):
            return None
        ended = frame.returned_ns if frame.callee_return is None else frame.callee_return[1]
        began = frame.committed if self.has_post else frame.entry_ns
        assert began is not None
        return began, ended

    def unmap_returned(self, frame: Frame, ret: int, when: int, seq: int) -> None:
        process, args = frame.thread.process, self.arguments(frame)
        if args is not None and args.flags & 4 and frame.cmd == TYPE1_UNMAP:
            return  # J2: only the user address is invalidated
        container = self.container_of(frame)
        if container is None:
            return
        if ret < 0:
            self.unmap_refused(frame, container, args, ret, when)
            return
        if args is None:
            self.judge("TK105", "unknown_arguments")
            self.not_counted(container, "unknown_arguments")
            for page in {p for iova, size in frame.unmaps for p in pages_of(iova, size)}:
                container.enter(page, None)
            self.unknown_call(frame, container)
            return
        if unmaps_all(frame.cmd, args):
            pages: Iterable[int] = list(container.pages)
        elif sane(args):
            pages = pages_of(args.iova, args.size)
        else:
            pages = ()
        self.judge("TK105")
        if args is not None:
            self.entries_gone(frame, container, args)
        left = []
        last = process.last_map
        mapped_meanwhile = (
            last is not None and last[0] >= frame.entry_ns and last[1] is not frame.thread
        )
        mapping = any(
            o.operation == "MAP"
            and o.first_map_ns is not None
            and self.container_of(o) is container
            for o in self.frames_of(process)
            if o is not frame
        )
        for page in pages:
            state = container.at(page)
            if state.entry is None and not state.count and page not in frame.removed:
                state.covered = False  # J7
            was_live = self.live((container, page))
            counted = not container.translated_twice and len(container.mapped_into) < 2
            if state.entry is not None and state.count and self.has_unmap and counted:
                if mapped_meanwhile:
                    continue  # by another thread, and it is there: so it came after
                if not mapping:
                    left.append(page)  # J4 TK105: less removed than reported
            if not state.translated_known:
                state.translated_known, state.count = True, 0
            if not self.has_unmap or not counted:
                state.count = 0  # nothing else could show that it was removed, or need show it
            container.enter(page, None)
            if was_live and not self.live((container, page)):
                self.page_gone((container, page), frame, process, when, seq)
        if isinstance(pages, range):
            self.left_behind_the_range(container, pages.stop)
        self.gone_by_now(frame, container, set(pages), when, seq)
        for page in left:
            self.violate(
                "TK105",
                "error",
                "certain",
                process,
                (container, page),
                frame.entry_ns,
                ("UNMAP", frame.thread, frame.run),
                frame.events,
            )

    def left_behind_the_range(self, container: Container, page: int) -> None:
        """What is left there of an entry that was cut is one of its own."""
        cut = container.look(page).entry
        missing = page * PAGE - cut.iova if cut is not None else 0
        if cut is None or not missing:
            return
        piece = Entry(
            cut.iova + missing,
            cut.size - missing,
            None if cut.vaddr is None else cut.vaddr + missing,
            cut.file_fd,
            None if cut.offset is None else cut.offset + missing,
            cut.seq,
        )
        while container.look(page).entry is cut:
            container.enter(page, piece)
            page += 1

    def gone_by_now(
        self, frame: Frame, container: Container, pages: set[int], when: int, seq: int
    ) -> None:
        """J4: what another thread's unmap has taken out and this one covers too is unmapped."""
        process = frame.thread.process
        for other in self.frames_of(process):
            if other is frame:
                continue
            reached = [k for k in other.leaving if k[0] is container and k[1] in pages]
            other.leaving = [k for k in other.leaving if k not in reached]
            ended = [v for k in reached for v in self.unmapped(process, k)]
            ended += [v for v in other.awaiting if v.key[0] is container and v.key[1] in pages]
            other.awaiting = [v for v in other.awaiting if v not in ended]
            for v in ended:
                v.until_ns = when
                v.events.add(seq)

    def unmap_refused(
        self, frame: Frame, container: Container, args: Arguments | None, ret: int, when: int
    ) -> None:
        """J4 TK105 (D7, D9): was an entry cut?"""
        if args is not None:
            nothing = frame.cmd != TYPE1_UNMAP and ret == -ENOENT
            if not nothing or self.cuts(container, args):
                self.hand_breaks(frame, container, args)  # J8 TK108
        refusal = -EINVAL if frame.cmd == TYPE1_UNMAP else -ENOENT
        if ret != refusal:
            return
        if args is None:
            self.judge("TK105", "unknown_arguments")
            return
        aligned = sane(args) and not (args.iova % PAGE or args.size % PAGE)
        if not aligned:
            self.judge("TK105")
            return
        first, end = args.iova // PAGE, (args.iova + args.size) // PAGE
        if self.cuts(container, args):
            self.judge("TK105")
            self.call_violation("TK105", "warning", frame, args, when)
        elif ret == -EINVAL:
            known = [container.look(page).entered_known for page in (first, end - 1, end)]
            unknown = not (known[0] and (known[1] or known[2]))
            if unknown:
                self.call_violation("TK105", "warning", frame, args, when, confidence="likely")
            self.judge("TK105")
        else:
            self.judge("TK105")

    def cuts(self, container: Container, args: Arguments) -> bool:
        """The range cuts an entry that is known."""
        head = container.look(args.iova // PAGE)
        tail = container.look((args.iova + args.size) // PAGE)
        cuts_head = head.entry is not None and head.entry.iova < args.iova
        cuts_tail = tail.entry is not None and args.iova <= tail.entry.iova < args.iova + args.size
        return cuts_head or cuts_tail

    def unknown_call(self, frame: Frame, container: Container) -> None:
        """J2: a call without arguments; where no iommu events tell, nothing is known any more."""
        if self.has_map:
            for iova, size in frame.maps:
                for page in pages_of(iova, size):
                    state = container.at(page)
                    if state.entry is None:
                        state.entered_known = False
            return
        self.forget_container(frame.thread.process, container, "unknown_arguments")

    def discard_returned(self, frame: Frame, ret: int, when: int, seq: int) -> None:
        process = frame.thread.process
        if ret < 0:
            return
        self.discarded_in_hand(frame, when, seq)
        hit = {
            k
            for k in frame.live_at_entry - frame.mapped_meanwhile
            # J4 TK102: live from its entry to its return
            if self.still_live(frame.thread, k)
            and k not in process.requested
            and ("TK102", k) not in process.open_violation
        }
        if hit and not self.blind:
            request = Request(process, frame.thread, frame.entry_ns, seq, set(frame.events), hit)
            process.requests.append(request)
            process.requested.update(dict.fromkeys(hit, request))
        elif process.containers:
            self.judge("TK102")

    def destroy_returned(self, frame: Frame, ret: int, when: int, seq: int) -> None:
        """J2: an ioas is destroyed, and with it its entries."""
        process = frame.thread.process
        row = frame.eprobe
        if frame.callee is not None and frame.callee.get("id") is not None:
            row = frame.callee
        if ret < 0 or row is None or row.get("id") is None:
            return
        container = process.containers.get((*self.container_key(frame), row["id"]))
        if container is None:
            return
        container.closed = True
        self.no_candidates_in(process, container)
        for page in list(container.pages):
            was_live = self.live((container, page))
            container.enter(page, None)
            if was_live and not self.live((container, page)):
                self.page_gone((container, page), frame, process, when, seq)
