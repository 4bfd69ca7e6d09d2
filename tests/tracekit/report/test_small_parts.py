"""Units, escapes and pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.findings import Severity
from tracekit.report.escape import visible
from tracekit.report.page import SECTIONS, markdown, parse_page, plain
from tracekit.report.units import address_range, errno_name, extent, length_of_time, moment, plural


@given(st.text())
def test_nothing_that_steers_a_terminal_gets_through(text: str) -> None:
    assert visible(text).isprintable()


@given(st.text(), st.integers(8, 40))
def test_shortened_text_is_no_longer_than_asked(text: str, width: int) -> None:
    assert len(visible(text, width)) <= width


def test_ordinary_text_is_left_alone() -> None:
    assert visible("qemu-system-x86 Größe 日本") == "qemu-system-x86 Größe 日本"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (4096, "4 KiB"),
        (1 << 20, "1 MiB"),
        (3 << 19, "1.5 MiB"),
        ((1 << 20) + 4096, "1,028 KiB"),
        (1 << 40, "1 TiB"),
        ((1 << 64) - 1, "18,446,744,073,709,551,615 bytes"),
    ],
)
def test_a_size_is_said_exactly(size: int, said: str) -> None:
    assert extent(size) == said


def test_times_ranges_and_counts() -> None:
    assert moment(12_904_890_123) == "12.904890 s"
    assert length_of_time(41_207_000) == "41.207 ms"
    assert length_of_time(7) == "7 ns"
    assert address_range(0x7FF00000, 1 << 20) == "[0x7ff00000, +1 MiB)"
    assert errno_name(-22) == "EINVAL (22)"
    assert errno_name(9999) == "errno 9999"
    assert plural(1, "error") == "1 error"
    assert plural(2000, "error") == "2,000 errors"


PAGE = "Bad.\n\n" + "\n\n".join(f"{s}\n    Text of {s}." for s in SECTIONS)


def test_a_page_is_taken_apart_and_put_together() -> None:
    page = parse_page(code="TK999", name="bad-thing", severity=Severity.ERROR, docstring=PAGE)
    assert page.summary == "Bad."
    assert page.sections["Known limits"] == "Text of Known limits."
    assert "## Why it matters\n\nText of Why it matters." in markdown(page)
    assert plain(page).startswith("TK999 bad-thing (error)\n")


@pytest.mark.parametrize("broken", ["Bad.", PAGE.replace("Example", "Sample"), PAGE[:-30]])
def test_a_page_without_a_section_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="TK999"):
        parse_page(code="TK999", name="x", severity=Severity.ERROR, docstring=broken)
