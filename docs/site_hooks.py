"""What `make site` does to pages that are also read in the repository."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ become the file's name: the site holds nothing but docs/."""

    def named(link: re.Match[str]) -> str:
        folder = posixpath.dirname(page.file.src_uri)
        target = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        return link[0] if target.startswith("docs/") else f"{link[1]} (`{target}`)"

    return LINK.sub(named, markdown)
