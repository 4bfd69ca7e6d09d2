"""The file of a checkpoint: what is damaged, of another version or made otherwise is refused."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judging import events_of

from replay import run
from replay.checkpoint import Checkpoint
from replay.checkpoint.file import MAGIC, VERSION, packed, unpacked
from tracekit.errors import TraceFormatError, TracekitError, UsageError
from tracekit.store import Manifest, Trace, open_trace, write_events

FIRST = """
    0us    vmm   create-vm
    1us    vmm   memory
    2us    vmm   set-iommu
    3us    vmm   create-gmem 0x0+16M
    4us    vmm   slot 0 0x0+16M gmem
    5us    vmm   map 0x100000+2M each=4K
    10us   vmm   private 0x100000+1M
    12us   vmm2  unmap 0x300000+1M ret=-22
    14us   vmm   shared 0x180000+64K
    20us   sock  socket
    22us   sock  connect
    25us   sock  linger 1 5
    28us   sock  send 4096
    30us   sock  sent 4096
    40us   vmm   unmap 0x180000+64K for=200us
"""
SECOND = """
    900us  vmm   run
    910us  sock  vclose for=2s
    920us  vmm   unmap 0x100000+1M
    3s     end
"""


def written(text: str, folder: Path, name: str, **manifest: Any) -> Trace:
    path = folder / name
    write_events(path, events_of(text), Manifest(**manifest))
    return open_trace(path)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trace, Trace]:
    """Two traces, the later one going on in the middle of things."""
    folder = tmp_path_factory.mktemp("nights")
    first = written(FIRST, folder, "first.parquet", kernel="6.18", host="h")
    path = folder / "second.parquet"
    later = [e for e in events_of(FIRST + SECOND) if e.ts_ns >= 900_000]
    write_events(path, later, Manifest(kernel="6.18", host="h"))
    return first, open_trace(path)


EVENTS = ("vsock.released", "vsock.linger", "vsock.lingered", "vsock.done", "vsock.release",
          "vsock.transport_release", "iommu.unmap", "vsock.packet_received")  # fmt: skip


@pytest.fixture(scope="module")
def data(nights: tuple[Trace, Trace]) -> bytes:
    """The file after the first night."""
    states: list[bytes] = []
    run(
        nights[0],
        checkpoint=lambda state: states.append(state.to_bytes()),
        recorded=EVENTS,
        compiled=False,
    )
    return states[0]


def go_on(data: bytes, trace: Trace, *, compiled: bool = False, **options: Any) -> None:
    run(trace, since=Checkpoint.from_bytes(data), compiled=compiled, **options)


def sealed(head: bytes, body: bytes) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    digest = hashlib.sha256(head + body).digest()
    return struct.pack("<8sII32s", MAGIC, VERSION, len(head), digest) + head + body


def test_it_comes_back_as_it_was(nights: tuple[Trace, Trace], data: bytes, tmp_path: Path) -> None:
    go_on(data, nights[1])
    state = Checkpoint.from_bytes(data)
    state.save(tmp_path / "a.checkpoint")
    assert (tmp_path / "a.checkpoint").read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.checkpoint"]
    assert Checkpoint.load(tmp_path / "a.checkpoint").to_bytes() == data
    assert state.manifest == nights[0].manifest


def test_a_truncated_file_is_refused_wherever_it_ends(data: bytes) -> None:
    for length in {*range(0, len(data), 100), *range(64), len(data) - 1}:
        with pytest.raises(TraceFormatError, match=r"not a checkpoint|damaged"):
            Checkpoint.from_bytes(data[:length], "x")


def test_a_flipped_bit_is_found_wherever_it_is(data: bytes) -> None:
    places = random.Random(1).sample(range(len(data)), 400)
    for place in {*range(64), *places}:
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        with pytest.raises(TraceFormatError, match=r"not a checkpoint|damaged|format"):
            Checkpoint.from_bytes(bytes(flipped), "x")


def test_what_follows_it_is_found(data: bytes) -> None:
    with pytest.raises(TraceFormatError, match="damaged"):
        Checkpoint.from_bytes(data + b"\0", "x")


def test_another_version_of_the_format_is_named(data: bytes) -> None:
    later = data[:8] + struct.pack("<I", VERSION + 1) + data[12:]
    with pytest.raises(TraceFormatError, match=f"x has checkpoint format {VERSION + 1}") as why:
        Checkpoint.from_bytes(later, "x")
    assert "--checkpoint" in (why.value.help or "")


def test_another_layout_of_the_state_is_named(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.checkpoint.file.layout", lambda: "0" * 16)
    with pytest.raises(UsageError, match="a version of tracekit that keeps its state differently"):
        Checkpoint.from_bytes(data, "x")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([["values", "int64", [1 << 39], 8]], "too much memory"),
        ([["values", "int64", [1 << 30, 1 << 30], 8]], "too much memory"),
        ([["values", "object", [1], 8]], "cannot be"),
        ([["values", "uint8", [-1], 8]], "no shape"),
        ([["values", "uint8", [True], 8]], "no shape"),
        ([["values", "uint8", [], 8]], "no shape"),
        ([["values", "uint8", [100], 50]], "cut off"),
        ([["values", "uint8", [100], 8]], "ZSTD"),
        ([["values", "uint8", [100], 0]], "cut off"),
        ([["values"]], "unpack"),
        ({}, "no list"),
        ([], "follows"),
    ],
)
def test_a_forged_table_is_refused_before_memory_is_taken(table: object, said: str) -> None:
    from replay.checkpoint.file import layout

    head = json.dumps({"layout": layout(), "arrays": table}).encode()
    with pytest.raises(TraceFormatError, match=said):
        Checkpoint.from_bytes(sealed(head, b"12345678"), "x")


def _places(state: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something is in a state that could be something else."""
    if isinstance(state, dict):
        inside = [_places(value, (*path, key)) for key, value in state.items()]
    elif isinstance(state, list):
        inside = [_places(value, (*path, i)) for i, value in enumerate(state[:20])]
    else:
        return [path]
    return [path, *(place for places in inside for place in places)]


