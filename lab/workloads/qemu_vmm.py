"""A real QEMU with virtio-mem and a passed-through device, inside the lab's guest only.

Plugs and unplugs memory, removes the device and adds it again, resets the machine, all by QMP, and
ends it.  QEMU does this right, so nothing is to be found.  Writes every step with its time.  Needs
a kernel and an initramfs that loads virtio_mem for the inner guest, and nothing but the standard
library.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

MiB = 1 << 20
PATIENCE_S = 120.0


class Qmp:
    """QEMU's machine protocol: commands and events, one JSON object a line."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not path.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.events: list[dict[str, Any]] = []
        json.loads(self.lines.readline())
        self.did("qmp_capabilities")

    def did(self, command: str, **arguments: object) -> Any:
        """A command's result."""
        told = {
            "execute": command,
            "arguments": {k.replace("_", "-"): v for k, v in arguments.items()},
        }
        self.socket.sendall(json.dumps(told).encode() + b"\n")
        while True:
            said = self._line()
            if "error" in said:
                raise SystemExit(f"QEMU refused {told}: {said['error']}")
            if "return" in said:
                return said["return"]

    def event(self, name: str) -> None:
        """Wait for an event that was not waited for yet."""
        while True:
            for said in self.events:
                if said["event"] == name:
                    self.events.remove(said)
                    return
            self._line()

    def _line(self) -> dict[str, Any]:
        line = self.lines.readline()
        if not line:
            raise SystemExit("QEMU is gone")
        said: dict[str, Any] = json.loads(line)
        if "event" in said:
            self.events.append(said)
        return said


class Machine:
    """The inner virtual machine and the steps that were made with it."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.serial = folder / "serial"
        self.steps: list[dict[str, Any]] = []
        self.device = {"driver": "vfio-pci", "host": given.device, "id": "passed"}
        command = [
            *(
                given.qemu,
                "-machine",
                "q35,kernel-irqchip=split",
                "-accel",
                "kvm",
                "-cpu",
                "host",
                "-smp",
                "1",
            ),
            *("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"),
            *("-m", "192M,slots=2,maxmem=1G"),
            *("-object", "memory-backend-ram,id=more,size=128M"),
            *("-device", "virtio-mem-pci,id=mem,memdev=more,requested-size=0"),
            *("-device", "pcie-root-port,id=slot0,chassis=1"),
            *("-device", f"vfio-pci,host={given.device},id=passed,bus=slot0"),
            *(
                "-serial",
                f"file:{self.serial}",
                "-qmp",
                f"unix:{folder / 'qmp'},server=on,wait=off",
            ),
            *("-kernel", given.kernel, "-initrd", given.initrd),
            *("-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off"),
        ]
        if given.trace:
            command += ["-msg", "timestamp=on", "-D", given.log]
            command += [word for event in given.trace for word in ("-trace", event)]
        self.process = subprocess.Popen(command, cwd=folder)
        self.qmp = Qmp(folder / "qmp", self.process)

    def step(self, name: str, start_ns: int) -> None:
        """Note what was done."""
        now = time.monotonic_ns()
        self.steps.append({"step": name, "start_ns": start_ns, "stop_ns": now})

    def booted(self, times: int) -> None:
        """Wait for the inner guest to say so, for the ``times``-th time."""
        begun = time.monotonic_ns()
        until = time.monotonic() + PATIENCE_S
        while not self.serial.exists() or self.serial.read_bytes().count(b"inner: ready") < times:
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the inner guest does not boot: {self.serial.read_text()[-500:]}")
            time.sleep(0.1)
        self.step("boot", begun)

    def resize(self, size: int) -> None:
        """Ask for so much memory and wait until the inner guest has it."""
        begun = time.monotonic_ns()
        self.qmp.did(
            "qom-set", path="/machine/peripheral/mem", property="requested-size", value=size
        )
        until = time.monotonic() + PATIENCE_S
        while (have := self._size()) != size:
            if time.monotonic() > until:
                raise SystemExit(f"virtio-mem stays at {have} bytes instead of {size}")
            time.sleep(0.1)
        self.step(f"resize to {size // MiB} MiB", begun)

    def _size(self) -> int:
        (device,) = self.qmp.did("query-memory-devices")
        size: int = device["data"]["size"]
        return size

    def remove(self) -> None:
        """Take the device out, with the inner guest's consent."""
        begun = time.monotonic_ns()
        self.qmp.did("device_del", id="passed")
        self.qmp.event("DEVICE_DELETED")
        self.step("remove the device", begun)

    def add(self) -> None:
        """Put it in again."""
        begun = time.monotonic_ns()
        self.qmp.did("device_add", **self.device, bus="slot0")
        self.step("add the device", begun)

    def reset(self) -> None:
        """As the button does; virtio-mem loses all it had."""
        begun = time.monotonic_ns()
        self.qmp.did("system_reset")
        self.step("reset", begun)

    def end(self) -> None:
        """Quit."""
        begun = time.monotonic_ns()
        self.qmp.did("quit")
        self.process.wait(PATIENCE_S)
        self.step("quit", begun)


def bind_to_vfio(device: str) -> None:
    """Give the PCI device to vfio-pci."""
    folder = Path("/sys/bus/pci/devices") / device
    (folder / "driver_override").write_text("vfio-pci\n")
    if not (folder / "driver").exists():
        Path("/sys/bus/pci/drivers_probe").write_text(device + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="the file to write")
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--device", default="0000:00:10.0")
    parser.add_argument("--kernel", required=True, help="of the inner guest")
    parser.add_argument("--initrd", required=True)
    parser.add_argument("--trace", action="append", help="a trace event of QEMU's, or a pattern")
    parser.add_argument("--log", help="where QEMU writes them")
    given = parser.parse_args()
    bind_to_vfio(given.device)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        machine = Machine(given, Path(folder))
        try:
            machine.booted(1)
            machine.resize(64 * MiB)
            machine.resize(16 * MiB)
            machine.remove()
            machine.add()
            machine.resize(96 * MiB)
            machine.reset()
            machine.booted(2)
            machine.end()
        finally:
            machine.process.kill()
            machine.process.wait()
    truth = {"pid": machine.process.pid, "expected": [], "steps": machine.steps, "by": os.getpid()}
    given.truth.write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
