"""Boots a kernel in QEMU, runs one command inside, and brings its output and exit status back.

``python -m lab.boot 'uname -r'``.  Everything is emulated in software: no root, no KVM, no
hardware.  The machine has an Intel IOMMU and QEMU's ``edu`` PCI device (for VFIO), and a processor
with nested SVM (for KVM inside).  The guest sees the host's file system, may write to it in memory
only, and shares one folder with the host: ``/run/lab``.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab.initramfs import initramfs
from lab.stock import MODULES, stock_kernel
from lab.tools import busybox, guest_kernel, qemu
from tracekit.errors import TracekitError

__all__ = ("DEVICE", "SHARED", "Ran", "boot", "main")

SHARED = Path("/run/lab")
"""The shared folder's place in the guest."""
DEVICE = "0000:00:10.0"
"""Where the guest finds the ``edu`` device."""

INIT = Path(__file__).parent / "guest" / "init"
# Without no_timer_check a boot in six dies on a loaded host.
COMMAND_LINE = (
    "console=ttyS0 loglevel=3 intel_iommu=on iommu=nopt no_timer_check mitigations=off panic=-1"
)
# With a thread for each processor, a kernel from 6.12 on that patches itself (as every trace event
# that is switched on makes it do) now and then dies of a breakpoint that it has taken out again:
# within seconds of tests/lab/patching.sh.  With one thread for both, never seen.
ACCELERATOR = "tcg,thread=single"
CONSOLE_LINES = 15
START_S = 60.0
"""A guest that has not come to its command by then never will."""
STARTS = 3


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What the command inside said and how it ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def boot(
    command: str,
    *,
    shared: Path,
    kernel: Path | None = None,
    modules: list[Path] | None = None,
    layer: Path | None = None,
    timeout: float = 120,
    cpus: int = 2,
    memory: str = "3G",
) -> Ran:
    """Run a shell command in a guest that is made for it.

    ``shared``: an existing folder, in the guest :data:`SHARED`; the files ``command``, ``stdout``,
    ``stderr``, ``status`` and ``state`` in it are the lab's.  ``modules``: to load before the file
    systems are mounted, in order, where the kernel has 9p and overlay as modules.  ``layer``: a
    folder whose files the guest sees over the host's, as if they were installed.

    :raises TracekitError: QEMU, busybox or the kernel is missing, or the guest did not end in time
    """
    kernel = kernel or guest_kernel()
    for name in ("stdout", "stderr", "status", "state"):
        (shared / name).unlink(missing_ok=True)
    (shared / "command").write_text(command + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="tracekit-lab-") as folder:
        archive = Path(folder) / "initramfs"
        archive.write_bytes(initramfs(busybox(), INIT.read_bytes(), modules))
        begun = time.monotonic()
        machine = _machine(kernel, archive, shared, layer, cpus, memory)
        console = _run(machine, timeout, shared / "state")
    status = _text(shared / "status").strip()
    if not status.isdigit():
        state = _text(shared / "state").strip() or "the kernel did not start it"
        raise TracekitError(
            f"the guest ended without an answer ({state}); its console ended with\n"
            + "\n".join(console.splitlines()[-CONSOLE_LINES:])
        )
    return Ran(
        status=int(status),
        stdout=_text(shared / "stdout"),
        stderr=_text(shared / "stderr"),
        seconds=time.monotonic() - begun,
    )


