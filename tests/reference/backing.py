"""Backing: what of the address space and of files a page is (J3)."""

from __future__ import annotations

from reference.containers import Containers
from reference.state import FileMapping, Frame, Key, Process
from reference.words import DONTNEED, MAP_FIXED, MAP_HUGETLB, MAP_SHARED, U64, pages_of


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


class Backing(Containers):
    """Which pages a discard or populate call is about."""

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
