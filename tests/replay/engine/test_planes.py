"""State: what it costs, that it grows, and that hostile ranges neither hang nor hurt it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from trace_language import trace_of

from replay.engine.engine import PLAIN_WORK, Engine, Judgement
from replay.engine.kernel import layout as L
from replay.engine.kernel import planes
from replay.engine.stream import COLUMNS, load_kernel
from tracekit.store import arrow_schema

TEBIBYTE = "0x10000000000"


def engine_after(rows: list[dict[str, Any]], *, compiled: bool = False, batch: int = 0) -> Engine:
    """An engine that took the rows, in one batch or in several."""
    engine = Engine(events=Counter(row["event"] for row in rows), compiled=compiled)
    for i in range(0, len(rows), batch or len(rows)):
        feed(engine, rows[i : i + (batch or len(rows))])
    return engine


def feed(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """Give the rows to the engine, as one batch."""
    schema = arrow_schema()
    arrays = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
    engine.feed(pa.RecordBatch.from_arrays(arrays, schema=schema).select(COLUMNS))


def comparable(judgement: Judgement) -> tuple[Any, ...]:
    """Everything that two runs must agree in."""
    return judgement.records.tolist(), judgement.judged.tolist(), judgement.spaces.tolist()


def test_a_tebibyte_made_private_in_one_call_costs_less_than_a_megabyte() -> None:
    state = engine_after(trace_of(f"0us vmm create-vm\n5us vmm private 0x0+{TEBIBYTE}"))._k
    assert state.g[L.G_CHUNKS] == 1024
    assert state.g[L.G_CT] == state.g[L.G_MM] == state.g[L.G_AM] == 0
    assert state.ck.nbytes < 1 << 20


def test_one_page_inside_makes_one_part_of_a_chunk_dense() -> None:
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


def rows_of_maps(count: int, *, unmaps: bool = False) -> list[dict[str, Any]]:
    """One page mapped in each of ``count`` GiB; after each an unmap whose arguments are not known,
    so that it may have been of any page."""
    lines = ["0us vmm create-vm", "1us vmm memory", "2us vmm set-iommu"]
    for i in range(count):
        lines.append(f"{10 + 9 * i}us vmm map {i << 30:#x}+4K at={0x7F0000000000 + (i << 30):#x}")
        if unmaps:
            lines.append(f"{15 + 9 * i}us vmm unmap {i << 30:#x}+4K")
    rows = trace_of("\n".join(lines))
    for row in rows:
        if row["event"] == "vfio.type1_ioctl" and row["cmd"] == 0x3B72:
            row["iova"] = row["size"] = None
    return [row for row in rows if row["event"] != "iommu.unmap"]


def planes_of(engine: Engine) -> int:
    """Bytes of the engine's planes."""
    k = engine._k
    return int(k.ck.nbytes + k.ct.nbytes + k.mm.nbytes + k.am.nbytes)


def test_a_page_in_each_of_a_thousand_gibibytes_costs_some_kilobytes_each() -> None:
    assert planes_of(engine_after(rows_of_maps(1000))) < 32 << 20


def test_planes_that_would_be_too_large_are_forgotten_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replay.engine.engine.MOST_STATE", 2 << 20)
    rows = trace_of(
        """
        0us  vmm  create-vm
        1us  vmm  memory
        2us  vmm  set-iommu
        4us  vmm  map 0x1000+4K
        9us  vmm  private 0x1000+4K
        """
    )
    many = rows_of_maps(2000)
    for i, row in enumerate(many):
        row["ts_ns"] += 20_000
        row["seq"] = len(rows) + i
    engine = engine_after(rows + many)
    assert planes_of(engine) <= 2 << 20
    [first, *_] = engine.finish().records
    assert first[L.W_KIND] == 101
    assert (first[L.W_SEV], first[L.W_RULE]) == (L.UNDECIDED, L.Y_LIMIT)


def test_walks_over_every_page_end_with_all_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes, "MOST_WORK", 1 << 15)
    engine = engine_after(rows_of_maps(60, unmaps=True))
    assert engine._k.g[L.G_WORK] < 1 << 17
    assert engine._k.g[L.G_LOST] == 1


def test_a_plain_kernel_that_walks_over_many_pages_is_compiled_after_all() -> None:
    rows = rows_of_maps(120, unmaps=True)
    engine = Engine(events=Counter(row["event"] for row in rows))
    plain = engine._frames
    feed(engine, rows)
    assert engine._k.g[L.G_WORK] > PLAIN_WORK
    assert plain is load_kernel(compiled=False)
    assert engine._frames is load_kernel(compiled=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_change_over_many_runs_of_pages_has_a_record_for_each_in_place(compiled: bool) -> None:
    text = "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n5us vmm shared 0x0+64M\n"
    text += "".join(f"{9 + 3 * i}us vmm map {i * 0x2000:#x}+4K\n" for i in range(800))
    rows = trace_of(text + "9ms vmm private 0x0+64M\n10ms vmm run")
    engine = Engine(events=Counter(row["event"] for row in rows), in_place=True, compiled=compiled)
    feed(engine, rows)
    records = engine.finish().records
    assert (records[:, L.W_KIND] == 111).sum() == (records[:, L.W_KIND] == 101).sum() == 800


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_batches_of_any_size_say_the_same(batch: int) -> None:
    text = """
        0us    vmm   create-vm
        1us    vmm   memory
        2us    vmm   set-iommu
        9us    vmm   map 0x100000+2M each=4K
        20us   vmm   shared 0x100000+1M
        25us   vmm2  private 0x100000+2M
        30us   vmm   unmap 0x140000+64K
        lost cpu0 44us..50us
        60us   vmm   map 0x800000+64K
        70us   vmm3  map 0x900000+64K
        80us   vmm   private 0x800000+2M
        85us   vmm   run
        5ms    end
        """
    rows = trace_of(text)
    # of the thread that is new after the loss the entry and the arguments are not there
    new = {r["tid"] for r in rows} - {r["tid"] for r in rows[: len(rows) // 2]}
    gone = ("ioctl.entered", "vfio.type1_ioctl")
    rows = [r for r in rows if not (r["tid"] in new and r["event"] in gone)]
    assert any(r["tid"] in new for r in rows)
    one, several = engine_after(rows).finish(), engine_after(rows, batch=batch).finish()
    numbers = [L.W_PROC, L.W_THREAD]  # given out in the order in which a batch's are met
    assert (
        np.delete(one.records, numbers, 1).tolist()
        == np.delete(several.records, numbers, 1).tolist()
    )
    assert one.judged.tolist() == several.judged.tolist()
