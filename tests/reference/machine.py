"""The machine: every row in its turn, losses (J5), and the end of the trace."""

from __future__ import annotations

from reference.threads import Threads
from reference.verdicts import Replayed, Violation, merge_calls, merge_pages
from reference.words import CALLEE_RETURNS, CALLEES, INNER_CALLS, SYSTEM_CALLS, Row


class Machine(Threads):
    """All rules together."""

    def run(self) -> Replayed:
        for row in self.rows:
            self.step(row)
        if self.rows:
            self.trace_ends(max(row["ts_ns"] for row in self.rows))
        violations = sorted(
            [*merge_pages(self.pages), *merge_calls(self.calls)],
            key=lambda v: (v.from_ns, v.code, v.iova if v.iova is not None else -1, v.severity),
        )
        return Replayed(violations, self.judged)

    def step(self, row: Row) -> None:
        now, event = row["ts_ns"], row["event"]
        if self.blind_until is not None and now >= self.blind_until:
            self.blind_until = None
            self.forget_everything()  # J5: "and at t1"
        if event == "trace.lost":
            self.lost(row)
            return
        if event == "trace.clock_back":
            self.clock_trouble(row)
            return
        if row.get("tid") is None or (row.get("context") or 0) & 0x18:
            return  # J1: interrupts; and what names no thread is no thread's
        thread = self.thread_of(row)
        if thread.last_ns is not None and now < thread.last_ns:
            self.clock_trouble(row)  # IF TK902: time runs back on a thread
        thread.last_ns = now

        call, _, what = event.partition(".")
        entered = call in SYSTEM_CALLS and what == "entered"
        if entered or event in ("process.exit", "process.exec", "kvm.entry"):
            running = thread.frame is not None and thread.frame.operation == "RUN"
            goes_on = event == "kvm.entry" and running
            goes_on |= entered and self.is_entry_of_open_frame(thread, call, row)
            if thread.frame is not None and not goes_on:
                self.close_frame_without_return(thread, row)
        self.rule_4(thread.process, now)

        if entered:
            self.enter(thread, call, row)
        elif call in SYSTEM_CALLS and what == "returned":
            if thread.frame is not None and thread.frame.call == call:
                self.close_frame(thread, row["ret"], now, row["seq"], seen=True)
        elif event == "ioctl.arguments":
            self.arguments_read(thread, row)
        elif event in CALLEES or event in INNER_CALLS:
            self.callee_called(thread, row)
        elif event in CALLEE_RETURNS:
            self.callee_returned(thread, row)
        elif event in ("kvm.attributes", "kvm.attributes_post"):
            self.attributes_seen(thread, row)
        elif event == "kvm.unmap_hva":
            self.hva_unmapped(thread, row)
        elif event in ("kvm.memslot", "kvm.gmem_created", "kvm.gmem_fallocate"):
            if thread.frame is not None and event == "kvm.memslot":
                thread.frame.memslot = row
            elif thread.frame is not None:
                thread.frame.gmem = row
        elif event == "iommu.map":
            self.iommu_map(thread, row)
        elif event == "iommu.unmap":
            self.iommu_unmap(thread, row)
        elif event == "iommu.map_called":
            self.domain_used(thread, row)
        elif event == "iommu.domain_freed":
            self.domain_freed(thread, row)
        elif event == "kvm.entry":
            if not (thread.frame is not None and thread.frame.operation == "RUN"):
                self.thread_runs_or_exits(thread, row)
        elif event == "process.fork":
            self.forked(thread, row)
        elif event == "process.exec":
            self.execed(thread, row)
        elif event == "process.exit":
            self.thread_runs_or_exits(thread, row)
            self.exited(thread, row)

    # ---- J5: loss ----

    def lost(self, row: Row) -> None:
        t0, t1 = row["ts_ns"], row["until_ns"]
        self.calls.append(
            (
                ("LOST", row["seq"]),
                Violation("TK901", "note", "certain", None, None, None, t0, t1, (row["seq"],)),
            )
        )
        self.judged["TK901"].decided += 1
        self.frames_end_with_their_callees()
        self.forget_everything()
        self.blind_until = max(t1, self.blind_until or t1)

    def clock_trouble(self, row: Row) -> None:
        self.calls.append(
            (
                ("CLOCK", row["seq"]),
                Violation(
                    "TK902",
                    "warning",
                    "certain",
                    None,
                    None,
                    None,
                    row["ts_ns"],
                    row.get("until_ns"),
                    (row["seq"],),
                ),
            )
        )
        self.judged["TK902"].decided += 1

    def forget_everything(self) -> None:
        self.after_loss = True
        for process in self.processes:
            codes = ["TK101"] * len(process.conversions) + ["TK102"] * len(process.requests)
            codes += ["TK104"] * len(process.sharings)
            for code in codes:
                self.judged[code].undecided += 1
                self.judged[code].reasons["loss"] += 1
            process.conversions, process.requests, process.sharings = [], [], []
            process.candidate, process.requested, process.missing = {}, {}, {}
            process.open_violation = {}  # what was a violation stays one, until_ns null
            process.forget_attributes("loss")
            process.unknown_since = "loss"
            process.unmapped_known = False
            process.fresh_ioas = set()
            process.last_return_ns = process.last_map = None
            for container in process.every_container():
                container.pages, container.entries = {}, []
                container.unmapped_known = False
                container.unknown_since = "loss"
                self.not_counted(container, "loss")
        for thread in self.threads.values():
            if thread.hand is not None:
                self.judged["TK108"].undecided += 1
                self.judged["TK108"].reasons["loss"] += 1
            thread.hand, thread.unmaps = None, []
            thread.frame = thread.eprobe = None
            thread.unknown = True
            thread.run += 1
            thread.run_operation = None

    # ---- the end ----

    def frames_end_with_their_callees(self) -> None:
        """A4: where a call's exit is not recorded, the frame ends at its callee's return probe."""
        open_frames = [t.frame for t in self.threads.values() if t.frame is not None]
        ended = [(f.callee_return, f) for f in open_frames if f.callee_return is not None]
        for (ret, when), frame in sorted(ended, key=lambda e: (e[0][1], e[1].entry_seq)):
            self.close_frame(frame.thread, ret, when, frame.entry_seq, seen=True)

    def trace_ends(self, now: int) -> None:
        self.frames_end_with_their_callees()
        for process in self.processes:
            self.rule_4(process, now)
            for conversion in list(process.conversions):
                for key in list(conversion.open_pages):
                    if conversion.over:
                        self.violate(
                            "TK101",
                            "warning",
                            "likely",
                            process,
                            key,
                            conversion.commit_ns,
                            conversion,
                        )
                    self.settle(conversion, key, None if conversion.over else "trace_end")
            for request in list(process.requests):
                for key in list(request.open_pages):
                    if request.over:
                        self.violate(
                            "TK102", "warning", "likely", process, key, request.entry_ns, request
                        )
                    self.settle(request, key, None if request.over else "trace_end")
            self.sharings_at_the_end(process)
            for tid in sorted(process.tids):
                self.hand_at_the_end(self.threads[tid])
            for container in process.every_container():
                self.entries_judged(process, container)
            if process.dead_since is None or not process.every_container():
                continue
            # TK109.  The exit is recorded before the files are closed, and closing them takes its
            # time: a trace that ends meanwhile is a trace that just ends (IF), not a leak.
            for container in process.every_container():
                left = any(state.count for state in container.pages.values())
                quiet = now - max(process.dead_since[0], process.last_unmap_ns)
                if not left or quiet > self.grace_ns:
                    # Its files may still be closing (204 ms were recorded): never certain.
                    end = process.dead_since
                    self.container_ended(process, container, *end, "warning", "likely")
                else:
                    self.judge("TK109", "trace_end")
