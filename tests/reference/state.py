"""What the machine is made of: processes and threads, containers and VMs, what is under way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reference.words import DISCARD_ADVICE, HAS_GMEM, OPERATIONS, POPULATE_ADVICE, Row


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
    turned: dict[int, bool] = field(default_factory=dict)  # by the last change about it

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
    frame: Frame
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
    changed: bool = False  # it was seen to take effect
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
    last_unmap_ns: int = 0
    gap_ns: int = -1  # when rule 4 held last

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
    entry_to_come: bool = False  # the eprobe opened it
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
    hooked: bool = True  # ATTR: a post hook committed it, not only its return
    live_at_commit: set[Key] = field(default_factory=set)
    keys: list[Key] = field(default_factory=list)  # ATTR: the pages that it is about
    out_of_order: dict[Key, PageViolation] = field(default_factory=dict)  # TK111, if it succeeds
    uncovers: set[Key] = field(default_factory=set)  # ATTR to private (J7)
    made_shared: dict[int, tuple[str, int]] = field(default_factory=dict)  # ATTR: what was before
    memslot: Row | None = None  # SLOT
    gmem: Row | None = None  # KVM_CREATE_GUEST_MEMFD, or a guest_memfd's fallocate()
    all_known: bool = True  # ATTR: every page's mapping and attribute was known
    why_unknown: str = "late_start"
    live_at_entry: set[Key] = field(default_factory=set)  # DISCARD
    mapped_meanwhile: set[Key] = field(default_factory=set)  # DISCARD: by other threads
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
    exited: bool = False
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
