"""Plans record what an import understands, and their scripts are scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from collectors.plans import FORMATS, PLANS, Plan, Probe, Section, Tracepoint, parse_kernel
from tracekit.errors import UsageError
from tracekit.ftrace.event_format import EventFormat, parse_format
from tracekit.ftrace.functions import FUNCTIONS
from tracekit.ftrace.probes import Definition, parse_definitions
from tracekit.ftrace.program import Recipe
from tracekit.ftrace.recognise import recognise
from tracekit.ftrace.tracepoints import TRACEPOINTS

SERVES = {"iommu.map": ("TK101",), "process.exit": ("TK109",)}
DMA = PLANS["dma"]


def parsed(plan: Plan, probe: Probe) -> list[Definition]:
    return parse_definitions(probe.definitions(plan.group), probe.name)


def test_everything_of_the_dma_plan_becomes_an_event() -> None:
    for item in DMA.items:
        assert item.event is not None, item


def recorded(probe: Probe, definition: Definition) -> EventFormat:
    """The format that tracefs would show for the probe."""
    first = ("__probe_func", "__probe_ret_ip") if definition.returns else ("__probe_ip",)
    names = (*(() if probe.where == "event" else first), *definition.fields)
    common = (
        ("unsigned short common_type", 0, 2),
        ("unsigned char common_flags", 2, 1),
        ("unsigned char common_preempt_count", 3, 1),
        ("int common_pid", 4, 4),
    )
    fields = [*common, *((f"u64 {name}", 8 + 8 * n, 8) for n, name in enumerate(names))]
    text = f"name: {probe.name}\nID: 900\nformat:\n" + "".join(
        f"\tfield:{what};\toffset:{at};\tsize:{size};\tsigned:0;\n" for what, at, size in fields
    )
    return parse_format(DMA.group, text)


def filled(recipe: Recipe) -> set[str]:
    """The columns that a recipe fills."""
    found = {step.column for step in recipe.steps}
    return found.union(*({s.column for s in steps} for steps in recipe.cases.values()))


@pytest.mark.parametrize("probe", DMA.probes, ids=lambda p: p.name)
def test_an_import_recognises_every_definition(probe: Probe) -> None:
    for definition in parsed(DMA, probe):
        recipe = recognise(recorded(probe, definition), definition, ())
        assert recipe.event == probe.event
        assert filled(recipe)


@pytest.mark.parametrize("probe", DMA.probes, ids=lambda p: p.name)
def test_without_its_definition_a_probe_says_the_same_by_its_names(probe: Probe) -> None:
    (definition, *_) = parsed(DMA, probe)
    event = recorded(probe, definition)
    by_name = recognise(event, None, [definition.target])
    assert by_name.event == probe.event
    assert filled(by_name) == filled(recognise(event, definition, ()))


def test_every_field_of_the_dma_plan_fills_a_column() -> None:
    for probe in DMA.probes:
        for definition in parsed(DMA, probe):
            assert all(fetch is not None for fetch in definition.fields.values()), definition.text


def test_targets_of_one_probe_are_the_same_function_to_an_import() -> None:
    for probe in DMA.probes:
        if probe.where != "event":
            events = {FUNCTIONS[t].event for t in probe.targets}
            assert len(events) == 1, probe.name


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda p: p.purpose)
def test_names_are_given_once(plan: Plan) -> None:
    names = [p.name for p in plan.probes]
    names += [t.source for t in plan.items if isinstance(t, Tracepoint)]
    assert len(names) == len(set(names))
    for probe in plan.probes:
        assert set(probe.instead_of) <= set(names)


def test_exits_of_success_are_left_out_only_where_every_entry_is_recorded() -> None:
    # an exit would else be taken for the end of a call before it
    points = {t.source: t for t in DMA.items if isinstance(t, Tracepoint)}
    for source, exit in points.items():
        if source.startswith("syscalls:sys_exit_") and exit.filter:
            assert not points[source.replace("exit", "enter")].filter, source


def test_a_kernel_without_a_tracepoint_is_not_asked_for_it() -> None:
    def sources(kernel: tuple[int, int] | None) -> set[str]:
        return {
            i.source if isinstance(i, Tracepoint) else i.name for i in DMA.for_kernel(kernel).items
        }

    assert sources(None) - sources((6, 12)) == {"kvm:kvm_vm_set_mem_attributes", "iopt_map_file"}
    assert sources((7, 3)) == sources(None)
    assert "kvm_post_set" not in sources((6, 1))
    linger = {p.name for p in PLANS["linger"].for_kernel((6, 12)).probes}
    assert "linger" not in linger
    assert "vt_release" in linger


def test_sections_that_a_kernel_lacks_altogether_vanish() -> None:
    only = Section(gives="x", costs="y", items=(Tracepoint(source="a:b", since=(7, 0)),))
    plan = Plan(purpose="p", title="t", group="g", buffer_kb=1, sections=(only,))
    assert plan.for_kernel((6, 0)).sections == ()


@pytest.mark.parametrize(
    ("text", "version"),
    [("6.12", (6, 12)), ("7.3.4-tracekit-lab", (7, 3)), ("6.12.95+deb12-amd64", (6, 12))],
)
def test_versions_as_uname_prints_them(text: str, version: tuple[int, int]) -> None:
    assert parse_kernel(text) == version


@pytest.mark.parametrize("text", ["", "six", "6", ".12", "-6.12", "6.99999"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_kernel(text)


SHELLS = [s for s in ("dash", "bash", "busybox") if shutil.which(s)]


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda p: p.purpose)
@pytest.mark.parametrize("form", FORMATS)
def test_scripts_are_plain_shell(plan: Plan, form: str, tmp_path: Path) -> None:
    script = tmp_path / "record.sh"
    script.write_text(FORMATS[form](plan, SERVES))
    for shell in SHELLS:
        command = [shell, *(["sh"] if shell == "busybox" else []), "-n", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shell}: {done.stderr}"
    assert SHELLS, "no shell to try"


@pytest.mark.parametrize("form", FORMATS)
def test_scripts_hold_everything_of_the_plan_and_say_what_for(form: str) -> None:
    script = FORMATS[form](DMA, SERVES)
    for item in DMA.items:
        if isinstance(item, Tracepoint):
            assert item.source in script
        elif item.where != "event" or form != "bpftrace":
            assert item.definitions(DMA.group)[0] in script
    assert "# needed by: TK101" in script
    assert "tracekit import $OUT" in script


@pytest.mark.parametrize("form", ["trace-cmd", "sh"])
def test_undo_names_every_probe_that_may_be_made(form: str) -> None:
    script = FORMATS[form](DMA, SERVES)
    (listed,) = re.findall(r'^PROBES="(.*)"$', script, re.MULTILINE)
    assert listed.split() == [p.name for p in DMA.probes]


@pytest.mark.parametrize("form", ["trace-cmd", "sh"])
def test_no_script_truncates_what_others_defined(form: str) -> None:
    script = FORMATS[form](DMA, SERVES)
    assert not re.search(r'[^>]> *"\$T/(dynamic_events|kprobe_events|set_event|trace)', script)


def test_a_full_buffer_shows_where_it_lost_something() -> None:
    # with overwriting off only a total is left, and nothing of that CPU can be judged
    script = FORMATS["sh"](DMA, SERVES)
    assert 'echo 1 > "$I/options/overwrite"' in script
    assert script.count("overwrite") == 1


def test_a_filter_that_bpftrace_cannot_say_is_not_half_said() -> None:
    script = FORMATS["bpftrace"](DMA, SERVES)
    assert "common_flags" not in script
    assert "/args->behavior == 4 || args->behavior == 9" in script


def test_known_tracepoints_are_those_of_the_import() -> None:
    for item in DMA.items:
        if isinstance(item, Tracepoint):
            assert item.source in TRACEPOINTS
