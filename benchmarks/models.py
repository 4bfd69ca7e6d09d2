# SPDX-License-Identifier: Apache-2.0
"""How many conversions a second of CPU the models do.

    python -m benchmarks.models

Single-page conversions, to shared and back, with two listeners: one that counts and one VFIO
listener with a type1 container behind it.  The region is large and mostly uniform, or checkered,
so that a range is found at once or late.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from benchmarks.figures import say
from replay.models import MemoryRegionSection, Type1Container, merged, sources, v4

PAGE = 4096
GOAL = 100_000
RUNS = 3


class MergedCounter(merged.RamDiscardListener):
    """The cheapest listener there is."""

    count = 0

    def notify_populate(self, section: MemoryRegionSection) -> None:
        self.count += 1

    def notify_discard(self, section: MemoryRegionSection) -> None:
        self.count += 1


class V4Counter(v4.PrivateSharedListener):
    """The cheapest listener there is, in the words of v4."""

    count = 0

    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        self.count += 1

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        self.count += 1


StateChange = Callable[[int, int, bool], None]


def make_v4(size: int, with_vfio: bool) -> tuple[StateChange, V4Counter]:
    """Two listeners on a ``RamBlockAttribute``."""
    ram = v4.RamBlockAttribute(size)
    section = ram.mr.section(address=1 << 32)
    counter = V4Counter()
    ram.register_listener(counter, section)
    if with_vfio:
        v4.VfioPrivateSharedListener(Type1Container(1 << 30)).register(section)
    else:
        ram.register_listener(V4Counter(), section)
    return ram.state_change, counter


def make_merged(size: int, with_vfio: bool) -> tuple[StateChange, MergedCounter]:
    """Two listeners on the merged ``RamBlockAttributes``."""
    ram = merged.RamBlockAttributes(size)
    section = ram.mr.section(address=1 << 32)
    counter = MergedCounter()
    ram.register_listener(counter, section)
    if with_vfio:
        merged.VfioListener(Type1Container(1 << 30)).register(section)
    else:
        ram.register_listener(MergedCounter(), section)
    return ram.state_change, counter


def make_sources(size: int, with_vfio: bool) -> tuple[StateChange, MergedCounter]:
    """Two listeners on the manager of a source."""
    ram = sources.RamBlockAttributes(size)
    section = ram.mr.section(address=1 << 32)
    counter = MergedCounter()
    ram.manager.register_listener(counter, section)
    if with_vfio:
        sources.VfioListener(Type1Container(1 << 30)).register(section)
    else:
        ram.manager.register_listener(MergedCounter(), section)
    return ram.state_change, counter


Make = Callable[[int, bool], tuple[StateChange, V4Counter | MergedCounter]]
GENERATIONS: dict[str, Make] = {"v4": make_v4, "merged": make_merged, "sources": make_sources}


def measure(make: Make, size: int, *, with_vfio: bool) -> float:
    """Conversions a second of CPU, the median of three rounds over all pages of a region."""
    seconds = []
    state_change, counter = make(size, with_vfio)
    conversions = 2 * (size // PAGE)
    for _ in range(RUNS):
        start = time.process_time()
        for to_private in (False, True):
            for offset in range(0, size, PAGE):
                state_change(offset, PAGE, to_private)
        seconds.append(time.process_time() - start)
    assert counter.count == RUNS * conversions, "a listener was not told"
    return conversions / statistics.median(seconds)


def main() -> None:
    """Print one line for each generation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256 << 20, help="bytes of RAM")
    size = parser.parse_args().size
    print(f"single-page conversions a second of CPU, {size >> 20} MiB, two listeners")
    print(f"{'generation':12}{'2 counting':>14}{'1 + type1':>14}")
    for name, make in GENERATIONS.items():
        counting = measure(make, size, with_vfio=False)
        vfio = measure(make, size, with_vfio=True)
        for listeners, speed in (("two that count", counting), ("one type1", vfio)):
            said = f"plain-Python model, {name}, listeners: {listeners}"
            say(said, speed / 1e6, "M conversions/s", runs=RUNS)
        verdict = "" if min(counting, vfio) >= GOAL else f"   below the goal of {GOAL:,}"
        print(f"{name:12}{counting:>14,.0f}{vfio:>14,.0f}{verdict}")


if __name__ == "__main__":
    main()
