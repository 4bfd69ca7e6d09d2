"""Writes what people and other programs read of an audit.

Into ``nights/NIGHT/`` of the audit's folder, and for the newest night into the folder itself.
"""

from __future__ import annotations

from tracekit.audit.formats import render_json, render_markdown, render_metrics
from tracekit.audit.junit import render_junit
from tracekit.audit.page import render_html
from tracekit.audit.run import Audited
from tracekit.store import Place, locate
from tracekit.store.location import put

__all__ = ("front_page", "write_outputs")


def front_page(made: Audited) -> Place:
    """Where the page of this night is."""
    return locate(made.config.outputs.folder) / f"nights/{made.night}/index.html"


def write_outputs(made: Audited) -> None:
    """Everything; each file appears when it is complete.

    :raises OSError: a file cannot be written
    """
    folder = locate(made.config.outputs.folder)
    texts = {
        "junit.xml": render_junit(made),
        "audit.json": render_json(made),
        "summary.md": render_markdown(made),
        "metrics.prom": render_metrics(made),
    }
    places = [(f"nights/{made.night}/", "../../")]
    if made.is_newest:
        places.append(("", ""))
    for where, up in places:
        for name, text in {"index.html": render_html(made, up=up), **texts}.items():
            put(folder / f"{where}{name}", text.encode("utf-8", "backslashreplace"))
    if made.config.outputs.metrics is not None and made.is_newest:
        metrics = texts["metrics.prom"].encode("utf-8", "backslashreplace")
        put(locate(made.config.outputs.metrics), metrics)
