"""What a follower knows, as a state that can be kept, and back.

The follower, its matchers and the models of devices that it asks are many small objects that know
each other.  They are written down as such: instances of classes of ``replay.conformance`` and
``replay.models``, with numbers, text, arrays and collections in them, and nothing else.  An
instance may be known to several; a collection has one owner.

What comes back may be forged.  No class but these is made, and no code of theirs runs meanwhile;
arrays have the types and widths of a new follower's.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from replay.checks.violations import Violations
from replay.conformance.conformance import Follower
from replay.conformance.kernel import layout as K
from replay.conformance.kernel import state as S
from replay.conformance.told import KIND, add_conformance
from replay.engine.kept import Kept, State, told_apart
from tracekit.compiled.kernels import CompiledModule
from tracekit.errors import TraceFormatError

__all__ = ("FollowerPart",)

_ODD = (
    ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError,
    ValueError,
)  # fmt: skip
_HOMES = ("replay.conformance.", "replay.models.")
_SCRATCH = {
    "Follower": frozenset(("_asked", "_chosen")),
    "Matcher": frozenset(("_out", "_rows", "_snap", "_kernel")),
    "Listeners": frozenset(("_events",)),
}
"""By class, attributes whose values mean nothing between batches, or are the new follower's own."""
_CODE = (ModuleType, CompiledModule, FunctionType, MethodType, BuiltinFunctionType)
_PLAIN = (type(None), bool, int, float, str)
_TELLING = (
    ("ioctl.entered",), ("fallocate.entered",), ("fallocate.entered", "madvise.entered"),
    ("qemu.convert_memory",), ("qemu.virtio_mem",), ("qemu.region",),
)  # fmt: skip
"""Of each, whether any is there: what is concluded from that nothing was said of it."""
_SMALL = 1024
_MOST_DEPTH = 60
_DICTIONARIES: dict[str, Any] = {"dict": dict, "Counter": Counter, "OrderedDict": OrderedDict}
_COLLECTIONS: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}


class FollowerPart:
    """A follower that can be interrupted; ``events``: those that it was told of."""

    def __init__(self, follower: Follower, events: Mapping[str, int]) -> None:
        self._follower, self._events = follower, events
        self._is_restored = False

    def feed(self, batch: pa.RecordBatch) -> None:
        """Follow the next batch."""
        with self._trusting():
            self._follower.feed(batch)

    def finish(self, violations: Violations) -> None:
        """The trace ends: what was found goes beside the engine's."""
        with self._trusting():
            add_conformance(violations, self._follower.finish())
            for v in violations.of_kind(KIND) if self._is_restored else ():
                numbers = (v.address, v.size, v.from_ns, v.until_ns, *v.seqs, v.thread)
                if not all(n is None or type(n) is int for n in numbers):
                    raise TypeError(f"{numbers} are no numbers")

    def _told(self) -> list[str]:
        """What the follower was told of."""
        there = (names for names in _TELLING if any(map(self._events.get, names)))
        return [" or ".join(names) for names in there]

    @contextmanager
    def _trusting(self) -> Iterator[None]:
        """Objects that were written down may still be none that can follow anything."""
        try:
            yield
        except _ODD as why:
            if not self._is_restored:
                raise
            said = f"{type(why).__name__}: {why}"[:200]
            raise TraceFormatError(f"the checkpoint cannot be gone on from: {said}") from why

    def kept_state(self) -> State:
        """All that it knows so far, as copies; before its ``finish``."""
        writer = _Writer()
        root = writer.write(self._follower)
        return {
            "worth": Follower.is_worth(self._events),
            "told": self._told(),
            "root": root,
            "arrays": {str(i): array for i, array in enumerate(writer.arrays)},
        }

    def restore(self, kept: Kept) -> None:
        """Go on from what another follower knew, before the first batch.

        :raises TraceFormatError: no state of a follower
        :raises UsageError: of one that was told of other event types
        """
        was = set(kept.texts("told"))
        apart = was ^ set(self._told())
        if apart and kept.boolean("worth"):
            raise told_apart(sorted(apart))
        self._is_restored = True
        own = _told_before(self._follower) if apart else []
        reader = _Reader(kept)
        reader.read(kept.values.get("root"), self._follower, 0)
        for thing, name, value in own:
            setattr(thing, name, value)
        with self._trusting():
            _check_indices(kept, self._follower)


def _told_before(follower: Any) -> list[tuple[Any, str, Any]]:
    """Where a follower keeps what it was told of the recording."""
    things = [(follower._stream, "_entered"), (follower._listeners, "_requests")]
    things += [(matcher, "_discards") for matcher in follower._matchers]
    return [(thing, name, getattr(thing, name)) for thing, name in things]


