"""One recording: root sets up and takes away, processes without root move pages and decode them.

::

    supervisor (root)   instance, probes, descriptors; the progress line; removes everything
     +- recorder        no root: pages from the descriptors into files (recorder.py)
     +- decoder         no root: complete chunks of pages into segments (live.py); not with --spool

The three are joined by pipes.  Whoever ends, however: the others see the end of a pipe, finish, and
the kernel stops recording and frees the buffers with the last of them.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from collectors.children import Child, Children, Stop, stop_signals
from collectors.metadata import Metadata, gather_metadata
from collectors.plans import Plan
from collectors.privileges import User, drop, unprivileged_user
from collectors.recorder import CHUNKS, Limits, Recorder, write_private
from collectors.snapshot import find_vm, take_snapshot
from collectors.tracefs.cpu_pages import CpuPages
from collectors.tracefs.files import Tracefs, find_tracefs
from collectors.tracefs.install import Functions, Installed, configure, enable, install
from collectors.tracefs.instance import Instance
from tracekit.errors import TracekitError
from tracekit.ftrace.collected import FILE as COLLECTED

__all__ = ("Collected", "Options", "Progress", "collect")

PAGE = 4096
NICE = -20
END_PATIENCE_S = 600.0
"""How long decoding may go on after the recording ended."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to record, where to, and how much of it.

    ``plan`` None: only ``events`` (SYSTEM:NAME), which else are recorded too.  ``vm``: the name or
    pid of the only VM to record.  ``spool``: keep pages, decode nothing.  Zero: no limit.
    """

    out: Path
    purpose: str
    plan: Plan | None
    events: tuple[str, ...] = ()
    vm: str | None = None
    spool: bool = False
    duration_ns: int = 0
    flush_ns: int = 1_000_000_000
    segment_ns: int = 10_000_000_000
    buffer_kb: int = 0
    max_bytes: int = 0
    max_segments: int = 0
    clock: str = "mono"


@dataclass(kw_only=True)
class Progress:
    """How it goes.  ``moved``: bytes of pages; ``cpu_s``: CPU
    time of moving them; ``rows``, ``written``: of segments, rows and bytes.
    ``late``: events that came after the segment they belong to."""

    seconds: float = 0.0
    events: int = 0
    lost: int = 0
    moved: int = 0
    cpu_s: float = 0.0
    segments: int = 0
    rows: int = 0
    written: int = 0
    late: int = 0


@dataclass(kw_only=True)
class Collected:
    """What was recorded, and how it ended.  ``silent``: probes that never fired and should have;
    ``signal``: what ended it, if one did; ``problems``: what could not be taken out of the kernel
    again."""

    progress: Progress
    installed: Installed
    ended: str = ""
    signal: int = 0
    silent: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def collect(
    options: Options, tell: Callable[[Progress], None], ready: Callable[[Installed], None]
) -> Collected:
    """Record until the duration is over, a signal comes, or a limit is reached.

    ``ready`` is called once with what is recorded and what not, ``tell`` now and then.

    :raises TracekitError: this machine cannot record, or it failed on the way; what was recorded
        until then is intact
    """
    tracefs = find_tracefs()
    user = unprivileged_user()
    folder = _make_folder(options.out, user)
    try:
        with stop_signals() as stop:
            return _Session(options, tracefs, user, stop, folder).run(tell, ready)
    finally:
        os.close(folder)
        with suppress(OSError):  # only where nothing was recorded
            options.out.rmdir()


class _Session:
    """The supervisor's part."""

    def __init__(
        self, options: Options, tracefs: Tracefs, user: User | None, stop: Stop, folder: int
    ) -> None:
        self._options = options
        self._tracefs = tracefs
        self._user = user
        self._stop = stop
        self._folder = folder
        self._children = Children(stop)
        self._progress = Progress()

    def run(
        self, tell: Callable[[Progress], None], ready: Callable[[Installed], None]
    ) -> Collected:
        options = self._options
        vm = find_vm(options.vm) if options.vm is not None else None
        wake, waked = os.pipe()  # from the recorder to the decoder: a chunk is complete
        os.set_blocking(waked, False)
        decoder = None
        instance = None
        problems: list[str] = []
        try:
            if not options.spool:
                decoder = self._children.fork(lambda said: self._decode(wake, waked, said))
            os.close(wake)
            instance = Instance.make(self._tracefs, options.purpose)
            buffer_kb = options.buffer_kb or (options.plan.buffer_kb if options.plan else 4096)
            lacks = configure(instance, clock=options.clock, buffer_kb=buffer_kb)
            plan = options.plan or Plan(
                purpose="none", title="", group="", buffer_kb=buffer_kb, sections=()
            )
            functions = Functions(self._tracefs, plan)
            made = install(plan, instance, functions, options.events)
            if not made.events:
                why = "; ".join(f"{left.what}: {left.why}" for left in made.left_out[:3])
                raise TracekitError(
                    f"nothing of the {options.purpose} plan can be recorded here ({why})",
                    help=f"tracekit doctor says what is missing for {options.purpose}",
                )
            if vm is not None:
                _only(instance, vm.threads())
            snapshot = take_snapshot()
            metadata = gather_metadata(instance, made, plan, snapshot, lacks)
            collected = Collected(progress=self._progress, installed=made)
            stop_out, stop_in = os.pipe()
            recorder = self._children.fork(
                lambda said: self._record(instance, metadata, stop_out, stop_in, waked, said)
            )
            os.close(stop_out)
            os.close(waked)
            self._until_told(recorder)
            enable(instance, made)
            begun = time.monotonic()
            instance.files.write("tracing_on", "1")
            ready(made)
            self._watch(recorder, decoder, begun, tell)
            instance.files.set("tracing_on", "0")
            collected.signal = self._stop.signal
            os.close(stop_in)
            self._until_ended(recorder, decoder, tell)
            collected.ended = str(recorder.told.get("ended", "") or "")
            collected.silent = _silent(self._tracefs, plan, made, decoder)
        finally:
            self._children.end()
            if instance is not None:
                problems = instance.remove()
        collected.problems = problems
        self._check(recorder, decoder)
        return collected

    # -- children --------------------------------------------------------------------------------

    def _record(
        self,
        instance: Instance,
        metadata: Metadata,
        stop_out: int,
        stop_in: int,
        waked: int,
        said: int,
    ) -> None:
        """The recorder: open as root, then give root away, then move."""
        os.close(stop_in)
        options = self._options
        files = instance.files
        cpus = []
        names = [n for n in files.folders("per_cpu") if n.removeprefix("cpu").isdigit()]
        _many_descriptors(2 * len(names) + 64)
        page_size = metadata.page_size or PAGE
        for name in sorted(names, key=lambda n: int(n[3:])):
            raw = files.open(f"per_cpu/{name}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
            stats = files.open(f"per_cpu/{name}/stats", os.O_RDONLY)
            cpus.append(CpuPages(int(name[3:]), raw, stats, page_size))
        cmdlines = -1
        with suppress(OSError):
            cmdlines = self._tracefs.open("saved_cmdlines", os.O_RDONLY)
        switch = files.open("tracing_on", os.O_WRONLY)
        # When its last descriptor is closed the kernel stops recording and gives the memory back.
        with suppress(OSError):
            files.open("free_buffer", os.O_WRONLY)
        with suppress(OSError):  # little work, but a full buffer does not wait
            os.setpriority(os.PRIO_PROCESS, 0, NICE)
        os.umask(0o077)
        drop(self._user)
        os.fchdir(self._folder)  # which is the new user's
        folder = Path()
        where = folder if options.spool else folder / CHUNKS / "about"
        for name, data in metadata.files.items():
            write_private(where / name, data)
        write_private(folder / COLLECTED, metadata.files[COLLECTED])
        limits = Limits(
            flush_ns=options.flush_ns,
            chunk_ns=None if options.spool else options.segment_ns,
            most_bytes=options.max_bytes,
            clock=options.clock,
        )
        recorder = Recorder(cpus, limits, folder=folder, saved_cmdlines=cmdlines, tracing_on=switch)
        recorder.run(stop_out, said, -1 if options.spool else waked)

    def _decode(self, wake: int, waked: int, said: int) -> None:
        """The decoder: load what is needed as root, give root away, then read pages."""
        os.close(waked)
        from collectors.live import decode_chunks, warm_up

        os.umask(0o077)
        warm_up()
        drop(self._user)
        decode_chunks(
            Path(f"/proc/self/fd/{self._folder}"),
            wake,
            said,
            max_bytes=self._options.max_bytes,
            max_segments=self._options.max_segments,
        )

    # -- the supervisor's loop -------------------------------------------------------------------

    def _watch(
        self,
        recorder: Child,
        decoder: Child | None,
        begun: float,
        tell: Callable[[Progress], None],
    ) -> None:
        """Until it is time to stop."""
        duration = self._options.duration_ns / 1e9
        while not self._stop.signal:
            self._progress.seconds = time.monotonic() - begun
            left = duration - self._progress.seconds if duration else 1.0
            if left <= 0:
                return
            self._children.listen(min(left, 0.5))
            self._tell(recorder, decoder, tell)
            if not recorder.alive or recorder.told.get("ended"):
                return
            if decoder is not None and (not decoder.alive or decoder.told.get("error")):
                return

    def _until_told(self, child: Child) -> None:
        """Wait for a child's first words."""
        while child.alive and not child.told:
            self._children.listen(1.0)
        if not child.told:
            raise TracekitError("the process that moves the pages did not start")

    def _until_ended(
        self,
        recorder: Child,
        decoder: Child | None,
        tell: Callable[[Progress], None],
    ) -> None:
        until = time.monotonic() + END_PATIENCE_S
        while self._children.alive and time.monotonic() < until:
            self._children.listen(0.5)
            self._tell(recorder, decoder, tell)

    def _tell(
        self,
        recorder: Child,
        decoder: Child | None,
        tell: Callable[[Progress], None],
    ) -> None:
        progress = self._progress
        for name in ("events", "lost", "moved", "cpu_s"):
            setattr(progress, name, recorder.told.get(name, 0))
        if decoder is not None:
            for name in ("segments", "rows", "written", "late"):
                setattr(progress, name, decoder.told.get(name, 0))
        tell(progress)

    def _check(self, recorder: Child, decoder: Child | None) -> None:
        """Whether both came to their end.

        :raises TracekitError: one did not
        """
        if decoder is not None and decoder.told.get("error"):
            raise TracekitError(
                f"decoding failed: {decoder.told['error']}",
                help=f"the segments so far are intact; undecoded pages are in {CHUNKS}/",
            )
        ended = str(recorder.told.get("ended", ""))
        if not ended:
            raise TracekitError(
                "the process that moves the pages was ended",
                help="what was recorded before is intact",
            )
        if decoder is not None and not decoder.told.get("done"):
            raise TracekitError(
                "the process that decodes was ended",
                help=f"the segments so far are intact; undecoded pages are in {CHUNKS}/",
            )
        if "disk" in ended or "cannot" in ended:
            raise TracekitError(
                f"recording ended early: {ended}", help="what was recorded before is intact"
            )


def _make_folder(out: Path, user: User | None) -> int:
    """A new folder that only its owner may enter, open.

    :raises TracekitError: there is something already, or it cannot be made
    """
    try:
        out.mkdir(mode=0o700)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if user is not None:
            os.fchown(folder, user.uid, user.gid)
        return folder
    except FileExistsError:
        raise TracekitError(
            f"{out} is there already", help="a recording goes to a new folder: -o ANOTHER"
        ) from None
    except OSError as why:
        raise TracekitError(f"cannot make {out}: {why.strerror}") from None


def _only(instance: Instance, threads: list[int]) -> None:
    """Record these threads, and those that they will make.

    :raises TracekitError: this kernel cannot
    """
    if not instance.files.set("options/event-fork", "1"):
        raise TracekitError("this kernel cannot follow a VM's new threads (event-fork)")
    try:
        for tid in threads:
            instance.files.append("set_event_pid", str(tid))
    except OSError as why:
        raise TracekitError(f"cannot record one VM only: {why.strerror}") from None


def _many_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _silent(tracefs: Tracefs, plan: Plan, made: Installed, decoder: Child | None) -> list[str]:
    """Probes that never fired although what they go with did."""
    counts: dict[str, int] = {}
    for line in tracefs.read_or_nothing("kprobe_profile").splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdigit():
            counts[words[0]] = int(words[1])
    if decoder is not None:
        recorded = decoder.told.get("recorded", {})
        assert isinstance(recorded, dict)
        for source, count in recorded.items():
            name = source.partition(":")[2]
            key = name if name in made.definitions else source
            counts[key] = max(count, counts.get(key, 0))
    silent = []
    for probe in plan.probes:
        if probe.name in made.definitions and counts.get(probe.name, -1) == 0:
            seen = [(w, counts[w]) for w in probe.fires_with if counts.get(w)]
            silent += [f"{probe.name} never fired, {w} {n:,} times" for w, n in seen[:1]]
    return silent
