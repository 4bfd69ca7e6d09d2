"""What recorded events mean, by name, by function and field names, and by definition."""

from __future__ import annotations

import pytest

from tracekit.ftrace.event_format import EventFormat, parse_format
from tracekit.ftrace.probes import parse_definitions
from tracekit.ftrace.program import Op, Recipe
from tracekit.ftrace.recognise import recognise
from tracekit.ftrace.uapi import (
    KVM_SET_MEMORY_ATTRIBUTES,
    KVM_SET_USER_MEMORY_REGION,
    VFIO_IOMMU_MAP_DMA,
    VFIO_IOMMU_UNMAP_DMA,
)
from tracekit.ftrace.writer import event_format

U64, U32, S32 = ("u64", 8, False), ("u32", 4, False), ("s32", 4, True)
IP = ("unsigned long __probe_ip", 8, False)
FUNC = ("unsigned long __probe_func", 8, False)


def made(name: str, *fields: tuple[str, tuple[str, int, bool]], system: str = "vf") -> EventFormat:
    """An event with these fields."""
    listed = [(f"{kind[0]} {field}", kind[1], kind[2]) for field, kind in fields]
    return parse_format(system, event_format(name, 900, listed))


def probe(*fields: tuple[str, tuple[str, int, bool]], returns: bool = False) -> EventFormat:
    """A function probe with these fields; addresses come first."""
    listed = [(f"{kind[0]} {field}", kind[1], kind[2]) for field, kind in fields]
    head = [FUNC, ("unsigned long __probe_ret_ip", 8, False)] if returns else [IP]
    return parse_format("vf", event_format("p", 900, [*head, *listed]))


def columns(recipe: Recipe, event: EventFormat, cmd: int | None = None) -> dict[str, str]:
    """Column -> the field whose bytes fill it."""
    steps = recipe.steps if cmd is None else recipe.cases.get(cmd, ())
    at = {f.offset: n for n, f in event.fields.items()}
    return {s.column: at.get(s.at, "?") for s in steps}


def test_a_tracepoint_goes_by_its_name() -> None:
    event = made("map", ("iova", U64), ("paddr", U64), ("size", U64), system="iommu")
    recipe = recognise(event, None, [])
    assert recipe.event == "iommu.map"
    assert columns(recipe, event) == {"iova": "iova", "paddr": "paddr", "size": "size"}


def test_a_tracepoint_of_that_name_in_another_system_is_something_else() -> None:
    event = made("map", ("iova", U64), system="dma")
    assert recognise(event, None, []).event is None


def test_fields_that_a_kernel_lacks_leave_their_columns_null() -> None:
    event = made("sched_process_exit", ("prio", S32), system="sched")
    assert recognise(event, None, []) == Recipe(event="process.exit")


def test_a_probe_goes_by_its_function_and_its_commands_structure() -> None:
    event = probe(("iommu", U64), ("cmd", U32), ("argsz", U32), ("flags", U32), ("a8", U64),
                  ("a16", U64), ("a24", U64))  # fmt: skip
    recipe = recognise(event, None, ["vfio_iommu_type1_ioctl"])
    assert recipe.event == "vfio.type1_ioctl"
    assert columns(recipe, event) == {"object": "iommu", "cmd": "cmd"}
    assert columns(recipe, event, VFIO_IOMMU_MAP_DMA) == {
        "argsz": "argsz", "flags": "flags", "vaddr": "a8", "iova": "a16", "size": "a24",
    }  # fmt: skip
    assert columns(recipe, event, VFIO_IOMMU_UNMAP_DMA) == {
        "argsz": "argsz", "flags": "flags", "iova": "a8", "size": "a16",
    }  # fmt: skip


def test_a_probe_on_an_unknown_function_is_unrecognised_and_named() -> None:
    recipe = recognise(probe(("a", U64)), None, ["ksys_write"])
    assert (recipe.event, recipe.function) == (None, "ksys_write")
    assert recognise(probe(("a", U64)), None, []).event is None


