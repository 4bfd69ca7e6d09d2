"""An instance of its own, only what the kernel has, and nothing left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import pytest
from fake_host import FakeTracefs

from collectors.plans import PLANS, Plan, Probe, Section, Tracepoint
from collectors.tracefs.files import find_tracefs
from collectors.tracefs.install import Functions, Installed, configure, enable, install
from collectors.tracefs.instance import Instance, leftovers, remove_leftover
from tracekit.errors import TracekitError

DMA = PLANS["dma"]


def installed(tracefs: FakeTracefs, plan: Plan = DMA) -> tuple[Instance, Installed]:
    instance = Instance.make(tracefs, plan.purpose)
    configure(instance, clock="mono", buffer_kb=64)
    made = install(plan, instance, Functions(tracefs, plan), config={})
    enable(instance, made)
    return instance, made


def plan_of(*items: Tracepoint | Probe) -> Plan:
    section = Section(gives="", costs="", items=items)
    return Plan(purpose="dma", title="", group="g", buffer_kb=64, sections=(section,))


def files(root: Path) -> dict[str, str]:
    return {str(p): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def test_only_what_the_kernel_has_is_recorded_and_the_rest_is_named(tracefs: FakeTracefs) -> None:
    instance, made = installed(tracefs)
    own = f"{instance.name}:"
    assert "iommu:map" in made.events
    assert {e for e in made.events if e.startswith(own)} == {
        own + name
        for name in (
            "type1_ioctl",
            "type1_ioctl_ret",
            "iommu_map",
            "iommu_domain_free",
            "ioctl_arguments",
        )
    }
    why = {left.what: left.why for left in made.left_out}
    assert "no function kvm_vm_ioctl(): inlined" in why[own + "kvm_vm_ioctl"]
    assert "not built in, or its module" in why["kvm:kvm_unmap_hva_range"]
    assert set(why).isdisjoint(made.events)
    assert set(why) | set(made.events) == {
        item.source if isinstance(item, Tracepoint) else own + item.name for item in DMA.items
    }
    enabled = instance.files.read("events/iommu/map/enable")
    assert enabled == "1\n"
    assert instance.files.read("events/iommu/map/filter") == "!(common_flags & 0x18)\n"


def test_settings_are_those_asked_for(tracefs: FakeTracefs) -> None:
    instance, _ = installed(tracefs)
    assert instance.files.read("trace_clock") == "mono\n"
    assert instance.files.read("buffer_size_kb") == "64\n"
    assert instance.files.read("options/overwrite") == "1\n"
    assert instance.files.read("tracing_on") == "0\n"
    assert tracefs.read("trace_clock") == ""


def test_the_kernel_is_left_as_it_was_found(tracefs: FakeTracefs) -> None:
    before = files(tracefs.root)
    instance, made = installed(tracefs)
    assert made.definitions
    assert files(tracefs.root) != before
    assert instance.remove() == []
    assert files(tracefs.root) == before
    assert tracefs.folders("events/others") == ["probe"]


@pytest.mark.parametrize(
    ("refused", "kind"), [("p:", "f:"), ("size=$arg4:u64 prot", None), ("none", "p:")]
)
def test_a_refused_definition_falls_back_to_the_next(
    tracefs: FakeTracefs, refused: str, kind: str | None
) -> None:
    tracefs.refuses = refused
    probe = next(p for p in DMA.probes if p.name == "iommu_map")
    _, made = installed(tracefs, plan_of(probe))
    if kind is None:
        (left,) = made.left_out
        assert left.why == "the kernel refuses its definition: Bad thing"
        return
    assert made.definitions["iommu_map"].startswith(kind)
    assert " iommu_map " in made.definitions["iommu_map"]  # iommu_map_nosync is not there


def test_a_function_that_the_compiler_changed_is_not_probed(tracefs: FakeTracefs) -> None:
    probe = Probe(name="x", targets=("do_close",), fetches=("a=$arg1:x64",))
    _, made = installed(tracefs, plan_of(probe))
    assert "the compiler changed do_close()" in made.left_out[0].why


def test_an_event_probe_stands_in_where_functions_are_missing(tracefs: FakeTracefs) -> None:
    (tracefs.root / "available_filter_functions").write_text(
        "vfio_iommu_type1_ioctl\nkvm_vm_ioctl\n"
    )
    _, made = installed(tracefs)
    assert {"kvm_vm_ioctl", "type1_ioctl"} <= set(made.definitions)
    assert "ioctl_arguments" not in made.definitions


def test_without_kprobes_and_fprobes_that_is_the_reason(tracefs: FakeTracefs) -> None:
    (tracefs.root / "kprobe_events").unlink()
    (tracefs.root / "README").write_text("")
    _, made = installed(tracefs)
    why = {left.what: left.why for left in made.left_out}
    assert "CONFIG_KPROBE_EVENTS" in why["tracekit_collect_dma:type1_ioctl"]


def test_functions_come_from_the_symbol_table_where_ftrace_does_not_say(
    tracefs: FakeTracefs, tmp_path: Path
) -> None:
    (tracefs.root / "available_filter_functions").unlink()
    symbols = tmp_path / "kallsyms"
    symbols.write_text("ffffffff81000000 t iommu_map\nffffffff82000000 d iommu_domain_free\n")
    functions = Functions(tracefs, DMA, symbols)
    assert not functions.certain
    assert functions.why_not("iommu_map") == ""
    assert functions.why_not("iommu_domain_free")


def test_two_recordings_for_one_purpose_exclude_each_other(
    tracefs: FakeTracefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.tracefs.instance.PATIENCE_S", 0.0)
    first = Instance.make(tracefs, "dma")
    with pytest.raises(TracekitError, match="another tracekit collect records"):
        Instance.make(tracefs, "dma")
    Instance.make(tracefs, "linger").remove()
    first.remove()
    Instance.make(tracefs, "dma").remove()


def test_what_a_dead_run_left_is_found_and_removed_by_the_next(tracefs: FakeTracefs) -> None:
    before = files(tracefs.root)
    instance, made = installed(tracefs)
    assert leftovers(tracefs) == []  # it lives
    assert not remove_leftover(tracefs, instance.name)
    os.close(instance._lock)  # as its death does
    (left,) = leftovers(tracefs)
    assert (left.instance, set(left.probes)) == (True, set(made.definitions))
    Instance.make(tracefs, "linger").remove()
    assert files(tracefs.root) == before


def test_probes_alone_are_a_leftover_too(tracefs: FakeTracefs) -> None:
    instance, made = installed(tracefs)
    os.close(instance._lock)
    tracefs.remove_instance(instance.name)
    (left,) = leftovers(tracefs)
    assert (left.instance, set(left.probes)) == (False, set(made.definitions))
    assert remove_leftover(tracefs, left.name)
    assert leftovers(tracefs) == []


def test_recordings_of_no_purpose_run_beside_each_other_and_others_are_left_alone(
    tracefs: FakeTracefs,
) -> None:
    tracefs.make_instance("somebody_elses")
    instance = Instance.make(tracefs, "none")
    assert instance.name == f"tracekit_collect_none_{os.getpid()}"
    instance.remove()
    assert tracefs.folders("instances") == ["somebody_elses"]


def test_no_tracefs_says_how_to_mount_it(tmp_path: Path) -> None:
    with pytest.raises(TracekitError, match="not mounted") as raised:
        find_tracefs((tmp_path,))
    assert raised.value.help is not None
    assert raised.value.help.startswith("mount -t tracefs")


def test_an_event_that_is_not_there_is_an_error(tracefs: FakeTracefs) -> None:
    instance = Instance.make(tracefs, "none")
    with pytest.raises(TracekitError, match="no event nothing:here"):
        install(plan_of(), instance, Functions(tracefs, plan_of()), ("nothing:here",))


def test_where_the_kernel_has_no_file_locks_open_files_tell_who_lives(
    tracefs: FakeTracefs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    instance = Instance.make(tracefs, "dma")
    os.set_inheritable(instance._lock, True)
    holder = subprocess.Popen(["sleep", "60"], pass_fds=[instance._lock])
    os.close(instance._lock)
    try:
        assert leftovers(tracefs) == []
        assert not remove_leftover(tracefs, instance.name)
    finally:
        holder.kill()
        holder.wait()
    assert [left.name for left in leftovers(tracefs)] == [instance.name]
    assert remove_leftover(tracefs, instance.name)
