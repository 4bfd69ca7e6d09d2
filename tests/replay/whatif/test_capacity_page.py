"""docs/capacity.md is what its generator makes, and says what the cover letter says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "capacity.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_the_three_guests_and_the_cover_letters_figure() -> None:
    page = (DOCS / "capacity.md").read_text(encoding="utf-8")
    for size in ("16 GiB", "64 GiB", "1 TiB"):
        assert f"### {size}, boot" in page
        assert f"### {size}, all shared" in page
    row = next(r for r in page.splitlines() if r.startswith("| v4, 4k, type1 | 4,194,304 |"))
    assert row.endswith("| 4194304 |")
    assert "## Recordings of in-place conversion" in page
