"""What of a folder is a trace, of which stream and night."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.audit.sources import hosts_in, nights_in, split_pattern, traces_of
from tracekit.errors import TracekitError

NIGHT = "2026-11-20"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1")


def found(*roots: Path | str) -> list[tuple[str, str, str | None, str]]:
    hosts = hosts_in([str(root) for root in roots])
    return [
        (f.host, f.stream, f.qemu, f.trace.partition(f"date={NIGHT}/")[2])
        for f in traces_of(hosts, NIGHT)
    ]


@pytest.mark.parametrize(
    ("name", "stream", "qemu", "trace"),
    [
        ("web.parquet", "web", None, "web.parquet"),
        ("vm=web/trace.parquet", "web", None, "vm=web"),
        ("vm=web/000001.parquet", "web", None, "vm=web"),
        ("qemu=10.1/web.parquet", "web", "10.1", "qemu=10.1/web.parquet"),
        ("qemu=10.1/vm=web/0.parquet", "web", "10.1", "qemu=10.1/vm=web"),
        ("dma-20261120T030000/0.parquet", "dma", None, "dma-20261120T030000"),
        ("dma-2026-11-20.parquet", "dma", None, "dma-2026-11-20.parquet"),
        ("20261120T030000.parquet", "all", None, "20261120T030000.parquet"),
        ("rack 1/vm=é/0.parquet", "rack 1/é", None, "rack 1/vm=é"),
        ("vm=20261120123/0.parquet", "20261120123", None, "vm=20261120123"),
    ],
)
def test_names_below_the_night_are_streams(
    tmp_path: Path, name: str, stream: str, qemu: str | None, trace: str
) -> None:
    touch(tmp_path, f"host=a/date={NIGHT}/{name}")
    assert found(tmp_path) == [("a", stream, qemu, trace)]


def test_what_is_no_trace_is_left_alone(tmp_path: Path) -> None:
    touch(
        tmp_path,
        f"host=a/date={NIGHT}/.web.parquet.part",
        f"host=a/date={NIGHT}/.hidden.parquet",
        f"host=a/date={NIGHT}/_temporary/x.parquet",
        f"host=a/date={NIGHT}/notes.txt",
        "host=a/date=2026-13-40/x.parquet",
        "host=a/date=20261120/x.parquet",
        "host=a/x.parquet",
        "other/date=2026-11-20/x.parquet",
    )
    assert found(tmp_path) == []
    assert nights_in(hosts_in([str(tmp_path)])) == [NIGHT]


def test_parts_of_a_night_follow_each_other_by_name(tmp_path: Path) -> None:
    names = ("dma-20261120T120000/0.parquet", "dma-20261120T030000/0.parquet")
    touch(tmp_path, *(f"host=a/date={NIGHT}/{name}" for name in names))
    assert [trace for _, _, _, trace in found(tmp_path)] == [
        "dma-20261120T030000",
        "dma-20261120T120000",
    ]


def test_roots_may_be_patterns_and_may_overlap(tmp_path: Path) -> None:
    touch(
        tmp_path,
        f"cluster-1/traces/host=a/date={NIGHT}/x.parquet",
        f"cluster-2/traces/host=b/date={NIGHT}/x.parquet",
        f"cluster-3/other/host=c/date={NIGHT}/x.parquet",
    )
    once = found(f"{tmp_path}/cluster-*/traces")
    assert [host for host, *_ in once] == ["a", "b"]
    assert found(f"{tmp_path}/cluster-*/traces", tmp_path / "cluster-1/traces") == once
    assert found(f"{tmp_path}/cluster-[3]/*") == [("c", "x", None, "x.parquet")]


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TracekitError, match=r"cannot list .*nothing"):
        hosts_in([str(tmp_path / "nothing")])


def test_a_stamp_changes_with_any_file(tmp_path: Path) -> None:
    touch(tmp_path, f"host=a/date={NIGHT}/vm=x/0.parquet", f"host=a/date={NIGHT}/vm=x/1.parquet")
    hosts = hosts_in([str(tmp_path)])
    (before,) = traces_of(hosts, NIGHT)
    (again,) = traces_of(hosts, NIGHT)
    assert again == before
    assert before.size == 8
    (tmp_path / f"host=a/date={NIGHT}/vm=x/1.parquet").write_bytes(b"PAR1+")
    (after,) = traces_of(hosts, NIGHT)
    assert after.stamp != before.stamp


@pytest.mark.parametrize(
    ("root", "base", "names"),
    [
        ("/srv/traces", "/srv/traces", ()),
        ("/srv/c-*/traces", "/srv", ("c-*", "traces")),
        ("/*", "/", ("*",)),
        ("s3://b/x", "s3://b/x", ()),
        ("s3://b/c-*/x?region=r", "s3://b?region=r", ("c-*", "x")),
    ],
)
def test_a_pattern_is_told_from_what_is_certain(
    root: str, base: str, names: tuple[str, ...]
) -> None:
    assert split_pattern(root) == (base, names)


@given(st.text(alphabet="ab*?/[]=é ", min_size=1))
def test_a_root_is_split_into_what_it_was(root: str) -> None:
    base, names = split_pattern("/" + root)
    assert not any(sign in base for sign in "*?[")
    joined = "/".join([base.rstrip("/"), *names])
    assert [p for p in joined.split("/") if p] == [p for p in root.split("/") if p]