def _forged(state: Any, path: tuple[Any, ...], chance: random.Random) -> None:
    """Something else in one place of a state."""
    for key in path[:-1]:
        state = state[key]
    value = state[path[-1]]
    odd = [None, -1, 1 << 62, -(1 << 63), "x", [], {}, [[]], True, 1 << 70, 3]
    if isinstance(value, np.ndarray) and chance.random() < 0.8 and value.size:
        value = value.copy()
        limits = np.iinfo(value.dtype)
        new = chance.choice([limits.min, limits.max, 5000, 1 << 20, -2, 7, 65])
        value.flat[chance.randrange(value.size)] = min(max(new, limits.min), limits.max)
        state[path[-1]] = value
    elif isinstance(value, np.ndarray):
        state[path[-1]] = chance.choice([value[:-1], value.ravel(), np.zeros(3), None, "x"])
        if isinstance(state[path[-1]], np.ndarray) and state[path[-1]].dtype == np.float64:
            state[path[-1]] = np.zeros(3, np.int64)
    elif chance.random() < 0.2 and isinstance(state, dict):
        del state[path[-1]]
    else:
        state[path[-1]] = chance.choice(odd)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_forged_state_is_refused_or_replayed_and_never_a_crash(
    nights: tuple[Trace, Trace], data: bytes, compiled: bool
) -> None:
    chance = random.Random(5)
    refused: list[str] = []
    replayed = 0
    for _ in range(1500 if compiled else 100):
        state = unpacked(data, "x")
        places = _places(state)
        parts = {p[:3] for p in places if p}
        part = chance.choice(sorted(parts, key=str))
        path = chance.choice([p for p in places if p[:3] == part])
        _forged(state, path, chance)
        try:
            go_on(packed(state), nights[1], compiled=compiled)
            replayed += 1
        except TracekitError as why:
            refused.append(str(why))
    assert len(refused) > 40
    assert replayed > 15
    assert not [text for text in refused if "\n" in text]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grace_ns": 2_000_000}, "--grace"),
        ({"in_place": True}, "--in-place"),
        ({"linger_model": "v1"}, "--linger-model"),
        ({"slack_ns": 5}, "--slack"),
        ({"generation": "v4"}, "--generation"),
        ({"generation": "v4", "in_place": True}, "--in-place and --generation"),
    ],
)
def test_other_options_are_refused(
    nights: tuple[Trace, Trace], data: bytes, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=f"was made with another {said}"):
        go_on(data, nights[1], **options)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"kernel": "6.19", "host": "h"}, "of another kernel than the checkpoint: 6.19"),
        ({"kernel": "6.18", "host": "g"}, "of another host"),
        ({"kernel": "6.18", "host": "h", "clock": "boot"}, "of another clock"),
    ],
)
def test_a_trace_of_another_host_kernel_or_clock_is_refused(
    data: bytes, tmp_path: Path, manifest: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        go_on(data, written("950us vmm run\n960us end", tmp_path, "t.parquet", **manifest))


def test_a_trace_that_began_before_is_refused(nights: tuple[Trace, Trace], data: bytes) -> None:
    with pytest.raises(UsageError, match="begins before the checkpoint's trace ended"):
        go_on(data, nights[0])


def test_a_file_that_cannot_be_written_leaves_what_was_there(data: bytes, tmp_path: Path) -> None:
    state = Checkpoint.from_bytes(data)
    with pytest.raises(UsageError, match="cannot write"):
        state.save(tmp_path / "nowhere" / "a.checkpoint")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        state.save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match=r"cannot read .*No such file"):
        Checkpoint.load(tmp_path / "a.checkpoint")