class _Writer:
    """Objects to plain values; arrays beside them."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []

    def write(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return {"is": "enum", "class": _name(type(value)), "of": value.value}
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, (np.integer, np.bool_)):
            return value.item()
        if isinstance(value, _CODE):
            return {"is": "own"}
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, (bytes, bytearray)):
            return {"is": "bytes", "of": self._array(np.frombuffer(bytes(value), np.uint8))}
        if type(value) is list:
            return [self.write(item) for item in value]
        if type(value) in _DICTIONARIES.values():
            items = [[self.write(k), self.write(v)] for k, v in value.items()]
            return {"is": type(value).__name__, "of": items}
        if isinstance(value, deque):
            return {"is": "deque", "most": value.maxlen, "of": [self.write(v) for v in value]}
        if type(value) in _COLLECTIONS.values():
            return {"is": type(value).__name__, "of": [self.write(item) for item in value]}
        return self._object(value)

    def _array(self, array: Any) -> Any:
        if array.size > _SMALL:
            self.arrays.append(array.copy())
            return {"is": "array", "at": len(self.arrays) - 1}
        shape, numbers = list(array.shape), array.ravel().tolist()
        return {"is": "numbers", "type": array.dtype.name, "shape": shape, "of": numbers}

    def _object(self, value: Any) -> Any:
        known = self._numbers.get(id(value))
        if known is not None:
            return {"is": "known", "number": known}
        number = self._numbers[id(value)] = len(self._numbers)
        self._alive.append(value)
        out = {"is": "object", "number": number, "class": _name(type(value))}
        if isinstance(value, tuple):
            return {**out, "of": [self.write(item) for item in value]}
        if isinstance(value, BaseException):
            out["args"] = self.write(value.args)
        has = {name: self.write(item) for name, item in _attributes(value).items()}
        return {**out, "has": has}


class _Reader:
    """Plain values to objects; those that a new follower has already are filled in place."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._arrays = kept.part("arrays")
        self._objects: dict[int, Any] = {}

    def read(self, value: Any, like: Any, depth: int) -> Any:
        """``like``: what the new follower has in this place."""
        self._kept.check(depth < _MOST_DEPTH, "root")
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, list):
            mine = like if isinstance(like, list) and len(like) == len(value) else None
            return [
                self.read(item, mine[i] if mine else None, depth + 1)
                for i, item in enumerate(value)
            ]
        self._kept.check(isinstance(value, dict), "root")
        kind, of = value.get("is"), value.get("of", [])
        if kind == "own":
            self._kept.check(isinstance(like, _CODE), "root")
            return like
        if kind in ("array", "numbers"):
            return self._array(value, like)
        if kind == "bytes":
            return bytearray(self._array(of, None).astype(np.uint8).tobytes())
        if kind == "known":
            number = value.get("number")
            self._kept.check(isinstance(number, int) and number in self._objects, "root")
            return self._objects[number]
        if kind == "object":
            return self._object(value, like, depth)
        if kind == "enum":
            return self._enum(value)
        self._kept.check(isinstance(kind, str) and isinstance(of, list), "root")
        try:
            return self._collection(kind, value, of, depth)
        except TypeError:  # a key that has no hash
            raise self._kept.wrong("root") from None

    def _collection(self, kind: Any, value: Any, of: list[Any], depth: int) -> Any:
        if kind in _DICTIONARIES:
            self._kept.check(all(isinstance(i, list) and len(i) == 2 for i in of), "root")
            return _DICTIONARIES[kind](
                {
                    self.read(key, None, depth + 1): self.read(item, None, depth + 1)
                    for key, item in of
                }
            )
        items: Iterator[Any] = (self.read(item, None, depth + 1) for item in of)
        if kind == "deque":
            most = value.get("most")
            self._kept.check(most is None or (isinstance(most, int) and most >= 0), "root")
            return deque(items, most)
        self._kept.check(kind in _COLLECTIONS, "root")
        return _COLLECTIONS[kind](items)

    def _array(self, value: Any, like: Any) -> Any:
        self._kept.check(isinstance(value, dict), "root")
        if value.get("is") == "array":
            array = self._arrays.values.get(str(value.get("at")))
            self._kept.check(isinstance(array, np.ndarray), "arrays")
            array = np.ascontiguousarray(array)
            array = array if array.flags.writeable else array.copy()
        else:
            shape, numbers = value.get("shape"), value.get("of")
            good = isinstance(shape, list) and isinstance(numbers, list)
            good = good and all(type(n) is int for n in (*shape, *numbers)) and len(shape) <= 2
            self._kept.check(good and str(value.get("type")) in _TYPES, "root")
            try:
                array = np.array(numbers, _TYPES[str(value["type"])]).reshape(shape)
            except (ValueError, OverflowError):
                raise self._kept.wrong("root") from None
        if isinstance(like, np.ndarray):
            same = array.dtype == like.dtype and array.shape[1:] == like.shape[1:]
            fixed = like.ndim == 1 and like.size > 0  # single values, each in its place
            same = same and array.ndim == like.ndim and (not fixed or array.size == like.size)
            self._kept.check(same, "arrays")
        return array

    def _object(self, value: Any, like: Any, depth: int) -> Any:
        made = self._class(value)
        number, has = value.get("number"), value.get("has", {})
        good = isinstance(number, int) and isinstance(has, dict) and number not in self._objects
        self._kept.check(good and not issubclass(made, Enum), "root")
        if issubclass(made, tuple):
            items = value.get("of")
            self._kept.check(isinstance(items, list), "root")
            out = tuple.__new__(made, [self.read(item, None, depth + 1) for item in items])
            self._objects[number] = out
            return out
        mine = type(like) is made
        out = self._objects[number] = like if mine else made.__new__(made)
        if isinstance(out, BaseException):
            args = self.read(value.get("args"), None, depth + 1)
            out.args = args if isinstance(args, tuple) else ()
        own = _attributes(out)
        self._kept.check({*has} >= {*own}, "root")
        for name, item in has.items():
            read = self.read(item, own.get(name), depth + 1)
            self._kept.check(_may_follow(own.get(name), read), "root")
            try:
                object.__setattr__(out, name, read)
            except (AttributeError, TypeError):
                raise self._kept.wrong("root") from None
        return out

    def _enum(self, value: Any) -> Any:
        made = self._class(value)
        self._kept.check(issubclass(made, Enum), "root")
        try:
            return made(value.get("of"))
        except (ValueError, TypeError):
            raise self._kept.wrong("root") from None

    def _class(self, value: Any) -> Any:
        """A class of ours, by its name."""
        name = value.get("class")
        self._kept.check(isinstance(name, str) and name.startswith(_HOMES), "root")
        module, _, inside = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), inside, None)
        except (ImportError, ValueError):
            raise self._kept.wrong("root") from None
        self._kept.check(isinstance(found, type) and found.__module__ == module, "root")
        return found


