"""Which workloads run on which kernel under ``tracekit collect --spool``, and what comes of it.

A kernel is booted once.  Its workloads run one after the other, each within a recording of its own;
the spools come out through the shared folder and are imported and replayed here, on the host.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.boot import SHARED, Ran, boot
from lab.initramfs import initramfs
from lab.stock import MODULES, bcc_layer, stock_kernel
from lab.tools import busybox, guest_kernel
from tracekit.errors import TracekitError

__all__ = (
    "GUESTS",
    "Guest",
    "Judgement",
    "Workload",
    "import_bcc",
    "import_spool",
    "judge",
    "run_guest",
)

HERE = Path(__file__).resolve().parent
DMA = (("", ("--grace", "250ms")),)
LINGER = tuple(
    (model, ("--linger-model", model, "--slack", "250ms")) for model in ("legacy", "merged")
)
"""An emulated guest is slow, so that the replay has to be patient."""
INNER = "6.12"
"""The stock kernel that the inner guest of a real QEMU boots."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A program of ``workloads/``.  ``replays``: each with the name under which the workload's log
    says what has to be found, and options."""

    name: str
    purpose: str
    command: tuple[str, ...]
    replays: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A kernel and what runs on it.  ``stock``: which of Debian's; ``None``: the lab's own.
    ``bcc``: the BPF source records all the time, too, once for each purpose.  ``cpus``: how many
    processors it has."""

    name: str
    stock: str | None
    workloads: tuple[Workload, ...]
    bcc: bool = False
    cpus: int = 2


def _vmm(name: str, *arguments: str) -> Workload:
    return Workload(
        name=name, purpose="dma", command=("mini_vmm.py", *arguments), replays=DMA
    )  # fmt: skip


