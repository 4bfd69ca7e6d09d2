"""The scripts that the real C code ran as input: their requests conform to their generation.

What the models do for them is upstream's, effect by effect (test_upstream_vectors.py).  Here the
requests, devices, limits and failures of each script drive a guest whose calls are rendered as a
kernel's events.  Left out is what no guest can ask for: sizes that are no pages, listeners that are
neither VFIO's nor KVM's, a second source.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conforming import followed, ways

from tracekit.synth.guest import BASE, PAGE, Guest

SAMPLE = Path(__file__).parents[2] / "data" / "vectors"
FOLDER = Path(os.environ.get("TRACEKIT_VECTORS") or SAMPLE)
GENERATIONS = {"g1": "v4", "g2": "merged", "g3": "11.1"}
LIMIT = 25
"""Scripts of a generation that are played outside the nightly run."""
MOST_BLOCKS = 1024
MOST_DEVICES = 4


def scripts(generation: str) -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                script = json.loads(line)
                small = 0 < script["region"] // PAGE <= MOST_BLOCKS
                if script["gen"] == generation and small:
                    yield script


def played(script: dict[str, Any]) -> Guest:
    """A guest that asks for what the script asks for."""
    generation = GENERATIONS[script["gen"]]
    guest = Guest(generation, blocks=script["region"] // PAGE)
    room: dict[int, int] = {}
    devices: dict[int, int] = {}
    begin = next((op[1] for op in script["ops"] if op[0] == "fr" and op[3] == 0), BASE)
    for op in script["ops"]:
        if guest.ended:
            break
        name, *rest = op
        if name == "cont":
            room[rest[0]] = rest[1]
        elif name == "add" and rest[1] == "vfio" and len(guest.containers) < MOST_DEVICES:
            devices[rest[0]] = len(guest.containers)
            guest.plug_device(min(room.get(rest[7], 65535), 65535))
        elif name == "del" and rest[0] in devices and generation != "v4":
            guest.unplug_device(devices.pop(rest[0]))
        elif name == "kfail":
            guest.fail_attribute(max(1, rest[0]), abs(rest[1]) or 12)
        elif name in ("chg", "cvt"):
            at = rest[0] if name == "chg" else rest[0] - begin
            whole = at % PAGE == 0 and rest[1] % PAGE == 0
            if whole and 0 < rest[1] < 1 << 40 and -(1 << 30) < at < 1 << 40:
                guest.convert(at // PAGE, rest[1] // PAGE, private=bool(rest[2]))
    return guest


def all_conform(generation: str, folder: Path, limit: int) -> tuple[int, int]:
    count = compared = 0
    for script in scripts(generation):
        c = followed(played(script).events, folder, GENERATIONS[generation])
        assert ways(c) == [], script["id"]
        compared += c.tally.compared
        count += 1
        if count == limit:
            break
    return count, compared


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_scripts_requests_conform(generation: str, tmp_path: Path) -> None:
    count, compared = all_conform(generation, tmp_path, LIMIT)
    print(f"{generation}: {count} scripts, {compared} conversions compared, {FOLDER.name}")
    assert count
    assert compared > count


@pytest.mark.nightly
@pytest.mark.parametrize("generation", GENERATIONS)
def test_all_the_scripts_requests_conform(generation: str, tmp_path: Path) -> None:
    assert all_conform(generation, tmp_path, 1 << 30)[1]
