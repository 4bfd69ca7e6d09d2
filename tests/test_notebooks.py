"""The notebooks run from a fresh clone, and what they show is what is committed.

``pytest --update-golden tests/test_notebooks.py`` writes their outputs anew.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 600_000
TEXT = ("text/plain", "text/html", "text/markdown")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def code(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def said(cell: dict[str, Any]) -> list[tuple[str, str]]:
    """A cell's outputs: their kinds, and their text.  Of a picture only that there is one."""
    found = []
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            found.append((output["name"], "".join(output["text"])))
        for kind, data in sorted(output.get("data", {}).items()):
            found.append((kind, "".join(data) if kind in TEXT else "a picture"))
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where notebooks run and leave their traces: a folder that lies in the tree as theirs does."""
    top = tmp_path_factory.mktemp("clone")
    for name in ("tests", "tracekit"):
        (top / name).symlink_to(ROOT / name)
    (top / "notebooks").mkdir()
    return top / "notebooks"


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own settings counts."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.usefixtures("jupyter")
def test_it_runs_and_says_again_what_is_committed(
    path: Path, clone: Path, request: pytest.FixtureRequest
) -> None:
    for needed in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install -e '.[dev]'")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    before = [said(cell) for cell in code(notebook)]
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(clone)}},
    ).execute()
    if request.config.getoption("--update-golden"):
        notebook.metadata = nbformat.from_dict(METADATA)  # type: ignore[no-untyped-call]
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
        before = [said(cell) for cell in code(read(path))]
    for then, cell in zip(before, code(notebook), strict=True):
        assert said(cell) == then, cell["source"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_begins_with_its_question(path: Path) -> None:
    first = read(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    title = "".join(first["source"]).splitlines()[0]
    assert re.fullmatch(r"# [A-Z].*\?", title)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_calls_the_library_and_plots_and_defines_nothing(path: Path) -> None:
    pictures = 0
    for cell in code(read(path)):
        source = "".join(cell["source"])
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            ), source
        pictures += sum(text == "a picture" for _, text in said(cell))
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_its_outputs_are_of_one_clean_run(path: Path) -> None:
    cells = list(code(read(path)))
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        assert cell["metadata"] == {}
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
        for _, text in said(cell):
            assert not re.search(r"(?<![\w.<-])/(?:home|root|tmp|usr|var|work)\b", text), text
            assert not re.search(r" at 0x[0-9a-f]{6,}", text), text


def test_their_metadata_names_no_machine_and_together_they_are_small() -> None:
    assert NOTEBOOKS
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MOST_BYTES
    for path in NOTEBOOKS:
        assert read(path)["metadata"] == METADATA
