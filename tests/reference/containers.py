"""Containers and their pages (J3), their entries (J8 TK107) and their end (D13)."""

from __future__ import annotations

from typing import Any

from reference.arguments import sane, unmaps_all
from reference.state import Arguments, Container, Frame, Key, PageViolation, Process, Thread
from reference.verdicts import Violation
from reference.vms import Vms
from reference.words import PAGE, TYPE1_MAP, TYPE1_UNMAP, U64, Row, pages_of

# J8: the limit of a type1 container, and how near it a container may come (D10).
ENTRY_LIMIT, NEAR_LIMIT = 65_535, 58_982


class Containers(Vms):
    """What is mapped where."""

    # ---- J3: containers ----

    def container_key(self, frame: Frame) -> tuple[Any, ...]:
        named = frame.entered if frame.fd is not None else frame.eprobe
        if named is not None and named.get("fd") is not None:
            return (named["fd"],)
        return ("object", frame.callee.get("object") if frame.callee else None)

    def container_of(self, frame: Frame) -> Container | None:
        """The container that a MAP or UNMAP frame works on."""
        process, key = frame.thread.process, self.container_key(frame)
        if frame.cmd in (TYPE1_MAP, TYPE1_UNMAP):
            pointer = frame.callee.get("object") if frame.callee else None
            known = process.container_of_object.get(pointer) if pointer else None
            if key[0] == "object" and known is not None:
                return known  # the descriptor is not recorded, but the container's pointer is
            if key not in process.containers:
                process.containers[key] = known or self.new_container(process, key)
            if pointer:
                process.container_of_object[pointer] = process.containers[key]
            process.containers[key].type1 = True
            return process.containers[key]
        # iommufd: the ioas's number where the caller's structure can be believed, else its pointer.
        iopt = frame.inner.get("object") if frame.inner else None
        row = self.believed_eprobe(frame, self.callee_arguments(frame))
        if frame.callee is not None and frame.callee.get("id") is not None:
            row = frame.callee
        ioas = row.get("id") if row is not None else None
        mine = [
            c for k, c in process.containers.items() if k[: len(key)] == key and len(k) > len(key)
        ]
        if ioas is None:
            if iopt is not None and iopt in process.ioas_of_object:
                return process.ioas_of_object[iopt]
            if len(mine) == 1:
                return mine[0]
            if mine:
                return None
        key = (*key, ioas)
        if key not in process.containers:
            process.containers[key] = self.new_container(process, key)
            if frame.fd in process.fresh_ioas:
                process.containers[key].unmapped_known = True
        if iopt is not None:
            process.ioas_of_object[iopt] = process.containers[key]
        return process.containers[key]

    def new_container(self, process: Process, key: tuple[Any, ...]) -> Container:
        container = Container(key, process.unmapped_known)
        container.unknown_since = process.unknown_since
        container.uncounted = None if process.unmapped_known else process.unknown_since
        return container

    def container_begins(self, frame: Frame) -> None:
        """VFIO_SET_IOMMU: a new container, in which only this frame's own maps are."""
        process, key = frame.thread.process, self.container_key(frame)
        old = process.containers[key]
        own = {page for iova, size in frame.maps for page in pages_of(iova, size)}
        if any(self.live((old, page)) for page in old.pages if page not in own):
            process.orphans.append(old)  # its pages may still be unmapped, in no frame
            self.no_candidates_in(process, old)
            process.containers[key] = Container(key, unmapped_known=True, type1=True)
        else:
            if old.dma or old.neared:
                self.entries_judged(process, old)
            old.unmapped_known, old.closed = True, False
            old.uncounted, old.passed = None, False

    def working_container(self, frame: Frame) -> Container | None:
        """J3: whose pages an iommu event in this frame is about; None: no VFIO or iommufd call."""
        process = frame.thread.process
        if frame.call != "ioctl" or (frame.cmd or 0) >> 8 & 0xFF != 0x3B:
            return None
        if frame.operation in ("MAP", "UNMAP"):
            return self.container_of(frame)
        if self.container_key(frame) in process.containers:
            return process.containers[self.container_key(frame)]
        return self.only_container(process)

    def only_container(self, process: Process) -> Container | None:
        containers = process.every_container()
        return containers[0] if len(containers) == 1 else None

    def no_candidates_in(self, process: Process, container: Container) -> None:
        """The container ends: nothing is to be mapped there."""
        for key in [k for k in process.missing if k[0] is container]:
            self.settle(process.missing.pop(key), key)

    def forget_container(self, process: Process, container: Container, why: str) -> None:
        for key in [k for k in process.candidate if k[0] is container]:
            self.settle(process.candidate.pop(key), key, why)
        for key in [k for k in process.requested if k[0] is container]:
            self.settle(process.requested.pop(key), key, why)
        for key in [k for k in process.missing if k[0] is container]:
            self.settle(process.missing.pop(key), key, why)
        for code, key in [k for k in process.open_violation if k[1][0] is container]:
            del process.open_violation[code, key]
        container.pages, container.entries = {}, []
        container.unmapped_known, container.unknown_since = False, why

    # ---- J3: pages ----

    def live(self, key: Key) -> bool:
        """J3: translated if the trace holds any iommu.map event, else entered."""
        state = key[0].look(key[1])
        return state.count > 0 if self.has_map else state.entry is not None

    def still_live(self, thread: Thread, key: Key) -> bool:
        """J4: live, or still entered and being unmapped by another thread."""
        return self.live(key) or (
            key[0].look(key[1]).entry is not None
            and any(
                key in frame.leaving
                for frame in self.frames_of(thread.process)
                if frame.thread is not thread and frame.callee_return is None
            )
        )

    def mapping_known(self, key: Key) -> bool:
        state = key[0].look(key[1])
        return state.translated_known if self.has_map else state.entered_known

    def mapped(self, key: Key) -> bool:
        """Entered or translated."""
        state = key[0].look(key[1])
        return state.entry is not None or state.count > 0

    def known_unmapped(self, key: Key) -> bool:
        """Known to be neither entered nor translated."""
        state = key[0].look(key[1])
        if not state.entered_known or state.entry is not None:
            return False
        return not self.has_map or (state.translated_known and not state.count)

    def iommu_map(self, thread: Thread, row: Row) -> None:
        if not row["size"]:
            return  # facts B.1: size 0 is nothing
        frame = thread.frame
        if frame is None:
            if thread.unknown:  # J1: nobody knows whose pages these are
                self.may_be_mapped(thread.process, pages_of(row["iova"], row["size"]))
            return
        container = self.working_container(frame)
        if container is None:
            return
        frame.maps.append((row["iova"], row["size"]))
        frame.events.add(row["seq"])
        if frame.first_map_ns is None:
            frame.first_map_ns, frame.first_map_seq = row["ts_ns"], row["seq"]
        for page in pages_of(row["iova"], row["size"]):
            state = container.at(page)
            if frame.operation == "MAP":
                state.covered = True
            # J3: once for each domain; a map call found nothing there, or it was refused.
            again = state.translated_known
            container.translated_twice |= again and state.count > 0
            if frame.operation == "MAP":
                again = again and page in frame.mapped
                frame.mapped.add(page)
            state.count = state.count + 1 if again else 1
            state.translated_known = True

    def may_be_mapped(self, process: Process, pages: range) -> None:
        """J1: in each container these pages can be mapped or not."""
        for container in process.every_container():
            for page in pages:
                state, key = container.at(page), (container, page)
                state.entered_known = state.translated_known = False
                state.entry, state.count = None, 0
                for opened in (process.candidate, process.requested, process.missing):
                    about = opened.pop(key, None)
                    if about is not None:
                        self.settle(about, key)

    def iommu_unmap(self, thread: Thread, row: Row) -> None:
        if not row["unmapped"]:
            return
        frame, process = thread.frame, thread.process
        pages = pages_of(row["iova"], row["unmapped"])  # facts B.1: removal is by what was removed
        container = self.working_container(frame) if frame is not None else None
        if frame is not None and container is not None:
            frame.unmaps.append((row["iova"], row["unmapped"]))
            frame.events.add(row["seq"])
        # A4: in no frame, it is the unmap of what its process has mapped.
        targets = [container] if container is not None else process.every_container()
        if frame is None and not targets:
            dead = [p for p in self.processes if p.every_container() and self.has_ended(p)]
            owners = [p for p in dead if self.translates(p, pages)]
            if len(owners) > 1:
                for owner in dead:
                    self.may_be_mapped(owner, pages)
                return
            for process in owners:
                targets = process.every_container()
        process.last_unmap_ns = row["ts_ns"]
        calling = frame if frame is not None and frame.operation == "UNMAP" else None
        for target in targets:
            for page in pages:
                state = target.look(page)
                if not state.translated_known and len(targets) == 1:
                    target.at(page).translated_known = True
                elif state.count:
                    state.count -= 1
                    if not state.count and frame is not None:
                        frame.removed.add(page)
                    if not state.count and self.has_map:
                        self.page_gone((target, page), calling, process, row["ts_ns"], row["seq"])

    def page_gone(
        self, key: Key, frame: Frame | None, process: Process, when: int, seq: int
    ) -> None:
        """A page is live no longer: violations end, its conversion or request is settled."""
        ended = [
            v
            for code in ("TK101", "TK102", "TK103", "TK111")
            if (v := process.open_violation.pop((code, key), None)) is not None
        ]
        if frame is not None:
            frame.leaving.append(key)  # A4: an unmap's interval ends at its return
        else:
            ended += self.unmapped(process, key)
        for v in ended:
            v.events.add(seq)
            if frame is not None:
                frame.awaiting.append(v)
            else:
                v.until_ns = when

    def out_by_now(self, frame: Frame) -> None:
        """J4: the unmap's interval is over: what its events showed is out."""
        leaving, frame.leaving = frame.leaving, []
        for key in leaving:
            frame.awaiting += self.unmapped(frame.thread.process, key)

    def unmapped(self, process: Process, key: Key) -> list[PageViolation]:
        """J4: an unmap reached the page while its conversion or request was open."""
        told = []
        conversion = process.candidate.pop(key, None)
        if conversion is not None:
            if conversion.over:  # provisionally over before
                told += self.violate(
                    "TK101", "warning", "likely", process, key, conversion.commit_ns, conversion
                )
            self.settle(conversion, key)
        request = process.requested.pop(key, None)
        if request is not None:
            severity, confidence = ("warning", "likely") if request.over else ("note", "certain")
            told += self.violate(
                "TK102", severity, confidence, process, key, request.entry_ns, request
            )
            self.settle(request, key)
        return told

    # ---- J8: TK107 ----

    def entry_counted(
        self, frame: Frame, container: Container, args: Arguments, when: int, seq: int
    ) -> None:
        if frame.cmd != TYPE1_MAP or container.uncounted is not None:
            return
        container.dma[args.iova // PAGE] += 1
        container.counted += 1
        if container.counted >= NEAR_LIMIT and container.neared is None:
            container.neared = (when, seq)
        container.passed |= container.counted > ENTRY_LIMIT

    def entries_gone(self, frame: Frame, container: Container, args: Arguments) -> None:
        pages = range(0)
        if unmaps_all(frame.cmd, args):
            pages = range(U64 // PAGE)
        elif sane(args):
            pages = pages_of(args.iova, args.size)
        if not self.behind_viommu(container):
            frame.thread.unmaps.append((container, pages))
        few = pages if len(pages) < len(container.dma) else list(container.dma)
        for page in few:
            if page in pages and page in container.dma:
                container.counted -= container.dma.pop(page)

    def not_counted(self, container: Container, why: str) -> None:
        if container.uncounted is None or why == "loss":
            container.uncounted = why
        container.dma.clear()
        container.counted, container.neared = 0, None

    def entries_judged(self, process: Process, container: Container) -> None:
        """How near a type1 container came to the limit."""
        if not container.type1:
            return
        self.judge("TK107", container.uncounted)
        if container.uncounted is None and container.neared and not container.passed:
            when, seq = container.neared
            told = Violation(
                "TK107", "warning", "likely", process.pid, None, None, when, None, (seq,)
            )
            if not self.blind:
                self.calls.append((("NEAR", container), told))
        container.dma.clear()
        container.counted, container.neared, container.passed = 0, None, False

    # ---- D13: a container's end ----

    def domain_used(self, thread: Thread, row: Row) -> None:
        frame = thread.frame
        container = self.working_container(frame) if frame is not None else None
        if container is not None and row.get("object"):
            container.mapped_into.add(row["object"])

    def domain_freed(self, thread: Thread, row: Row) -> None:
        """TK109: only of a domain that is known to be the container's only one."""
        for process in self.processes:
            for container in process.every_container():
                if container.mapped_into != {row.get("object")}:
                    continue
                container.mapped_into.clear()
                left = any(state.count for state in container.pages.values())
                own = process is thread.process or self.has_ended(process)
                if own or not left or not self.has_unmap:
                    self.container_ended(process, container, row["ts_ns"], row["seq"])
                    continue
                self.judge("TK109", "late_start")
                for opened in (process.candidate, process.requested, process.missing):
                    for key in [k for k in opened if k[0] is container]:
                        self.settle(opened.pop(key), key)
                container.pages, container.unmapped_known = {}, False

    def has_ended(self, process: Process) -> bool:
        """J3: all threads that are known of it have."""
        return all(self.threads[tid].exited for tid in process.tids)

    def translates(self, process: Process, pages: range) -> bool:
        """In one of its containers at least."""
        return any(c.look(p).count for c in process.every_container() for p in pages)

    def container_ended(
        self,
        process: Process,
        container: Container,
        when: int,
        seq: int,
        severity: str = "error",
        confidence: str = "certain",
    ) -> None:
        if not self.has_unmap:
            self.judge("TK109", "no_event:iommu.unmap")
            return
        left = [p for p, state in container.pages.items() if state.count]
        for page in left:
            self.violate(
                "TK109",
                severity,
                confidence,
                process,
                (container, page),
                when,
                ("END", container),
                {seq},
            )
        nothing_known = not left and not container.unmapped_known
        self.judge("TK109", container.unknown_since if nothing_known else None)
