"""Rows become threads, processes and the frames of their calls (J1)."""

from __future__ import annotations

from reference.calls import Calls
from reference.state import Container, Frame, Key, Process, Request, Thread, Vm
from reference.words import (
    ATTR_CMD,
    BUSY,
    CALLEES,
    CREATE_GMEM_CMD,
    CREATE_VM_CMD,
    INNER_CALLS,
    IOAS_ALLOC,
    SET_IOMMU,
    Row,
)


class Threads(Calls):
    """Who does what."""

    # ---- threads and processes ----

    def thread_of(self, row: Row) -> Thread:
        tid, pid = row["tid"], row.get("pid")
        thread = self.threads.get(tid)
        if thread is None:
            thread = self.threads[tid] = Thread(
                tid, self.new_process(pid if pid is not None else tid)
            )
            thread.unknown = self.after_loss
            thread.process.tids.add(tid)
        if pid is not None and thread.process.pid != pid:
            self.move(thread, self.by_pid.get(pid) or self.new_process(pid))
        if pid is not None:
            self.by_pid[pid] = thread.process
        if pid is None and row.get("object") is not None:
            # J1: threads that use one container, VM file or IO address space are one process.
            kind = {"vfio.type1_ioctl": "container", "kvm.vm_ioctl": "vm"}.get(row["event"])
            if row["event"] in INNER_CALLS:
                kind = "ioas"
            if kind is not None and row["object"] != 0:
                self.same_user(thread, (kind, row["object"]))
        return thread

    def new_process(self, pid: int | None) -> Process:
        process = Process(pid)
        if self.after_loss:
            process.unknown_since = process.nobody.unknown_since = "loss"
        self.processes.append(process)
        return process

    def move(self, thread: Thread, process: Process) -> None:
        thread.process.tids.discard(thread.tid)
        thread.process = process
        process.tids.add(thread.tid)

    def same_user(self, thread: Thread, what: tuple[str, int]) -> None:
        other = self.users.get(what)
        if other is None or other is thread.process or other.dead_since or not other.tids:
            self.users[what] = thread.process  # a dead process's pointer is free to be used again
            return
        self.join(thread.process, other)

    def join(self, one: Process, two: Process) -> None:
        """Make one process of two: what either knows, both know."""
        keep, gone = (one, two) if (one.pid or 0) <= (two.pid or 0) else (two, one)
        for tid in list(gone.tids):
            self.move(self.threads[tid], keep)
        self.processes.remove(gone)
        self.users = {k: keep if p is gone else p for k, p in self.users.items()}
        same: dict[Vm, Vm] = {}
        for name, vm in gone.vms.items():
            mine_vm = keep.vms.setdefault(name, vm)
            same[vm] = mine_vm
            if mine_vm is not vm:
                mine_vm.attr = {**vm.attr, **mine_vm.attr}
                mine_vm.turned = {**vm.turned, **mine_vm.turned}
                mine_vm.default = mine_vm.default or vm.default
                mine_vm.slots = {**vm.slots, **mine_vm.slots}
        for pointer, vm in gone.vm_of_object.items():
            keep.vm_of_object.setdefault(pointer, same.get(vm, vm))
        for hand in self.hands_of(keep):
            hand.vm = same.get(hand.vm, hand.vm)
        keep.gmem_attributes |= gone.gmem_attributes
        keep.gmems = {**gone.gmems, **keep.gmems}
        keep.huge += gone.huge
        keep.unmapped_known |= gone.unmapped_known
        renamed: dict[Container, Container] = {}
        for key, container in gone.containers.items():
            mine = keep.containers.setdefault(key, container)
            renamed[container] = mine
            if mine is not container:
                mine.unmapped_known |= container.unmapped_known
                mine.mapped_into |= container.mapped_into
                for page, state in container.pages.items():
                    mine.pages.setdefault(page, state)
                mine.dma += container.dma
                mine.counted += container.counted
                mine.neared = mine.neared or container.neared
                mine.type1 |= container.type1
        keep.orphans += gone.orphans
        keep.fresh_ioas |= gone.fresh_ioas
        keep.files += gone.files

        def renew(key: Key) -> Key:
            return (renamed.get(key[0], key[0]), key[1])

        keep.container_of_object |= {
            o: renamed.get(c, c) for o, c in gone.container_of_object.items()
        }
        keep.ioas_of_object |= {o: renamed.get(c, c) for o, c in gone.ioas_of_object.items()}
        times = [t for t in (keep.last_return_ns, gone.last_return_ns) if t is not None]
        keep.last_return_ns = max(times) if times else None
        for work in (*gone.conversions, *gone.requests, *gone.sharings):
            work.process = keep
            work.open_pages = {renew(k) for k in work.open_pages}
            if not isinstance(work, Request):
                work.vm = same.get(work.vm, work.vm)
        keep.conversions += gone.conversions
        keep.requests += gone.requests
        keep.sharings += gone.sharings
        keep.missing |= {renew(k): c for k, c in gone.missing.items()}
        keep.candidate |= {renew(k): c for k, c in gone.candidate.items()}
        keep.requested |= {renew(k): r for k, r in gone.requested.items()}
        keep.open_violation |= {(c, renew(k)): v for (c, k), v in gone.open_violation.items()}
        for v in self.pages:
            if v.process is gone:
                v.process = keep
                if isinstance(v.key[0], Container):
                    v.key = (renamed.get(v.key[0], v.key[0]), v.key[1])

    def forked(self, thread: Thread, row: Row) -> None:
        """J1: the child is in its parent's process until its exec."""
        if row.get("pid") is not None:
            return
        child = row["id"]
        old = self.threads.get(child)
        if old is not None:
            old.process.tids.discard(child)
        self.threads[child] = Thread(
            child, thread.process, unknown=thread.unknown and self.after_loss
        )
        thread.process.tids.add(child)

    def execed(self, thread: Thread, row: Row) -> None:
        if thread.hand is not None:  # J8: forgotten
            thread.hand = None
            self.judge("TK108")
        if row.get("pid") is None:
            self.move(thread, self.new_process(thread.tid))

    def exited(self, thread: Thread, row: Row) -> None:
        process, flags = thread.process, row.get("flags")
        thread.exited = True
        # J4 TK109: the last thread (flags 1; where null: tid = pid).
        if flags == 1 or (flags is None and thread.tid == process.pid):
            process.dead_since = (row["ts_ns"], row["seq"])

    # ---- frames ----

    def is_entry_of_open_frame(self, thread: Thread, call: str, row: Row) -> bool:
        """J1: the eprobe that opened it was read just before this event."""
        frame = thread.frame
        if frame is None or not frame.entry_to_come or call != "ioctl":
            return False
        same = frame.entered["fd"] == row["fd"] or None in (frame.entered["fd"], row["fd"])
        return frame.cmd == row["cmd"] and same

    def enter(self, thread: Thread, call: str, row: Row) -> None:
        thread.unknown = False
        if thread.frame is not None:  # an eprobe opened it
            thread.frame.entry_to_come = False
            return
        frame = self.open_frame(thread, call, row)
        early, thread.eprobe = thread.eprobe, None
        if early is not None and call == "ioctl":
            same = early["cmd"] == row["cmd"] and early["fd"] in (None, row["fd"])
            frame.eprobe = early if same else None  # it may be read just before the entry's event
        self.entered(frame)

    def open_frame(self, thread: Thread, call: str, row: Row) -> Frame:
        frame = Frame(call, thread, row["ts_ns"], row["seq"], row, events={row["seq"]})
        thread.frame = frame
        operation = frame.operation
        if operation is not None and operation != thread.run_operation:
            thread.run += 1  # IF: an occurrence ends where a run of calls is interrupted
            thread.run_operation = operation
        frame.run = thread.run
        for other in self.frames_of(thread.process):
            if other is not frame and {frame.operation, other.operation} == {"MAP", "ATTR"}:
                frame.attr_overlaps.append(other)
                other.attr_overlaps.append(frame)
        return frame

    def entered(self, frame: Frame) -> None:
        """What happens at a call's entry."""
        thread, process = frame.thread, frame.thread.process
        if frame.operation == "RUN":
            self.thread_runs_or_exits(thread, frame.entered)
        elif frame.operation == "DISCARD":
            frame.live_at_entry = {k for k in self.backed_by(frame) if self.still_live(thread, k)}
            self.rule_1(frame)
        elif frame.operation == "POPULATE":
            self.populated_again(thread, self.backed_by(frame), frame)
        elif frame.cmd == SET_IOMMU:
            key = self.container_key(frame)
            if key not in process.containers:
                process.containers[key] = Container(key, unmapped_known=True)
            process.containers[key].type1 = True

    def arguments_read(self, thread: Thread, row: Row) -> None:
        frame = thread.frame
        same = frame is not None and frame.call == "ioctl" and frame.cmd == row["cmd"]
        if frame is not None and same and frame.eprobe is None and frame.callee is None:
            frame.eprobe = row
        elif self.has_entered and not thread.unknown:
            thread.eprobe = row  # it may come just before the entry that it was read at
        else:  # there are no entries, or it was lost with others
            self.open_without_entry(thread, row)
            assert thread.frame is not None
            thread.frame.eprobe = row
            thread.frame.entry_to_come = True

    def attributes_seen(self, thread: Thread, row: Row) -> None:
        """The request's tracepoint, or the hook after it took effect."""
        request = row["event"] == "kvm.attributes"
        if thread.frame is None and request and not self.has_entered and not thread.unknown:
            self.open_without_entry(thread, {**row, "cmd": ATTR_CMD})
        frame = thread.frame
        if frame is None or frame.operation != "ATTR":
            # A call whose result will not be known, of whichever VM.
            self.forget_attributes(thread.process, None)
        elif request:
            frame.attributes = row
            frame.events.add(row["seq"])
        elif frame.committed is None:
            self.commit(frame, row["ts_ns"], row["seq"])

    def open_without_entry(self, thread: Thread, row: Row) -> None:
        """J1: where no ioctl.entered was recorded, the first probe opens the frame."""
        thread.unknown = False
        if thread.frame is not None:
            self.close_frame_without_return(thread, row)
        self.entered(self.open_frame(thread, "ioctl", row))

    def callee_called(self, thread: Thread, row: Row) -> None:
        frame = thread.frame
        opens = frame is None and not (self.has_entered and thread.unknown)
        if frame is not None and not self.has_entered:
            opens = frame.callee is not None and frame.callee_return is not None
        if row["event"] in CALLEES and opens:
            self.open_without_entry(thread, row)
            frame = thread.frame
        if frame is None or frame.call != "ioctl":
            return
        if row["event"] in INNER_CALLS:
            frame.inner = row
        elif row["cmd"] == frame.cmd:
            frame.callee = row
        else:
            frame.nested += 1  # VFIO_SET_IOMMU asks the driver about its extensions first
            return
        frame.events.add(row["seq"])

    def callee_returned(self, thread: Thread, row: Row) -> None:
        frame = thread.frame
        if frame is None or frame.call != "ioctl":
            return
        if frame.nested:
            frame.nested -= 1
            return
        frame.callee_return = (row["ret"], row["ts_ns"])
        # J4: the interval of a call ends here.
        self.out_by_now(frame)
        if frame.operation == "MAP" and row["ret"] >= 0:
            self.mapped_by_now(frame)

    def close_frame_without_return(self, thread: Thread, row: Row) -> None:
        """J1: the next entry closes it: as its callee returned, else as done (A4)."""
        frame = thread.frame
        assert frame is not None
        ret, when = frame.callee_return or (0, row["ts_ns"])
        self.close_frame(thread, ret, when, row["seq"], seen=frame.callee_return is not None)

    def close_frame(self, thread: Thread, ret: int, when: int, seq: int, *, seen: bool) -> None:
        frame, process = thread.frame, thread.process
        assert frame is not None
        thread.frame = None
        frame.returned_ns = when
        frame.events.add(seq) if seen else None
        if frame.operation in BUSY:
            process.last_return_ns = max(when, process.last_return_ns or when)
        done = {
            "ATTR": self.attr_returned,
            "MAP": self.map_returned,
            "UNMAP": self.unmap_returned,
            "DISCARD": self.discard_returned,
            "DESTROY": self.destroy_returned,
        }.get(frame.operation or "")
        if done is not None:
            done(frame, ret, when, seq)
        elif frame.cmd == CREATE_VM_CMD and ret > 0 and seen:
            self.vm_created(process, ret)
        elif frame.cmd == CREATE_GMEM_CMD and ret > 0 and seen:
            self.gmem_created(frame, ret)
        elif frame.cmd == SET_IOMMU and ret >= 0:
            self.container_begins(frame)
        elif frame.cmd == IOAS_ALLOC and ret >= 0:
            process.fresh_ioas.add(frame.fd)
        elif frame.operation == "SLOT" and ret >= 0:
            self.slot_set(frame)
        elif frame.cmd is not None and frame.cmd & 0xFFFF == 0xAED2 and ret >= 0:
            self.gmem_decides(process)
        elif frame.call in ("mmap", "munmap", "close", "open"):
            self.address_space(frame, ret, seen=seen)
        self.out_by_now(frame)
        for v in frame.awaiting:  # J4: until the unmap's return
            v.until_ns = when
            v.events.add(seq) if seen else None
