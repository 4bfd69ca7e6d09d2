"""Event format text."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError
from tracekit.ftrace.event_format import parse_format
from tracekit.ftrace.writer import COMMON_FIELDS, event_format

OPENAT = f"""name: sys_enter_openat
ID: 742
format:
{COMMON_FIELDS}
\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:int dfd;\toffset:16;\tsize:8;\tsigned:0;
\tfield:const char * filename;\toffset:24;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] __filename_val;\toffset:48;\tsize:4;\tsigned:0;
\tfield:char comm[16];\toffset:52;\tsize:16;\tsigned:0;

print fmt: "dfd: 0x%08lx, field:%s", ((unsigned long)(REC->dfd))
"""


def test_fields_have_offset_size_and_sign() -> None:
    event = parse_format("syscalls", OPENAT)
    assert (event.source, event.id) == ("syscalls:sys_enter_openat", 742)
    assert list(event.fields) == ["__syscall_nr", "dfd", "filename", "__filename_val", "comm"]
    nr = event.fields["__syscall_nr"]
    assert (nr.offset, nr.size, nr.signed, nr.number) == (8, 4, True, True)


def test_an_int_argument_has_four_bytes_of_its_slot_and_a_pointer_eight() -> None:
    fields = parse_format("syscalls", OPENAT).fields
    assert fields["dfd"].value_size == 4
    assert fields["filename"].value_size == 8


def test_arrays_and_data_locations_are_no_numbers() -> None:
    fields = parse_format("syscalls", OPENAT).fields
    assert fields["__filename_val"].data_loc
    assert not fields["__filename_val"].number
    assert fields["comm"].array
    assert not fields["comm"].number


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ID: 742", "ID: 70000", "past 16 bits"),
        ("ID: 742", "", "no ID line"),
        ("name: sys_enter_openat", "", "no name"),
        ("offset:16;", "offset:sixteen;", "cannot read the field line"),
        ("offset:24;", "offset:65530;", "past 65535"),
        ("common_pid;\toffset:4;", "common_pid;\toffset:5;", "no usual common_pid"),
    ],
)
def test_a_text_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ImportFormatError, match=message):
        _ = parse_format("syscalls", OPENAT.replace(old, new)).fields


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(ImportFormatError):
        _ = parse_format("x", f"name: a\nID: 1\nformat:\n{COMMON_FIELDS}{text}").fields


def test_a_made_format_reads_back() -> None:
    text = event_format("map", 700, [("u64 iova", 8, False), ("int flags", 4, True)])
    fields = parse_format("iommu", text).fields
    assert [(f.name, f.offset, f.size, f.signed) for f in fields.values()] == [
        ("iova", 8, 8, False),
        ("flags", 16, 4, True),
    ]
