"""State: what it costs, that it grows, and that hostile ranges neither hang nor hurt it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from trace_language import trace_of

from replay.engine.engine import Engine, Judgement
from replay.engine.kernel import layout as L
from replay.engine.stream import COLUMNS
from tracekit.store import arrow_schema

TEBIBYTE = "0x10000000000"


def engine_after(rows: list[dict[str, Any]], *, compiled: bool = False) -> Engine:
    """An engine that took the rows."""
    engine = Engine(events=Counter(row["event"] for row in rows), compiled=compiled)
    schema = arrow_schema()
    arrays = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
    engine.feed(pa.RecordBatch.from_arrays(arrays, schema=schema).select(COLUMNS))
    return engine


def comparable(judgement: Judgement) -> tuple[Any, ...]:
    """Everything that two runs must agree in."""
    return judgement.records.tolist(), judgement.judged.tolist(), judgement.spaces.tolist()


def test_a_tebibyte_made_private_in_one_call_costs_less_than_a_megabyte() -> None:
    state = engine_after(trace_of(f"0us vmm create-vm\n5us vmm private 0x0+{TEBIBYTE}"))._k
    assert state.g[L.G_CHUNKS] == 1024
    assert state.g[L.G_MM] == state.g[L.G_AM] == 0
    assert state.ck.nbytes < 1 << 20


def test_one_page_inside_makes_one_chunk_dense() -> None:
    text = f"0us vmm create-vm\n5us vmm private 0x0+{TEBIBYTE}\n9us vmm shared 0x40001000+4K"
    assert engine_after(trace_of(text))._k.g[L.G_AM] == 1


@pytest.mark.parametrize("addr", [0, 4096, 1 << 52, (1 << 63) - 4096, (1 << 64) - 4096])
@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 62, (1 << 63) - 4096, (1 << 64) - 4096])
@pytest.mark.parametrize("compiled", [False, True])
def test_hostile_ranges_neither_hang_nor_hurt(addr: int, size: int, compiled: bool) -> None:
    rows = trace_of(
        """
        0us   vmm   create-vm
        1us   vmm   memory
        2us   vmm   set-iommu
        5us   vmm   private 0x1000+4K
        9us   vmm   map 0x1000+4K
        12us  vmm   shared 0x1000+4K
        15us  vmm   unmap 0x1000+4K
        18us  vmm   punch 0x1000+4K
        20us  vmm   madvise 0x1000+4K
        22us  vmm   run
        """
    )
    for row in rows:
        for name in ("iova", "gpa", "vaddr", "offset"):
            if row[name] is not None and row["ts_ns"] > 3_000:
                row[name] = addr
        if row["size"] is not None and row["ts_ns"] > 3_000:
            row["size"] = size
        if row["unmapped"] is not None:
            row["unmapped"] = size
    assert engine_after(rows, compiled=compiled).finish().judged.sum() > 0


def test_many_pages_threads_and_files_make_the_tables_grow() -> None:
    lines = ["0us vmm create-vm", "1us vmm memory", "2us vmm set-iommu"]
    at = 10
    for i in range(150):
        lines.append(
            f"{at}us vmm{i} map {i * 0x200000:#x}+4K at={0x7F0000000000 + i * 0x400000:#x}"
        )
        at += 2
    lines.append(f"{at}us vmm private 0x0+{TEBIBYTE}")
    lines.append(f"{at + 5}us vmm run")
    rows = trace_of("\n".join(lines))
    plain = engine_after(rows).finish()
    assert (plain.records[:, L.W_KIND] == 101).sum() == 150
    assert comparable(plain) == comparable(engine_after(rows, compiled=True).finish())


def test_plain_and_compiled_kernel_say_the_same() -> None:
    rows = trace_of(
        """
        0us    vmm   create-vm
        1us    vmm   memory
        2us    vmm   set-iommu
        3us    vmm   private 0x0+16M
        9us    vmm   map 0x100000+2M each=4K
        20us   vmm   shared 0x100000+1M
        25us   vmm2  private 0x100000+2M
        30us   vmm   unmap 0x140000+64K
        35us   vmm   punch 0x100000+2M
        40us   vmm   map 0x100000+4K ret=-17
        lost cpu0 44us..50us
        60us   vmm   map 0x800000+64K
        70us   vmm   private 0x800000+64K
        75us   vmm   run
        5ms    end
        """
    )
    assert comparable(engine_after(rows).finish()) == comparable(
        engine_after(rows, compiled=True).finish()
    )
