"""Files that are not on this machine: the one place where a URI becomes a filesystem.

S3, Google's and Azure's object stores, through pyarrow.  Credentials come from where each of their
own libraries looks for them (environment, instance role), never from a URI, which reports repeat.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tracekit.errors import UsageError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

__all__ = (
    "SCHEMES",
    "Meter",
    "Place",
    "Remote",
    "is_there",
    "listed",
    "locate",
    "parsed_uri",
    "put",
    "remove",
)

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss")
_GOOGLE = ("gs", "gcs")
# `Path` makes one slash of two, and a command's argument is a path.
_URI = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}(?=[^/])")


@dataclass
class Meter:
    """``bytes``: how many were read, in ``requests`` reads."""

    bytes: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Remote:
    """A file or folder of an object store, with as much of ``pathlib.Path`` as the store uses.

    ``path``: within the filesystem.  ``uri``: how people name it.
    """

    filesystem: FileSystem
    path: str
    uri: str
    meter: Meter = field(default_factory=Meter, compare=False)

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.name)[1]

    def __lt__(self, other: Remote) -> bool:
        return self.path < other.path

    def __truediv__(self, name: str) -> Remote:
        base, mark, query = self.uri.partition("?")
        uri = f"{base.rstrip('/')}/{name}{mark}{query}"
        return Remote(self.filesystem, f"{self.path.rstrip('/')}/{name}", uri, self.meter)

    def stat(self) -> os.stat_result:
        """Kind and size alone.

        :raises OSError: there is nothing, or the store does not answer
        """
        from pyarrow.fs import FileType

        with _told():
            info = self.filesystem.get_file_info(self.path)
        if info.type is FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        kind = stat.S_IFREG if info.type is FileType.File else stat.S_IFDIR
        return os.stat_result((kind, 0, 0, 0, 0, 0, info.size or 0, 0, 0, 0))

    def iterdir(self) -> Iterator[Remote]:
        """What is directly in the folder."""
        with _told():
            found = listed(self.filesystem, self.path)
        return (self / info.base_name for info in found)

    def open(self, mode: str = "rb") -> io.BufferedIOBase:
        """For reading, in ranges: nothing is fetched but what is read."""
        assert mode == "rb"
        with _told():
            return _Counted(self.filesystem.open_input_file(self.path), self.meter)


Place = Path | Remote
"""A file or folder, here or elsewhere."""


def locate(name: str | Path) -> Place:
    """A path, or a URI (``s3://bucket/folder``) as what it stands for.

    Options of the store follow a ``?``, as pyarrow has them: ``region``, ``endpoint_override``,
    ``scheme``.  Without a region, Amazon is asked for the bucket's.  ``gs://anonymous@bucket``:
    what is public there.

    :raises UsageError: a URI that cannot be meant, or with credentials in it, or of a store that
        does not answer
    """
    text = str(name)
    parts = parsed_uri(text)
    if parts is None:
        return Path(text.removeprefix("file://") if text.startswith("file:///") else text)
    import pyarrow as pa

    try:
        filesystem = _filesystem(parts.scheme, parts.netloc, parts.query)
    except (pa.ArrowException, OSError, ValueError) as why:
        raise UsageError(f"{text} cannot be used: {str(why).splitlines()[0][:200]}") from None
    # abfss://container@account, but gs://anonymous@bucket
    bucket = parts.netloc.split("@")[-1 if parts.scheme in _GOOGLE else 0]
    return Remote(filesystem, f"{bucket}{parts.path}".rstrip("/"), parts.geturl())


def parsed_uri(text: str) -> SplitResult | None:
    """The parts of an object store's URI; None for what is a path.  Asks nobody.

    :raises UsageError: a URI that cannot be meant, or with credentials in it
    """
    found = _URI.match(text)
    if found is None:
        return None
    try:
        parts = urlsplit(f"{found[1]}://{text[found.end() :]}")
    except ValueError as why:
        raise UsageError(f"{text} is not a URI: {why}") from None
    nobody = parts.scheme in _GOOGLE and parts.username == "anonymous"
    named = parts.username is not None and "abfs" not in parts.scheme and not nobody
    if parts.password is not None or named:
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise UsageError(
            f"{shown} is given with credentials, and reports would repeat them",
            help="put them where the store's own tools look: AWS_ACCESS_KEY_ID, a role ...",
        )
    if not parts.netloc:
        raise UsageError(f"{text} names no bucket")
    return parts


def is_there(place: Place) -> bool:
    """Whether there is a file or a folder, as far as anybody can tell."""
    try:
        place.stat()
    except OSError:
        return False
    return True


def listed(
    filesystem: FileSystem, path: str, *, recursive: bool = False, missing_ok: bool = False
) -> list[FileInfo]:
    """What is in a folder, or below it.

    :raises OSError: there is no such folder, or the store does not answer
    """
    from pyarrow.fs import FileInfo, FileSelector, FileType

    # Of Google's folders Arrow lists only those that somebody made, not those that files are in.
    google = filesystem.type_name == "gcs"
    wanted = FileSelector(path, recursive=recursive or google, allow_not_found=missing_ok)
    found: list[FileInfo] = filesystem.get_file_info(wanted)
    if recursive or not google:
        return found
    inside = {}
    for info in found:
        name, _, below = info.path.removeprefix(path).strip("/").partition("/")
        if below:
            info = FileInfo(f"{path.rstrip('/')}/{name}", type=FileType.Directory)
        inside[name] = info
    return list(inside.values())


def put(place: Place, content: bytes) -> None:
    """Write a whole file, with its folders; it appears when it is complete.

    :raises OSError: it cannot be written
    """
    if isinstance(place, Remote):
        with _told(), place.filesystem.open_output_stream(place.path) as out:
            out.write(content)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise


def remove(place: Place) -> None:
    """Remove a file, or a folder with all that is in it; nothing if it is not there.

    :raises OSError: it cannot be removed
    """
    if isinstance(place, Remote):
        with _told():
            if stat.S_ISDIR(_mode_of(place)):
                place.filesystem.delete_dir(place.path)
            elif _mode_of(place):
                place.filesystem.delete_file(place.path)
    elif place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _mode_of(place: Remote) -> int:
    try:
        return place.stat().st_mode
    except FileNotFoundError:
        return 0


@lru_cache(maxsize=64)
def _filesystem(scheme: str, netloc: str, query: str) -> FileSystem:
    """Made once: it keeps its connections."""
    from pyarrow.fs import AzureFileSystem, FileSystem

    if scheme != "az":
        return FileSystem.from_uri(f"{scheme}://{netloc}/{'?' if query else ''}{query}")[0]
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise ValueError("az:// needs the account's name in AZURE_STORAGE_ACCOUNT")
    options = dict(parse_qsl(query, keep_blank_values=True))
    told = {
        f"{kind}_storage_{name}": options[option]
        for option, name in (("endpoint_override", "authority"), ("scheme", "scheme"))
        if option in options
        for kind in ("blob", "dfs")
    }
    if unknown := sorted(set(options) - {"endpoint_override", "scheme"}):
        raise ValueError(f"az:// has no option {unknown[0]}")
    return AzureFileSystem(account, account_key=os.environ.get("AZURE_STORAGE_KEY"), **told)


@contextmanager
def _told() -> Iterator[None]:
    """Arrow's long sentences as an error with ``strerror``, as the callers of ``Path`` expect."""
    try:
        yield
    except OSError as why:
        if why.strerror:
            raise
        said = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise OSError(why.errno or errno.EIO, said[:300]) from None


class _Counted(io.BufferedIOBase):
    """A file of Arrow's that counts what is read of it."""

    def __init__(self, file: io.BufferedIOBase, meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        with _told():
            content = self._file.read(None if size is not None and size < 0 else size)
        self._meter.bytes += len(content)
        self._meter.requests += 1
        return content

    def size(self) -> int:
        """As Arrow asks for it, without reading."""
        here = self.tell()
        end = self.seek(0, os.SEEK_END)
        self.seek(here)
        return end

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
