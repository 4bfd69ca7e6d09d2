"""docs/models is what the models and their docstrings generate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from replay.models import generations, upstream_index

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "models"


def test_the_page_about_the_generations_is_up_to_date() -> None:
    assert (DOCS / "generations.md").read_text() == generations.page()


@pytest.mark.parametrize("key", upstream_index.PAGES)
def test_the_pages_of_c_functions_are_up_to_date(key: str) -> None:
    assert (DOCS / f"{key}.md").read_text() == upstream_index.page(key)


def test_the_page_can_be_printed_with_one_command() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "replay.models.generations"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == (DOCS / "generations.md").read_text()


def test_every_question_tells_at_least_one_generation_apart_or_says_it_agrees() -> None:
    for question in generations.QUESTIONS:
        names = [name for group in generations.answers(question) for name in group]
        assert sorted(names) == ["G1", "G2", "G3"]
    apart = [q for q in generations.QUESTIONS if len(generations.answers(q)) > 1]
    assert len(apart) == len(generations.QUESTIONS)


@pytest.mark.parametrize("package", [package for _, package in upstream_index.PAGES.values()])
def test_everything_public_says_what_it_is(package: str) -> None:
    assert upstream_index.undocumented(package) == []


def test_the_functions_that_matter_are_found() -> None:
    found = {
        name
        for _, package in upstream_index.PAGES.values()
        for entry in upstream_index.entries(package)
        for name in entry.c_names
    }
    assert {
        "memory_region_section_intersect_range()",
        "ram_block_attribute_state_change()",
        "ram_block_attributes_state_change()",
        "ram_discard_manager_notify_populate()",
        "kvm_convert_memory()",
        "vfio_ram_discard_register_listener()",
        "vfio_dma_do_unmap()",
        "iommufd_backend_unmap_dma()",
        "virtio_mem_set_block_state()",
    } <= found


def test_the_five_lines_of_the_readme_do_what_it_says() -> None:
    code = (DOCS / "README.md").read_text().split("```python\n")[1].split("```")[0]
    *lines, expected = code.strip().splitlines()
    scope: dict[str, object] = {}
    exec("\n".join(lines[:-1]), scope)
    assert f"# {eval(lines[-1], scope)!r}" == expected
