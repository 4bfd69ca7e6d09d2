"""Definitions of dynamic events."""

from __future__ import annotations

import pytest

from tracekit.errors import ImportFormatError
from tracekit.ftrace.probes import (
    Argument,
    Definition,
    Dereference,
    EventField,
    ReturnValue,
    parse_definitions,
)


def one(line: str) -> Definition:
    """The only definition in a line."""
    (found,) = parse_definitions([line], "dynamic_events")
    return found


def test_a_kprobe_says_which_argument_a_field_reads() -> None:
    found = one("p:vf/t vfio_iommu_type1_ioctl iommu=%di:x64 cmd=$arg2:x32 a8=+u8(%dx):x64")
    assert (found.source, found.target, found.returns) == ("vf:t", "vfio_iommu_type1_ioctl", False)
    assert found.fields == {
        "iommu": Argument(0),
        "cmd": Argument(1),
        "a8": Dereference(Argument(2), 8, True),
    }


@pytest.mark.parametrize(
    "line",
    [
        "r10:vf/t kvm_vm_ioctl ret=$retval:s64",
        "f:vf/t kvm_vm_ioctl%return ret=$retval",
        "p:vf/t kvm:kvm_vm_ioctl%return ret=$retval",
    ],
)
def test_return_probes_are_told_apart(line: str) -> None:
    found = one(line)
    assert found.returns
    assert found.target == "kvm_vm_ioctl"
    assert found.fields == {"ret": ReturnValue()}


def test_a_probe_inside_a_function_is_not_at_its_entry() -> None:
    assert not one("p:vf/t kvm_vm_ioctl+0x20 a=%di").at_entry
    assert one("p:vf/t kvm_vm_ioctl a=%di").at_entry


def test_an_eprobe_reads_fields_of_its_event_and_its_filter_is_no_field() -> None:
    found = one("e:vfe/k syscalls.sys_enter_ioctl fd=$fd:s32 a8=+u8($arg):x64 if cmd == 0x4020ae46")
    assert found.target == "syscalls/sys_enter_ioctl"
    assert found.fields == {
        "fd": EventField("fd"),
        "a8": Dereference(EventField("arg"), 8, True),
    }


def test_btf_arguments_keep_their_members() -> None:
    found = one("f:v/s kvm_set_memory_region kvm slot=mem->slot ino=file->f_inode->i_ino $arg*")
    assert found.fields == {
        "kvm": Argument("kvm"),
        "slot": Argument("mem", "slot"),
        "ino": Argument("file", "f_inode->i_ino"),
    }
    assert found.all_arguments


def test_what_is_not_followed_means_nothing() -> None:
    found = one("p:v/s f a=%ax b=$comm c=@jiffies d=\\1 e=+0($stack):u64")
    assert set(found.fields.values()) == {None}


def test_uprobes_synthetic_events_comments_and_blank_lines_are_skipped() -> None:
    lines = ["", "# note", "s:wakeup u64 lat", "u:x/y /bin/sh:0x10"]
    assert parse_definitions(lines, "f") == []


@pytest.mark.parametrize("line", ["p kvm_vm_ioctl", "hello", "p:vf/t", "{}", "\x00\x01"])
def test_what_is_no_definition_is_named_with_its_line(line: str) -> None:
    with pytest.raises(ImportFormatError, match="f line 2 is no definition"):
        parse_definitions(["# first", line], "f")
