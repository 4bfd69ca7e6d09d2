"""Which of QEMU's trace events are asked for: those that an import reads, by version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from collectors.qemu.__main__ import main
from collectors.qemu.events import EVENTS, arguments, events_of, offered
from tracekit.errors import TracekitError
from tracekit.importers.qemu_events import TRACE_EVENTS


def test_what_is_asked_for_is_what_an_import_reads() -> None:
    assert {e.name for e in EVENTS} == set(TRACE_EVENTS)


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ((10, 0), "ram_block_discard_range", "ram_block_attributes_state_change"),
        ((10, 0), "iommufd_backend_map_dma", "iommufd_backend_map_file_dma"),
        ((10, 1), "ram_block_attributes_state_change", "ram_block_discard_shared_range"),
        ((10, 2), "iommufd_backend_map_file_dma", "ram_block_discard_shared_range"),
        ((11, 1), "ram_block_discard_shared_range", "ram_block_discard_range"),
    ],
)
def test_names_change_with_the_version(version: tuple[int, int], has: str, lacks: str) -> None:
    names = events_of(version)
    assert has in names
    assert lacks not in names


def test_a_real_qemu_has_what_its_version_is_said_to_have() -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    names = offered(qemu)
    assert "virtio_mem_plug_request" in names
    assert "vfio_listener_region_add_ram" in names
    assert arguments(names, "q.log")[:4] == ["-msg", "timestamp=on", "-D", "q.log"]


def test_a_qemu_without_trace_events_is_refused(tmp_path: Path) -> None:
    false = shutil.which("true")
    assert false is not None
    with pytest.raises(TracekitError, match="none of the trace events"):
        offered(false)
    with pytest.raises(TracekitError, match="cannot ask"):
        offered(str(tmp_path / "nothing"))


def test_the_command_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arguments", "--version", "10.2", "--log", "/tmp/a b"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("-msg timestamp=on -D '/tmp/a b' -trace kvm_convert_memory")
    assert main(["arguments", "--version", "newest"]) == 2
    assert "is no version of QEMU" in capsys.readouterr().err
