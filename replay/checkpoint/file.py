"""The file of a checkpoint: a head with a checksum, then arrays, each compressed on its own.

::

    8   b"TKSTATE\\0"
    4   version of this format, little-endian
    4   bytes of the table
    32  SHA-256 of all that follows
    n   the table, as JSON: layout, and [name, type, shape, stored bytes] of each array
    ..  the arrays as zstd frames, those of two dimensions column by column

The array ``values`` is JSON: all that is no array.  Nothing here is executed on reading, and
nothing is unpacked beyond what the table says, which is bounded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import State
from tracekit.errors import TraceFormatError, UsageError

__all__ = ("MAGIC", "VERSION", "layout", "packed", "unpacked")

MAGIC = b"TKSTATE\0"
VERSION = 1
_HEAD = struct.Struct("<8sII32s")
_TYPES = {"int64": np.int64, "uint64": np.uint64, "uint32": np.uint32, "uint8": np.uint8,
          "int8": np.int8}  # fmt: skip
MOST_STORED = 1 << 30
MOST_UNPACKED = 4 << 30
MOST_ARRAYS = 10_000
_MOST_TABLE = 4 << 20
_MOST_VALUES = 512 << 20
_LEVEL = 3


@functools.cache
def layout() -> str:
    """What the kernels' columns are called and where they lie, as a hash."""
    from replay.conformance.kernel import layout as conformance
    from replay.engine.kernel import layout as engine
    from replay.linger.kernel import layout as linger

    digest = hashlib.sha256()
    for module in (engine, linger, conformance):
        for name, value in _numbers(module):
            digest.update(f"{module.__name__}.{name}={value}\n".encode())
    return digest.hexdigest()[:16]


def _numbers(module: ModuleType) -> Iterator[tuple[str, int]]:
    for name, value in sorted(vars(module).items()):
        if name.isupper() and isinstance(value, int):
            yield name, value


def packed(values: State) -> bytes:
    """A state as the bytes of a file."""
    arrays: dict[str, Any] = {}
    plain = _without_arrays(values, "", arrays)
    text = json.dumps(plain, separators=(",", ":")).encode()
    arrays["values"] = np.frombuffer(text, np.uint8)
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    table, frames = [], []
    for name, array in arrays.items():
        flat = array.T if array.ndim == 2 else array
        frame = codec.compress(flat.tobytes(), asbytes=True) if flat.size else b""
        table.append([name, array.dtype.name, list(array.shape), len(frame)])
        frames.append(frame)
    head = json.dumps({"layout": layout(), "arrays": table}, separators=(",", ":")).encode()
    digest = hashlib.sha256(head)
    for frame in frames:
        digest.update(frame)
    return b"".join((_HEAD.pack(MAGIC, VERSION, len(head), digest.digest()), head, *frames))


def unpacked(data: bytes, name: str) -> State:
    """The state in the bytes of a file called ``name``.

    :raises TraceFormatError: no checkpoint, a damaged one, or one of another version of the format
    :raises UsageError: made by a version of tracekit whose engine keeps its state differently
    """
    if data[: len(MAGIC)] != MAGIC:
        raise TraceFormatError(f"{name} is not a checkpoint")
    if len(data) < _HEAD.size:
        raise TraceFormatError(f"{name} is damaged: it is cut off")
    _, version, length, digest = _HEAD.unpack_from(data)
    if version != VERSION:
        raise TraceFormatError(
            f"{name} has checkpoint format {version}; this version reads {VERSION}", help=_AGAIN
        )
    body = memoryview(data)[_HEAD.size :]
    if hashlib.sha256(body).digest() != digest:
        raise TraceFormatError(f"{name} is damaged: its checksum is wrong")
    try:
        if length > min(_MOST_TABLE, len(body)):
            raise ValueError("the table is too long")
        table = json.loads(bytes(body[:length]))
        if table["layout"] != layout():
            raise UsageError(
                f"{name} was made by a version of tracekit that keeps its state differently",
                help=_AGAIN,
            )
        return _from_table(table["arrays"], body[length:])
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError, OSError) as why:
        said = str(why).splitlines()[0][:200] if str(why) else type(why).__name__
        raise TraceFormatError(f"{name} is damaged: {said}") from None


_AGAIN = "replay the trace that it is of again with --checkpoint"


def _without_arrays(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """The value with its arrays taken out of it, into ``arrays`` by their place."""
    if isinstance(value, np.ndarray):
        assert value.dtype.name in _TYPES
        arrays[path] = value
        return None
    if isinstance(value, Mapping):
        return {
            key: _without_arrays(item, f"{path}/{key}" if path else key, arrays)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_arrays(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
    return value


def _from_table(table: Any, body: memoryview) -> State:
    if not isinstance(table, list) or len(table) > MOST_ARRAYS:
        raise ValueError("the table is no list of arrays")
    codec = pa.Codec("zstd")
    arrays: dict[str, Any] = {}
    at = unpacked_bytes = 0
    for name, kind, shape, stored in table:
        if not isinstance(name, str) or kind not in _TYPES or name in arrays:
            raise ValueError("the table names an array that cannot be")
        dtype = np.dtype(_TYPES[kind])
        if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
            raise ValueError(f"{name} has no shape")
        if any(type(n) is not int or not 0 <= n < 1 << 40 for n in (*shape, stored)):
            raise ValueError(f"{name} has no shape")
        size = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
        unpacked_bytes += size
        if unpacked_bytes > MOST_UNPACKED or (name == "values" and size > _MOST_VALUES):
            raise ValueError("it would take too much memory")
        frame = body[at : at + stored]
        at += stored
        if len(frame) != stored or bool(size) != bool(stored):
            raise ValueError(f"{name} is cut off")
        data = codec.decompress(frame, size, asbytes=True) if size else b""
        flat = np.frombuffer(data, dtype)
        arrays[name] = flat.reshape(shape[::-1]).T if len(shape) == 2 else flat
    if at != len(body):
        raise ValueError("something follows its last array")
    values = json.loads(arrays.pop("values").tobytes())
    if not isinstance(values, dict):
        raise ValueError("its values are no object")
    for name, array in arrays.items():
        _put(values, name.split("/"), array)
    return values


def _put(values: Any, path: list[str], array: Any) -> None:
    for key in path[:-1]:
        values = values[int(key) if isinstance(values, list) else key]
    last = path[-1]
    if isinstance(values, list):
        values[int(last)] = array
    elif isinstance(values, dict) and values.get(last, array) is None:
        values[last] = array
    else:
        raise ValueError(f"{'/'.join(path)} has no place")
