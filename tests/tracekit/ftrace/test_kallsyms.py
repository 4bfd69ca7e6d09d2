"""Looking up probed addresses."""

from __future__ import annotations

from tracekit.ftrace.kallsyms import Kallsyms

TEXT = b"""ffffffff81000ff0 t __pfx_iommu_map
ffffffff81001000 T iommu_map
ffffffff81001000 T iommu_map_alias
ffffffff81001008 d data_there
ffffffffa0001230 t kvm_vm_ioctl\t[kvm]
ffffffff81002000 T after"""


def test_a_probe_behind_the_entry_belongs_to_the_function() -> None:
    table = Kallsyms(TEXT)
    assert table.functions_at(0xFFFFFFFF81001004) == ["iommu_map", "iommu_map_alias"]
    assert table.functions_at(0xFFFFFFFFA0001230) == ["kvm_vm_ioctl"]
    assert table.functions_at(0xFFFFFFFF81002000) == ["after"]


def test_an_address_in_the_middle_of_a_function_belongs_to_none() -> None:
    assert Kallsyms(TEXT).functions_at(0xFFFFFFFF81001020) == []


def test_an_empty_or_hidden_table_names_nothing() -> None:
    assert Kallsyms(b"").functions_at(0xFFFFFFFF81001000) == []
    assert Kallsyms(b"0000000000000000 T iommu_map\n").functions_at(0xFFFFFFFF81001000) == []
    assert Kallsyms(b"\xff\xfe junk\n\n").functions_at(5) == []
