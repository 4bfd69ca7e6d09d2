"""Who may import whom (docs/data-flow.md).  Imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("tracekit", "replay", "collectors", "lab")

# A package: what of ours it may import besides itself.  None: everything.
ALLOWED: dict[str, tuple[str, ...] | None] = {
    "tracekit.errors": (),
    "tracekit.escape": (),
    "tracekit.events": (),
    "tracekit.severity": (),
    "tracekit.findings": ("tracekit.escape", "tracekit.severity"),
    "tracekit.compiled": (),
    "tracekit.ftrace": ("tracekit.events", "tracekit.errors", "tracekit.compiled"),
    "tracekit.perf": ("tracekit.ftrace", "tracekit.errors", "tracekit.compiled"),
    "tracekit.store": ("tracekit.events", "tracekit.errors", "tracekit.escape"),
    "tracekit.importers": (
        "tracekit.events",
        "tracekit.store",
        "tracekit.ftrace",
        "tracekit.perf",
        "tracekit.errors",
    ),
    "collectors": ("tracekit.events", "tracekit.store", "tracekit.ftrace", "tracekit.errors"),
    "lab": ("tracekit.errors",),
    "replay.models": (),
    "replay.engine": ("tracekit.events", "tracekit.errors", "tracekit.compiled"),
    "replay.linger": (
        "tracekit.compiled",
        "replay.models",
        "replay.engine",
        "tracekit.events",
        "tracekit.store",
        "tracekit.findings",
        "tracekit.errors",
    ),
    "replay.checks": (
        "replay.engine",
        "replay.linger",
        "tracekit.events",
        "tracekit.store",
        "tracekit.findings",
    ),
    "replay": (
        "replay",
        "tracekit.compiled",
        "tracekit.events",
        "tracekit.store",
        "tracekit.findings",
        "tracekit.errors",
    ),
    "tracekit.synth": (
        "tracekit.events",
        "tracekit.store",
        "tracekit.ftrace",
        "tracekit.errors",
        "replay.models",
    ),
    "tracekit.report": (
        "tracekit.errors",
        "tracekit.escape",
        "tracekit.findings",
        "tracekit.events",
        "tracekit.store",
        "replay.engine",
        "replay.linger",
    ),
    "tracekit.duration": ("tracekit.errors",),
    # Many replays and their reports: all that one replay takes, and the command line not.
    "tracekit.audit": (
        "tracekit.duration",
        "tracekit.errors",
        "tracekit.events",
        "tracekit.findings",
        "tracekit.report",
        "tracekit.store",
        "replay",
    ),
    "tracekit.cli": None,
    "tracekit.__main__": ("tracekit.cli",),
}


def modules() -> list[Path]:
    return sorted(p for name in OURS for p in (ROOT / name).rglob("*.py"))


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            start = [] if not node.level else parts[: -node.level]
            module = ".".join([*start, *([node.module] if node.module else [])])
            # `from tracekit import cli` is an import of tracekit.cli.
            below = [f"{module}.{alias.name}" for alias in node.names]
            is_module = [b for b in below if (ROOT / b.replace(".", "/")).is_dir()]
            is_module += [b for b in below if (ROOT / (b.replace(".", "/") + ".py")).is_file()]
            yield from is_module or [module]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def package_of(name: str) -> str | None:
    return max((p for p in ALLOWED if within(name, p)), key=len, default=None)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    package = package_of(dotted(path))
    if package is None:
        assert dotted(path) == "tracekit", f"{path} is in no package of the table"
        assert not list(imported(path)), "tracekit/__init__.py imports nothing"
        return
    allowed = ALLOWED[package]
    for name in imported(path):
        if name.split(".")[0] not in OURS or name == "tracekit" or package_of(name) == package:
            continue
        assert allowed is None or any(within(name, a) for a in allowed), f"{path} imports {name}"


def test_nobody_imports_the_command_line() -> None:
    for path in modules():
        if not within(dotted(path), "tracekit.cli") and dotted(path) != "tracekit.__main__":
            assert not any(within(name, "tracekit.cli") for name in imported(path)), path


def test_there_is_no_package_marker_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_module_of_a_check_is_left_out() -> None:
    folder = ROOT / "replay" / "checks"
    named = set(imported(folder / "__init__.py"))
    for path in folder.glob("*.py"):
        if "@check" in path.read_text(encoding="utf-8"):
            assert dotted(path) in named
