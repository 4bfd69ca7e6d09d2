"""Conversions: a call that changes attributes (J4), and when what it began is over (A4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from reference.arguments import refused, sane, unmaps_all
from reference.sharings import Sharings
from reference.state import (
    Arguments,
    Conversion,
    FileMapping,
    Frame,
    Hand,
    Key,
    PageViolation,
    Process,
    Thread,
    Vm,
)
from reference.words import BUSY, EINVAL, PAGE, PRIVATE, SHARED, Row, pages_of


class Conversions(Sharings):
    """From a change of attributes to the end of its conversion: TK101, TK102, TK111, TK202."""

    # ---- A4: when a conversion is over ----

    def someone_is_unmapping(self, thread: Thread, key: Key) -> bool:
        """J4: an UNMAP frame of another thread that covers the page is open."""
        for frame in self.frames_of(thread.process):
            if frame.thread is thread or frame.operation != "UNMAP" or refused(frame):
                continue
            args = self.arguments(frame)
            if args is None or unmaps_all(frame.cmd, args):
                return True  # it may be this one
            if key[1] in pages_of(args.iova, args.size) and self.container_of(frame) is key[0]:
                return True
        return False

    def end_conversion(self, thread: Thread, keys: Iterable[Key], seq: int) -> None:
        """Rules 1 to 3 of A4: a candidate that is still live now is a violation."""
        process = thread.process
        for key in list(keys):
            conversion = process.candidate.pop(key)
            severity, confidence = ("error", "certain")
            if self.someone_is_unmapping(thread, key):
                severity, confidence = ("warning", "possible")
            for v in self.violate(
                "TK101", severity, confidence, process, key, conversion.commit_ns, conversion
            ):
                v.events.add(seq)
                self.lasts(v)
            self.settle(conversion, key)

    def lasts(self, v: PageViolation) -> None:
        """The violation goes on until its page is unmapped, which may be under way."""
        for frame in self.frames_of(v.process):
            if v.key in frame.leaving:
                frame.awaiting.append(v)
                return
        v.process.open_violation[v.code, v.key] = v

    def rule_1(self, frame: Frame) -> None:
        """Entry of a discard of its shared backing that overlaps it."""
        process = frame.thread.process
        hit = [k for k in self.backed_by(frame) if k in process.candidate]
        self.end_conversion(frame.thread, hit, frame.entry_seq)

    def hva_unmapped(self, thread: Thread, row: Row) -> None:
        """A hole punched in a file shows where the file is mapped, if its mmap() was not recorded.

        The notifier also reports wider ranges (a split huge page): only the punched size tells.
        """
        frame, process = thread.frame, thread.process
        if frame is None or frame.call != "fallocate" or frame.operation != "DISCARD":
            return
        punched = frame.entered
        if row["size"] != punched["size"]:
            return
        vaddr, size = row["vaddr"], row["size"]
        known = any(
            m.fd == punched["fd"] and m.vaddr <= vaddr < m.vaddr + m.size for m in process.files
        )
        if known:
            return
        self.unmap_files(process, vaddr, size)
        process.files.append(
            FileMapping(vaddr, size, punched["fd"], punched["offset"], shared=True)
        )
        frame.live_at_entry |= {k for k in self.backed_by(frame) if self.still_live(thread, k)}
        self.rule_1(frame)

    def thread_runs_or_exits(self, thread: Thread, row: Row) -> None:
        """Rule 2: that thread's next KVM_RUN, or its exit."""
        process = thread.process
        keys = [k for k, c in process.candidate.items() if c.thread is thread]
        self.end_conversion(thread, keys, row["seq"])
        requested = [k for k, r in process.requested.items() if r.thread is thread]
        self.outlived(thread, requested, row["seq"])
        missing = [k for k, c in process.missing.items() if c.thread is thread]
        self.end_sharing(thread, missing, row["seq"])
        self.hand_ends(thread, row["ts_ns"], row["seq"])
        thread.unmaps = []
        if row["event"] == "kvm.entry" and thread.run_operation != "RUN":
            thread.run += 1
            thread.run_operation = "RUN"

    def rule_3(self, frame: Frame, pages: list[int], wanted: str, vm: Vm) -> None:
        """Another attribute change of an overlapping range by the same process."""
        process = frame.thread.process
        covered = set(pages)
        missing = []
        for key, sharing in list(process.missing.items()):
            if key[1] not in covered or (process.several and sharing.vm is not vm):
                continue
            if sharing.frame.entry_seq > frame.entry_seq:
                continue  # this one was under way before it
            if wanted == PRIVATE and sharing.thread is frame.thread:
                del process.missing[key]  # J7: dropped
                self.settle(sharing, key)
            else:
                missing.append(key)
        self.end_sharing(frame.thread, missing, frame.entry_seq)
        hit = [
            k
            for k, c in process.candidate.items()
            if k[1] in covered and (not process.several or c.vm is vm)
            if c.frame.entry_seq < frame.entry_seq
        ]
        for key in list(hit):
            conversion = process.candidate[key]
            if wanted == SHARED and conversion.thread is frame.thread:
                del process.candidate[key]  # a rollback cancels it
                self.settle(conversion, key)
                hit.remove(key)
                early = process.open_violation.get(("TK111", key))
                if early is not None and early.cause == ("CHANGE", conversion.frame):
                    del process.open_violation["TK111", key]  # J8 TK111: not those
                    self.pages.remove(early)
                    self.also_premature(process, key)
        self.end_conversion(frame.thread, hit, frame.entry_seq)

    def also_premature(self, process: Process, key: Key) -> None:
        """J8 TK111: but each TK103 violation is one, which stood behind the other."""
        v = process.open_violation.get(("TK103", key))
        if v is not None:
            made = replace(v, code="TK111", events=set(v.events))
            process.open_violation["TK111", key] = made
            self.pages.append(made)

    def rule_4(self, process: Process, now: int) -> None:
        """Nothing under way for longer than the grace: provisionally over."""
        hands = [hand for hand in self.hands_of(process) if not hand.over]
        returns = [process.last_return_ns]
        for frame in self.frames_of(process):
            if frame.operation in BUSY:
                if frame.callee_return is None:
                    return
                returns.append(frame.callee_return[1])  # J1: over, as far as this rule is concerned
        ended = [t for t in returns if t is not None]
        if ended and now - max(ended) > self.grace_ns:
            process.gap_ns = now
            for work in (*process.conversions, *process.requests, *process.sharings, *hands):
                work.over = True

    def populated_again(self, thread: Thread, keys: set[Key], frame: Frame) -> None:
        """TK102: its pages are mapped, shared or populated again while the old mapping is live."""
        process = thread.process
        hit = [
            k
            for k in keys
            if k in process.requested and process.requested[k].return_seq <= frame.entry_seq
        ]
        self.outlived(thread, hit, frame.entry_seq)

    def outlived(self, thread: Thread, keys: Iterable[Key], seq: int) -> None:
        process = thread.process
        for key in list(keys):
            request = process.requested.pop(key)
            severity, confidence = ("error", "certain")
            if self.someone_is_unmapping(thread, key):
                severity, confidence = ("warning", "possible")
            for v in self.violate(
                "TK102", severity, confidence, process, key, request.entry_ns, request
            ):
                v.events.add(seq)
                self.lasts(v)
            self.settle(request, key)

    # ---- J4: a call to change attributes ----

    def commit(self, frame: Frame, when: int, seq: int) -> None:
        """The change takes effect: the first post hook, else the return (J3)."""
        frame.committed, frame.commit_seq = when, seq
        args, vm = self.attr_arguments(frame, failed=False), self.vm_of(frame)
        if args is None or vm is None or not sane(args):
            return
        process, thread = frame.thread.process, frame.thread
        frame.keys = keys = self.pages_everywhere(process, pages_of(args.iova, args.size), vm)
        frame.live_at_commit = {key for key in keys if self.still_live(thread, key)}
        if args.attributes & 8:
            hand = thread.hand
            unmaps = [*thread.unmaps, *(hand.unmapped if hand is not None else [])]
            for key in keys:
                # J7: what it does not map any more when it became private, it does not cover.
                held = any(c is key[0] and key[1] in held for c, held in unmaps)
                if key[1] in key[0].pages and not held:
                    frame.uncovers.add(key)
            self.in_place_change(frame, vm)

    def in_place_change(self, frame: Frame, vm: Vm) -> None:
        """J8 TK111: live pages become private; a violation if the call succeeds."""
        if not self.in_place or self.blind:
            return
        live = (key for key in frame.live_at_commit if vm.attribute(key[1]) != PRIVATE)
        self.reachable(frame, live)

    def reachable(self, frame: Frame, keys: Iterable[Key]) -> None:
        """J8 TK111: these pages could be reached when they became private."""
        process = frame.thread.process
        assert frame.committed is not None
        for key in keys:
            if ("TK111", key) in process.open_violation:
                continue
            severity, confidence = ("error", "certain")
            if self.someone_is_unmapping(frame.thread, key):
                severity, confidence = ("warning", "possible")
            made = PageViolation(
                "TK111",
                severity,
                confidence,
                process,
                key,
                frame.committed,
                ("CHANGE", frame),
                {frame.entry_seq, frame.commit_seq},
            )
            frame.out_of_order[key] = made
            self.lasts(made)

    def pages_everywhere(self, process: Process, pages: Iterable[int], vm: Vm) -> list[Key]:
        """The VM's pages in each container that they can be judged in."""
        containers = [c for c in process.every_container() if not self.behind_viommu(c)]
        keys = [(c, page) for page in pages for c in containers]
        if process.several:  # J6: a conversion of X looks only at X's pages
            keys = [key for key in keys if self.vm_of_page(process, key) is vm]
        return keys

    def change(self, frame: Frame, args: Arguments, vm: Vm) -> set[Key]:
        """A successful call's effect, as of its commit; the live pages that it made private."""
        process, when = frame.thread.process, frame.committed
        assert when is not None
        wanted = PRIVATE if args.attributes & 8 else SHARED
        pages = list(pages_of(args.iova, args.size)) if sane(args) else []
        self.rule_3(frame, pages, wanted, vm)
        for container, page in frame.uncovers:
            if not self.mapped((container, page)):
                container.at(page).covered = False
        became = set()
        if wanted == PRIVATE:
            self.note_what_is_known(frame, pages, vm)
            seen = {container for container, _ in frame.keys}  # others came since the commit
            later = self.pages_everywhere(process, pages, vm)
            frame.keys = [*frame.keys, *(key for key in later if key[0] not in seen)]
            became = {
                key
                for key in frame.keys
                if self.still_live(frame.thread, key)
                and vm.attribute(key[1]) != PRIVATE
                and ("TK101", key) not in process.open_violation
            }
        for page in pages:
            vm.turned[page] = (vm.attribute(page) == PRIVATE) != (wanted == PRIVATE)
            if not process.gmem_attributes and vm.attribute(page) != wanted:
                if wanted == SHARED and page in vm.attr:
                    frame.made_shared[page] = vm.attr[page]
                vm.attr[page] = (wanted, frame.commit_seq)
            # J4 TK103: until an attribute change makes them shared; J7: or to private.
            ends = "TK103" if wanted == SHARED else "TK104"
            for container in process.every_container():
                v = process.open_violation.get((ends, (container, page)))
                if v is None or process.gmem_attributes or (process.several and v.vm is not vm):
                    continue
                found = [process.open_violation.pop((ends, (container, page)))]
                early = process.open_violation.get(("TK111", (container, page)))
                if ends == "TK103" and early is not None and early.cause == v.cause:
                    # J8 TK111: until the violation's end
                    found.append(process.open_violation.pop(("TK111", (container, page))))
                for v in found:
                    v.until_ns = max(when, v.from_ns)
                    v.events.add(frame.entry_seq)
        return became

    def note_what_is_known(self, frame: Frame, pages: list[int], vm: Vm) -> None:
        """J4: a conversion without candidates is decided if every page of it is known."""
        process = frame.thread.process
        containers = process.every_container()
        if not containers and not process.unmapped_known:
            frame.all_known, frame.why_unknown = False, process.unknown_since
        for page in pages:
            if vm.attribute(page) is None:
                frame.all_known, frame.why_unknown = False, vm.unknown_since
            for container in containers:
                if not self.behind_viommu(container) and not self.mapping_known((container, page)):
                    frame.all_known, frame.why_unknown = False, container.unknown_since

    def attr_returned(self, frame: Frame, ret: int, when: int, seq: int) -> None:
        process, thread, vm = frame.thread.process, frame.thread, self.vm_of(frame)
        args = self.attr_arguments(frame, failed=ret < 0)
        if ret < 0:
            self.judge("TK202")
            if ret == -EINVAL:  # IF TK202: refused
                self.call_violation("TK202", "warning", frame, args, when)
            self.never_happened(frame)
            if args is None or not self.tried_in_vain(thread, args, vm):
                self.hand_ends(thread, frame.entry_ns, frame.entry_seq)
            if args is not None:
                self.failed_after_unmaps(frame, args, vm)
            thread.unmaps = []
            return
        if args is None or vm is None:
            # J2: an unknown range makes the whole attribute plane unknown.
            why = "unknown_arguments" if args is None else "several_vms"
            self.judge("TK202", "unknown_arguments" if args is None else None)
            for code in ("TK101", "TK104", "TK111"):
                self.judge(code, why)
            self.forget_attributes(process, vm, why)
            self.never_happened(frame)
            self.hand_ends(thread, frame.entry_ns, frame.entry_seq)
            thread.unmaps = []
            return
        self.judge("TK202")
        valid = sane(args) and not (args.iova % PAGE or args.size % PAGE)
        if not valid:
            self.call_violation("TK202", "error", frame, args, when)  # IF TK202: taken
        hooked = frame.hooked = frame.committed is not None
        if not hooked:
            self.commit(frame, when, seq)
        pages = pages_of(args.iova, args.size) if sane(args) else range(0)
        wanted = PRIVATE if args.attributes & 8 else SHARED
        changed = hooked or not self.has_post  # J4: no hook where they are recorded: nothing
        # J8: the change back of what broke is nobody's conversion.
        rolled_back, stays = self.hand_meets(frame, pages, wanted, vm)
        before = {page: vm.attribute(page) for page in pages}
        became_private = self.change(frame, args, vm)
        if not stays and valid and not process.gmem_attributes:
            assert frame.committed is not None
            thread.hand = Hand(
                vm,
                wanted,
                pages,
                frame.committed,
                frame.entry_seq,
                changed,
                left=set(pages),
            )
        else:
            self.judge("TK108", "gmem_attributes" if process.gmem_attributes else None)
        thread.unmaps = []
        why_not = self.not_judged(process, vm)
        if wanted == SHARED:
            # A4, TK102: "when the range is shared again" while the mapping is live.
            keys = {
                k
                for k in process.requested
                if k[1] in pages and not process.several and not self.behind_viommu(k[0])
                if not process.gmem_attributes  # J6: the VM's attributes say nothing
            }
            self.populated_again(thread, keys, frame)
            self.made_shared(frame, vm, before, rolled_back, when, hooked=hooked, why_not=why_not)
            return
        if why_not is not None and not self.blind:
            self.never_happened(frame)
            for code in ("TK101", "TK111") + (("TK104",) if process.gmem_attributes else ()):
                self.judge(code, why_not)
            return
        if not changed:
            became_private = set()
        became_private = {k for k in became_private if k[1] not in rolled_back}
        candidates = {k for k in became_private if self.still_live(thread, k)}
        unknown = None if frame.all_known else frame.why_unknown
        self.judge("TK111", None if became_private else unknown)
        if self.in_place and not self.blind:  # those mapped since the commit
            self.reachable(frame, candidates - frame.out_of_order.keys())
        for key, v in frame.out_of_order.items():
            if key in candidates:
                self.pages.append(v)
            elif process.open_violation.get(("TK111", key)) is v:
                del process.open_violation["TK111", key]
        if candidates and not self.blind:
            assert frame.committed is not None
            conversion = Conversion(
                process, thread, frame.committed, set(frame.events), set(candidates), vm, frame
            )
            conversion.over = process.gap_ns > when
            process.conversions.append(conversion)
            process.candidate.update(dict.fromkeys(candidates, conversion))
        else:
            self.judge("TK101", unknown)

    def never_happened(self, frame: Frame) -> None:
        """TK111: the change was none after all."""
        held = frame.thread.process.open_violation
        for key, v in frame.out_of_order.items():
            if held.get(("TK111", key)) is v:
                del held["TK111", key]
        frame.out_of_order = {}
