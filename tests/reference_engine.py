"""The oracle of the replay engine: the same judgement, slowly, one dictionary entry a page.

Nothing here is shared with ``replay/engine``: no numba, no vectors, no code.  Where the two
disagree about a trace, one of them (or docs/judging.md) is wrong.  Comments name the rule that a
branch implements: *A4* and *A5* are sections of the architecture, *J1* to *J8* sections of
docs/judging.md, *D* rows are facts, *IF* is the table of finding codes.

The order of reading: rows -> threads and frames (J1) -> operations (J2) -> planes (J3) ->
conversions, requests and violations (J4, A4) -> loss (J5) -> whose pages (J6) -> what was not
mapped (J7) -> the rest of the second set (J8).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ("JudgedCounts", "Replayed", "Violation", "pages_of", "replay")

Row = dict[str, Any]

PAGE = 4096
U64 = 1 << 64
PRIVATE, SHARED = "private", "shared"
EEXIST, EINVAL, ENOENT, ENOSPC = 17, 22, 2, 28

# J2: the ioctls that count.
ATTR_CMD = 0x4020AED2
RUN_CMD = 0xAE80
CREATE_VM_CMD, CREATE_GMEM_CMD = 0xAE01, 0xC040AED4
TYPE1_MAP, TYPE1_UNMAP, SET_IOMMU = 0x3B71, 0x3B72, 0x3B66
IOAS_DESTROY, IOAS_ALLOC, IOAS_MAP, IOAS_UNMAP = 0x3B80, 0x3B81, 0x3B85, 0x3B86
IOAS_MAP_FILE = 0x3B8F
OPERATIONS = {
    ATTR_CMD: "ATTR",
    TYPE1_MAP: "MAP",
    IOAS_MAP: "MAP",
    IOAS_MAP_FILE: "MAP",
    TYPE1_UNMAP: "UNMAP",
    IOAS_UNMAP: "UNMAP",
    RUN_CMD: "RUN",
    IOAS_DESTROY: "DESTROY",
    0x4020AE46: "SLOT",
    0x40A0AE49: "SLOT",
}
# J2: the size that the caller itself writes confirms what an eprobe read from user memory.
ARGSZ_HOLDS = {
    TYPE1_MAP: lambda n: n == 32,
    TYPE1_UNMAP: lambda n: n >= 24,
    IOAS_MAP: lambda n: n == 40,
    IOAS_MAP_FILE: lambda n: n == 40,
    IOAS_UNMAP: lambda n: n == 24,
}
DONTNEED, MAP_SHARED, MAP_FIXED = 4, 0x01, 0x10
DISCARD_ADVICE, POPULATE_ADVICE = (4, 9), (22, 23)
# J8: the limit of a type1 container, and how near it a container may come (D10).
ENTRY_LIMIT, NEAR_LIMIT = 65_535, 58_982
HAS_GMEM, MAP_HUGETLB = 4, 0x40000
CODES = (
    "TK101",
    "TK102",
    "TK103",
    "TK104",
    "TK105",
    "TK106",
    "TK107",
    "TK108",
    "TK109",
    "TK110",
    "TK111",
    "TK202",
    "TK901",
    "TK902",
)
CALLEES = ("vfio.type1_ioctl", "kvm.vm_ioctl", "iommufd.ioctl")
INNER_CALLS = ("iommufd.iopt_map_user", "iommufd.iopt_map_file", "iommufd.iopt_unmap")
CALLEE_RETURNS = (
    "vfio.type1_ioctl_returned",
    "kvm.vm_ioctl_returned",
    "iommufd.ioctl_returned",
    "iommufd.iopt_map_returned",
    "iommufd.iopt_unmap_returned",
)
SYSTEM_CALLS = ("ioctl", "fallocate", "madvise", "mmap", "munmap", "open", "close")
# J4, rule 4 of A4: the frames whose being open keeps a conversion going.
BUSY = ("MAP", "UNMAP", "ATTR", "DISCARD")


class Violation(NamedTuple):
    """One occurrence (IF): adjacent pages of one conversion, request or run of calls."""

    code: str
    severity: str
    confidence: str
    pid: int | None
    iova: int | None
    size: int | None
    from_ns: int
    until_ns: int | None
    events: tuple[int, ...]


@dataclass
class JudgedCounts:
    decided: int = 0
    undecided: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class Replayed:
    violations: list[Violation]
    judged: dict[str, JudgedCounts]


def replay(rows: Iterable[Row], grace_ns: int = 1_000_000, *, in_place: bool = False) -> Replayed:
    """Judge a trace.

    :param rows: every row of the trace, in order; columns as in ``tracekit.events``, None for null
    :param in_place: memory is converted where it is: TK111 is judged as well
    """
    return _Machine(list(rows), grace_ns, in_place=in_place).run()


def pages_of(iova: int, size: int) -> range:
    """The page numbers that [iova, iova + size) touches."""
    return range(iova // PAGE, -(-(iova + size) // PAGE))


# --- what the machine is made of ------------------------------------------------------------------


@dataclass(eq=False)
class Entry:
    """One successful map call: where it began and what it maps (J3 *entries*)."""

    iova: int
    size: int
    vaddr: int | None
    file_fd: int | None
    offset: int | None
    seq: int
    held_by: int = 0  # pages that are still its own


@dataclass
class PageState:
    """One page of one container: entered (by a map call) and translated (by iommu.map events)."""

    entered_known: bool
    translated_known: bool
    entry: Entry | None = None
    count: int = 0
    covered: bool = False  # J7
    last_entry: Entry | None = None  # J6: whose page it was when it was last entered


@dataclass(eq=False)
class Container:
    """J3: a (process, descriptor), plus the ioas for iommufd."""

    key: tuple[Any, ...]
    unmapped_known: bool  # a page never spoken of is known to be unmapped
    pages: dict[int, PageState] = field(default_factory=dict)
    unknown_since: str = "late_start"
    mapped_into: set[int] = field(default_factory=set)  # domains, ever
    translated_twice: bool = False
    entries: list[Entry] = field(default_factory=list)
    closed: bool = False  # its descriptor is, or it was destroyed
    viommu: bool = False  # J6
    type1: bool = False
    uncounted: str | None = None  # J8 TK107: why its entries are not counted
    dma: Counter[int] = field(default_factory=Counter)  # entries that begin at a page
    counted: int = 0
    neared: tuple[int, int] | None = None  # return and number of the MAP that came near the limit
    passed: bool = False  # the limit was another

    def enter(self, page: int, entry: Entry | None) -> None:
        """The page is known to be held by the entry, or by none."""
        state = self.at(page)
        if state.entry is not None:
            state.entry.held_by -= 1
            if not state.entry.held_by:
                self.entries.remove(state.entry)
        if entry is not None:
            if not entry.held_by:
                self.entries.append(entry)
            entry.held_by += 1
            state.last_entry = entry
        state.entry, state.entered_known = entry, True

    def at(self, page: int) -> PageState:
        """The page's state, made on first use."""
        return self.pages.setdefault(page, PageState(self.unmapped_known, self.unmapped_known))

    def look(self, page: int) -> PageState:
        """The page's state, without making one."""
        return self.pages.get(page) or PageState(self.unmapped_known, self.unmapped_known)


