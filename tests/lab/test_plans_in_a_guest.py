"""What ``tracekit plan`` prints, run in a real kernel around a workload with a known mistake.

One boot records everything; each test looks at one recording.  A probe and an instance of somebody
else are there all the time, and must be there afterwards.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.boot import SHARED, boot
from lab.tools import missing

pytestmark = pytest.mark.lab

WORKLOADS = Path(__file__).parents[2] / "lab" / "workloads"
# name: purpose, workload and its arguments
RUNS = {
    "stale": ("dma", "mini_vmm.py", "--mistake stale"),
    "correct": ("dma", "mini_vmm.py", ""),
    "iommufd": ("dma", "mini_vmm.py", "--mistake stale --backend iommufd"),
    "linger": ("linger", "linger.py", ""),
}
FORMS = ("trace-cmd", "sh", "bpftrace")

# Starts a recording and ends it by a signal: Ctrl-C reaches the whole process group, kill -9 only
# the script.
END = """\
import os, signal, subprocess, sys, time
script, out, name = sys.argv[1:]
run = subprocess.Popen(
    ["sh", script], env={**os.environ, "OUT": out}, start_new_session=True, stderr=subprocess.PIPE
)
for line in run.stderr:
    if line.startswith(b"recording"):
        break
time.sleep(3)
(os.kill if name == "KILL" else os.killpg)(run.pid, getattr(signal, "SIG" + name))
run.wait(60)
"""


@dataclass(frozen=True)
class Recorded:
    """One run of a plan in the guest."""

    folder: Path
    form: str
    truth: dict[str, Any]

    @property
    def recording(self) -> Path:
        files = {"trace-cmd": "trace.dat", "bpftrace": "trace.txt"}
        return self.folder / files[self.form] if self.form in files else self.folder


def tracekit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracekit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the guest filled."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("guest")
    lines = [
        "cd /sys/kernel/tracing",
        "state() { { ls instances; cat dynamic_events set_event tracing_on current_tracer"
        f" trace_clock; }} > {SHARED}/state-$1; }}",
        "echo 'p:others/probe do_sys_openat2' >> dynamic_events",
        "mkdir instances/others; echo 1 > events/sched/sched_process_exit/enable",
        "state before",
    ]
    for form in FORMS:
        if form != "sh" and shutil.which(form) is None:
            continue
        for purpose in ("dma", "linger"):
            printed = tracekit("plan", "--purpose", purpose, "--format", form)
            assert printed.returncode == 0, printed.stderr
            (folder / f"{purpose}-{form}.sh").write_text(printed.stdout)
        for name, (purpose, workload, arguments) in RUNS.items():
            if form == "bpftrace" and name != "stale":
                continue  # half a minute each
            out, script = f"{name}-{form}", f"{SHARED}/{purpose}-{form}.sh"
            command = f"{sys.executable} {SHARED}/{workload} {SHARED}/{out}.json {arguments}"
            lines += [
                f"cd /dev/shm; OUT={out} sh {script} {command} || echo '{out} failed'",
                f"cp -r {out} {SHARED}; cd /sys/kernel/tracing; state {out}",
            ]
    lines += [
        f"cd /dev/shm; {sys.executable} {SHARED}/end.py {SHARED}/dma-sh.sh killed KILL",
        "cd /sys/kernel/tracing; state killed",
        f"cd /dev/shm; OUT=killed sh {SHARED}/dma-sh.sh --undo",
        "cd /sys/kernel/tracing; state undone",
        f"cd /dev/shm; {sys.executable} {SHARED}/end.py {SHARED}/dma-sh.sh interrupted INT",
        f"cp -r interrupted {SHARED}; cd /sys/kernel/tracing; state interrupted",
    ]
    (folder / "end.py").write_text(END)
    for workload in ("mini_vmm.py", "linger.py"):
        shutil.copy(WORKLOADS / workload, folder)
    ran = boot("\n".join(lines), shared=folder, timeout=500)
    assert ran.status == 0, ran.stdout + ran.stderr
    assert "failed" not in ran.stdout, ran.stdout + ran.stderr
    return folder


def recorded(shared: Path, name: str, form: str) -> Recorded:
    if form != "sh" and shutil.which(form) is None:
        pytest.skip(f"{form} is not installed")
    truth = json.loads((shared / f"{name}-{form}.json").read_text())
    return Recorded(shared / f"{name}-{form}", form, truth)


def imported(run: Recorded, out: Path) -> dict[str, int]:
    """Import the recording; records by the name under which they were recorded."""
    probes = run.folder / "dynamic_events"
    done = tracekit("import", run.recording, "--probes", probes, "-o", out)
    assert done.returncode == 0, done.stderr
    info = tracekit("info", "--json", out)
    assert info.returncode == 0, info.stderr
    names = json.loads(info.stdout)["manifest"]["recorded"]
    return {row["name"]: row["count"] for row in names}


def replayed(trace: Path) -> tuple[int, dict[str, Any]]:
    """Exit status and report; with patience, because an emulated guest is slow."""
    done = tracekit("replay", "--grace", "250ms", "--format", "json", trace)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["stale", "iommufd"])
def test_exactly_the_planted_mistake_is_found(
    shared: Path, tmp_path: Path, form: str, name: str
) -> None:
    if form == "bpftrace" and name != "stale":
        pytest.skip("bpftrace takes half a minute to start in the guest: once is enough")
    run = recorded(shared, name, form)
    trace = tmp_path / "trace.parquet"
    imported(run, trace)
    status, document = replayed(trace)
    errors = [f for f in document["findings"] if f["severity"] == "error"]
    (planted,) = run.truth["expected"]
    assert status == 1
    assert [f["code"] for f in errors] == [planted["code"]]
    (found,) = errors[0]["occurrences"]
    assert (found["gpa"], found["size"]) == (planted["gpa"], planted["size"])
    assert planted["from_ns"][0] <= found["from_ns"] <= planted["from_ns"][1]
    assert planted["until_ns"][0] <= found["until_ns"] <= planted["until_ns"][1]
    assert errors[0]["confidence"] == "certain"
    assert document["trace"]["lost_events"] == 0


@pytest.mark.parametrize("form", ["trace-cmd", "sh"])
def test_a_correct_host_holds_and_everything_about_it_is_judged(
    shared: Path, tmp_path: Path, form: str
) -> None:
    run = recorded(shared, "correct", form)
    trace = tmp_path / "trace.parquet"
    imported(run, trace)
    status, document = replayed(trace)
    assert status == 0
    assert document["findings"] == []
    judged = {c["code"]: c for c in document["checks"]}
    for code in ("TK101", "TK102", "TK103", "TK105", "TK106", "TK202"):
        assert judged[code]["verdict"] == "held", judged[code]
        assert judged[code]["judged"]["decided"] > 0
        assert judged[code]["judged"]["undecided"] == 0, judged[code]


@pytest.mark.parametrize("form", ["trace-cmd", "sh"])
def test_requests_and_conversions_are_recorded_one_for_one(
    shared: Path, tmp_path: Path, form: str
) -> None:
    run = recorded(shared, "correct", form)
    counts = imported(run, tmp_path / "trace.parquet")
    operations = [o["op"] for o in run.truth["operations"]]
    conversions = operations.count("private") + operations.count("shared")
    requests = operations.count("map") + operations.count("unmap")
    assert counts["kvm:kvm_vm_set_mem_attributes"] == conversions
    # one VFIO_SET_IOMMU and one VFIO_CHECK_EXTENSION may stand beside the requests
    assert requests <= counts["tracekit_dma:type1_ioctl"] <= requests + 2
    assert counts["tracekit_dma:type1_ioctl_ret"] == counts["tracekit_dma:type1_ioctl"]
    assert counts["iommu:map"] == operations.count("map")
    assert counts["syscalls:sys_enter_fallocate"] == sum(
        o.startswith("discard") for o in operations
    )


@pytest.mark.parametrize("form", ["trace-cmd", "sh"])
def test_linger_is_recorded_and_imported(shared: Path, tmp_path: Path, form: str) -> None:
    run = recorded(shared, "linger", form)
    counts = imported(run, tmp_path / "trace.parquet")
    connections = run.truth["connections"]
    lingering = sum(c["linger_s"] is not None for c in connections)
    # a connection has two ends and a listener
    assert counts["tracekit_linger:vsock_release"] == 3 * len(connections)
    assert counts["tracekit_linger:vt_release"] == 2 * len(connections)
    assert counts["tracekit_linger:vt_release_ret"] == 2 * len(connections)
    assert counts["tracekit_linger:sys_setsockopt"] == lingering
    sending = sum(c["bytes"] > 0 for c in connections)
    assert counts["vsock:virtio_transport_alloc_pkt"] >= 3 * len(connections) + sending
    assert counts["vsock:virtio_transport_recv_pkt"] >= 3 * len(connections) + sending
    assert counts["tracekit_linger:consume_skb_sent"] > 0


@pytest.mark.parametrize("form", ["trace-cmd", "sh"])
def test_this_kernel_has_all_of_the_plan(shared: Path, form: str) -> None:
    for name in ("stale", "linger"):
        assert (recorded(shared, name, form).folder / "left_out").read_text() == ""


def test_tracefs_is_left_as_it_was_found(shared: Path) -> None:
    before = (shared / "state-before").read_text()
    assert "others" in before
    states = [p for p in shared.glob("state-*") if p.name != "state-killed"]
    assert len(states) >= 7
    for path in states:
        assert path.read_text() == before, path.name


def test_a_killed_recording_is_undone_afterwards(shared: Path) -> None:
    killed = (shared / "state-killed").read_text()
    assert "tracekit_dma" in killed
    assert (shared / "state-undone").read_text() == (shared / "state-before").read_text()


def test_ctrl_c_ends_a_recording_that_can_be_read(shared: Path, tmp_path: Path) -> None:
    folder = shared / "interrupted"
    done = tracekit(
        "import", folder, "--probes", folder / "dynamic_events", "-o", tmp_path / "t.parquet"
    )
    assert done.returncode == 0, done.stderr


def test_the_command_s_line_is_what_the_script_says(shared: Path) -> None:
    script = (shared / "dma-sh.sh").read_text()
    (line,) = [s for s in script.splitlines() if s.startswith('echo "tracekit import')]
    assert shlex.split(line)[1].startswith("tracekit import $OUT --probes $OUT/dynamic_events")
