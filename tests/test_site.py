"""The documentation's site: every page is in it, its links lead somewhere, its commands run."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tracekit.cli import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDES = [DOCS / "index.md", DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
DATA = ROOT / "tests" / "data" / "traces" / "kvm"


def name(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def prose(path: Path) -> str:
    """A page without its code blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", "", text)


def anchors(path: Path) -> set[str]:
    """What mkdocs calls a page's headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ +(.+?) *#*$", text, flags=re.M)
    return {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in found
    }


def test_every_page_is_in_the_nav_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"([\w./-]+\.md)$", nav, flags=re.M)
    assert sorted(listed) == [name(page) for page in PAGES], "mkdocs.yml: nav"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT.resolve()), link
        assert target.is_file(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_links_out_of_the_pages_become_names_in_the_site() -> None:
    namespace: dict[str, object] = {}
    exec((DOCS / "site_hooks.py").read_text(encoding="utf-8"), namespace)
    hook = namespace["on_page_markdown"]
    assert callable(hook)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/x.md"))
    given = "[a](../../lab/README.md#b) [c](../events.md) [d](other.md)"
    assert hook(given, page=page) == "a (`lab/README.md`) [c](../events.md) [d](other.md)"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """A page's code blocks: language and text."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S)


def make_demo() -> None:
    """What `make demo` runs once there is an environment."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo: .*\n\t\$\(RUN\) tracekit demo$", makefile, flags=re.M)
    assert main(["demo"]) == 0


def record() -> None:
    """A recording in place of one's own: scripts run on real kernels in tests/lab."""
    assert Path("record.sh").read_text().startswith("#!/bin/sh")
    Path("tracekit-dma").mkdir()
    shutil.copy(DATA / "trace-fmt-default-7.3.4-tracekit-lab.dat", "tracekit-dma/trace.dat")
    shutil.copy(DATA / "dynamic_events-7.3.4-tracekit-lab.txt", "tracekit-dma/dynamic_events")


STANDS_FOR: dict[str, Callable[[], None]] = {
    "make demo": make_demo,
    "sudo sh record.sh": record,
}


def run(line: str) -> None:
    """One line of a block: ``tracekit ... [> FILE]  [# exits N]``."""
    command, _, comment = line.partition("#")
    if command.strip() in STANDS_FOR:
        STANDS_FOR[command.strip()]()
        return
    words = shlex.split(command)
    assert words[0] == "tracekit", line
    expected = re.fullmatch(r" exits (\d)", comment) if comment else None
    assert expected or not comment, line
    with contextlib.ExitStack() as stack:
        if ">" in words:
            out = stack.enter_context(Path(words[words.index(">") + 1]).open("w"))
            stack.enter_context(contextlib.redirect_stdout(out))
            words = words[: words.index(">")]
        status = main(words[1:])
    assert status == int(expected[1] if expected else 0), line


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_every_command_on_it_runs_and_exits_as_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for language, text in blocks(page):
        if language == "python":
            exec(text, {})
            continue
        assert language == "sh", language
        for line in text.splitlines():
            run(line)
            ran += 1
    assert ran