Key = tuple[Container, int]
"""One page of one container."""


@dataclass(eq=False)
class Slot:
    """A memory slot of a VM (J6)."""

    gpa: int
    size: int
    vaddr: int
    flags: int | None
    file_fd: int | None  # its guest_memfd, where told; -1: that descriptor was closed
    offset: int

    def holds_gpa(self, gpa: int) -> bool:
        return self.gpa <= gpa < self.gpa + self.size

    def holds_vaddr(self, vaddr: int) -> bool:
        return self.vaddr <= vaddr < self.vaddr + self.size

    @property
    def has_gmem(self) -> bool:
        return bool((self.flags or 0) & HAS_GMEM)


@dataclass(eq=False)
class Vm:
    """A VM of a process: its attribute plane (J3) and its slots (J6)."""

    unknown_since: str
    default: str | None = None
    attr: dict[int, tuple[str, int]] = field(default_factory=dict)  # state, since which event
    slots: dict[int, Slot] = field(default_factory=dict)
    touched: dict[int, int] = field(default_factory=dict)  # which change was about it last

    def attribute(self, page: int) -> str | None:
        known = self.attr.get(page)
        return known[0] if known is not None else self.default

    def forget(self, why: str) -> None:
        self.attr, self.default, self.unknown_since = {}, None, why


@dataclass(eq=False)
class PageViolation:
    """A violation of one page, before occurrences are made of them."""

    code: str
    severity: str
    confidence: str
    process: Process
    key: tuple[Container | Vm, int]  # TK110 is about a VM's page
    from_ns: int
    cause: object  # pages of one cause make one occurrence
    events: set[int]
    until_ns: int | None = None
    vm: Vm | None = None  # TK103: whose page it was
    ended_seq: int = -1  # TK104: the event that ended its conversion


@dataclass(eq=False)
class Conversion:
    """A successful change to private with pages that were live (A4 *a conversion*)."""

    process: Process
    thread: Thread
    commit_ns: int
    events: set[int]
    open_pages: set[Key]
    vm: Vm
    frame: Frame
    over: bool = False  # rule 4: provisionally
    undecided: str | None = None


@dataclass(eq=False)
class Sharing:
    """A successful change to shared with pages that are not mapped (J7)."""

    process: Process
    thread: Thread
    vm: Vm
    pages: range
    commit_ns: int
    events: set[int]
    open_pages: set[Key]
    over: bool = False
    undecided: str | None = None


@dataclass(eq=False)
class Hand:
    """A thread's conversion in hand (J8)."""

    vm: Vm
    wanted: str
    pages: range
    commit_ns: int
    entry_seq: int
    commit_seq: int = -1
    made_private: frozenset[int] = frozenset()  # J8 TK110, the note
    over: bool = False  # rule 4, since it is what it is
    discarded: bool = False  # shared backing was, by its thread
    failed: Frame | None = None  # the call that broke it
    failed_in: Container | None = None
    left: set[int] = field(default_factory=set)  # pages that it is broken for
    after_unmaps: bool = False  # the change itself failed, after unmaps
    unmapped: list[tuple[Container, set[int]]] = field(default_factory=list)  # these
    rolled_back: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Request:
    """A successful discard of the backing of live pages (A4, last lines; TK102)."""

    process: Process
    thread: Thread
    entry_ns: int
    return_seq: int
    events: set[int]
    open_pages: set[Key]
    over: bool = False
    undecided: str | None = None


