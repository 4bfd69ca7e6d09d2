"""The plain recorder: calls of one thread as typed events, for tests and for what models decide."""

from __future__ import annotations

from typing import Any

from tracekit.events import Event, event_type
from tracekit.synth.calls import Call, Op
from tracekit.synth.rows import PRIVATE, rows
from tracekit.synth.vmm import BASE, Vmm

__all__ = ("Renderer",)


class Renderer:
    """Calls of one thread as typed events, ``step_ns`` apart; ``events`` holds what was written.

        rendered = Renderer(tid=100)
        rendered.create_vm()
        rendered.attribute(BASE, 0x200000, private=False)
        write_events(path, rendered.events)

    ``calls`` are the calls themselves.  The only thread is the process.
    """

    def __init__(
        self,
        vmm: Vmm | None = None,
        *,
        tid: int = 100,
        comm: str = "CPU 0/KVM",
        start_ns: int = 1_000_000_000,
        step_ns: int = 500,
    ) -> None:
        self.vmm = vmm or Vmm(tid=tid)
        self.calls: list[Call] = []
        self.tid, self.comm = tid, comm
        self.now, self.step_ns = start_ns, step_ns
        self._events: list[Event] = []
        self._rendered = 0

    @property
    def host(self) -> int:
        """User address of the memory's first byte."""
        return self.vmm.regions[0].host

    @property
    def events(self) -> list[Event]:
        """What a kernel records of the calls so far."""
        for call in self.calls[self._rendered :]:
            if call.op is Op.WAIT:
                self.now += call.value
            for row in rows(call, self.vmm, self.tid):
                self.now += self.step_ns
                kind, tid = event_type(row.event), self.tid
                self._events.append(
                    kind(ts_ns=self.now, cpu=0, pid=tid, tid=tid, comm=self.comm, **row.columns)
                )
        self._rendered = len(self.calls)
        return self._events

    def wait(self, ns: int) -> None:
        """Let time pass."""
        self.add(Op.WAIT, value=ns)

    def create_vm(self) -> None:
        """KVM_CREATE_VM; from here on everything about the process is known."""
        self.add(Op.CREATE_VM)

    def memory(self, size: int) -> None:
        """mmap() of the guest's memory, at ``host``."""
        self.add(Op.MMAP, at=BASE, size=size)

    def slot(self, number: int, gpa: int, size: int) -> None:
        """KVM_SET_USER_MEMORY_REGION2; size 0 deletes."""
        self.add(Op.SLOT, at=gpa, size=size, value=number)

    def container(self, number: int) -> None:
        """A new container gets its IOMMU."""
        self.add(Op.ATTACH, space=number)

    def attribute(
        self,
        gpa: int,
        size: int,
        *,
        private: bool,
        parts: tuple[tuple[int, int], ...] | None = None,
        ret: int = 0,
    ) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES; ``parts``: what changes of it, by default all."""
        if parts is None:
            parts = ((gpa, size),)
        self.add(
            Op.ATTRIBUTE, at=gpa, size=size, value=PRIVATE if private else 0, ret=ret, parts=parts
        )

    def dma_map(self, space: int, iova: int, size: int, *, ret: int = 0) -> None:
        """A DMA map."""
        self.add(Op.MAP, at=iova, size=size, space=space, ret=ret)

    def dma_unmap(
        self, space: int, iova: int, size: int, parts: tuple[tuple[int, int], ...], *, ret: int = 0
    ) -> None:
        """A DMA unmap, with the entries that go."""
        self.add(Op.UNMAP, at=iova, size=size, space=space, parts=parts, ret=ret)

    def punch_private(self, gpa: int, size: int) -> None:
        """fallocate() of the guest_memfd."""
        self.add(Op.PUNCH_PRIVATE, at=gpa, size=size)

    def discard_shared(self, gpa: int, size: int, *, fallocate: bool, madvise: bool) -> None:
        """The shared side goes: a hole in its file, madvise(), or both."""
        if fallocate:
            self.add(Op.FALLOCATE, at=gpa, size=size)
        if madvise:
            self.add(Op.MADVISE, at=gpa, size=size, value=4)

    def run(self) -> None:
        """KVM_RUN: the guest goes on."""
        self.add(Op.RUN)

    def exit(self) -> None:
        """The thread ends, and with it the process."""
        self.add(Op.EXIT, value=1)

    def add(self, op: Op, **what: Any) -> None:
        """Any call."""
        self.calls.append(Call(op, **what))
