"""The host when a recording begins, read from folders that look like one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from fake_host import tree

from collectors.snapshot import find_vm, running_vms, take_snapshot, without_secrets
from collectors.snapshot.page_tables import Translation, parse_domain
from collectors.snapshot.vsock_sockets import VsockSocket, parse_answer, request
from tracekit.errors import TracekitError
from tracekit.ftrace.collected import collected_hz, collected_sources

DEVICE = "0000:3b:00.0"
QEMU = [
    "qemu-system-x86_64", "-name", "guest=tdx-7,debug-threads=on", "-uuid", "1-2-3",
    "-object", "secret,id=s0,data=hunter2", "-m", "8G",
]  # fmt: skip


def leaf(page: int, *entries: int) -> str:
    """A line of the kernel's: IOVA_PFN, PML5E, PML4E, PDPE, PDE, PTE."""
    return f"0x{page:013x} |" + "".join(f"\t0x{entry:016x}" for entry in (0, *entries)) + "\n"


UPPER = (0x171E22003, 0x171E23003)
TABLE = (
    f"Device {DEVICE} with pasid 0 @0x17b3a5000\nIOVA_PFN\tPML5E\tPML4E\tPDPE\tPDE\tPTE\n"
    + leaf(0, *UPPER, 0x171E24003, 0x16D000003)
    + leaf(1, *UPPER, 0x171E24003, 0x16D001003)
    + leaf(0x10, *UPPER, 0x171E24003, 0x11110001)
    + leaf(0x200, *UPPER, 0x200000083, 0)
)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host with one VM (with a device), a process that is none, and one that only maps."""
    status = "100 (CPU 0/KVM) x) S " + " ".join(str(n) for n in range(4, 30))
    return tree(
        tmp_path / "host",
        {
            "proc/100/cmdline": "\0".join(QEMU) + "\0",
            "proc/100/exe": "->/usr/bin/qemu-system-x86_64",
            "proc/100/stat": status,
            "proc/100/limits": "Max locked memory         65536                unlimited bytes\n",
            "proc/100/comm": "qemu-system-x86\n",
            "proc/100/task/100/comm": "qemu-system-x86\n",
            "proc/100/task/101/comm": "CPU 0/KVM\n",
            "proc/100/fd/3": "->/dev/kvm",
            "proc/100/fd/9": "->anon_inode:kvm-vm",
            "proc/100/fd/10": "->anon_inode:kvm-vcpu:0",
            "proc/100/fd/11": "->anon_inode:[kvm-gmem]",
            "proc/100/fd/12": "->/dev/vfio/vfio",
            "proc/100/fd/13": "->/dev/vfio/17",
            "proc/100/fd/14": "->anon_inode:[vfio-device]",
            "proc/200/cmdline": "bash\0",
            "proc/200/comm": "bash\n",
            "proc/200/fd/0": "->/dev/pts/0",
            "proc/300/cmdline": "dpdk\0-a\0",
            "proc/300/comm": "dpdk\n",
            "proc/300/fd/5": "->/dev/iommu",
            "proc/400/comm": "vhost-100\n",
            "proc/sys/kernel/osrelease": "6.12.1\n",
            "proc/net/protocols": "protocol  size sockets\nAF_VSOCK   1234      3  -1   NI\n",
            "boot/x": "",
            "sys/module/kvm/x": "",
            "sys/module/vfio_iommu_type1/parameters/dma_entry_limit": "65535\n",
            "sys/kernel/iommu_groups/17/type": "DMA-FQ\n",
            f"sys/kernel/iommu_groups/17/devices/{DEVICE}/driver": "->../../drivers/vfio-pci",
            "sys/kernel/iommu_groups/18/devices/0000:00:1f.2/driver": "->../../drivers/ahci",
            f"sys/kernel/debug/iommu/intel/{DEVICE}/domain_translation_struct": TABLE,
        },
    )


def test_a_vm_is_a_process_that_holds_one_and_what_else_it_holds(host: Path) -> None:
    vm, other = running_vms(host)
    assert (vm.pid, vm.name, vm.uuid) == (100, "tdx-7", "1-2-3")
    assert vm.executable == "/usr/bin/qemu-system-x86_64"
    assert vm.threads == {100: "qemu-system-x86", 101: "CPU 0/KVM"}
    assert (vm.kvm_fds, vm.vcpus, vm.guest_memfds, vm.containers) == ([9], 1, [11], [12])
    assert vm.vfio_groups == {13: "/dev/vfio/17"}
    assert vm.vfio_devices == {14: "anon_inode:[vfio-device]"}
    assert vm.locked_limit == 65536
    assert vm.started_ticks == 22
    assert (other.pid, other.name, other.iommufds) == (300, "dpdk", [5])


def test_no_secret_is_kept_of_a_command_line(host: Path) -> None:
    assert "hunter2" not in json.dumps(take_snapshot(host).to_dict())
    assert running_vms(host)[0].command_line[6] == "secret,id=s0,data=***"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["-object", "secret,id=a,data=s3cret,format=raw"], "secret,id=a,data=***,format=raw"),
        (
            ["-object", '{"qom-type":"secret","id":"a","data":"s3cret"}'],
            '{"qom-type":"secret","id":"a","data":"***"}',
        ),
        (["-spice", "port=5900,password=s3cret"], "port=5900,password=***"),
        (["-spice", "port=5900,password-secret=sec0"], "port=5900,password-secret=sec0"),
        (["-vnc", ":1,password=on"], ":1,password=on"),
        (["-drive", "file=rbd:p/i:id=admin:key=s3cret"], "file=rbd:p/i:id=admin:key=***"),
        (["-drive", "file=https://user:s3cret@host/image"], "file=https://***@host/image"),
        (
            ["-blockdev", '{"driver":"ssh","password":"s3\\"cret","cookie":"s3cret"}'],
            '{"driver":"ssh","password":"***","cookie":"***"}',
        ),
        (["-fw_cfg", "name=opt/x,string=s3cret"], "name=opt/x,string=***"),
        (["-smbios", "type=11,value=io.systemd.credential:p=s3cret"], "type=11,value=***"),
        (["-append", "root=/dev/vda apitoken=s3cret quiet"], "root=/dev/vda apitoken=*** quiet"),
        (["-device", "vfio-pci,host=3b:00.0,id=gpu"], "vfio-pci,host=3b:00.0,id=gpu"),
        (["-m", "8G,slots=4"], "8G,slots=4"),
        (["--object", "tls-creds-x509,passwordid=p0"], "tls-creds-x509,passwordid=***"),
    ],
)  # fmt: skip
def test_secrets_are_hidden_and_nothing_else(words: list[str], kept: str) -> None:
    option, hidden = without_secrets(words)
    assert option == words[0]
    assert hidden == kept
    assert "s3" not in hidden


def test_page_tables_are_ranges(host: Path) -> None:
    snapshot = take_snapshot(host)
    assert snapshot.translations == [
        Translation(DEVICE, 0, 0x16D000000, 0x2000, True),
        Translation(DEVICE, 0x10000, 0x11110000, 0x1000, False),
        Translation(DEVICE, 0x200000, 0x200000000, 0x200000, True),
    ]
    assert snapshot.translations_why == ""


def test_one_file_for_all_devices_is_read_for_those_of_vfio() -> None:
    text = TABLE.replace(DEVICE, "0000:00:1f.2") + TABLE
    found = parse_domain(text.splitlines(True), wanted=frozenset([DEVICE]))
    assert {t.device for t in found} == {DEVICE}
    assert parse_domain(["0x1 | garbage\n", "\n", "0x0000000000001 |\t0x0\t0x0\t0x0\n"]) == []


def test_limits_groups_and_sockets(host: Path) -> None:
    snapshot = take_snapshot(host)
    assert snapshot.dma_entry_limit == 65535
    assert snapshot.vsock_sockets == 3
    assert snapshot.modules == ["kvm", "vfio_iommu_type1"]
    assert snapshot.iommu_groups == {"17": {"type": "DMA-FQ", "devices": {DEVICE: "vfio-pci"}}}


def test_an_empty_host_is_no_error(tmp_path: Path) -> None:
    snapshot = take_snapshot(tmp_path)
    assert snapshot.vms == []
    assert snapshot.dma_entry_limit is None
    assert snapshot.translations_why == "no device is driven by vfio"


def test_a_vm_is_found_by_name_or_pid_with_the_threads_that_serve_it(host: Path) -> None:
    assert find_vm("tdx-7", host).threads() == [100, 101, 400]
    assert find_vm("100", host).threads() == [100, 101, 400]
    with pytest.raises(TracekitError, match="no running VM is called 'tdx-8'") as raised:
        find_vm("tdx-8", host)
    assert raised.value.help == "running: tdx-7 (100), dpdk (300)"
    with pytest.raises(TracekitError, match="no process 999"):
        find_vm("999", host)


def test_the_manifest_keeps_what_is_worth_knowing(host: Path) -> None:
    about = {
        "purpose": "dma",
        "left_out": {"kvm:x": "not there"},
        "clock_pair": {"mono_ns": 5, "realtime_ns": 7, "error_ns": 1},
        "host": take_snapshot(host).to_dict() | {"config": {"CONFIG_HZ": "250"}},
    }
    text = json.dumps(about).encode()
    recording, vm, other = collected_sources(text)
    assert recording["clock_pair_realtime_ns"] == 7
    assert recording["dma_entry_limit"] == 65535
    assert recording["left_out"] == "kvm:x: not there"
    assert (vm["name"], vm["pid"], vm["vfio_containers"]) == ("tdx-7", 100, 1)
    assert other["iommufds"] == 1
    assert collected_hz(text) == 250


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"host": 5}', b'{"host": {"vms": [3, {"pid": "x"}]}}', b"[" * 9999]
)
def test_what_no_collector_wrote_says_nothing_and_breaks_nothing(text: bytes) -> None:
    for source in collected_sources(text):
        assert all(v is None or isinstance(v, str | int) for v in source.values())
    assert collected_hz(text) is None


def test_vsock_sockets_are_read_from_the_kernels_answer() -> None:
    told = struct.pack("=BBBBIIIIIII", 40, 1, 10, 0, 2, 1234, 0xFFFFFFFF, 0, 77, 0, 0)
    one = struct.pack("=IHHII", 16 + len(told), 20, 2, 1, 0) + told
    done = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)
    found, ended = parse_answer(one + one)
    assert found == [VsockSocket("stream", 10, 0, (2, 1234), (0xFFFFFFFF, 0), 77)] * 2
    assert not ended
    assert parse_answer(one + done)[1]
    assert parse_answer(one[:30]) == (None, True)
    assert parse_answer(struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -2)) == (None, True)
    assert len(request()) == 16 + 24