@dataclass(eq=False)
class FileMapping:
    """mmap() of a file, its address known (J3 *backing*)."""

    vaddr: int
    size: int
    fd: int
    offset: int
    shared: bool

    def part(self, vaddr: int, size: int) -> FileMapping:
        """A piece of it."""
        offset = self.offset + vaddr - self.vaddr
        return FileMapping(vaddr, size, self.fd, offset, self.shared)


@dataclass(eq=False)
class Process:
    pid: int | None
    tids: set[int] = field(default_factory=set)
    vms: dict[object, Vm] = field(default_factory=dict)  # the live ones, by their descriptors
    vm_of_object: dict[int, Vm] = field(default_factory=dict)
    nobody: Vm = field(default_factory=lambda: Vm("late_start"))  # where no VM is known
    gmem_attributes: bool = False  # J6: what is private is not for its VMs to say
    gmems: dict[int, int | None] = field(default_factory=dict)  # guest_memfd: size
    huge: list[FileMapping] = field(default_factory=list)  # mapped with MAP_HUGETLB
    unmapped_known: bool = False  # KVM_CREATE_VM seen: what is not known to be mapped is not
    unknown_since: str = "late_start"
    containers: dict[tuple[Any, ...], Container] = field(default_factory=dict)
    orphans: list[Container] = field(default_factory=list)  # their descriptor names another one now
    fresh_ioas: set[int | None] = field(default_factory=set)
    container_of_object: dict[int, Container] = field(default_factory=dict)
    ioas_of_object: dict[int, Container] = field(default_factory=dict)
    files: list[FileMapping] = field(default_factory=list)
    last_return_ns: int | None = None
    last_map: tuple[int, Thread] | None = None  # return of the last successful MAP
    conversions: list[Conversion] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    sharings: list[Sharing] = field(default_factory=list)
    missing: dict[Key, Sharing] = field(default_factory=dict)  # TK104's candidates
    candidate: dict[Key, Conversion] = field(default_factory=dict)
    requested: dict[Key, Request] = field(default_factory=dict)
    open_violation: dict[tuple[str, Key], PageViolation] = field(default_factory=dict)
    dead_since: tuple[int, int] | None = None  # time and number of the last thread's exit

    @property
    def several(self) -> bool:
        return len(self.live_vms) > 1

    @property
    def live_vms(self) -> list[Vm]:
        return list(dict.fromkeys(self.vms.values()))

    def forget_attributes(self, why: str) -> None:
        for vm in (*self.live_vms, self.nobody):
            vm.forget(why)

    def every_container(self) -> list[Container]:
        return list(dict.fromkeys([*self.containers.values(), *self.orphans]))


@dataclass(eq=False)
class Frame:
    """One system call of one thread, with what happened in it (J1)."""

    call: str
    thread: Thread
    entry_ns: int
    entry_seq: int
    entered: Row
    run: int = 0  # number of the uninterrupted run of calls that it belongs to
    callee: Row | None = None
    nested: int = 0  # callee probes of another command, still to return
    inner: Row | None = None
    attributes: Row | None = None
    eprobe: Row | None = None
    callee_return: tuple[int, int] | None = None  # result, time
    events: set[int] = field(default_factory=set)
    maps: list[tuple[int, int]] = field(default_factory=list)
    unmaps: list[tuple[int, int]] = field(default_factory=list)
    returned_ns: int | None = None
    mapped: set[int] = field(default_factory=set)  # MAP: pages that its events showed
    first_map_ns: int | None = None
    first_map_seq: int = -1
    committed: int | None = None  # ATTR: when
    commit_seq: int = -1
    live_at_commit: set[Key] = field(default_factory=set)
    unmapping_at_commit: set[Key] = field(default_factory=set)  # by another thread (TK111)
    out_of_order: dict[Key, PageViolation] = field(default_factory=dict)  # TK111, if it succeeds
    uncovers: set[Key] = field(default_factory=set)  # ATTR to private (J7)
    made_shared: dict[int, tuple[str, int]] = field(default_factory=dict)  # ATTR: what was before
    unmapped_at_commit: set[Key] = field(default_factory=set)  # ATTR to shared: known to be so
    unclear_at_commit: set[Key] = field(default_factory=set)
    memslot: Row | None = None  # SLOT
    gmem: Row | None = None  # KVM_CREATE_GUEST_MEMFD, or a guest_memfd's fallocate()
    all_known: bool = True  # ATTR: every page's mapping and attribute was known
    why_unknown: str = "late_start"
    live_at_entry: set[Key] = field(default_factory=set)  # DISCARD
    leaving: list[Key] = field(default_factory=list)  # UNMAP: pages that its events showed
    removed: set[int] = field(default_factory=set)  # the same, also after they left
    awaiting: list[PageViolation] = field(default_factory=list)  # end when this frame returns
    attr_overlaps: list[Frame] = field(
        default_factory=list
    )  # MAP: ATTR frames open at the same time

    @property
    def cmd(self) -> int | None:
        return self.entered.get("cmd") if self.call == "ioctl" else None

    @property
    def fd(self) -> int | None:
        return self.entered.get("fd")

    @property
    def operation(self) -> str | None:
        """J2's table."""
        if self.call == "ioctl":
            return OPERATIONS.get(self.cmd or 0)
        if self.call == "fallocate":
            return "DISCARD" if (self.entered["flags"] or 0) & 2 else "POPULATE"
        if self.call == "madvise":
            if self.entered["flags"] in DISCARD_ADVICE:
                return "DISCARD"
            return "POPULATE" if self.entered["flags"] in POPULATE_ADVICE else None
        return None


