"""polars, DuckDB and pandas read a trace without tracekit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tracekit.events.iommu import IommuMap, IommuUnmap
from tracekit.store import write_events

TOP = (1 << 64) - 4096
"""An address that a float cannot hold."""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    events = [
        IommuMap(ts_ns=1, tid=7, comm="vmm", iova=TOP, size=4096),
        IommuMap(ts_ns=2, tid=7, comm="vmm", iova=4096, size=4096),
        IommuUnmap(ts_ns=3, tid=8, iova=TOP, size=4096, unmapped=4096),
    ]
    write_events(path, events)
    return path


def test_polars(trace: Path) -> None:
    maps = pl.scan_parquet(trace).filter(pl.col("event") == "iommu.map").collect()
    assert maps["iova"].to_list() == [TOP, 4096]
    assert maps["comm"].to_list() == ["vmm", "vmm"]


def test_polars_reads_a_folder_of_segments(trace: Path) -> None:
    assert pl.scan_parquet(trace.parent / "*.parquet").select(pl.len()).collect().item() == 3


def test_duckdb(trace: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    rows = duckdb.sql(f"select event, count(*), max(iova) from '{trace}' group by 1 order by 1")
    assert rows.fetchall() == [("iommu.map", 2, TOP), ("iommu.unmap", 1, TOP)]


def test_pandas(trace: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.read_parquet(trace, dtype_backend="pyarrow")
    assert table["iova"].tolist() == [TOP, 4096, TOP]
    assert table["event"].tolist() == ["iommu.map", "iommu.map", "iommu.unmap"]
    assert table["unmapped"].isna().tolist() == [True, True, False]
