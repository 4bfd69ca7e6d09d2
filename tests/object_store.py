"""Object stores on loopback: an S3-compatible one that counts what it sends, Google's, Azure's."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tracekit.store import Place, locate
from tracekit.store.location import put

__all__ = (
    "AZURE_ACCOUNT",
    "AZURE_KEY",
    "Server",
    "Told",
    "serving",
    "serving_azure",
    "serving_google",
    "upload",
)

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Those of every Azurite, from its documentation."""


@dataclass
class Told:
    """One answered GET of an object."""

    key: str
    status: int
    range: str | None
    sent: int


@dataclass
class Server:
    """``port`` on 127.0.0.1; ``gets``: of objects, in order."""

    port: int
    bucket: str
    gets: list[Told] = field(default_factory=list)

    def uri(self, path: str = "") -> str:
        """The bucket, or what is in it."""
        query = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        return f"s3://{self.bucket}/{path}?{query}"

    def upload(self, folder: Path, to: str) -> dict[str, int]:
        """A folder's files as objects; their sizes by key."""
        return {f"{to}/{name}": size for name, size in upload(folder, locate(self.uri(to)))}

    def sent(self, key: str) -> int:
        """Bytes that GETs of one object had in their answers."""
        return sum(one.sent for one in self.gets if one.key == key)


def upload(folder: Path, to: Place) -> list[tuple[str, int]]:
    """Copy a folder's files; their names in it, and sizes."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    for name in names:
        put(to / name, (folder / name).read_bytes())
    return [(name, (folder / name).stat().st_size) for name in names]


@contextmanager
def serving_google(folder: Path) -> Iterator[Callable[[str], str]]:
    """gcp-storage-emulator while the block runs, with a bucket; URIs of what is in it."""
    port = free_port()
    words = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    with _running("gcp-storage-emulator", *words, "--default-bucket", "fleet", port=port):
        options = f"endpoint_override=127.0.0.1:{port}&scheme=http&retry_limit_seconds=20"
        yield lambda path: f"gs://anonymous@fleet/{path}?{options}"


@contextmanager
def serving_azure(folder: Path) -> Iterator[Callable[[str], str]]:
    """Azurite while the block runs, with a container; URIs of what is in it.  The account and its
    key are the caller's environment's."""
    from pyarrow.fs import AzureFileSystem

    port = free_port()
    words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "az")]
    with _running("azurite-blob", *words, "--skipApiVersionCheck", port=port):
        at = dict.fromkeys(("blob_storage_authority", "dfs_storage_authority"), f"127.0.0.1:{port}")
        http = dict.fromkeys(("blob_storage_scheme", "dfs_storage_scheme"), "http")
        AzureFileSystem(AZURE_ACCOUNT, account_key=AZURE_KEY, **at, **http).create_dir("fleet")
        yield lambda path: f"az://fleet/{path}?endpoint_override=127.0.0.1:{port}&scheme=http"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def _running(program: str, *words: str, port: int) -> Iterator[None]:
    """A server in a process of its own, from when it answers on; a skip where there is none."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}")
    with subprocess.Popen(
        [found, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with socket.socket() as asking:
                    if asking.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()


@contextmanager
def serving(bucket: str = "fleet") -> Iterator[Server]:
    """moto's S3 while the block runs.  Credentials are the caller's environment's."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from pyarrow.fs import S3FileSystem
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server(0, bucket)
    application = _Counting(DomainDispatcherApplication(create_backend_app), server)
    listening = make_server("127.0.0.1", 0, application, threaded=True)
    server.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        S3FileSystem(
            endpoint_override=f"127.0.0.1:{server.port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        ).create_dir(bucket)
        yield server
    finally:
        listening.shutdown()
        thread.join()


class _Counting:
    """A WSGI application around another one."""

    def __init__(self, inner: Any, server: Server) -> None:
        self._inner = inner
        self._server = server

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status = 0

        def started(line: str, *rest: Any) -> Any:
            nonlocal status
            status = int(line.split()[0])
            return start(line, *rest)

        parts = list(self._inner(environ, started))
        key = environ["PATH_INFO"].lstrip("/").removeprefix(f"{self._server.bucket}/")
        is_object = key and not environ.get("QUERY_STRING", "").startswith("list-type")
        if environ["REQUEST_METHOD"] == "GET" and is_object:
            asked = environ.get("HTTP_RANGE")
            self._server.gets.append(Told(key, status, asked, sum(map(len, parts))))
        return parts
