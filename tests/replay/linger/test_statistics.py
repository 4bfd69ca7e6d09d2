"""Statistics of closes: how many, how long, what was lost; as a table and in ``tracekit info``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.linger.statistics import WAITED_BELOW_MS, linger_statistics
from tracekit.cli import main
from tracekit.importers import import_files
from tracekit.store import open_trace

DATA = Path(__file__).parents[2] / "data" / "traces" / "vsock"


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("linger") / "t.parquet"
    import_files([next(DATA.glob("*6.12*.dat"))], path)
    return path


def test_each_process_and_port_is_a_row(legacy: Path) -> None:
    table = linger_statistics(open_trace(legacy))
    assert table["closes"].sum() == 22
    assert table["lingering"].sum() == 8
    assert table["port"].unique().sort().to_list() == list(range(7000, 7011))
    assert table["bytes"].sum() == 10 * 65536 + 200000
    assert table["dropped"].sum() == 65536
    waited = [sum(column) for column in zip(*table["waited"].to_list(), strict=True)]
    assert len(waited) == len(WAITED_BELOW_MS) + 1
    assert waited[-1] == 1  # the close of linger12_slow10 took 10.014 s
    assert sum(waited) == 22


def test_info_tells_them(legacy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(legacy)]) == 0
    text = capsys.readouterr().out
    assert "vsock sockets that closed, by process and port" in text
    (worst,) = [line.split() for line in text.splitlines() if " 7005 " in line and "64 KiB" in line]
    assert worst[1:4] == ["7005", "1", "1"]
    assert worst[-4:] == ["64", "KiB", "64", "KiB"]
    assert "waits: 14 below 1 ms, 1 below 10 ms, 6 below 10 s, 1 longer" in text
    assert [s for s in text.splitlines() if len(s) > 80 and ".parquet" not in s] == []
    assert main(["info", "--json", str(legacy)]) == 0
    assert len(json.loads(capsys.readouterr().out)["sockets"]) == 22


@pytest.mark.parametrize(("kernel", "wrong"), [("6.12", 10), ("7.3", 0)])
def test_info_counts_where_the_eprobe_was_wrong(
    kernel: str, wrong: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its values were zero in every record of one kernel, and right in the other."""
    path = tmp_path / "t.parquet"
    (recording,) = DATA.glob(f"*{kernel}*.dat")
    (definitions,) = DATA.glob(f"dynamic_events-{kernel}*.txt")
    import_files([recording], path, probes=definitions)
    assert main(["info", "--json", str(path)]) == 0
    told = json.loads(capsys.readouterr().out)["manifest"]["disagreements"]
    assert told == (
        {"SO_LINGER: setsockopt.arguments against setsockopt.called": wrong} if wrong else {}
    )


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--linger-model", "merged"], 1),
        (["--linger-model", "legacy"], 0),
        (["--linger-model", "merged", "--slack", "1min"], 0),
        (["--linger-model", "newest"], 2),
        (["--slack", "5"], 2),
    ],
)
def test_replay_takes_a_model_and_a_slack(legacy: Path, options: list[str], status: int) -> None:
    assert main(["replay", str(legacy), "--only", "TK302", *options]) == status
