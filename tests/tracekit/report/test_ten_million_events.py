"""The page of a long trace: a recording repeated until there are ten million events."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.processes import MIB, measured, ours
from tracekit.importers import import_files
from tracekit.store import TraceWriter, open_trace
from tracekit.store.schema import batch_schema

DATA = Path(__file__).parents[2] / "data" / "traces" / "kvm"
EVENTS = 10_000_000


def repeated(source: Path, out: Path, events: int) -> None:
    """The trace again and again, each time later."""
    trace = open_trace(source)
    schema = batch_schema()
    span = trace.manifest.span_ns
    assert span is not None
    pieces = list(trace.batches(schema.names))
    with TraceWriter(out) as writer:
        for i in range(-(-events // len(trace))):
            for piece in pieces:
                later = pa.scalar(i * (span[1] - span[0] + 1000))
                columns = [
                    pc.add(array, later) if name in ("ts_ns", "until_ns") else array
                    for name, array in zip(schema.names, piece.columns, strict=True)
                ]
                writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
        writer.finish(trace.manifest)


@pytest.mark.nightly
def test_ten_million_events_fit_on_a_small_page(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    import_files(
        [DATA / "trace-fmt-default-7.3.4-tracekit-lab.dat"],
        tmp_path / "one.parquet",
        probes=DATA / "dynamic_events-7.3.4-tracekit-lab.txt",
    )
    repeated(tmp_path / "one.parquet", tmp_path / "long.parquet", EVENTS)
    page = tmp_path / "long.html"
    peak = measured(ours("report", str(tmp_path / "long.parquet"), "-o", str(page))).peak
    print(f"{page.stat().st_size / MIB:.1f} MiB of page, {peak:.0f} MiB of memory at most")
    assert page.stat().st_size < 5 * MIB
    assert peak < 2048
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium (the page's size was checked)")
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=chromium, args=sandbox)
        opened = browser.new_page()
        complaints: list[str] = []
        asked: list[str] = []
        opened.on("request", lambda r: asked.append(r.url))
        opened.on("console", lambda m: complaints.append(m.text))
        opened.on("pageerror", lambda e: complaints.append(str(e)))
        opened.goto(page.as_uri())
        opened.wait_for_selector("html[data-ready=yes]", state="attached")
        head = opened.locator("#findings thead th").filter(has_text="times")
        for order in ("ascending", "descending"):
            head.locator("[role=button]").first.click()
            opened.locator(f"#findings thead th[aria-sort={order}]").wait_for()
        rows = opened.locator("#findings table.data").first.locator("tbody tr")
        before = rows.count()
        opened.locator("#findings select").first.select_option("error")
        playwright.expect(rows).not_to_have_count(before)
        assert rows.count() > 0
        browser.close()
    assert asked == [page.as_uri()]
    assert complaints == []
