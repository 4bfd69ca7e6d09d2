"""Recordings of this machine's own kernel: system calls of a process of ours, never vsock."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collectors.tracefs.files import Tracefs, find_tracefs
from collectors.tracefs.instance import leftovers, remove_leftover
from tracekit.errors import TracekitError
from tracekit.importers import import_files
from tracekit.store import open_trace
from tracekit.store.segment import open_segment

pytestmark = pytest.mark.needs_root

EVENTS = ("syscalls:sys_enter_ioctl", "syscalls:sys_exit_ioctl")
FIOCLEX = 0x5451
KILLS = int(os.environ.get("TRACEKIT_KILLS", "3"))
"""Random kills: 50 by hand, fewer where time matters."""


@pytest.fixture(scope="module")
def here() -> Tracefs:
    """This machine's tracefs."""
    try:
        tracefs = find_tracefs()
    except TracekitError as error:
        pytest.skip(f"{error.message}: {error.help}")
    for source in EVENTS:
        if not tracefs.has_event(source):
            pytest.skip(f"this kernel has no {source}")
    return tracefs


def collect(out: Path, *more: str, start: bool = True) -> subprocess.Popen[str]:
    """``tracekit collect`` of ioctls, begun."""
    words = [sys.executable, "-m", "tracekit", "collect", "--purpose", "none", "-o", str(out)]
    words += [word for event in EVENTS for word in ("--event", event)]
    running = subprocess.Popen(
        [*words, "--buffer", "1M", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if start:
        assert running.stderr is not None
        said = list(itertools.takewhile(lambda s: not s.startswith("ready"), running.stderr))
        assert running.poll() is None, "".join(said)
    return running


def ended(running: subprocess.Popen[str], how: signal.Signals | None = None) -> tuple[int, str]:
    """Its status and all that it said."""
    if how is not None:
        running.send_signal(how)
    out, err = running.communicate(timeout=60)
    assert "Traceback" not in err
    return running.returncode, out + err


def calls(count: int) -> None:
    """So many ioctls of ours, of which each is two events."""
    file = os.open(os.devnull, os.O_RDONLY)
    for _ in range(count):
        fcntl.ioctl(file, FIOCLEX)
    os.close(file)


def ours(trace: Path) -> int:
    """How many of our calls are in a trace."""
    return int(open_trace(trace).scan().filter(tid=os.getpid(), cmd=FIOCLEX).collect().height)


def nothing_is_left(tracefs: Tracefs, pid: int) -> bool:
    return not tracefs.has(f"instances/tracekit_collect_none_{pid}")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tracekit-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_spool_holds_every_call_and_nothing_is_left(here: Tracefs, tmp_path: Path) -> None:
    running = collect(tmp_path / "spool", "--spool")
    calls(5000)
    status, said = ended(running, signal.SIGINT)
    assert status == 130
    assert " 0 lost" in said
    assert nothing_is_left(here, running.pid)
    owners = {p.stat().st_uid for p in (tmp_path / "spool").rglob("*")}
    assert owners == {65534 if "SUDO_UID" not in os.environ else int(os.environ["SUDO_UID"])}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    manifest = import_files([tmp_path / "spool"], tmp_path / "t.parquet")
    assert ours(tmp_path / "t.parquet") == 5000
    assert (manifest.clock, manifest.lost_events) == ("mono", 0)
    assert manifest.sources[1]["format"] == "tracekit collect"
    assert manifest.hz == (250 if "CONFIG_HZ=250" in str(manifest.sources[1]["config"]) else None)


def test_segments_hold_every_call_in_order_and_none_overlap(here: Tracefs, tmp_path: Path) -> None:
    running = collect(tmp_path / "trace", "--segment", "300ms", "--flush", "100ms")
    for _ in range(4):
        calls(2000)
        time.sleep(0.3)
    status, said = ended(running, signal.SIGTERM)
    assert status == 130, said
    segments = [open_segment(p) for p in sorted((tmp_path / "trace").glob("*.parquet"))]
    spans = [s.manifest.span_ns for s in segments if s.manifest.span_ns]
    assert len(spans) >= 3
    assert all(one[1] < two[0] for one, two in itertools.pairwise(spans))
    assert ours(tmp_path / "trace") == 8000
    assert "held" not in said
    assert nothing_is_left(here, running.pid)
    assert not (tmp_path / "trace" / ".open").exists()


def test_a_buffer_that_is_too_small_loses_events_and_every_loss_is_counted(
    here: Tracefs, tmp_path: Path
) -> None:
    # Longer between two looks than the buffer lasts, and it wakes nobody before.
    running = collect(tmp_path / "spool", "--spool", "--buffer", "16K", "--flush", "1s")
    children = children_of(running.pid)
    for child in children:
        os.kill(child, signal.SIGSTOP)
    calls(20_000)
    for child in children:
        os.kill(child, signal.SIGCONT)
    status, said = ended(running, signal.SIGINT)
    assert status == 130
    manifest = import_files([tmp_path / "spool"], tmp_path / "t.parquet")
    counted = int(said.partition(" lost")[0].rpartition(" ")[2].replace(",", ""))
    assert counted > 10_000
    assert manifest.lost_events == counted
    assert manifest.events["trace.lost"] >= 1
    recorded = manifest.events["ioctl.entered"] + manifest.events["ioctl.returned"]
    assert recorded + counted >= 40_000


def test_a_full_disk_ends_it_with_an_error_and_what_was_recorded(
    here: Tracefs, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "12m") as disk:
        running = collect(disk / "spool", "--spool")
        for _ in range(40):
            calls(5000)
            if running.poll() is not None:
                break
        status, said = ended(running)
        assert status == 2
        assert "error: recording ended early: the disk is full" in said
        manifest = import_files([disk / "spool"], tmp_path / "t.parquet")
        assert manifest.events["ioctl.entered"] > 5000
        assert manifest.lost_unknown
        assert nothing_is_left(here, running.pid)


def test_only_the_threads_of_one_process_are_recorded(here: Tracefs, tmp_path: Path) -> None:
    program = (
        "import fcntl, os, sys, threading\n"
        "def work():\n"
        f"    for _ in range(500): fcntl.ioctl(0, {FIOCLEX})\n"
        "sys.stdin.readline(); t = threading.Thread(target=work); t.start(); work(); t.join()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    assert child.stdin is not None
    time.sleep(0.3)
    running = collect(tmp_path / "spool", "--spool", "--vm", str(child.pid))
    calls(1000)
    child.stdin.write(b"go\n")
    child.stdin.close()
    child.wait(30)
    status, said = ended(running, signal.SIGINT)
    assert status == 130, said
    import_files([tmp_path / "spool"], tmp_path / "t.parquet")
    assert ours(tmp_path / "t.parquet") == 0
    found = open_trace(tmp_path / "t.parquet").scan().filter(cmd=FIOCLEX).collect()
    assert found.height == 1000
    assert found["tid"].n_unique() == 2  # the second thread was made while recording


def test_killed_at_any_moment_it_leaves_readable_segments_and_the_next_start_cleans(
    here: Tracefs, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    read = 0
    for kill in range(KILLS):
        out = tmp_path / f"trace{kill}"
        running = collect(out, "--segment", "100ms", "--flush", "50ms", start=False)
        time.sleep(dice.uniform(0.2, 1.5))
        calls(dice.randrange(20_000))
        until = time.monotonic() + (20 if kill % 2 == 0 else 0)
        while time.monotonic() < until and not list(out.glob("*.parquet")):
            time.sleep(0.05)  # half of them when segments are made already
        time.sleep(dice.uniform(0.0, 0.3))
        victims = [running.pid, *children_of(running.pid)]
        if dice.random() < 0.5:
            victims = [dice.choice(victims)]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if running.pid in victims:
            running.wait(10)
        else:
            ended(running)
        wait_until_gone(here, f"tracekit_collect_none_{running.pid}")
        for path in sorted(out.glob("*.parquet")) if out.exists() else ():
            assert open_segment(path).manifest.rows >= 0, f"seed {seed}"
            read += 1
        if list(out.glob("*.parquet")):
            for _ in open_trace(out).batches():
                pass
    following = collect(tmp_path / "next", "--spool")
    left = [x.name for x in leftovers(here) if x.name.startswith("tracekit_collect_none_")]
    assert left == [], f"seed {seed}"
    assert ended(following, signal.SIGINT)[0] == 130
    assert nothing_is_left(here, following.pid)
    print(f"{KILLS} kills (seed {seed}), {read} closed segments read")


def test_after_its_death_nothing_is_recorded_and_the_memory_is_given_back(
    here: Tracefs, tmp_path: Path
) -> None:
    running = collect(tmp_path / "spool", "--spool")
    for victim in [running.pid, *children_of(running.pid)]:
        os.kill(victim, signal.SIGKILL)
    running.wait(10)
    name = f"tracekit_collect_none_{running.pid}"
    wait_until_gone(here, name)
    instance = here.below(f"instances/{name}")
    try:
        assert instance.read("tracing_on").strip() == "0"
        assert int(instance.read("buffer_total_size_kb").split()[0]) < 100
    except FileNotFoundError:
        pytest.skip("another recording began on this machine meanwhile, and cleaned up")
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "doctor", "--clean"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"removed {name}" in done.stderr or "nothing was left" in done.stderr
    assert not here.has(f"instances/{name}")


def test_neither_process_that_reads_pages_has_a_right(here: Tracefs, tmp_path: Path) -> None:
    running = collect(tmp_path / "trace")
    try:
        children = children_of(running.pid)
        assert len(children) == 2
        for child in children:
            until = time.monotonic() + 60  # the decoder loads first, and reads nothing meanwhile
            while "0" in (fields := status_of(child))["Uid"].split() and time.monotonic() < until:
                time.sleep(0.1)
            assert "0" not in fields["Uid"].split()
            assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
            assert fields["NoNewPrivs"] == "1"
            assert fields["Groups"].split() == []
    finally:
        ended(running, signal.SIGINT)


def status_of(pid: int) -> dict[str, str]:
    """What /proc says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children_of(pid: int) -> list[int]:
    """The processes that a process made."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        text = ""
    return [int(word) for word in text.split()]


def wait_until_gone(tracefs: Tracefs, name: str) -> None:
    """Until no process holds the instance any more."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if not tracefs.has(f"instances/{name}"):
            return
        if any(left.name == name for left in leftovers(tracefs)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} is still held")


@pytest.fixture(autouse=True)
def _clean(here: Tracefs) -> Iterator[None]:
    yield
    for left in leftovers(here):
        if left.name.startswith("tracekit_collect_none_"):
            remove_leftover(here, left.name)
