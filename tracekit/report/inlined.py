"""What a page carries in itself: scripts and styles, and the hashes that let only them run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

__all__ = ("asset", "content_hash", "template")


@cache
def asset(name: str, package: str = "tracekit.report") -> str:
    """The text of a file in a package's ``assets``."""
    text = (files(package) / "assets" / name).read_text(encoding="utf-8")
    assert "</script" not in text or not name.endswith(".js"), f"{name} would end its element"
    return text


def content_hash(script: str) -> str:
    """As the page's policy (CSP) names a script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@cache
def template(name: str, package: str = "tracekit.report") -> Template:
    """A page's template, which escapes whatever is put into it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(asset(name, package))
