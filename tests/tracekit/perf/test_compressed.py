"""zstd streams that perf never ended, followed block by block."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.perf.compressed import LAST_BLOCK, WholeBlocks, decompressed

TEXT = b"".join(b"%d records of perf\n" % (i * i) for i in range(40_000))


def compress(data: bytes) -> bytes:
    """A frame that does not say how much it holds, as perf writes it."""
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return bytes(out.getvalue())


FRAME = compress(TEXT)


def plain(data: bytes) -> bytes:
    with pa.CompressedInputStream(io.BytesIO(data), "zstd") as stream:
        return bytes(stream.read())


@given(st.lists(st.integers(0, len(FRAME)), max_size=6))
@settings(max_examples=30, deadline=None)
def test_pieces_may_be_cut_anywhere(cuts: list[int]) -> None:
    blocks = WholeBlocks("t")
    places = [0, *sorted(cuts), len(FRAME)]
    out = b"".join(blocks.take(FRAME[a:b]) for a, b in pairwise(places))
    assert plain(out + blocks.end()) == TEXT
    assert not blocks.cut


@given(st.integers(6, len(FRAME) - 1))
@settings(max_examples=30, deadline=None)
def test_a_stream_that_stops_gives_what_its_whole_blocks_hold(size: int) -> None:
    blocks = WholeBlocks("t")
    out = blocks.take(FRAME[:size])
    if out:
        assert TEXT.startswith(plain(out + blocks.end()))


def test_an_unended_frame_is_ended() -> None:
    """The last block of a frame says so; perf's never does."""
    raw = b"\x28\xb5\x2f\xfd\x00\x48" + (5 << 3).to_bytes(3, "little") + b"hello"
    blocks = WholeBlocks("t")
    assert blocks.take(raw) == raw
    assert blocks.end() == LAST_BLOCK
    assert plain(raw + LAST_BLOCK) == b"hello"


def test_several_frames_and_a_checksum_are_followed() -> None:
    ended = (5 << 3 | 1).to_bytes(3, "little") + b"hello"
    with_checksum = b"\x28\xb5\x2f\xfd\x04\x48" + ended + b"abcd"
    blocks = WholeBlocks("t")
    out = b"".join(blocks.take(bytes([b])) for b in with_checksum + FRAME)
    assert plain(out + blocks.end()) == b"hello" + TEXT


def read(folder: Path, *pieces: bytes) -> list[bytes | ImportFormatError]:
    (folder / "z").write_bytes(b"".join(pieces))
    with RegularFile(folder / "z") as file:
        at, places = 0, []
        for piece in pieces:
            places.append((at, len(piece)))
            at += len(piece)
        return list(decompressed(file, places, "z"))


def test_records_hold_a_stream_in_pieces(tmp_path: Path) -> None:
    found = read(tmp_path, FRAME[:7], FRAME[7:1000], FRAME[1000:])
    assert b"".join(f for f in found if isinstance(f, bytes)) == TEXT
    assert not any(isinstance(f, ImportFormatError) for f in found)


def test_a_stream_that_stops_inside_a_block_says_so_behind_what_it_holds(tmp_path: Path) -> None:
    *held, last = read(tmp_path, FRAME[: len(FRAME) - 10])
    assert isinstance(last, ImportFormatError)
    assert "end inside a block" in last.message
    assert TEXT.startswith(b"".join(h for h in held if isinstance(h, bytes)))


@pytest.mark.parametrize("bad", [b"no zstd stream", b"\x28\xb5\x2f\xfd\x00\x48\xff\xff\xff" * 9])
def test_what_is_no_zstd_is_an_error(tmp_path: Path, bad: bytes) -> None:
    *_, last = read(tmp_path, bad)
    assert isinstance(last, ImportFormatError)


def test_more_than_can_be_is_not_decompressed(tmp_path: Path) -> None:
    bomb = compress(bytes(600 << 20))
    *held, last = read(tmp_path, bomb)
    assert isinstance(last, ImportFormatError)
    assert "cannot hold" in last.message
    assert sum(len(h) for h in held if isinstance(h, bytes)) < 100 << 20
