"""An S3-compatible server on loopback that counts what it sends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ("Server", "Told", "serving")


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
        from tracekit.store import Remote, locate
        from tracekit.store.location import put

        base = locate(self.uri(to))
        assert isinstance(base, Remote)
        sizes = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(folder))
            put(base / name, path.read_bytes())
            sizes[f"{to}/{name}"] = path.stat().st_size
        return sizes

    def sent(self, key: str) -> int:
        """Bytes that GETs of one object had in their answers."""
        return sum(one.sent for one in self.gets if one.key == key)


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
