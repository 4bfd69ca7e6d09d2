"""A made trace as trace.dat: our import of it, and trace-cmd's report, say the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from tracekit.importers import import_files
from tracekit.synth.defects import Defects
from tracekit.synth.generate import generate


@pytest.mark.parametrize(
    ("scenario", "backend"),
    [("tdx-boot", "type1"), ("device-hotplug", "iommufd"), ("hugetlb", "iommufd")],
)
def test_its_import_is_the_trace_that_is_written_as_parquet(
    scenario: str, backend: str, tmp_path: Path
) -> None:
    plain, dat, back = (tmp_path / n for n in ("a.parquet", "a.dat", "b.parquet"))
    for out, format in ((plain, "parquet"), (dat, "trace.dat")):
        generate(scenario, out, seed=4, events=1500, backend=backend, format=format)
    import_files([dat], back)
    one, two = pl.read_parquet(plain), pl.read_parquet(back)
    texts = pl.col(pl.Categorical).cast(pl.Utf8)
    assert one.with_columns(texts).equals(two.with_columns(texts))


def test_holes_are_in_the_ring_buffers_as_the_kernel_marks_them(tmp_path: Path) -> None:
    plain, dat, back = (tmp_path / n for n in ("a.parquet", "a.dat", "b.parquet"))
    for out, format in ((plain, "parquet"), (dat, "trace.dat")):
        lossy = Defects(seed=3, lose=0.05)
        generate("dma-ring", out, seed=4, events=5000, format=format, defects=lossy)
    import_files([dat], back)
    wanted = ["ts_ns", "until_ns", "count", "cpu"]
    marks = [
        pl.read_parquet(p).filter(pl.col("event").cast(pl.Utf8) == "trace.lost").select(wanted)
        for p in (plain, back)
    ]
    assert marks[0].height
    assert marks[0].equals(marks[1])


def test_trace_cmd_reads_it_without_complaint(tmp_path: Path) -> None:
    if shutil.which("trace-cmd") is None:
        pytest.skip("trace-cmd is not installed")
    dat = tmp_path / "a.dat"
    truth = generate("parallel-vcpus", dat, seed=4, events=2000, format="trace.dat")
    done = subprocess.run(
        ["trace-cmd", "report", str(dat)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith("cpus=")]
    assert len(lines) == truth.events
    assert sum(": kvm_vm_set_mem_attributes:" in line for line in lines) > 10
