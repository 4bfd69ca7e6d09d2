"""Wherever traces are judged the audit is the same; a worker that dies costs its own work alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from made_fleet import NIGHTS, write_config

from replay.checks import CHECKS
from tracekit.audit.config import AuditConfig, load_config
from tracekit.audit.executors import DIED, InProcess, Processes
from tracekit.audit.fleet import Dask
from tracekit.audit.judging import Chain
from tracekit.audit.outputs import write_outputs
from tracekit.audit.results import Status, TraceResult
from tracekit.audit.run import audit

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Two worker processes of a real dask cluster, on loopback."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        worker_dashboard_address=None,
        host="127.0.0.1",
    ) as made:
        yield made


def config_in(folder: Path, sources: Path) -> AuditConfig:
    path = write_config(
        folder / "audit.toml", str(sources), outputs={"folder": "out", "trace_reports": "none"}
    )
    return load_config(path, checks={code: check.name for code, check in CHECKS.items()})


def written(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and p.parts[-3] != "results"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


@pytest.fixture(scope="module")
def right(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the audit of the last night must be: judged in this process."""
    folder = tmp_path_factory.mktemp("right")
    write_outputs(audit(config_in(folder, made), NIGHTS[2], executor=InProcess()))
    return folder / "out"


class Killing:
    """An executor that kills one of the workers that judge, once something is done."""

    def __init__(self, inner: Processes | Dask, victims: list[int]) -> None:
        self._inner = inner
        self._victims = victims

    def run(self, chains: Sequence[Chain]) -> Iterator[list[TraceResult]]:
        for number, results in enumerate(self._inner.run(chains)):
            if number == 1:
                victims = self._victims or children()
                os.kill(victims[0], signal.SIGKILL)
            yield results


def children() -> list[int]:
    """This process's own workers."""
    import multiprocessing

    return [p.pid for p in multiprocessing.active_children() if p.pid is not None]


def test_dask_says_the_same_byte_for_byte(
    cluster: object, made: Path, right: Path, tmp_path: Path
) -> None:
    address = cluster.scheduler_address  # type: ignore[attr-defined]
    write_outputs(audit(config_in(tmp_path, made), NIGHTS[2], executor=Dask(address)))
    assert written(tmp_path / "out") == written(right)


def test_a_dask_worker_that_is_killed_is_done_without(
    cluster: object, made: Path, right: Path, tmp_path: Path
) -> None:
    address = cluster.scheduler_address  # type: ignore[attr-defined]
    pids = [w.pid for w in cluster.workers.values()]  # type: ignore[attr-defined]
    executor = Killing(Dask(address), pids)
    write_outputs(audit(config_in(tmp_path, made), NIGHTS[2], executor=executor))
    assert written(tmp_path / "out") == written(right)
    assert not alive(pids[0])


def test_a_killed_process_of_the_pool_is_done_without(
    made: Path, right: Path, tmp_path: Path
) -> None:
    executor = Killing(Processes(2), [])
    write_outputs(audit(config_in(tmp_path, made), NIGHTS[2], executor=executor))
    assert written(tmp_path / "out") == written(right)


def test_a_trace_that_kills_its_worker_fails_alone(
    made: Path, right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracekit.audit.executors.judge_chain", deadly)
    found = audit(config_in(tmp_path, made), NIGHTS[2], executor=Processes(2, retries=1))
    by_stream = {r.stream: r for r in found.results}
    assert by_stream["vm-06"].status is Status.CRASHED
    assert by_stream["vm-06"].error == DIED
    bad = {s for s, r in by_stream.items() if r.status is not Status.JUDGED}
    assert bad == {"vm-05", "vm-06"}
    # It is tried again by the next audit, and alone.
    monkeypatch.undo()
    made_again = audit(config_in(tmp_path, made), NIGHTS[2], executor=InProcess())
    assert made_again.redone == 1
    write_outputs(made_again)
    assert written(tmp_path / "out") == written(right)


def deadly(chain: Chain) -> list[TraceResult]:
    from tracekit.audit.judging import judge_chain

    if chain.name.endswith("/vm-06"):
        os.kill(os.getpid(), signal.SIGKILL)
    return judge_chain(chain)


def test_a_killed_audit_resumes(made: Path, right: Path, tmp_path: Path) -> None:
    config_in(tmp_path, made)
    command = [sys.executable, "-m", "tracekit", "audit", "audit.toml", "--night", NIGHTS[2]]
    (tmp_path / "audit.toml").write_text(
        (tmp_path / "audit.toml").read_text() + '[executor]\nkind = "in-process"\n'
    )
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    kept = tmp_path / "out" / "results" / NIGHTS[2]
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(kept.glob("*.json"))) < 2:
        time.sleep(0.005)
    first.kill()
    first.communicate()
    done = len(list(kept.glob("*.json")))
    assert done >= 2
    assert not (tmp_path / "out" / "index.html").exists()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 1, second.stderr
    left = f"{8 - done} trace{'s' * (done != 7)} judged, {done} kept from before"
    assert left in second.stdout
    assert written(tmp_path / "out") == written(right)


def test_dask_that_is_not_installed_is_said(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracekit.errors import UsageError

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"dask\.distributed is not installed"):
        audit(config_in(tmp_path, made), NIGHTS[2], executor=Dask("tcp://127.0.0.1:9"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
