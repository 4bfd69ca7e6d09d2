# SPDX-License-Identifier: Apache-2.0
"""Which Python method stands for which C function, read out of the docstrings.

A docstring names its C functions in a line that begins with ``C:``.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

__all__ = ("PAGES", "Entry", "entries", "page", "undocumented")

#: Title of each page, and the packages whose modules it covers; the first is not recursive.
PAGES = {
    "functions-v4": ("The v4 series, April 2025", "replay.models.v4"),
    "functions-merged": ("QEMU 10.1 to 11.0", "replay.models.merged"),
    "functions-sources": ("QEMU 11.1, several sources", "replay.models.sources"),
    "functions-shared": ("What the generations have in common, and the kernel", "replay.models"),
}

_C_LINE = re.compile(r"^(?:.*[.] )?C: (.*(?:\n(?!\n|:).+)*)", re.MULTILINE)
_NAME = re.compile(r"``([A-Za-z_][\w.]*)(\(\))?``")
_FILE = re.compile(r"\b((?:[\w-]+/)+[\w.-]+[.][ch])\b")


class Entry(NamedTuple):
    """One Python thing that stands for C things."""

    module: str
    name: str
    c_names: tuple[str, ...]
    c_file: str
    notes: tuple[str, ...]


def entries(package: str) -> Iterator[Entry]:
    """What the modules of a package stand for, in file order."""
    for module in _modules(package):
        for name, thing in _things(module):
            doc = inspect.getdoc(thing) or ""
            found = _C_LINE.search(doc)
            if found is None:
                continue
            text = found.group(1)
            names = tuple(n + (call or "") for n, call in _NAME.findall(text))
            file = _FILE.search(text)
            if names:
                yield Entry(
                    module.__name__,
                    name,
                    names,
                    file.group(1) if file else "",
                    _notes(doc, module.__doc__ or ""),
                )


def undocumented(package: str) -> list[str]:
    """Public classes, functions and methods without a docstring."""
    return [
        f"{module.__name__}.{name}"
        for module in _modules(package)
        for name, thing in _things(module)
        if not (thing.__doc__ or "").strip()
    ]


def page(key: str) -> str:
    """One page as Markdown."""
    title, package = PAGES[key]
    lines = [
        f"# {title}",
        "",
        f"Generated from the docstrings of `{package}`; do not edit. Bugs that are kept are",
        "explained in the docstring. [D]: read in the code and not run; [K]: knowledge of the",
        "kernel. Where neither is said, behaviour was compared with the running C code.",
    ]
    module = ""
    for entry in entries(package):
        if entry.module != module:
            module = entry.module
            lines += ["", f"## `{module}`", "", "| C | Python | |", "|---|---|---|"]
        c_names = ", ".join(f"`{name}`" for name in entry.c_names)
        where = f" {entry.c_file}" if entry.c_file else ""
        lines.append(f"| {c_names}{where} | `{entry.name}` | {', '.join(entry.notes)} |")
    return "\n".join(lines) + "\n"


def _modules(package: str) -> Iterator[ModuleType]:
    root = import_module(package)
    for info in sorted(pkgutil.iter_modules(root.__path__), key=lambda info: info.name):
        if not info.ispkg:
            yield import_module(f"{package}.{info.name}")


def _things(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public classes and functions that the module defines, and their own public methods."""
    for name in sorted(
        getattr(module, "__all__", ()), key=lambda name: _line(getattr(module, name))
    ):
        thing = getattr(module, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if thing.__module__ != module.__name__:
            continue
        yield name, thing
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                value = getattr(value, "__func__", value)  # classmethod, staticmethod
                value = value.fget if isinstance(value, property) else value
                if not member.startswith("_") and inspect.isfunction(value):
                    yield f"{name}.{member}", value


def _line(thing: object) -> int:
    try:
        return inspect.getsourcelines(thing)[1]  # type: ignore[arg-type]
    except TypeError:
        return 0


def _notes(doc: str, module_doc: str) -> tuple[str, ...]:
    """Bugs are a thing's own; how sure we are may be said once for the whole module."""
    notes = []
    if re.search(r"\b(?:[Bb]ugs?|[Hh]azard) kept\b", doc):
        notes.append("bug kept")
    notes += [f"[{mark}]" for mark in "DK" if f"[{mark}]" in doc + module_doc]
    return tuple(notes)
