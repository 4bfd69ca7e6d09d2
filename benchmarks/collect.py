"""``tracekit collect`` on this machine's own kernel, beside ``trace-cmd record`` on the same load.

The load: a process on each CPU calls ioctl() at a steady rate; each call is two events.  Never
vsock.  CPU time is that of the whole command (user + system), and of the process that moves pages
alone, as a share of one CPU.  With ``--cost``: what recording costs the recorded program.

Example: sudo python -m benchmarks.collect
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say, skipped
from benchmarks.processes import ROOT

EVENTS = ("syscalls:sys_enter_ioctl", "syscalls:sys_exit_ioctl")
FIOCLEX = 0x5451
BURST_S = 0.002
MOST_SHARE = 0.05


@dataclass
class Figures:
    """Of one run."""

    recorder: str
    rate: int
    buffer_kb: int
    made: int = 0
    events: int = 0
    lost: int = 0
    cpu_share: float = 0.0
    moving_share: float | None = None
    refused: str = ""


def load(cpu: int, calls_per_s: int, seconds: float, made: multiprocessing.Queue[int]) -> None:
    """Call ioctl() so often, in bursts of two milliseconds; tell how often it was."""
    os.sched_setaffinity(0, {cpu})
    file = os.open(os.devnull, os.O_RDONLY)
    ioctl = fcntl.ioctl
    calls = 0
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < seconds:
        due = int(now * calls_per_s) - calls
        for _ in range(min(due, calls_per_s // 20)):
            ioctl(file, FIOCLEX)
        calls += max(min(due, calls_per_s // 20), 0)
        time.sleep(BURST_S)
    made.put(calls)


def gone(pid: int) -> bool:
    """Whether a child has ended; its status stays to be asked for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def under_load(rate: int, seconds: float, words: list[str]) -> tuple[int, float, str, str, int]:
    """Events made, CPU seconds, output and status of a command that records during the load."""
    cpus = sorted(os.sched_getaffinity(0))
    made: multiprocessing.Queue[int] = multiprocessing.Queue()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        recorder = subprocess.Popen(words, stdout=out, stderr=err, cwd=ROOT)
        until = time.monotonic() + 2.0 if words[0] == "trace-cmd" else time.monotonic() + 60
        while time.monotonic() < until and not gone(recorder.pid):
            if b"ready" in os.pread(err.fileno(), 1 << 16, 0):
                break
            time.sleep(0.05)
        workers = [
            multiprocessing.Process(target=load, args=(c, rate // 2 // len(cpus), seconds, made))
            for c in cpus
        ]
        for worker in workers:
            worker.start()
        calls = sum(made.get() for _ in workers)
        for worker in workers:
            worker.join()
        _, status, usage = os.wait4(recorder.pid, 0)
        recorder.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, complained = out.read().decode(), err.read().decode()
    return calls * 2, usage.ru_utime + usage.ru_stime, said, complained, recorder.returncode


def with_tracekit(
    rate: int, buffer_kb: int, seconds: float, folder: Path, how: list[str]
) -> Figures:
    """Record with ``tracekit collect``."""
    name = "tracekit collect" + "".join(f" {word}" for word in how)
    out = folder / re.sub(r"\W+", "-", f"{name}-{rate}")
    words = [sys.executable, "-m", "tracekit", "collect", "--purpose", "none", *how]
    words += [word for event in EVENTS for word in ("--event", event)]
    words += ["--buffer", f"{buffer_kb}K", "--duration", f"{seconds + 3:g}s", "-o", str(out)]
    figures = Figures(name, rate, buffer_kb)
    made, cpu, said, complained, status = under_load(rate, seconds, words)
    if status:
        figures.refused = complained.strip().splitlines()[-1]
        return figures
    found = re.search(r": ([\d,]+) events in .*? ([\d,]+) lost, .* with ([\d.]+)% of a CPU", said)
    assert found is not None, said
    figures.made, figures.cpu_share = made, cpu / seconds
    figures.events, figures.lost = (int(found[n].replace(",", "")) for n in (1, 2))
    figures.moving_share = float(found[3]) / 100 * (seconds + 3) / seconds
    shutil.rmtree(out)
    return figures


def with_trace_cmd(rate: int, buffer_kb: int, seconds: float, folder: Path) -> Figures:
    """Record with ``trace-cmd record``, into an instance of its own."""
    figures = Figures("trace-cmd record", rate, buffer_kb)
    if shutil.which("trace-cmd") is None:
        figures.refused = "not installed"
        return figures
    out = folder / "trace.dat"
    words = ["trace-cmd", "record", "-B", "tracekit_benchmark", "-C", "mono", "-b", str(buffer_kb)]
    words += [word for event in EVENTS for word in ("-e", event)]
    words += ["-o", str(out), "sleep", f"{seconds + 3:g}"]
    made, cpu, said, complained, status = under_load(rate, seconds, words)
    subprocess.run(["trace-cmd", "reset", "-B", "tracekit_benchmark", "-d"], capture_output=True)
    instance = Path("/sys/kernel/tracing/instances/tracekit_benchmark")
    if instance.is_dir():
        instance.rmdir()
    if status:
        lines = (complained + said).strip().splitlines()
        figures.refused = " / ".join(line.strip() for line in lines[-3:] if line.strip())
        return figures
    text = said + complained
    lost = sum(int(n) for n in re.findall(r"^(?:overrun|dropped events): (\d+)", text, re.M))
    read = sum(int(n) for n in re.findall(r"^read events: (\d+)", text, re.M))
    figures.made, figures.cpu_share = made, cpu / seconds
    figures.events, figures.lost = read, lost
    return figures


def show(figures: Figures) -> None:
    """Two lines."""
    print(f"{figures.recorder}: {figures.rate:,} events/s asked, {figures.buffer_kb} KiB a CPU")
    if figures.refused:
        skipped(f"{figures.recorder} refuses: {figures.refused}")
        return
    moving = figures.moving_share
    print(
        f"  {figures.made:,} made, {figures.events:,} recorded, {figures.lost:,} lost;"
        f" whole command {figures.cpu_share:.1%} of a CPU"
        + (f", moving pages {moving:.1%}" if moving is not None else "")
    )
    name = f"{figures.recorder}, {figures.rate:,} events/s asked, {figures.buffer_kb} KiB a CPU"
    say(f"{name}: lost", figures.lost, "events")
    say(f"{name}: whole command", 100 * figures.cpu_share, "% of a CPU")
    if moving is not None:
        say(f"{name}: moving pages", 100 * moving, "% of a CPU", most=100 * MOST_SHARE)


def cost(folder: Path) -> dict[str, float]:
    """Nanoseconds that an event costs the recorded program: its speed with and without."""

    def calls_in(seconds: float) -> int:
        file, calls = os.open(os.devnull, os.O_RDONLY), 0
        until = time.process_time() + seconds
        while time.process_time() < until:
            for _ in range(1000):
                fcntl.ioctl(file, FIOCLEX)
            calls += 1000
        os.close(file)
        return calls

    words = [sys.executable, "-m", "tracekit", "collect", "--purpose", "none", "--spool"]
    words += [word for event in EVENTS for word in ("--event", event)]
    words += ["--buffer", "8M", "-o", str(folder / "cost")]
    without = max(calls_in(1.0) for _ in range(3))
    recorder = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert recorder.stderr is not None
    for line in recorder.stderr:
        if line.startswith("ready"):
            break
    recording = max(calls_in(1.0) for _ in range(3))
    recorder.terminate()
    recorder.wait()
    shutil.rmtree(folder / "cost", ignore_errors=True)
    return {"ns_per_event": (1e9 / recording - 1e9 / without) / 2}


def main() -> int:
    """Measure, print, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", choices=("spool", "live", "trace-cmd", "fast", "cost"))
    parser.add_argument("--folder", type=Path, help="where to record to; else a temporary folder")
    parser.add_argument("--json", action="store_true", help="figures as JSON, one object a line")
    options = parser.parse_args()
    if os.geteuid() != 0:
        skipped("recording needs root")
        return 0
    runs = {
        "spool": lambda at: with_tracekit(1_000_000, 1400, options.seconds, at, ["--spool"]),
        "live": lambda at: with_tracekit(1_000_000, 1400, options.seconds, at, []),
        "trace-cmd": lambda at: with_trace_cmd(1_000_000, 1400, options.seconds, at),
        "fast": lambda at: with_tracekit(3_000_000, 8192, options.seconds, at, ["--spool"]),
    }
    held = True
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for what, run in runs.items():
            if options.only in (None, what):
                figures = run(Path(name))
                print(json.dumps(vars(figures))) if options.json else show(figures)
                if what == "spool":
                    moving = figures.moving_share or 0.0
                    held = held and not figures.lost and 0 < moving <= MOST_SHARE
                if what == "fast":
                    held = held and figures.events + figures.lost >= figures.made
        if options.only in (None, "cost"):
            found = cost(Path(name))
            say("collect, what an event costs the recorded program", found["ns_per_event"], "ns")
            text = f"an event costs the recorded program {found['ns_per_event']:.0f} ns"
            print(json.dumps(found) if options.json else text)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
