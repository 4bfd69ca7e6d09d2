"""Finds the traces of a night: ``.../host=H/date=YYYY-MM-DD/...``, here or in an object store.

Below ``date=``, a file that ends in ``.parquet`` is a trace, and so is a folder with such files,
its segments.  What follows ``date=`` names the stream, which is one VM's on every night: ``vm=web``
and ``web.parquet`` are both ``web``, a time of day in the name is left out, ``qemu=VERSION`` says
which QEMU runs there.  Several traces of one stream and night are one after the other, by name.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from tracekit.audit.together import each
from tracekit.errors import TracekitError
from tracekit.store import Place, Remote, locate
from tracekit.store.location import is_there, listed

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

__all__ = ("Found", "hosts_in", "nights_in", "split_pattern", "traces_of")

_TIME = re.compile(
    r"[-_.]?(?<!\d)\d{4}-?[01]\d-?[0-3]\d([T_-]?\d{2}[:-]?\d{2}([:-]?\d{2})?)?Z?(?!\d)"
)


@dataclass(frozen=True, kw_only=True, order=True)
class Found:
    """A trace that is there.  ``stamp``: changes when any of its files does; ``size``: bytes."""

    host: str
    stream: str
    night: str
    trace: str
    size: int
    stamp: str
    qemu: str | None = None


def split_pattern(root: str) -> tuple[str, tuple[str, ...]]:
    """A root as the folder that is certain, and the names below it, from the first pattern on."""
    remote = re.match(r"[a-z0-9]+://?(?=[^/])", root) is not None
    path, mark, query = root.partition("?") if remote else (root, "", "")
    parts = path.split("/")
    signs = "*" if remote else "*?["
    first = next((i for i, p in enumerate(parts) if any(s in p for s in signs)), len(parts))
    return "/".join(parts[:first]) + mark + query or "/", tuple(p for p in parts[first:] if p)


def hosts_in(roots: Sequence[str]) -> list[tuple[str, Place]]:
    """Each host's name and folder, by name.

    :raises TracekitError: a root is not there or cannot be listed
    """
    found = []
    for root in roots:
        base, names = split_pattern(root)
        for folder in _expanded(locate(base), names):
            found += [
                (one.base_name.removeprefix("host="), folder / one.base_name)
                for one in _listed(folder)
                if not _is_file(one) and one.base_name.startswith("host=")
            ]
    return sorted(found, key=lambda h: (h[0], str(h[1])))


def nights_in(hosts: Sequence[tuple[str, Place]]) -> list[str]:
    """Every night that any host has a folder of, oldest first."""

    def of(host: tuple[str, Place]) -> set[str]:
        names = (i.base_name.removeprefix("date=") for i in _listed(host[1]) if _is_dated(i))
        return {n for n in names if _is_day(n)}

    return sorted(set().union(*each(_is_remote(hosts), of, hosts)))


def traces_of(hosts: Sequence[tuple[str, Place]], night: str) -> list[Found]:
    """The traces of a night, by host, stream and name."""

    def of(host: tuple[str, Place]) -> list[Found]:
        return list(_traces(host[0], host[1] / f"date={night}", night))

    every = {f.trace: f for found in each(_is_remote(hosts), of, hosts) for f in found}
    return sorted(every.values())


def _traces(host: str, folder: Place, night: str) -> Iterator[Found]:
    _, path = _reached(folder)
    files: dict[tuple[str, ...], list[FileInfo]] = {}
    for info in _listed(folder, recursive=True, missing_ok=True):
        parts = tuple(info.path.removeprefix(path).strip("/").split("/"))
        if not _is_file(info) or not parts[-1].endswith(".parquet"):
            continue
        if any(p.startswith((".", "_")) for p in parts):
            continue
        in_folder = any(not p.startswith("qemu=") for p in parts[:-1])
        files.setdefault(parts[:-1] if in_folder else parts, []).append(info)
    for parts, infos in sorted(files.items()):
        infos.sort(key=lambda i: i.path)
        said = "\n".join(f"{i.base_name} {i.size} {i.mtime_ns}" for i in infos)
        qemu = [p.removeprefix("qemu=") for p in parts if p.startswith("qemu=")]
        yield Found(
            host=host,
            stream=_stream(parts),
            night=night,
            trace=str(folder / "/".join(parts)),
            size=sum(i.size or 0 for i in infos),
            stamp=hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32],
            qemu=qemu[-1] if qemu else None,
        )


def _stream(parts: Sequence[str]) -> str:
    """What is the same on every night."""
    names = [p.removeprefix("vm=") for p in parts if not p.startswith("qemu=")]
    names[-1:] = [names[-1].removesuffix(".parquet")] if names else []
    kept = [_TIME.sub("", n) for n in names]
    return "/".join(n for n in kept if n) or "all"


def _expanded(base: Place, names: Sequence[str]) -> Iterable[Place]:
    if not names:
        return [base]
    first, *rest = names
    if not any(s in first for s in "*?["):
        return _expanded(base / first, rest) if is_there(base / first) else []
    inside = [
        base / info.base_name
        for info in _listed(base)
        if not _is_file(info) and fnmatch.fnmatchcase(info.base_name, first)
    ]
    return [place for one in inside for place in _expanded(one, rest)]


def _listed(
    folder: Place, *, recursive: bool = False, missing_ok: bool = False
) -> Sequence[FileInfo]:
    filesystem, path = _reached(folder)
    try:
        found = listed(filesystem, path, recursive=recursive, missing_ok=missing_ok)
    except (OSError, UnicodeError) as why:
        said = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise TracekitError(f"cannot list {folder}: {said[:200]}") from None
    return sorted(found, key=lambda i: i.path)


def _reached(place: Place) -> tuple[FileSystem, str]:
    if isinstance(place, Remote):
        return place.filesystem, place.path
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem(), str(place)


def _is_remote(hosts: Sequence[tuple[str, Place]]) -> bool:
    return any(isinstance(folder, Remote) for _, folder in hosts)


def _is_file(info: FileInfo) -> bool:
    from pyarrow.fs import FileType

    return bool(info.type is FileType.File)


def _is_dated(info: FileInfo) -> bool:
    return not _is_file(info) and info.base_name.startswith("date=")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
