"""Pages that became shared and are to be mapped: TK104 (J7)."""

from __future__ import annotations

from collections.abc import Iterable

from reference.arguments import refused, sane
from reference.hands import Hands
from reference.state import Arguments, Container, Frame, Key, Process, Sharing, Thread, Vm
from reference.words import EEXIST, ENOSPC, PRIVATE, SHARED, TYPE1_MAP, common, pages_of


class Sharings(Hands):
    """Candidates of TK104, from their change to their map."""

    def not_mapped_yet(self, thread: Thread, key: Key) -> bool:
        """J4: the same, or not entered and being mapped by another thread."""
        state = key[0].look(key[1])
        if self.known_unmapped(key):
            return True
        if not state.entered_known or state.entry is not None:
            return False
        return any(
            key[1] in frame.mapped and self.container_of(frame) is key[0]
            for frame in self.frames_of(thread.process)
            if frame.operation == "MAP"
            and frame.thread is not thread
            and frame.callee_return is None
        )

    def made_shared(
        self,
        frame: Frame,
        vm: Vm,
        before: dict[int, str | None],
        rolled_back: set[int],
        when: int,
        *,
        hooked: bool,
        why_not: str | None,
    ) -> None:
        """A change to shared: what of it is not mapped, is to be mapped before it is over."""
        process = frame.thread.process
        if why_not is not None and not self.blind:
            if why_not == "gmem_attributes":
                self.judge("TK101", why_not)
            self.judge("TK104", why_not)
            return
        if not hooked and self.has_post:
            self.judge("TK104")  # it changed nothing
            return
        was_private = {
            page
            for page, known in before.items()
            if page not in rolled_back and (known == PRIVATE or (known is None and hooked))
        }
        keys = [k for k in frame.keys if not k[0].closed and k[0] not in process.orphans]
        unmapped = [key for key in keys if self.not_mapped_yet(frame.thread, key)]
        candidates = {key for key in unmapped if key[1] in was_private}
        if candidates and not self.blind:
            assert frame.committed is not None
            pages = range(min(before), max(before) + 1)
            sharing = Sharing(
                process,
                frame.thread,
                vm,
                pages,
                frame.committed,
                set(frame.events),
                candidates,
                frame,
                over=process.gap_ns > when,
            )
            process.sharings.append(sharing)
            process.missing.update(dict.fromkeys(candidates, sharing))
            return
        unknown = None
        containers = [
            c for c in process.containers.values() if not c.closed and not self.behind_viommu(c)
        ]
        if not containers and not process.unmapped_known:
            unknown = process.unknown_since
        for key in keys:
            if key not in unmapped and not self.mapped(key) and before[key[1]] != SHARED:
                unknown = key[0].unknown_since
        if containers and not hooked and None in before.values():
            unknown = unknown or vm.unknown_since
        self.judge("TK104", unknown)

    def expected(self, sharing: Sharing, key: Key) -> bool:
        """The container covered the page before, or covers the page's slot in full."""
        return key[0].look(key[1]).covered or self.in_full(sharing, key[0])

    def in_full(self, sharing: Sharing, container: Container) -> bool:
        process, vm = sharing.process, sharing.vm
        if process.several:
            return False
        for slot in vm.slots.values():
            pages = pages_of(slot.gpa, slot.size)
            if sharing.pages.start < pages.start or pages.stop < sharing.pages.stop:
                continue
            some = False
            for page in pages:
                key = (container, page)
                if page in sharing.pages or vm.attribute(page) != SHARED:
                    continue
                if key in process.missing or ("TK104", key) in process.open_violation:
                    continue
                if not self.mapped(key):
                    return False
                some = True
            return some  # no other one covers them: slots do not overlap
        return False

    def someone_is_mapping(self, thread: Thread, key: Key) -> bool:
        """A MAP frame of another thread that may cover the page is open."""
        for frame in self.frames_of(thread.process):
            if frame.thread is thread or frame.operation != "MAP" or refused(frame):
                continue
            args = self.arguments(frame)
            if args is None or not sane(args):
                return True
            if key[1] in pages_of(args.iova, args.size) and self.container_of(frame) is key[0]:
                return True
        return False

    def end_sharing(self, thread: Thread, keys: Iterable[Key], seq: int) -> None:
        """Rules 1 to 3 of A4: what is still not mapped now was missed."""
        process = thread.process
        told = [(key, self.expected(process.missing[key], key)) for key in keys]
        for key, expected in told:
            sharing = process.missing.pop(key)
            if expected:
                severity, confidence = ("error", "certain")
                if self.someone_is_mapping(thread, key):
                    severity, confidence = ("warning", "possible")
                for v in self.violate(
                    "TK104", severity, confidence, process, key, sharing.commit_ns, sharing
                ):
                    v.events.add(seq)
                    v.vm, v.ended_seq = sharing.vm, seq
                    process.open_violation["TK104", key] = v
            self.settle(sharing, key)

    def candidate_mapped(self, frame: Frame, key: Key) -> None:
        """A MAP reached the page while its change to shared was open."""
        process = frame.thread.process
        sharing = process.missing.get(key)
        if sharing is None:
            return
        key[0].at(key[1]).covered = True  # by this MAP
        expected = sharing.over and self.expected(sharing, key)
        del process.missing[key]
        if expected:  # provisionally over before
            frame.awaiting += self.violate(
                "TK104", "warning", "likely", process, key, sharing.commit_ns, sharing
            )
        self.settle(sharing, key)

    def mapped_by_now(self, frame: Frame) -> None:
        """J4: the map's interval is over: it holds its pages since then."""
        args, process = self.arguments(frame), frame.thread.process
        if not process.missing or (args is not None and frame.cmd == TYPE1_MAP and args.flags & 4):
            return
        container = self.container_of(frame)
        if args is None or not sane(args):
            pages = frame.mapped
        else:
            pages = set(pages_of(args.iova, args.size))
        for key in [k for k in process.missing if k[0] is container and k[1] in pages]:
            self.candidate_mapped(frame, key)

    def sharings_at_the_end(self, process: Process) -> None:
        for sharing in list(process.sharings):
            told = [(key, self.expected(sharing, key)) for key in sharing.open_pages]
            for key, expected in told:
                if sharing.over and expected:
                    self.violate(
                        "TK104", "warning", "likely", process, key, sharing.commit_ns, sharing
                    )
                self.settle(sharing, key, None if sharing.over else "trace_end")

    def map_refused(
        self,
        frame: Frame,
        container: Container | None,
        args: Arguments | None,
        ret: int,
        when: int,
    ) -> None:
        """J7: what cannot be mapped is TK108's; J8 TK107: no entries are left."""
        process, hand = frame.thread.process, frame.thread.hand
        usual = container is not None and not self.behind_viommu(container)
        known = args is not None and sane(args)
        pages = pages_of(args.iova, args.size) if args is not None and known else range(0)
        if ret == -ENOSPC and frame.cmd == TYPE1_MAP:
            converting = hand is not None and hand.wanted == SHARED and usual
            if hand is not None and known:
                converting = converting and bool(common(hand.pages, pages))
            self.call_violation("TK107", "error" if converting else "warning", frame, args, when)
        if ret == -EEXIST or not usual or args is None or not known:
            return
        converting = hand is not None and hand.wanted == SHARED and hand.failed is None
        if hand is not None and converting and common(hand.pages, pages):
            for key, sharing in list(process.missing.items()):
                own = sharing.thread is frame.thread and sharing.vm is hand.vm
                if own and key[1] in hand.pages:
                    del process.missing[key]
                    self.settle(sharing, key)
        self.hand_breaks(frame, container, args)