_LINGER = Workload(name="linger", purpose="linger", command=("linger.py",), replays=LINGER)
_WITHOUT_KVM = (
    _vmm("type1", "--kvm", "none", "--mistake", "all"),
    _vmm("type1-correct", "--kvm", "none"),
)
GUESTS = (
    Guest(name="stock 6.1", stock="6.1", workloads=(_LINGER, _WITHOUT_KVM[0]), bcc=True),
    Guest(name="stock 6.12", stock="6.12", workloads=(_LINGER, *_WITHOUT_KVM)),
    Guest(name="stock 7", stock="7", workloads=(_LINGER, *_WITHOUT_KVM)),
    Guest(
        name="lab",
        stock=None,
        workloads=(
            _LINGER,
            *(
                _vmm(name, "--backend", backend, *mistakes)
                for backend in ("type1", "iommufd")
                for name, mistakes in (
                    (backend, ("--mistake", "all")),
                    (f"{backend}-correct", ()),
                )
            ),
        ),
    ),
    # Where one thread emulates two processors, an inner guest's kernel stops in the middle of every
    # second boot, and gets no more timer ticks; with one processor never seen.
    Guest(
        name="lab, one processor",
        stock=None,
        workloads=(
            Workload(
                name="qemu",
                purpose="dma",
                command=("qemu_vmm.py", "--kernel", "inner-kernel", "--initrd", "inner-initramfs"),
                replays=DMA,
            ),
        ),
        cpus=1,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One replay beside the workload's own log: violations as ``CODE severity place``."""

    expected: tuple[str, ...]
    found: tuple[str, ...]
    document: dict[str, Any]

    @property
    def others(self) -> tuple[str, ...]:
        """What was found and is no violation by the log, or was found once too often."""
        return tuple((Counter(self.found) - Counter(self.expected)).elements())


def run_guest(guest: Guest, shared: Path, timeout: float = 600) -> Ran:
    """Boot a kernel and run its workloads; spools and logs are in ``shared`` afterwards.

    :raises TracekitError: the guest cannot be booted, or a workload or its recording failed
    """
    if guest.stock is None:
        kernel, modules = guest_kernel(), []
    else:
        stock = stock_kernel(guest.stock)
        kernel, modules = stock.image, stock.modules(*MODULES)
    if any(w.name == "qemu" for w in guest.workloads):
        _inner_guest(shared)
    lines = _bcc_begins(guest) if guest.bcc else []
    for workload in guest.workloads:
        program, *arguments = workload.command
        truth = SHARED / f"{workload.name}.json"
        command = [
            str(HERE / "guest" / "record"), sys.executable, workload.purpose,
            str(SHARED / workload.name),
            "python3", str(HERE / "workloads" / program), str(truth),
            *(str(SHARED / a) if a.startswith("inner-") else a for a in arguments),
        ]  # fmt: skip
        lines.append(f"sh {shlex.join(command)} || echo {workload.name} failed: $?")
    if guest.bcc:
        lines += _bcc_ends(guest)
    ran = boot(
        "\n".join(lines),
        shared=shared,
        kernel=kernel,
        modules=modules,
        layer=bcc_layer() if guest.bcc else None,
        timeout=timeout,
        cpus=guest.cpus,
    )
    if ran.status or "failed" in ran.stdout:
        said = "".join(p.read_text() for p in sorted(shared.glob("*.said")))
        raise TracekitError(f"{guest.name}: {ran.stdout}{ran.stderr}{said}".strip())
    return ran


def _bcc_begins(guest: Guest) -> list[str]:
    """Shell that starts the BPF source for every purpose, and waits for all: they compile."""
    lines = []
    for purpose in _purposes(guest):
        out = SHARED / f"bcc-{purpose}"
        lines += [
            f"{shlex.quote(sys.executable)} -m tracekit collect --only bcc --purpose {purpose}"
            f" -o /dev/shm/bcc-{purpose} 2> {out}.said &",
            f"bcc_{purpose}=$!",
        ]
    for purpose in _purposes(guest):
        lines += [
            f"until grep -q '^ready' {SHARED}/bcc-{purpose}.said; do",
            f"    kill -0 $bcc_{purpose} || {{ echo bcc {purpose} failed; exit; }}",
            "    sleep 0.5",
            "done",
        ]
    return lines


def _bcc_ends(guest: Guest) -> list[str]:
    lines = []
    for purpose in _purposes(guest):
        lines += [
            f"kill -TERM $bcc_{purpose}; wait $bcc_{purpose}",
            f"[ $? = 130 ] || echo bcc {purpose} failed: $?",
            f"cp -r /dev/shm/bcc-{purpose} {SHARED}/",
        ]
    return lines


def _purposes(guest: Guest) -> list[str]:
    return sorted({w.purpose for w in guest.workloads})


def import_bcc(purpose: str, shared: Path) -> Path:
    """The trace of what the BPF source recorded.

    :raises TracekitError: tracekit refuses it
    """
    folder = shared / f"bcc-{purpose}"
    trace = shared / f"bcc-{purpose}.parquet"
    text, probes = folder / "trace.txt", folder / "dynamic_events"
    if not trace.exists():
        _tracekit("import", text, "--probes", probes, "-o", trace)
    return trace


def _inner_guest(shared: Path) -> None:
    """What a QEMU inside the guest boots."""
    kernel = stock_kernel(INNER)
    script = (HERE / "guest" / "inner-init").read_bytes()
    modules = kernel.modules("virtio_pci", "virtio_mem")
    (shared / "inner-initramfs").write_bytes(initramfs(busybox(), script, modules))
    (shared / "inner-kernel").write_bytes(kernel.image.read_bytes())


def import_spool(workload: Workload, shared: Path) -> Path:
    """The trace of what ``tracekit collect --spool`` recorded of a workload.

    :raises TracekitError: tracekit refuses it
    """
    trace = shared / f"{workload.name}.parquet"
    if not trace.exists():
        _tracekit("import", shared / workload.name, "-o", trace)
    return trace


def judge(workload: Workload, shared: Path, *, bcc: bool = False) -> list[Judgement]:
    """Replay the recording of a workload, beside what the workload says of itself.

    ``bcc``: the guest has the BPF source, and a lingering close is judged by what that one saw:
    before 6.4 probes of tracefs know no types, and so not to which connection a release belongs.

    :raises TracekitError: tracekit refuses the recording
    """
    truth = json.loads((shared / f"{workload.name}.json").read_text(encoding="utf-8"))
    if bcc and workload.purpose == "linger":
        trace = import_bcc(workload.purpose, shared)
    else:
        trace = import_spool(workload, shared)
    judgements = []
    for key, options in workload.replays:
        said = _tracekit("replay", "--format", "json", *options, trace, findings=True)
        document = json.loads(said)
        found = _found(document)
        either = set(_of_connections(truth, "either", key)) & set(found)
        judgements.append(
            Judgement(
                expected=tuple(sorted([*_expected(truth, key), *either])),
                found=tuple(sorted(found)),
                document=document,
            )
        )
    return judgements


def _expected(truth: dict[str, Any], key: str) -> list[str]:
    if key:
        return _of_connections(truth, "expected", key)
    return [f"{e['code']} {e['severity']} {e['gpa']:#x}+{e['size']:#x}" for e in truth["expected"]]


def _of_connections(truth: dict[str, Any], which: str, key: str) -> list[str]:
    """``which``: "expected", or "either": what may be found, as chance had it."""
    return [
        f"{code} error port {connection['local'][1]}"
        for connection in truth.get("connections", ())
        for code in connection[which][key]
    ]


def _found(document: dict[str, Any]) -> list[str]:
    return [
        f"{finding['code']} {finding['severity']} {_place(occurrence)}"
        for finding in document["findings"]
        if finding["severity"] != "note"
        for occurrence in finding["occurrences"]
    ]


def _place(occurrence: dict[str, Any]) -> str:
    if occurrence["local"] is not None:
        return f"port {occurrence['local'][1]}"
    start = occurrence["iova"] if occurrence["gpa"] is None else occurrence["gpa"]
    return "nowhere" if start is None else f"{start:#x}+{occurrence['size'] or 0:#x}"


def _tracekit(*arguments: str | Path, findings: bool = False) -> str:
    """What ``tracekit`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in ((0, 1) if findings else (0,)):
        raise TracekitError(f"tracekit {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
