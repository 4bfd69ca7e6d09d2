"""``tracekit replay A --checkpoint FILE``, then ``tracekit replay B --from FILE``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shards import shards

from tracekit.store import open_trace
from tracekit.synth.generate import generate


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace, and the same trace in three files."""
    folder = tmp_path_factory.mktemp("nights")
    generate("dma-ring", folder / "whole.parquet", seed=3, events=400, fault="late-unmap")
    trace = open_trace(folder / "whole.parquet")
    third = len(trace) // 3
    for name, piece in zip("abc", shards(trace, [third, 2 * third]), strict=True):
        piece.write(folder / f"{name}.parquet")
    return folder


def replay(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracekit", "replay", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        timeout=300,
    )


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 1, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    del said["trace"]["path"]
    return said


def test_three_nights_say_what_the_whole_trace_says(nights: Path) -> None:
    done = replay(nights, "a.parquet", "--checkpoint", "a.state")
    assert done.returncode in (0, 1), done.stderr
    none = replay(nights, "b.parquet", "--from", "a.state")
    refused(none, "the checkpoint is of a trace without iommu.unmap, which this trace has")
    known = ("--recorded", "iommu.unmap")
    done = replay(nights, "a.parquet", "--checkpoint", "a.state", *known)
    assert done.returncode in (0, 1), done.stderr
    done = replay(nights, "b.parquet", "--from", "a.state", "--checkpoint", "b.state")
    assert done.returncode in (0, 1), done.stderr
    last = replay(nights, "c.parquet", "--from", "b.state", "--format", "json")
    whole = replay(nights, "whole.parquet", "--format", "json")
    assert answer(last) == answer(whole)
    text = replay(nights, "c.parquet", "--from", "b.state").stdout
    assert "--from b.state" in text  # the line that shows it again

    flipped = bytearray((nights / "b.state").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (nights / "flipped.state").write_bytes(flipped)
    refused(replay(nights, "c.parquet", "--from", "flipped.state"), "checksum is wrong")
    refused(replay(nights, "c.parquet", "--from", "a.parquet"), "is not a checkpoint")
    refused(replay(nights, "c.parquet", "--from", "nothing"), "No such file")
    out = ("--checkpoint", "c.state")
    refused(replay(nights, "a.parquet", "--from", "b.state", *out), "begins before")
    refused(replay(nights, "c.parquet", "--from", "b.state", "--grace", "2ms", *out), "--grace")
    refused(
        replay(nights, "c.parquet", "--from", "b.state", "--checkpoint", "no/c"), "cannot write"
    )
    assert not (nights / "c.state").exists()
    assert not list(nights.glob(".*.part"))


def test_an_event_type_that_is_none_is_named(nights: Path) -> None:
    done = replay(nights, "a.parquet", "--recorded", "iommu.mapp", "--checkpoint", "x.state")
    refused(done, "there is no event type 'iommu.mapp'")
    assert "iommu.map" in done.stderr
    assert not (nights / "x.state").exists()