def test_a_return_of_int_is_read_as_int() -> None:
    event = probe(("ret", U64), returns=True)
    (step,) = recognise(event, None, ["iommu_map"]).steps
    assert (step.column, step.size, step.signed) == ("ret", 4, True)
    (step,) = recognise(event, None, ["kvm_vm_ioctl"]).steps
    assert (step.column, step.size) == ("ret", 8)


def test_a_return_without_a_value_or_of_no_interest_is_unrecognised() -> None:
    assert recognise(probe(returns=True), None, ["iommu_map"]).event is None
    assert recognise(probe(("ret", U64), returns=True), None, ["iommu_attach_group"]).event is None


def test_names_that_suit_one_structure_are_offsets_in_another() -> None:
    event = made("k", ("fd", S32), ("cmd", U32), ("slot", U32), ("flags", U32), ("gpa", U64),
                 ("size", U64), ("uaddr", U64))  # fmt: skip
    recipe = recognise(event, None, [])
    assert recipe.event == "ioctl.arguments"
    assert columns(recipe, event, KVM_SET_USER_MEMORY_REGION) == {
        "id": "slot", "flags": "flags", "gpa": "gpa", "size": "size", "vaddr": "uaddr",
    }  # fmt: skip
    # The address of an attribute change lies in the two words that were meant as slot and flags.
    assert columns(recipe, event, KVM_SET_MEMORY_ATTRIBUTES) == {
        "gpa": "slot", "size": "gpa", "attributes": "size", "flags": "uaddr",
    }  # fmt: skip


def test_a_value_in_two_places_is_put_together() -> None:
    event = made("k", ("fd", S32), ("cmd", U32), ("u4", U32), ("u0", U32))
    steps = recognise(event, None, []).cases[KVM_SET_MEMORY_ATTRIBUTES]
    assert [(s.op, s.column, s.size, s.shift) for s in steps] == [
        (Op.LOAD, "gpa", 4, 0),
        (Op.OR, "gpa", 4, 32),
    ]


def test_half_of_a_value_is_none() -> None:
    event = made("k", ("fd", S32), ("cmd", U32), ("u0", U32))
    assert KVM_SET_MEMORY_ATTRIBUTES not in recognise(event, None, []).cases


def test_an_eprobe_without_a_command_is_unrecognised() -> None:
    event = made("setsockopt", ("fd", S32), ("level", S32), ("onoff", S32))
    assert recognise(event, None, []).event is None


def test_a_definition_shows_that_a_field_is_not_what_its_name_says() -> None:
    event = probe(("kvm", U64), ("start", U64), ("end", U64))
    (definition,) = parse_definitions(
        ["p:vf/p kvm_arch_post_set_memory_attributes kvm=%di start=+0(%si) end=+8(%si)"], "f"
    )
    named = recognise(event, None, ["kvm_arch_post_set_memory_attributes"])
    assert [s.op for s in named.steps] == [Op.LOAD, Op.SPAN]
    defined = recognise(event, definition, [])
    assert columns(defined, event) == {"object": "kvm", "gpa": "end"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("f:vf/p kvm_set_memory_region kvm a=mem->guest_phys_addr", {"object": "kvm", "gpa": "a"}),
        ("p:vf/p kvm_set_memory_region kvm=$arg1 a=+16($arg2):x64", {"object": "kvm", "size": "a"}),
        ("p:vf/p shmem_fallocate kvm=%di a=file->f_inode->i_ino", {"object": "kvm", "inode": "a"}),
        ("p:vf/p iopt_map_user_pages kvm=%si a=+0(%dx):x64", {"object": "kvm", "iova": "a"}),
        ("p:vf/p iopt_map_user_pages kvm=%si a=+u0(%dx):x64", {"object": "kvm"}),
        ("p:vf/p iommu_map kvm=%di a=%ax", {"object": "kvm"}),
    ],
)
def test_a_field_means_what_it_fetches(line: str, expected: dict[str, str]) -> None:
    event = probe(("kvm", U64), ("a", U64))
    (definition,) = parse_definitions([line], "f")
    assert columns(recognise(event, definition, []), event) == expected


