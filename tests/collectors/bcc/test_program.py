"""A plan as a BPF program, without a kernel: what it prints is what an import understands."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from collectors.bcc.program import HERE, LEFT_OUT, Kind, Program, build_program
from collectors.bcc.source import COMM, TEXT, VALUES, line_of
from collectors.bcc.source import _Event as Event
from collectors.plans import PLANS, Plan
from collectors.plans._define import Probe, Tracepoint
from tracekit.store import open_trace

PURPOSES = sorted(PLANS)
ROOT = Path(__file__).parents[3]


def program_of(plan: Plan) -> Program:
    """For a kernel that has everything."""
    functions = {t for item in plan.items if isinstance(item, Probe) for t in item.targets}
    return build_program(plan, has_event=lambda source: True, functions=functions)


def event_of(kind: int, ts: int, *values: int) -> Event:
    event = Event(ts=ts, kind=kind, tgid=70, tid=71, cpu=1, comm=b"vmm", text=b"0000:00:10.0")
    event.value[: len(values)] = values
    return event


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_line_is_imported_as_the_plan_says(purpose: str, tmp_path: Path) -> None:
    plan = PLANS[purpose]
    program = program_of(plan)
    here = [
        item
        for item in plan.items
        if not (
            (isinstance(item, Tracepoint) and item.source in program.left_out)
            or (isinstance(item, Probe) and f"{plan.group}:{item.name}" in program.left_out)
        )
    ]
    assert len(here) == len(program.kinds)
    # A return is read behind its entry, which the plan lists before it.
    lines = [
        line_of(event_of(n, 1_000_000_000 + 1000 * n, *range(1, VALUES + 1)), kind)
        for n, kind in enumerate(program.kinds)
    ]
    (tmp_path / "trace.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "dynamic_events").write_text("\n".join(program.definitions) + "\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "tracekit", "import", tmp_path / "trace.txt",
            "--probes", tmp_path / "dynamic_events", "-o", tmp_path / "trace.parquet",
        ],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = set(open_trace(tmp_path / "trace.parquet").scan().collect()["event"].cast(pl.String))
    for item in here:
        if item.event is not None:
            assert item.event in made, item


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_probe_sends_as_many_values_as_its_definition_fetches(purpose: str) -> None:
    program = program_of(PLANS[purpose])
    code = (HERE / f"{purpose}.c").read_text()
    bodies = dict(
        re.findall(r"^int probe_(\w+)\(.*?\)\n\{(.*?)^\}", code, re.MULTILINE | re.DOTALL)
    )
    assert set(bodies) == {a.function.removeprefix("probe_") for a in program.attach}
    for definition in program.definitions:
        name = definition.split("/")[1].split()[0]
        fetched = len(re.findall(r" \w+=\S+", definition))
        sent = {int(n) for n in re.findall(r"e\.value\[(\d+)\]", bodies[name])}
        assert sent <= set(range(fetched)), name
        assert max(sent, default=-1) == fetched - 1 or name == "type1_ioctl", name


def test_python_and_c_agree_on_the_structure() -> None:
    code = (HERE / "event.c").read_text()
    defines = dict(re.findall(r"#define (\w+) (\d+)", code))
    assert (int(defines["VALUES"]), int(defines["TEXT"]), int(defines["COMM"])) == (
        VALUES, TEXT, COMM,
    )  # fmt: skip
    (body,) = re.findall(r"struct event \{(.*?)\};", code, re.DOTALL)
    names = re.findall(r"(\w+)(?:\[\w+\])?;", body)
    assert names == [field[0] for field in Event._fields_]
    assert ctypes.sizeof(Event) % 8 == 0


def test_numbers_of_kinds_are_unique_and_known_to_c() -> None:
    for plan in PLANS.values():
        program = program_of(plan)
        defined = re.findall(r"^#define KIND_(\w+) (\d+)$", program.text, re.MULTILINE)
        assert len({name for name, _ in defined}) == len(defined)
        used = set(re.findall(r"KIND_(\w+)\);", program.text))
        assert used <= {name for name, _ in defined}
        assert [int(number) for _, number in defined[: len(program.kinds)]] == list(
            range(len(program.kinds))
        )


def test_what_the_kernel_lacks_is_left_out_and_named() -> None:
    plan = PLANS["linger"]
    program = build_program(
        plan, has_event=lambda source: source.startswith("vsock:"), functions={"vsock_release"}
    )
    assert [a.function for a in program.attach] == [
        "probe_vsock_release",
        "probe_vsock_release_ret",
    ]
    assert "tracekit_linger:linger" in program.left_out
    assert "syscalls:sys_enter_close" in program.left_out
    assert len(program.kinds) == 4
    assert set(program_of(PLANS["dma"]).left_out) >= LEFT_OUT


def test_values_are_printed_in_their_width_and_sign() -> None:
    kind = Kind("{0} {1} {2:x}", ("s32", "u32", "u64"))
    assert kind.line((0xFFFFFFFF, 1 << 32, 0xABC), "", "", 0) == "-1 0 abc"


def test_a_name_cannot_break_a_line() -> None:
    event = event_of(0, 5)
    event.comm = b"a\nb\x1b[31m"
    line = line_of(event, Kind("x: {comm}", ()))
    assert line == "a?b?[31m-71 (70) [001] ..... 0.000000005: x: a?b?[31m"


def test_without_bcc_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "collect", "--only", "bcc", "-o", tmp_path / "out"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    if "bcc is not installed" not in done.stderr:
        pytest.skip("python3-bpfcc is installed here")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no BPF source: bcc is not installed\n  help: ")
    assert not (tmp_path / "out").exists()
