# SPDX-License-Identifier: Apache-2.0
"""What a notebook shows of a model: facts, and the addresses it holds, drawn to scale."""

import html
from collections.abc import Iterable, Sequence

__all__ = ("shown", "size_of")

WIDTH, HEIGHT = 480, 14
MOST_LISTED = 6


def shown(
    name: str,
    facts: Iterable[tuple[str, str]],
    ranges: Sequence[tuple[int, int]] = (),
    whole: tuple[int, int] | None = None,
) -> str:
    """A small HTML table.

    ``ranges``: ``(start, end)``, ascending; they are drawn as a strip of ``whole``, or from the
    first to the last, and the first few are listed.
    """
    rows = [(html.escape(key), html.escape(value)) for key, value in facts]
    if ranges or whole:
        low, high = whole or (ranges[0][0], ranges[-1][1])
        rows.append((f"{low:#x} to {high:#x}", _strip(ranges, low, high)))
    rows += [(f"{start:#x}", size_of(end - start)) for start, end in ranges[:MOST_LISTED]]
    if len(ranges) > MOST_LISTED:
        rows.append(("", f"and {len(ranges) - MOST_LISTED:,} more"))
    cells = "".join(f"<tr><td>{key}</td><td>{value}</td></tr>" for key, value in rows)
    head = f'<thead><tr><th colspan="2">{html.escape(name)}</th></tr></thead>'
    return f"<table>{head}<tbody>{cells}</tbody></table>"


def size_of(size: int) -> str:
    """``64 KiB``; in the largest unit that leaves no rest."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    place = 0
    while size and size % 1024 == 0 and place < len(units) - 1:
        size //= 1024
        place += 1
    return f"{size:,} {units[place]}"


def _strip(ranges: Sequence[tuple[int, int]], low: int, high: int) -> str:
    """Ranges that would meet on paper are drawn as one, so that it stays small."""
    scale = WIDTH / max(high - low, 1)
    boxes: list[list[float]] = []
    for start, end in ranges:
        left, right = round((start - low) * scale, 1), round((end - low) * scale, 1)
        right = max(right, left + 1)
        if boxes and left <= boxes[-1][1] + 0.5:
            boxes[-1][1] = max(boxes[-1][1], right)
        else:
            boxes.append([left, right])
    drawn = "".join(
        f'<rect x="{left:g}" y="1" width="{right - left:g}" height="{HEIGHT - 2}" fill="#1f8a84"/>'
        for left, right in boxes
    )
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{len(ranges)} ranges">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>{drawn}</svg>'
    )
