# SPDX-License-Identifier: Apache-2.0
"""Write the generated pages of this folder: ``python docs/models/generate.py``."""

from pathlib import Path

from replay.models import generations, upstream_index


def pages() -> dict[str, str]:
    """Name of each generated file, and its text."""
    generated = {f"{key}.md": upstream_index.page(key) for key in upstream_index.PAGES}
    return {"generations.md": generations.page(), **generated}


if __name__ == "__main__":
    for name, text in pages().items():
        Path(__file__).with_name(name).write_text(text)