def _machine(
    kernel: Path, archive: Path, shared: Path, layer: Path | None, cpus: int, memory: str
) -> list[str]:
    """QEMU's command line."""
    command_line = COMMAND_LINE
    shared_folders = [("host", "/", ",readonly=on"), ("control", str(shared.resolve()), "")]
    if layer is not None:
        shared_folders.append(("layer", str(layer.resolve()), ",readonly=on"))
        command_line += " lab_layer=yes"
    shares = []
    for tag, path, more in shared_folders:
        if "," in path:
            raise TracekitError(f"QEMU takes no folder with a comma in its name: {path}")
        shares += [
            "-fsdev",
            f"local,id={tag},path={path},security_model=none,multidevs=remap{more}",
            "-device",
            f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]
    return [
        str(qemu()),
        *("-machine", "q35,kernel-irqchip=split", "-accel", ACCELERATOR),
        *("-cpu", "EPYC,+svm,+npt", "-smp", str(cpus), "-m", memory),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-monitor", "none"),
        *("-device", "intel-iommu,intremap=on,caching-mode=on"),
        *("-device", "edu,addr=10.0", "-device", "virtio-rng-pci"),
        *shares,
        *("-kernel", str(kernel), "-initrd", str(archive), "-append", command_line),
    ]


def _run(command: list[str], timeout: float, state: Path) -> str:
    """Run QEMU to its end; what the guest's console showed.

    A kernel that does not come as far as its first command now and then hangs in emulation, on a
    loaded host: nothing was done in it yet, so it is started anew, twice at most.

    :raises TracekitError: it cannot be started, or takes longer
    """
    for left in reversed(range(STARTS)):
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as why:
            raise TracekitError(f"cannot run {command[0]}: {why.strerror}") from None
        said, ended = _communicate(process, timeout, state if left else None)
        if ended:
            return said
        if left and not state.exists():
            print("lab: the guest did not start; once more", file=sys.stderr)
            continue
        last = said.splitlines()[-CONSOLE_LINES:]
        raise TracekitError(
            f"the guest did not end within {timeout:g} s; its console ended with\n"
            + "\n".join(last)
        )
    raise AssertionError("the last start returns or raises")


def _communicate(
    process: subprocess.Popen[bytes], timeout: float, state: Path | None
) -> tuple[str, bool]:
    """What a process printed, and whether it ended by itself in time.  ``state``: a file that has
    to be there soon."""
    try:
        try:
            said, _ = process.communicate(timeout=min(timeout, START_S) if state else timeout)
        except subprocess.TimeoutExpired:
            if state is None or timeout <= START_S or not state.exists():
                raise
            said, _ = process.communicate(timeout=timeout - START_S)
        return said.decode("utf-8", "replace"), True
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        return said.decode("utf-8", "replace"), False
    except BaseException:
        process.kill()
        process.wait()
        raise


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status is that of the command inside, 2 where the lab failed."""
    parser = argparse.ArgumentParser(prog="python -m lab.boot", description=__doc__)
    parser.add_argument("command", help="what the guest's shell runs")
    parser.add_argument("--shared", type=Path, help="a folder that the guest sees as /run/lab")
    parser.add_argument("--kernel", type=Path, help="a bzImage; else $TRACEKIT_LAB_KERNEL")
    parser.add_argument(
        "--module", type=Path, action="append", help="a kernel module to load first (again: more)"
    )
    parser.add_argument("--stock", metavar="VERSION", help="one of Debian's kernels: 6.1, 6.12, 7")
    parser.add_argument(
        "--layer", type=Path, help="a folder whose files the guest sees at its root"
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="tracekit-lab-") as temporary:
            shared = given.shared or Path(temporary)
            if not shared.is_dir():
                raise TracekitError(f"{shared} is no folder")
            kernel, modules = given.kernel, given.module
            if given.stock is not None:
                stock = stock_kernel(given.stock)
                kernel, modules = stock.image, stock.modules(*MODULES)
            ran = boot(
                given.command,
                shared=shared,
                kernel=kernel,
                modules=modules,
                layer=given.layer,
                timeout=given.timeout,
            )
    except TracekitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.help:
            print(f"  help: {error.help}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    sys.stdout.write(ran.stdout)
    sys.stderr.write(ran.stderr)
    print(f"(exit status {ran.status}, {ran.seconds:.1f} s)", file=sys.stderr)
    return ran.status


if __name__ == "__main__":
    sys.exit(main())
