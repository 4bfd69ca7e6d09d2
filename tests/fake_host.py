"""A tracefs of plain files that answers as the kernel does, and hosts of plain files."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

from collectors.tracefs.files import Tracefs
from tracekit.ftrace.writer import HEADER_PAGE, event_format

TRACEPOINTS = (
    "iommu:map",
    "iommu:unmap",
    "sched:sched_process_exit",
    "syscalls:sys_enter_ioctl",
    "syscalls:sys_exit_ioctl",
)
FUNCTIONS = ("vfio_iommu_type1_ioctl", "iommu_map", "iommu_domain_free", "do_close.isra.0")
README = "f[:[<group>/][<event>]] <func-name> [<args>]\n"


class FakeTracefs(Tracefs):
    """tracefs with two CPUs.  ``refuses``: definitions with this text are refused."""

    def __init__(self, root: Path, refuses: str = "no such text") -> None:
        super().__init__(root)
        self.refuses = refuses
        self._number = 100
        self._fill(root)
        (root / "instances").mkdir()
        for name, text in (
            ("README", README),
            ("kprobe_events", ""),
            ("dynamic_events", "p:others/probe do_sys_openat2\n"),
            ("available_filter_functions", "".join(f"{f} [module]\n" for f in FUNCTIONS)),
            ("error_log", ""),
            ("saved_cmdlines", "42 vmm\n"),
        ):
            (root / name).write_text(text)
        self._event(root, "others:probe")

    def make_instance(self, name: str) -> None:
        """The kernel fills it."""
        folder = self.root / "instances" / name
        folder.mkdir()
        self._fill(folder)
        for system in self.folders("events"):
            for event in self.folders(f"events/{system}"):
                if not (folder / "events" / system / event).exists():
                    self._event(folder, f"{system}:{event}")

    def remove_instance(self, name: str) -> None:
        """The kernel empties it."""
        shutil.rmtree(self.root / "instances" / name)

    def append(self, name: str, text: str) -> None:
        """Take or refuse a definition."""
        if name != "dynamic_events":
            super().append(name, text)
            return
        lines = self.read(name).splitlines()
        if text.startswith("-:"):
            group, _, event = text[2:].partition("/")
            kept = [line for line in lines if f":{group}/{event} " not in line + " "]
            for root in self._roots():
                shutil.rmtree(root / "events" / group / event, ignore_errors=True)
                if not list((root / "events" / group).iterdir()):
                    (root / "events" / group).rmdir()
        else:
            if self.refuses in text:
                (self.root / "error_log").write_text("[1.0] trace_kprobe: error: Bad thing\n")
                raise OSError(errno.EINVAL, "Invalid argument")
            named = re.match(r"\w+:(\w+)/(\w+) ", text + " ")
            assert named is not None, text
            for root in self._roots():
                self._event(root, f"{named[1]}:{named[2]}")
            kept = [*lines, text]
        (self.root / name).write_text("".join(f"{line}\n" for line in kept))

    def _roots(self) -> list[Path]:
        return [self.root, *(self.root / "instances" / n for n in self.folders("instances"))]

    def _fill(self, root: Path) -> None:
        for name in ("tracing_on", "buffer_size_kb", "buffer_percent", "trace_clock", "set_event"):
            (root / name).write_text("")
        (root / "buffer_subbuf_size_kb").write_text("4\n")
        (root / "set_event_pid").write_text("")
        (root / "options").mkdir()
        for name in ("overwrite", "disable_on_free", "event-fork"):
            (root / "options" / name).write_text("0\n")
        for cpu in range(2):
            folder = root / "per_cpu" / f"cpu{cpu}"
            folder.mkdir(parents=True)
            (folder / "trace_pipe_raw").write_bytes(b"")
            (folder / "stats").write_text("overrun: 0\ndropped events: 0\nread events: 0\n")
        (root / "events").mkdir()
        (root / "events" / "enable").write_text("0\n")
        (root / "events" / "header_page").write_text(HEADER_PAGE)
        (root / "events" / "header_event").write_text("")
        for source in TRACEPOINTS:
            self._event(root, source)

    def _event(self, root: Path, source: str) -> None:
        system, _, name = source.partition(":")
        folder = root / "events" / system / name
        folder.mkdir(parents=True)
        self._number += 1
        (folder / "format").write_text(event_format(name, self._number, [("u64 iova", 8, False)]))
        (folder / "enable").write_text("0\n")
        (folder / "filter").write_text("none\n")


def tree(root: Path, files: dict[str, str]) -> Path:
    """A folder with these files; a text that begins with ``->`` is a link's target."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_text(text)
    return root
