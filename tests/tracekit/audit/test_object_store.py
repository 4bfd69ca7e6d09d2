"""Traces and the audit's folder in an object store: ranges are read, and no whole files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_fleet import NIGHTS, write_config
from object_store import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    Server,
    serving,
    serving_azure,
    serving_google,
    upload,
)

from replay import run
from replay.engine.stream import COLUMNS
from tracekit.cli import main
from tracekit.errors import TraceFormatError, UsageError
from tracekit.store import Remote, locate, open_trace
from tracekit.store.location import put
from tracekit.synth.generate import generate

pytest.importorskip("moto", reason="moto is not installed")
TRACES = "traces"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with serving() as made:
            yield made


@pytest.fixture(scope="module")
def sizes(server: Server, made: Path) -> dict[str, int]:
    """The fleet's last night, uploaded."""
    sizes = server.upload(made, TRACES)
    return {key: size for key, size in sizes.items() if NIGHTS[2] in key}


def test_an_audit_from_and_into_the_store_is_the_local_one(
    server: Server, sizes: dict[str, int], made: Path, tmp_path: Path
) -> None:
    there = the_same_as_local(server.uri, made, tmp_path)
    # Again: nothing is judged, nothing of a trace is fetched.
    server.gets.clear()
    assert main(["audit", str(there), "--night", NIGHTS[2]]) == 1
    # A bad trace is tried again: perhaps it could not be fetched.
    assert {g.key for g in server.gets if g.key.startswith(TRACES)} <= {
        key for key in sizes if "vm-05" in key
    }


@pytest.mark.parametrize("serving_one", [serving_google, serving_azure])
def test_so_is_one_of_the_other_stores(
    serving_one: Callable[[Path], AbstractContextManager[Callable[[str], str]]],
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_KEY", AZURE_KEY)
    with serving_one(tmp_path) as uri:
        upload(made, locate(uri(TRACES)))
        the_same_as_local(uri, made, tmp_path)


def the_same_as_local(uri: Callable[[str], str], made: Path, tmp_path: Path) -> Path:
    """Audit the last night from the store into it, and from here; the store's configuration."""
    there = write_config(
        tmp_path / "there.toml",
        uri(TRACES),
        executor={"kind": "in-process"},
        outputs={"folder": uri("audit"), "trace_reports": "findings"},
    )
    here = write_config(
        tmp_path / "here.toml",
        str(made),
        executor={"kind": "in-process"},
        outputs={"folder": "out", "trace_reports": "findings"},
    )
    for config in (there, here):
        assert main(["audit", str(config), "--night", NIGHTS[2]]) == 1
    folder = locate(uri("audit"))
    remote = json.loads((folder / "audit.json").open().read())
    local = json.loads((tmp_path / "out" / "audit.json").read_text())
    read = {t["trace"]: t["bytes_read"] for t in remote["traces"] if t["status"] == "judged"}
    assert all(read.values())
    for document in (remote, local):
        for trace in document["traces"]:
            trace.pop("trace")
            trace.pop("bytes_read")
        for row in (*document["findings"], *document["traces"]):
            # Named after the trace's place.
            assert (row.pop("report") is None) <= (row.get("severity") != "error")
    assert remote == local
    return there


def test_what_an_audit_says_it_read_is_what_was_sent(
    server: Server, sizes: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(
        tmp_path / "audit.toml",
        server.uri(TRACES),
        executor={"kind": "in-process"},
        outputs={"folder": "out", "trace_reports": "none"},
    )
    server.gets.clear()
    assert main(["audit", str(config), "--night", NIGHTS[2]]) == 1
    assert " MB were read of 7 traces in object stores that have " in capsys.readouterr().out
    assert " MB were read of 7 traces" in (tmp_path / "out" / "index.html").read_text()
    traces = json.loads((tmp_path / "out" / "audit.json").read_text())["traces"]
    for trace in traces:
        if trace["status"] != "judged":
            continue
        (key,) = [k for k in sizes if f"vm={trace['stream']}/" in k]
        assert trace["size"] == sizes[key]
        # Arrow's own reads of a file are ours to the byte.
        assert trace["bytes_read"] == server.sent(key) > 0


def test_only_ranges_of_the_columns_are_read(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    generate("parallel-vcpus", path, seed=3, events=300_000)
    put(locate(server.uri("long.parquet")), path.read_bytes())
    size = path.stat().st_size
    server.gets.clear()
    trace = open_trace(server.uri("long.parquet"))
    opened = server.sent("long.parquet")
    rows = sum(b.num_rows for b in trace.batches(["ts_ns"]))
    column = server.sent("long.parquet") - opened
    frame = trace.events("kvm.vm_ioctl").select("seq", "cmd").collect()
    assert rows == len(trace)
    assert frame.equals(open_trace(path).events("kvm.vm_ioctl").select("seq", "cmd").collect())
    server.gets.clear()
    judged = run(open_trace(server.uri("long.parquet")), only=["TK101"])
    whole = server.sent("long.parquet")
    needed, of_ts = chunks(path, COLUMNS), chunks(path, ["ts_ns"])
    print(
        f"object {size:,} bytes; opened with {opened:,}; ts_ns {column:,} for {of_ts:,};"
        f" TK101 {whole:,} for {needed:,}"
    )
    assert all(g.status == 206 and g.range for g in server.gets)
    assert opened < 100_000
    # Beside the columns that are asked for, the holes between them that cost less than a request.
    assert of_ts <= column < 1.1 * of_ts
    assert needed <= whole - opened < 1.1 * needed
    assert whole - opened < 0.95 * size
    assert judged.outcomes == run(open_trace(path), only=["TK101"]).outcomes


def chunks(path: Path, columns: Sequence[str]) -> int:
    """Bytes of those columns in a file."""
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    every = [g.column(i) for g in groups for i in range(metadata.num_columns)]
    return sum(c.total_compressed_size for c in every if c.path_in_schema in columns)


def test_what_is_not_there_or_no_trace_is_an_error(server: Server) -> None:
    with pytest.raises(TraceFormatError, match=r"cannot read s3://fleet/none\.parquet"):
        open_trace(server.uri("none.parquet"))
    put(locate(server.uri("no-trace.parquet")), b"PAR1 and so on")
    with pytest.raises(TraceFormatError, match="damaged, cut, or no trace"):
        open_trace(server.uri("no-trace.parquet"))


def test_a_server_that_is_gone_is_one_error(tmp_path: Path, server: Server) -> None:
    uri = server.uri(TRACES).replace(str(server.port), "9")
    config = write_config(tmp_path / "audit.toml", uri)
    assert main(["audit", str(config)]) == 2


def test_a_command_takes_a_uri_although_paths_lose_a_slash(
    server: Server, sizes: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    key = next(k for k in sizes if "vm-00" in k)
    assert main(["replay", server.uri(key), "--only", "TK101"]) == 1
    assert "error[TK101]" in capsys.readouterr().out


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    for uri in ("s3://KEY:SECRET@bucket/x", "s3://KEY@bucket/x"):
        with pytest.raises(UsageError, match="given with credentials") as raised:
            locate(uri)
        assert "KEY" not in raised.value.message
    place = locate("abfss://container@account.dfs.core.windows.net/x")
    assert isinstance(place, Remote)
    assert place.path == "container/x"
