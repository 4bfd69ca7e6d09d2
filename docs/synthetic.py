"""Writes docs/synthetic.md and its picture: ``python docs/synthetic.py RECORDING``.

RECORDING is an imported trace of a real kernel, as ``tracekit import`` makes of the long one of the
shared recordings.  ``--fit`` prints the table of tracekit/synth/timing.py instead.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tracekit.synth.faults import FAULTS
from tracekit.synth.generate import generate
from tracekit.synth.timing import GAPS, LEVELS
from tracekit.synth.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent
MAP, UNMAP, ATTRIBUTE = "ioctl.entered/15217", "ioctl.entered/15218", "ioctl.entered/1075883730"
EPROBE = "ioctl.arguments"
DISCARD = "fallocate.entered"

# What the time is spent on: the events before and after it, in the recording.
PAIRS = {
    "probe": (MAP, EPROBE),
    "called": (EPROBE, "iommu.map_called"),
    "map": ("iommu.map_called", "iommu.map"),
    "mapped": ("iommu.map", "vfio.type1_ioctl_returned"),
    "exit": ("vfio.type1_ioctl_returned", "ioctl.returned"),
    "next map": ("ioctl.returned", MAP),
    "to unmap": ("ioctl.returned", UNMAP),
    "unmap": (EPROBE, "iommu.unmap"),
    "unmap more": ("iommu.unmap", "iommu.unmap"),
    "unmapped": ("iommu.unmap", "vfio.type1_ioctl_returned"),
    "request": (EPROBE, "kvm.attributes"),
    "commit": ("kvm.attributes", "kvm.attributes_post"),
    "committed": ("kvm.attributes_post", "ioctl.returned"),
    "to discard": ("ioctl.returned", DISCARD),
    "punch": (DISCARD, "kvm.gmem_fallocate"),
    "punched": ("kvm.gmem_fallocate", "fallocate.returned"),
    "discarded": (DISCARD, "fallocate.returned"),
    "after discard": ("fallocate.returned", ATTRIBUTE),
}
# The same in a made trace, where another event stands there.
MADE = {
    EPROBE: ("vfio.type1_ioctl", "kvm.vm_ioctl"),
    "kvm.attributes": ("kvm.attributes", "kvm.attributes_pre"),
    "ioctl.returned": ("ioctl.returned", "kvm.vm_ioctl_returned"),
    ATTRIBUTE: (ATTRIBUTE, "ioctl.entered/44672"),
}
MADVISE = (("madvise.entered",), ("madvise.returned",))
"""How anonymous memory is discarded; the recording's was a file."""
PICTURED = ("called", "mapped", "next map", "unmap more", "commit", "punched")
WIDTH, HEIGHT, ACROSS = 300, 170, 3


def gaps(trace: Path) -> pl.DataFrame:
    """Neighbouring events of each thread: before, after, nanoseconds between them."""
    command = pl.col("event") + "/" + pl.col("cmd").cast(pl.Utf8)
    entered = pl.col("event") == "ioctl.entered"
    return (
        pl.scan_parquet(trace)
        .select("ts_ns", "tid", pl.col("event").cast(pl.Utf8), "cmd")
        .filter(pl.col("event") != "iommu.unmap_called")
        .with_columns(after=pl.when(entered).then(command).otherwise(pl.col("event")))
        .with_columns(
            before=pl.col("after").shift(1).over("tid"),
            gap=pl.col("ts_ns") - pl.col("ts_ns").shift(1).over("tid"),
        )
        .drop_nulls(["before", "gap"])
        .select("before", "after", "gap")
        .collect()
    )


def of_pair(
    found: pl.DataFrame, before: tuple[str, ...], after: tuple[str, ...]
) -> npt.NDArray[np.int64]:
    """Nanoseconds between such events, ascending."""
    rows = found.filter(pl.col("before").is_in(before) & pl.col("after").is_in(after))
    return np.sort(rows["gap"].to_numpy())


