"""The doctor says what can be recorded, how, and what would help."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fake_host import FakeTracefs, tree
from typer.testing import CliRunner

import collectors.doctor
from collectors.doctor import Diagnosis, clean, examine
from collectors.plans import PLANS
from collectors.tracefs.instance import Instance
from tracekit.cli import app

RELEASE = os.uname().release


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(
        tmp_path / "root",
        {
            "proc/meminfo": "MemTotal: 1 kB\nMemAvailable:    8000 kB\n",
            f"lib/modules/{RELEASE}/modules.dep": "kernel/virt/kvm.ko.xz: kernel/x.ko\n",
            f"boot/config-{RELEASE}": "CONFIG_HZ=250\nCONFIG_EPROBE_EVENTS=y\n",
            "sys/module/vfio_iommu_type1/x": "",
        },
    )


def found(tracefs: FakeTracefs, root: Path) -> Diagnosis:
    return examine((tracefs.root,), root, root / "kallsyms")


def test_each_item_of_each_plan_is_there_or_has_a_reason(tracefs: FakeTracefs, root: Path) -> None:
    diagnosis = found(tracefs, root)
    for purpose in diagnosis.purposes:
        plan = PLANS[purpose.purpose]
        assert len(purpose.items) == len(plan.items)
        for item in purpose.items:
            assert bool(item.how) != bool(item.why), item
    by_name = {i.what: i for i in diagnosis.purposes[0].items}
    assert by_name["iommu:map"].how == "tracepoint"
    assert by_name["type1_ioctl"].how == "kprobe on vfio_iommu_type1_ioctl"
    assert by_name["type1_ioctl_ret"].how == "kretprobe on vfio_iommu_type1_ioctl"
    assert by_name["iommu_map"].how == "kprobe on iommu_map"
    assert by_name["ioctl_arguments"].how == "event probe on syscalls.sys_enter_ioctl"
    assert by_name["kvm_vm_ioctl"].fix == "modprobe kvm"
    assert by_name["kvm:kvm_unmap_hva_range"].fix == "modprobe kvm"
    assert by_name["iommufd_ioctl"].fix == "a kernel with CONFIG_IOMMUFD"


def test_without_kprobes_fprobes_do_and_without_both_a_kernel_is_named(
    tracefs: FakeTracefs, root: Path
) -> None:
    (tracefs.root / "kprobe_events").unlink()
    by_name = {i.what: i for i in found(tracefs, root).purposes[0].items}
    assert by_name["type1_ioctl"].how == "fprobe on vfio_iommu_type1_ioctl"
    (tracefs.root / "README").write_text("")
    by_name = {i.what: i for i in found(tracefs, root).purposes[0].items}
    assert by_name["type1_ioctl"].fix == "a kernel with CONFIG_KPROBE_EVENTS=y"


def test_too_little_memory_for_the_buffers_is_noted(tracefs: FakeTracefs, root: Path) -> None:
    assert any("take a smaller --buffer" in note for note in found(tracefs, root).notes)


def test_looking_changes_nothing(tracefs: FakeTracefs, root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tracefs.root.rglob("*")}
    found(tracefs, root)
    assert {p: p.stat().st_mtime_ns for p in tracefs.root.rglob("*")} == before


def test_what_a_killed_recording_left_is_named_and_cleaned(
    tracefs: FakeTracefs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance.make(tracefs, "dma")
    tracefs.append("dynamic_events", f"p:{instance.name}/x iommu_map")
    os.close(instance._lock)
    (left,) = found(tracefs, root).leftovers
    assert (left.name, left.probes) == (instance.name, ("x",))
    monkeypatch.setattr(collectors.doctor, "find_tracefs", lambda places: tracefs)
    assert clean() == [left]
    assert found(tracefs, root).leftovers == []
    assert clean() == []


def test_without_tracefs_the_report_says_how_to_get_it(tmp_path: Path) -> None:
    diagnosis = examine((tmp_path / "nothing",))
    assert "not mounted" in diagnosis.problem
    assert diagnosis.fix.startswith("mount -t tracefs")
    assert diagnosis.purposes == []


def test_text_and_json_say_which_checks_can_judge(
    tracefs: FakeTracefs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collectors.doctor, "examine", lambda: found(tracefs, root))
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert "can be judged: TK101 TK102 TK103" not in shown.stdout  # no fallocate here
    assert "fix: modprobe kvm" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 110
    document = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    dma = document["purposes"][0]
    assert dma["checks"]["TK102"]["can_be_judged"] is False
    assert dma["checks"]["TK102"]["lacks"] == ["fallocate.entered or madvise.entered"]
    assert dma["checks"]["TK109"]["can_be_judged"] is True
    assert "TK301" not in dma["checks"]