@pytest.mark.parametrize(
    "line",
    [
        "p:vf/p iommu_map+0x40 kvm=%di a=%si",
        "t:vf/p iommu_map kvm=$arg1 a=$arg2",
        "p:vf/p ksys_write kvm=%di a=%si",
        "e:vf/p syscalls.sys_enter_close kvm=$fd a=$fd",
        "p:vf/p kvm_vm_ioctl kvm=%di a=+u8(%dx):x64",
    ],
)
def test_a_definition_that_shows_nothing_we_know_is_unrecognised(line: str) -> None:
    (definition,) = parse_definitions([line], "f")
    assert recognise(probe(("kvm", U64), ("a", U64)), definition, []).event is None


def test_an_address_is_put_together_from_its_halves() -> None:
    event = made("virtio_transport_alloc_pkt", ("src_cid", U32), ("src_port", U32),
                 ("dst_cid", U32), ("dst_port", U32), ("len", U32), system="vsock")  # fmt: skip
    steps = recognise(event, None, []).steps
    assert [(s.op, s.column, s.shift) for s in steps if s.column in ("local", "peer")] == [
        (Op.LOAD, "local", 0), (Op.OR, "local", 32), (Op.LOAD, "peer", 0), (Op.OR, "peer", 32),
    ]  # fmt: skip


def test_half_an_address_is_none() -> None:
    event = probe(("vsk", U64), ("lport", U32), ("rcid", U32), ("rport", U32))
    recipe = recognise(event, None, ["virtio_transport_release"])
    assert recipe.event == "vsock.transport_release"
    assert {s.column for s in recipe.steps} == {"object", "peer"}


def test_members_of_the_kernels_socket_are_known_by_definition() -> None:
    event = probe(("a", U32), ("b", U32), ("c", U64), ("d", U64))
    line = (
        "p:vf/p virtio_transport_release a=vsk->remote_addr.svm_cid b=vsk->remote_addr.svm_port"
        " c=vsk->sk.sk_lingertime d=vsk->sk.__sk_common.skc_flags"
    )
    (definition,) = parse_definitions([line], "f")
    recipe = recognise(event, definition, [])
    assert {s.column for s in recipe.steps} == {"peer", "count", "attributes"}


def test_a_return_of_nothing_is_an_event() -> None:
    recipe = recognise(probe(returns=True), None, ["vsock_linger"])
    assert (recipe.event, recipe.steps) == ("vsock.lingered", ())


def test_so_linger_is_read_in_the_callee_by_name_and_by_definition() -> None:
    event = probe(("fd", S32), ("level", S32), ("opt", S32), ("onoff", S32), ("linger", S32))
    expected = {"fd": "fd", "id": "level", "cmd": "opt", "flags": "onoff", "count": "linger"}
    assert columns(recognise(event, None, ["__sys_setsockopt"]), event) == expected
    line = "p:vf/p __sys_setsockopt fd=%di level=%si opt=%dx onoff=+u0(%cx) linger=+u4(%cx)"
    (definition,) = parse_definitions([line], "f")
    assert columns(recognise(event, definition, []), event) == expected


def test_an_eprobe_on_setsockopt_is_an_event_of_its_own() -> None:
    event = made("e", ("fd", S32), ("level", S32), ("onoff", S32), ("linger", S32))
    assert recognise(event, None, []).event == "setsockopt.arguments"
    line = "e:vf/e syscalls.sys_enter_setsockopt fd=$fd onoff=+u0($optval) linger=+u4($optval)"
    (definition,) = parse_definitions([line], "f")
    found = columns(recognise(event, definition, []), event)
    assert found == {"fd": "fd", "flags": "onoff", "count": "linger"}