def fit(recording: Path) -> str:
    """The quantiles, as the source has them."""
    found = gaps(recording)
    lines = []
    for name, (before, after) in PAIRS.items():
        values = np.quantile(of_pair(found, (before,), (after,)), LEVELS)
        lines.append(f'    "{name}": ({", ".join(str(int(v)) for v in values)}),')
    return "\n".join(lines)


def page(recording: Path) -> tuple[str, str]:
    """The page's generated part, and the picture."""
    real = gaps(recording)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.parquet")
        generate("dma-ring", out, events=300_000, parameters={"buffer": "128KiB"})
        made = gaps(out)
    rows = ["| time before | recorded | median | p99 | made | median | p99 |", "|" + "---|" * 7]
    panels = []
    for name, (before, after) in PAIRS.items():
        a = of_pair(real, (before,), (after,))
        told = (MADE.get(before, (before,)), MADE.get(after, (after,)))
        b = of_pair(made, *(MADVISE if name == "discarded" else told))
        cells = [f"{len(a):,}", *_quantiles(a), f"{len(b):,}", *_quantiles(b)]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
        if name in PICTURED:
            panels.append(_panel(name, a, b, len(panels)))
    down = -(-len(panels) // ACROSS)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * ACROSS}" '
        f'height="{HEIGHT * down}" font-family="sans-serif" font-size="11">'
        '<rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join(rows), head + "".join(panels) + "</svg>\n"


def _quantiles(values: npt.NDArray[np.int64]) -> list[str]:
    if not len(values):
        return ["-", "-"]
    return [f"{np.quantile(values, q) / 1000:.1f} us" for q in (0.5, 0.99)]


def _panel(name: str, real: npt.NDArray[np.int64], made: npt.NDArray[np.int64], number: int) -> str:
    """Both cumulative distributions over the logarithm of time, from 1 us to 10 ms."""
    left, top = number % ACROSS * WIDTH, number // ACROSS * HEIGHT
    out = [f'<g transform="translate({left},{top})"><text x="40" y="16">{name}</text>']
    for decade, text in enumerate(("1us", "10us", "100us", "1ms", "10ms")):
        x = 40 + decade * 60
        out.append(f'<path d="M{x} 25V140" stroke="#ddd"/><text x="{x - 10}" y="155">{text}</text>')
    for values, colour, dashes in ((real, "#1f77b4", ""), (made, "#d62728", "4 3")):
        points = []
        for level in np.linspace(0.005, 0.995, 60).tolist():
            x = 40 + 60 * float(np.log10(max(np.quantile(values, level), 1000) / 1000))
            points.append(f"{x:.1f},{140 - 115 * level:.1f}")
        out.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
            f'stroke-width="1.5" stroke-dasharray="{dashes}"/>'
        )
    return "".join([*out, "</g>"])


def lists() -> str:
    """The scenarios with their parameters, and the faults."""
    out = ["| scenario | what happens | parameters |", "|---|---|---|"]
    for w in WORKLOADS.values():
        of = ", ".join(f"`{n}` {p.meaning} ({p.default})" for n, p in w.parameters.items())
        out.append(f"| {w.name} | {w.summary} | {of} |")
    out += ["", "| fault | what is wrong | codes |", "|---|---|---|"]
    out += [f"| {f.name} | {f.summary} | {' '.join(f.codes)} |" for f in FAULTS.values()]
    return "\n".join(out)


def main() -> None:
    """Write the page and the picture, or print the table."""
    recording = Path(sys.argv[-1])
    if "--fit" in sys.argv:
        print(fit(recording))
        return
    assert set(PAIRS) == set(GAPS)
    table, picture = page(recording)
    text = (ROOT / "synthetic.md").read_text(encoding="utf-8")
    for name, body in (("timing", table), ("lists", lists())):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{body}\n{end}{rest.partition(end)[2]}"
    (ROOT / "synthetic.md").write_text(text, encoding="utf-8")
    (ROOT / "synthetic.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