_TYPES = {"int64": np.int64, "int8": np.int8, "uint8": np.uint8}


def _may_follow(own: Any, read: Any) -> bool:
    """Whether a value can be what a new follower's has become; null may come and go."""
    if isinstance(own, np.ndarray):
        return isinstance(read, np.ndarray)
    return own is None or read is None or type(own) is type(read)


def _attributes(thing: Any) -> dict[str, Any]:
    """What an instance has, in its dictionary or in slots."""
    slots = (name for made in type(thing).__mro__ for name in getattr(made, "__slots__", ()))
    found = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    found.update(getattr(thing, "__dict__", {}))
    scratch = _SCRATCH.get(type(thing).__name__, ())
    return {name: value for name, value in found.items() if name not in scratch}


def _name(made: type) -> str:
    name = f"{made.__module__}:{made.__qualname__}"
    assert name.startswith(_HOMES), name
    return name


def _check_indices(kept: Kept, follower: Any) -> None:
    """The numbers by which compiled code finds its way."""
    frames = follower._stream._frames
    kept.indices("root", frames[:, K.F_PROC], max(len(frames), 1))
    numbers = follower._stream._numbers.values()
    known = min(len(frames), len(follower._stream.tids))
    kept.check(all(type(n) is int and 0 <= n < known for n in numbers), "root")
    for matcher in follower._matchers:
        threads, pending = matcher._threads, matcher._pending
        for column in (S.T_HEAD, S.T_TAIL, S.T_ATTR):
            kept.indices("root", threads[:, column], max(len(pending), 1), first=-1)
        kept.indices("root", matcher._follower, max(len(pending), 1), first=-1)
        kept.check(len(matcher._follower) == len(matcher._used) == len(pending), "root")
        for column in (K.C_THREAD, K.C_PROC):
            kept.indices("root", pending[:, column], max(len(threads), 1))
        processes = matcher._processes
        kept.check(len(threads) == len(processes), "root")
        for column, most in (
            (S.P_NC, S.MOST_CONTAINERS),
            (S.P_NSLOTS, S.MOST_SLOTS),
        ):
            kept.indices("root", processes[:, column], most + 1)
        kept.indices("root", matcher._counts[1:2], len(matcher._data) + 1)
        table = matcher._table
        kept.check(len(table) & (len(table) - 1) == 0 and (table[:, K.H_KEY] == -1).any(), "root")
        used = table[table[:, K.H_KEY] != -1]
        kept.check(len(used) == matcher._counts[0], "root")
        kept.indices("root", used[:, K.H_ROW], len(matcher._data), first=-1)