@dataclass(eq=False)
class Thread:
    tid: int
    process: Process
    frame: Frame | None = None
    eprobe: Row | None = None  # an ioctl.arguments that came before its ioctl.entered
    unknown: bool = False  # J1: since a loss no system call was entered
    last_ns: int | None = None
    run: int = 0
    run_operation: str | None = None
    hand: Hand | None = None  # J8: its conversion in hand
    unmaps: list[tuple[Container, range]] = field(default_factory=list)  # since its RUN, ATTR, exit


class Arguments(NamedTuple):
    iova: int
    size: int
    flags: int = 0
    attributes: int = 0
    vaddr: int | None = None
    file_fd: int | None = None
    offset: int | None = None


# --- the machine ----------------------------------------------------------------------------------


class _Machine:
    def __init__(self, rows: list[Row], grace_ns: int, *, in_place: bool) -> None:
        self.rows = rows
        self.grace_ns = grace_ns
        self.in_place = in_place
        # Three rules ask what the whole trace holds (J3 live, J4 candidates, TK105 and TK109).
        held = {row["event"] for row in rows}
        self.has_map = "iommu.map" in held
        self.has_unmap = "iommu.unmap" in held
        self.has_entered = "ioctl.entered" in held
        self.has_post = "kvm.attributes_post" in held
        self.has_notify = "qemu.iommu_notify" in held
        self.has_discard = bool(held & {"fallocate.entered", "madvise.entered"})
        self.threads: dict[int, Thread] = {}
        self.processes: list[Process] = []
        self.by_pid: dict[int, Process] = {}
        self.users: dict[tuple[str, int], Process] = {}
        self.pages: list[PageViolation] = []
        self.calls: list[tuple[object, Violation]] = []
        self.judged = {code: JudgedCounts() for code in CODES}
        self.blind_until: int | None = None

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

    # ---- one event ----

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
            if thread.frame is not None and not (event == "kvm.entry" and running):
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

    # ---- J1: threads and processes ----

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

    after_loss = False

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
                mine_vm.touched = {**vm.touched, **mine_vm.touched}
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
        # J4 TK109: the last thread (flags 1; where null: tid = pid).
        if flags == 1 or (flags is None and thread.tid == process.pid):
            process.dead_since = (row["ts_ns"], row["seq"])

    # ---- J1: frames ----

    def enter(self, thread: Thread, call: str, row: Row) -> None:
        thread.unknown = False
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
        elif self.has_entered:
            thread.eprobe = row  # it may come just before the entry that it was read at
        else:
            self.open_without_entry(thread, row)
            assert thread.frame is not None
            thread.frame.eprobe = row

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

    def frames_of(self, process: Process) -> Iterator[Frame]:
        for tid in process.tids:
            frame = self.threads[tid].frame
            if frame is not None:
                yield frame

    # ---- J2: arguments ----

    def arguments(self, frame: Frame, *, failed: bool = False) -> Arguments | None:
        """The best that is known about the call's arguments; None: unknown."""
        if frame.operation == "ATTR":
            return self.attr_arguments(frame, failed=failed)
        best = self.callee_arguments(frame)
        if best is not None:
            return best
        eprobe = self.believed_eprobe(frame, None)
        return _from_row(eprobe) if eprobe is not None else None

    def callee_arguments(self, frame: Frame) -> Arguments | None:
        for row in (frame.callee, frame.inner):
            if row is not None and row.get("iova") is not None and row.get("size") is not None:
                return _from_row(row)
        return None

    def believed_eprobe(self, frame: Frame, better: Arguments | None) -> Row | None:
        """J2: believed if the frame confirms it."""
        row = frame.eprobe
        if row is None or row.get("iova") is None or row.get("size") is None:
            return None
        holds = ARGSZ_HOLDS.get(frame.cmd or 0)
        if holds is None or row.get("argsz") is None or not holds(row["argsz"]):
            return None
        if better is not None:
            return row if (better.iova, better.size) == (row["iova"], row["size"]) else None
        if _everything(frame.cmd, _from_row(row)):
            return row
        shown = frame.maps if frame.operation == "MAP" else frame.unmaps
        inside = all(
            row["iova"] <= iova and iova + size <= row["iova"] + row["size"] for iova, size in shown
        )
        return row if inside else None

    def attr_arguments(self, frame: Frame, *, failed: bool) -> Arguments | None:
        for row in (frame.callee, frame.attributes):
            if row is not None and row.get("gpa") is not None and row.get("size") is not None:
                return Arguments(row["gpa"], row["size"], attributes=row["attributes"] or 0)
        row = frame.eprobe
        if (
            failed
            and row is not None
            and row.get("gpa") is not None
            and row.get("size") is not None
        ):
            return Arguments(row["gpa"], row["size"], attributes=row["attributes"] or 0)
        return None

    # ---- J3: containers and pages ----

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

    # ---- J3: backing ----

    def backed_by(self, frame: Frame) -> set[Key]:
        """The entered pages whose backing a discard or populate call covers."""
        process = frame.thread.process
        at, file = self.addresses(frame)
        out = set()
        for container in process.every_container():
            for entry in container.entries:
                covered: list[tuple[int, int]] = []  # as bytes of the entry
                if entry.vaddr is not None:
                    covered = [(low - entry.vaddr, high - entry.vaddr) for low, high in at]
                elif file is not None and entry.file_fd == file[0]:
                    start = entry.offset or 0
                    covered = [(file[1] - start, file[2] - start)]
                for low, high in covered:
                    low, high = max(low, 0), min(high, entry.size)
                    if low < high:
                        for page in pages_of(entry.iova + low, high - low):
                            if container.look(page).entry is entry:
                                out.add((container, page))
        return out

    def addresses(self, frame: Frame) -> tuple[list[tuple[int, int]], tuple[int, int, int] | None]:
        """User addresses that a discard or populate call covers, and the range of the file."""
        process, row = frame.thread.process, frame.entered
        at: list[tuple[int, int]] = []
        file: tuple[int, int, int] | None = None
        if frame.call == "madvise":
            at.append((row["vaddr"], row["vaddr"] + row["size"]))
            if row["flags"] == DONTNEED:
                # Of a file mapped shared it drops page table entries: the file keeps its pages.
                for m in process.files:
                    if m.shared:
                        at = [
                            (low, high)
                            for start, end in at
                            for low, high in (
                                (start, min(end, m.vaddr)),
                                (max(start, m.vaddr + m.size), end),
                            )
                            if low < high
                        ]
        else:
            first, last = row["offset"], row["offset"] + row["size"]
            file = (row["fd"], first, last)
            for m in process.files:
                if m.fd == row["fd"]:
                    low, high = max(first, m.offset), min(last, m.offset + m.size)
                    if low < high:
                        at.append((m.vaddr + low - m.offset, m.vaddr + high - m.offset))
        return at, file

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

    def address_space(self, frame: Frame, ret: int, *, seen: bool) -> None:
        process, row = frame.thread.process, frame.entered
        if ret < 0 and not (frame.call == "mmap" and ret < -4095):
            return
        if frame.call == "mmap":
            # Its address is the result; where that is not recorded, the one that was insisted on.
            at = ret % U64 if seen else row["vaddr"]
            if not seen and not (row["flags"] or 0) & MAP_FIXED:
                return
            self.unmap_files(process, at, row["size"])
            if (row["flags"] or 0) & MAP_HUGETLB:
                process.huge.append(FileMapping(at, row["size"], -1, 0, shared=False))
            if row.get("file_fd") is not None:
                shared = bool((row["flags"] or 0) & MAP_SHARED)
                process.files.append(
                    FileMapping(at, row["size"], row["file_fd"], row["offset"], shared)
                )
        elif frame.call == "munmap":
            self.unmap_files(process, row["vaddr"], row["size"])
        elif frame.call == "close" or (frame.call == "open" and seen):
            self.descriptor_gone(process, row["fd"] if frame.call == "close" else ret)

    def unmap_files(self, process: Process, vaddr: int, size: int) -> None:
        process.files = without(process.files, vaddr, size)
        process.huge = without(process.huge, vaddr, size)

    def descriptor_gone(self, process: Process, fd: int) -> None:
        process.files = [m for m in process.files if m.fd != fd]
        for container in process.every_container():
            for entry in container.entries:
                if entry.file_fd == fd:
                    entry.file_fd = None
        process.vms.pop(fd, None)  # J6: no longer a live VM
        process.gmems.pop(fd, None)
        for slot in [slot for vm in process.live_vms for slot in vm.slots.values()]:
            slot.file_fd = -1 if slot.file_fd == fd else slot.file_fd
        for key, container in process.containers.items():
            if key[0] == fd:
                container.closed = True
                self.no_candidates_in(process, container)

    # ---- J4: a call to change attributes ----

    def commit(self, frame: Frame, when: int, seq: int) -> None:
        """The change takes effect: the first post hook, else the return (J3)."""
        frame.committed, frame.commit_seq = when, seq
        args, vm = self.attr_arguments(frame, failed=False), self.vm_of(frame)
        if args is None or vm is None or not _sane(args):
            return
        process, thread = frame.thread.process, frame.thread
        containers = [c for c in process.every_container() if not self.behind_viommu(c)]
        keys = [(c, p) for c in containers for p in pages_of(args.iova, args.size)]
        if process.several:  # J6: a conversion of X looks only at X's pages
            keys = [key for key in keys if self.vm_of_page(process, key) is vm]
        frame.live_at_commit = {key for key in keys if self.still_live(thread, key)}
        if args.attributes & 8:
            for key in keys:
                # J7: what it does not map any more when it becomes private, it does not cover.
                state = key[0].pages.get(key[1])
                held = any(c is key[0] and key[1] in held for c, held in thread.unmaps)
                if state is not None and state.entry is None and not state.count and not held:
                    frame.uncovers.add(key)
            self.in_place_change(frame, vm)
            return
        for key in keys:
            if key[0].closed or key[0] in process.orphans:
                continue
            if self.not_mapped_yet(thread, key):
                frame.unmapped_at_commit.add(key)
            elif not self.mapped(key):
                frame.unclear_at_commit.add(key)

    def in_place_change(self, frame: Frame, vm: Vm) -> None:
        """J8 TK111: live pages become private; a violation if the call succeeds."""
        if not self.in_place or self.blind:
            return
        process = frame.thread.process
        assert frame.committed is not None
        for key in frame.live_at_commit:
            known = vm.attribute(key[1])
            if known == PRIVATE or ("TK111", key) in process.open_violation:
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

    def change(self, frame: Frame, args: Arguments, vm: Vm) -> set[Key]:
        """A successful call's effect, as of its commit; the live pages that it made private."""
        process, when = frame.thread.process, frame.committed
        assert when is not None
        wanted = PRIVATE if args.attributes & 8 else SHARED
        pages = list(pages_of(args.iova, args.size)) if _sane(args) else []
        self.rule_3(frame, pages, wanted, vm)
        for container, page in frame.uncovers:
            if not self.mapped((container, page)):
                container.at(page).covered = False
        became = set()
        if wanted == PRIVATE:
            self.note_what_is_known(frame, pages, vm)
            became = {
                key
                for key in frame.live_at_commit
                if vm.attribute(key[1]) != PRIVATE and ("TK101", key) not in process.open_violation
            }
        for page in pages:
            vm.touched[page] = frame.commit_seq
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
        valid = _sane(args) and not (args.iova % PAGE or args.size % PAGE)
        if not valid:
            self.call_violation("TK202", "error", frame, args, when)  # IF TK202: taken
        hooked = frame.committed is not None
        if not hooked:
            self.commit(frame, when, seq)
        pages = pages_of(args.iova, args.size) if _sane(args) else range(0)
        wanted = PRIVATE if args.attributes & 8 else SHARED
        changed = hooked or not self.has_post  # J4: no hook where they are recorded: nothing
        # J8: the change back of what broke is nobody's conversion.
        rolled_back, stays = self.hand_meets(frame, pages, wanted, vm)
        before = {page: vm.attribute(page) for page in pages}
        became_private = self.change(frame, args, vm)
        if not stays and valid and not process.gmem_attributes:
            made = [p for p in pages if before[p] != PRIVATE and changed and wanted == PRIVATE]
            assert frame.committed is not None
            thread.hand = Hand(
                vm,
                wanted,
                pages,
                frame.committed,
                frame.entry_seq,
                frame.commit_seq,
                frozenset(made),
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
            }
            self.populated_again(thread, keys, frame)
            self.made_shared(frame, vm, before, rolled_back, hooked=hooked, why_not=why_not)
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
        for key, v in frame.out_of_order.items():
            if key in became_private:
                self.pages.append(v)
            elif process.open_violation.get(("TK111", key)) is v:
                del process.open_violation["TK111", key]
        if candidates and not self.blind:
            assert frame.committed is not None
            conversion = Conversion(
                process, thread, frame.committed, set(frame.events), set(candidates), vm, frame
            )
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

    # ---- J4: map, unmap, discard, destroy ----

    def map_returned(self, frame: Frame, ret: int, when: int, seq: int) -> None:
        process, args = frame.thread.process, self.arguments(frame)
        if args is not None and frame.cmd == TYPE1_MAP and args.flags & 4:
            return  # J2: the VADDR flag: no map
        container = self.container_of(frame)
        if args is not None and _sane(args):
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
        if args is None or not _sane(args):
            self.judge("TK106", "unknown_arguments")
            self.unknown_call(frame, container)
            mapped = {p for iova, size in frame.maps for p in pages_of(iova, size)}
            self.not_counted(container, "unknown_arguments")
        else:
            self.viommu_seen(process, container, args)
            self.entry_counted(frame, container, args, when, seq)
            mapped = set(pages_of(args.iova, args.size))
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
            if args is not None and not (_sane(args) and page in pages_of(args.iova, args.size)):
                continue
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
        if frame.committed is None and self.has_post:
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
        if _everything(frame.cmd, args):
            pages: Iterable[int] = list(container.pages)
        elif _sane(args):
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
        aligned = _sane(args) and not (args.iova % PAGE or args.size % PAGE)
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
            for k in frame.live_at_entry  # J4 TK102: live both at its entry and its return
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

    # ---- A4: when a conversion is over ----

    def someone_is_unmapping(self, thread: Thread, key: Key) -> bool:
        """J4: an UNMAP frame of another thread that covers the page is open."""
        for frame in self.frames_of(thread.process):
            if frame.thread is thread or frame.operation != "UNMAP" or _refused(frame):
                continue
            args = self.arguments(frame)
            if args is None or _everything(frame.cmd, args):
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
        self.end_conversion(frame.thread, hit, frame.entry_seq)

    def rule_4(self, process: Process, now: int) -> None:
        """Nothing under way for longer than the grace: provisionally over."""
        hands = [hand for hand in self.hands_of(process) if not hand.over]
        if not (process.conversions or process.requests or process.sharings or hands):
            return
        returns = [process.last_return_ns]
        for frame in self.frames_of(process):
            if frame.operation in BUSY:
                if frame.callee_return is None:
                    return
                returns.append(frame.callee_return[1])  # J1: over, as far as this rule is concerned
        if now - max(t for t in returns if t is not None) > self.grace_ns:
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

    def settle(
        self, work: Conversion | Request | Sharing, key: Key, undecided: str | None = None
    ) -> None:
        """One page of a conversion or request is decided, or never will be."""
        work.open_pages.discard(key)
        work.undecided = work.undecided or undecided
        if work.open_pages:
            return
        if isinstance(work, Conversion):
            work.process.conversions.remove(work)
            self.judge("TK101", work.undecided)
        elif isinstance(work, Sharing):
            work.process.sharings.remove(work)
            self.judge("TK104", work.undecided)
        else:
            work.process.requests.remove(work)
            self.judge("TK102", work.undecided)

    # ---- D13: a container's end ----

    def domain_used(self, thread: Thread, row: Row) -> None:
        frame = thread.frame
        container = self.working_container(frame) if frame is not None else None
        if container is not None and row.get("object"):
            container.mapped_into.add(row["object"])

    def domain_freed(self, thread: Thread, row: Row) -> None:
        """TK109: only of a domain that is known to be the container's only one."""
        for container in thread.process.every_container():
            if container.mapped_into == {row.get("object")}:
                container.mapped_into.clear()
                self.container_ended(thread.process, container, row["ts_ns"], row["seq"])

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
        self.judge("TK109")

    # ---- J6: whose pages ----

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

    # ---- J7: TK104 ----

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
        candidates = {
            key
            for key in frame.unmapped_at_commit
            if key[1] in was_private and self.not_mapped_yet(frame.thread, key)
        }
        if candidates and not self.blind:
            assert frame.committed is not None
            pages = range(min(before), max(before) + 1)
            sharing = Sharing(
                process, frame.thread, vm, pages, frame.committed, set(frame.events), candidates
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
        for key in frame.unclear_at_commit:
            if before[key[1]] != SHARED:
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
                    break
                some = True
            else:
                if some:
                    return True
        return False

    def someone_is_mapping(self, thread: Thread, key: Key) -> bool:
        """A MAP frame of another thread that may cover the page is open."""
        for frame in self.frames_of(thread.process):
            if frame.thread is thread or frame.operation != "MAP" or _refused(frame):
                continue
            args = self.arguments(frame)
            if args is None or not _sane(args):
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
        if args is None or not _sane(args):
            pages = frame.mapped
        else:
            pages = set(pages_of(args.iova, args.size))
        for key in [k for k in process.missing if k[0] is container and k[1] in pages]:
            self.candidate_mapped(frame, key)

    def no_candidates_in(self, process: Process, container: Container) -> None:
        """The container ends: nothing is to be mapped there."""
        for key in [k for k in process.missing if k[0] is container]:
            self.settle(process.missing.pop(key), key)

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
        known = args is not None and _sane(args)
        pages = pages_of(args.iova, args.size) if args is not None and known else range(0)
        if ret == -ENOSPC and frame.cmd == TYPE1_MAP:
            converting = hand is not None and hand.wanted == SHARED and usual
            if hand is not None and known:
                converting = converting and bool(_common(hand.pages, pages))
            self.call_violation("TK107", "error" if converting else "warning", frame, args, when)
        if ret == -EEXIST or not usual or args is None or not known:
            return
        for sharing in list(process.sharings):
            if sharing.thread is frame.thread and _common(sharing.pages, pages):
                for key in list(sharing.open_pages):
                    del process.missing[key]
                    self.settle(sharing, key)
        self.hand_breaks(frame, container, args)

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
        if _everything(frame.cmd, args):
            pages = range(U64 // PAGE)
        elif _sane(args):
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

    # ---- J8: a thread's conversion in hand, TK108 ----

    def hands_of(self, process: Process) -> list[Hand]:
        threads = [self.threads[tid] for tid in process.tids]
        return [thread.hand for thread in threads if thread.hand is not None]

    def hand_breaks(self, frame: Frame, container: Container | None, args: Arguments) -> None:
        """A call of the conversion failed."""
        hand = frame.thread.hand
        if hand is None or hand.failed is not None or container is None or not _sane(args):
            return
        if self.behind_viommu(container):
            return
        if frame.operation != ("MAP" if hand.wanted == SHARED else "UNMAP"):
            return
        everything = frame.operation == "UNMAP" and _everything(frame.cmd, args)
        if everything or _common(hand.pages, pages_of(args.iova, args.size)):
            hand.failed, hand.failed_in, hand.over = frame, container, False

    def failed_after_unmaps(self, frame: Frame, args: Arguments, vm: Vm | None) -> None:
        """The change to private itself failed, and what it was for is unmapped already."""
        thread, process = frame.thread, frame.thread.process
        held: set[int] = set()
        unmaps = list(thread.unmaps)
        valid = _sane(args) and not (args.iova % PAGE or args.size % PAGE)
        if args.attributes & 8 and valid:
            pages = pages_of(args.iova, args.size)
            held = {p for p in pages if any(p in unmapped for _, unmapped in unmaps)}
        if process.gmem_attributes:
            self.judge("TK108", "gmem_attributes")
        elif vm is None or not held:
            self.judge("TK108")
        else:
            thread.hand = Hand(
                vm,
                PRIVATE,
                pages,
                frame.entry_ns,
                frame.entry_seq,
                failed=frame,
                left=held,
                after_unmaps=True,
                unmapped=unmaps,
            )

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
                hand.left -= again  # tried again, and done
                hand.rolled_back -= again
                if hand.left:
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
                    own = back or any(c is container and page in u for c, u in hand.unmapped)
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

    # ---- J8: TK110 ----

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
            for page in _common(pages, hand.pages)
            if hand.vm.attribute(page) == side
        }
        severity, confidence = ("warning", "possible") if hand.over else ("error", "certain")
        events = {hand.entry_seq, frame.entry_seq, seq}
        for page in sorted(wrong):
            self.vm_page_violation(
                severity, confidence, process, hand, page, (frame.entry_ns, when), frame, events
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
        for page in sorted(hand.made_private):
            gpa = page * PAGE
            if hand.vm.attribute(page) != PRIVATE or hand.vm.touched[page] != hand.commit_seq:
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

    # ---- J5: loss; the end ----

    @property
    def blind(self) -> bool:
        return self.blind_until is not None

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
                if not left or now - process.dead_since[0] > self.grace_ns:
                    # Its files may still be closing (204 ms were recorded): never certain.
                    end = process.dead_since
                    self.container_ended(process, container, *end, "warning", "likely")
                else:
                    self.judge("TK109", "trace_end")

    # ---- violations ----

    def violate(
        self,
        code: str,
        severity: str,
        confidence: str,
        process: Process,
        key: Key,
        from_ns: int,
        cause: object,
        events: set[int] | None = None,
    ) -> list[PageViolation]:
        """One page's violation, in a list; none while nothing is judged (J5)."""
        if self.blind:
            return []
        if events is None:
            assert isinstance(cause, Conversion | Request | Sharing)
            events = cause.events
        made = PageViolation(code, severity, confidence, process, key, from_ns, cause, set(events))
        entry = key[0].look(key[1]).entry
        if entry is not None:
            made.events.add(entry.seq)
        self.pages.append(made)
        return [made]

    def call_violation(
        self,
        code: str,
        severity: str,
        frame: Frame,
        args: Arguments | None,
        when: int,
        confidence: str = "certain",
    ) -> None:
        if self.blind:
            return
        process = frame.thread.process
        iova, size = (args.iova, args.size) if args is not None else (None, None)
        # IF: each change of attributes is a conversion; maps and unmaps make runs of calls.
        cause = (code, severity, frame.thread, frame if frame.operation == "ATTR" else frame.run)
        self.calls.append(
            (
                cause,
                Violation(
                    code,
                    severity,
                    confidence,
                    process.pid,
                    iova,
                    size,
                    frame.entry_ns,
                    when,
                    tuple(sorted(frame.events)),
                ),
            )
        )

    def judge(self, code: str, undecided: str | None = None) -> None:
        if code == "TK111" and not self.in_place:
            return
        if self.blind:
            undecided = "loss"
        counts = self.judged[code]
        if undecided is None:
            counts.decided += 1
        else:
            counts.undecided += 1
            counts.reasons[undecided] += 1


# --- helpers --------------------------------------------------------------------------------------


def _common(one: range, two: range) -> range:
    """The pages of both."""
    return range(max(one.start, two.start), min(one.stop, two.stop))


def without(mappings: list[FileMapping], vaddr: int, size: int) -> list[FileMapping]:
    """What is left of them outside a range of addresses."""
    kept = []
    end = vaddr + size
    for m in mappings:
        if m.vaddr < vaddr:
            kept.append(m.part(m.vaddr, min(m.size, vaddr - m.vaddr)))
        if m.vaddr + m.size > end:
            low = max(end, m.vaddr)
            kept.append(m.part(low, m.vaddr + m.size - low))
    return kept


def _from_row(row: Row) -> Arguments:
    return Arguments(
        row["iova"],
        row["size"],
        flags=row.get("flags") or 0,
        vaddr=row.get("vaddr"),
        file_fd=row.get("file_fd"),
        offset=row.get("offset"),
    )


def _sane(args: Arguments) -> bool:
    """Not empty, no wrap."""
    return args.size > 0 and args.iova + args.size <= U64


def _refused(frame: Frame) -> bool:
    """Its callee has returned an error."""
    return frame.callee_return is not None and frame.callee_return[0] < 0


def _everything(cmd: int | None, args: Arguments) -> bool:
    """J2: an unmap of all there is."""
    if cmd == TYPE1_UNMAP:
        return bool(args.flags & 2)
    return cmd == IOAS_UNMAP and args.iova == 0 and args.size == U64 - 1


def merge_pages(pages: Iterable[PageViolation]) -> list[Violation]:
    """IF: an occurrence is all adjacent pages of one conversion, request or run of calls."""
    groups: dict[tuple[Any, ...], list[PageViolation]] = {}
    for v in pages:
        cause = v.cause if isinstance(v.cause, tuple) else id(v.cause)
        groups.setdefault((v.code, v.severity, v.confidence, v.key[0], cause), []).append(v)
    out = []
    for (code, severity, confidence, _container, _cause), group in groups.items():
        group.sort(key=lambda v: v.key[1])
        parts: list[list[PageViolation]] = []
        for v in group:
            if parts and v.key[1] <= parts[-1][-1].key[1] + 1:
                parts[-1].append(v)
            else:
                parts.append([v])
        for part in parts:
            first, last = part[0].key[1], part[-1].key[1]
            ends = [v.until_ns for v in part]
            until = None if None in ends else max(e for e in ends if e is not None)
            events = tuple(sorted(set().union(*(v.events for v in part))))
            out.append(
                Violation(
                    code,
                    severity,
                    confidence,
                    part[0].process.pid,
                    first * PAGE,
                    (last - first + 1) * PAGE,
                    min(v.from_ns for v in part),
                    until,
                    events,
                )
            )
    return out


def merge_calls(calls: Iterable[tuple[object, Violation]]) -> list[Violation]:
    """Refused calls of one uninterrupted run whose ranges touch are one occurrence (IF)."""
    out: list[Violation] = []
    last_cause: object = None
    for cause, v in calls:
        if out and cause == last_cause and v.iova is not None and out[-1].iova is not None:
            a = out[-1]
            assert a.iova is not None
            assert a.size is not None
            assert v.size is not None
            if v.iova == a.iova + a.size and a.confidence == v.confidence:
                out[-1] = a._replace(
                    size=a.size + v.size,
                    until_ns=v.until_ns,
                    events=tuple(sorted({*a.events, *v.events})),
                )
                continue
        out.append(v)
        last_cause = cause
    return out
