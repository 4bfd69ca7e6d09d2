"""How fast conversions are compared: ``python -m benchmarks.conformance [N]``.

N conversions of 4 KiB to 64 KiB over 1 GiB, in the order of each generation, as the calls that a
recording would give, made batch by batch; and the memory at its peak for N and for 4 N.  That is a
part of what ``tracekit replay`` does; benchmarks/replay.py measures it with what comes before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.figures import say
from benchmarks.processes import MIB, own_peak
from replay.conformance.kernel import layout as K
from replay.conformance.matcher import GENERATIONS, Matcher

PAGES = 1 << 18
BATCH = 3 << 14
ROUND = 1 << 18
"""Conversions that are made once, and then asked for again and again."""


def calls(conversions: int, seed: int = 1) -> Any:
    """The calls of random conversions, each of memory that has the other state."""
    random = np.random.default_rng(seed)
    sizes = 1 << random.integers(0, 5, conversions)
    half = random.integers(0, PAGES // 16, conversions // 2) * 16
    first = np.concatenate([half, half, half[: conversions % 2]])  # all private in the end
    shared = np.zeros(PAGES // 16, np.int8)
    private = np.empty(conversions, np.int64)
    span = np.zeros(PAGES // 16, np.int64)
    for i, slot in enumerate((first // 16).tolist()):
        private[i] = shared[slot]
        if shared[slot]:
            sizes[i] = span[slot]
        span[slot] = sizes[i]
        shared[slot] ^= 1
    out = np.zeros((3 * conversions + 3, K.C_COLS), np.int64)
    out[:, [K.C_THREAD, K.C_PROC]] = 1
    out[:, [K.C_COUNT, K.C_KNOWN]] = 1
    out[0, K.C_KIND], out[1, K.C_KIND], out[2, K.C_KIND] = K.K_CREATE_VM, K.K_SLOT, K.K_CONTAINER
    out[1, K.C_SIZE], out[1, K.C_FLAG] = PAGES * K.PAGE, 4
    out[2, K.C_SPACE] = 20
    of = out[3:].reshape(conversions, 3, K.C_COLS)
    of[:, :, K.C_ADDR] = (first * K.PAGE)[:, None]
    of[:, :, K.C_SIZE] = (sizes * K.PAGE)[:, None]
    of[:, 0, K.C_KIND], of[:, 0, K.C_FLAG] = K.K_ATTR, private
    of[:, 1, K.C_KIND] = np.where(private, K.K_UNMAP, K.K_MAP)
    of[:, 1, K.C_SPACE] = 20
    of[:, 1, K.C_COUNT] = np.where(private, 1, sizes)
    of[:, 2, K.C_KIND] = np.where(private, K.K_DISCARD, K.K_PUNCH)
    of[:, 2, K.C_FLAG] = 1
    slot = out[1:2].copy()
    slot[0, K.C_KIND], slot[0, K.C_FLAG] = K.K_ATTR, 1
    return np.concatenate([out[:2], slot, out[2:]])


def in_v4_order(rows: Any) -> Any:
    """v4 unmaps before the attribute."""
    out = rows.copy()
    of = out[4:].reshape(-1, 3, K.C_COLS)
    to_private = of[:, 0, K.C_FLAG] == 1
    of[to_private, 0], of[to_private, 1] = of[to_private, 1], of[to_private, 0].copy()
    return out


def follow(generation: str, conversions: int) -> None:
    """Follow them, and print the speed and the memory of this process."""
    rows = calls(min(conversions, ROUND))
    if generation == "v4":
        rows = in_v4_order(rows)
    warm = Matcher(generation, punches=True, discards=True, compiled=True)
    warm.feed(rows[:100])
    matcher = Matcher(generation, punches=True, discards=True, compiled=True)
    matcher.feed(rows[:4])
    start, cpu = time.perf_counter(), time.process_time()
    done = 0
    while done < conversions:  # the same requests again: each finds the state that it left
        for at in range(4, len(rows), BATCH):
            matcher.feed(rows[at : at + BATCH])
        done += (len(rows) - 4) // 3
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    matcher.finish()
    peak = own_peak() * MIB / 1e6
    tally = matcher.tally
    print(
        f"{generation:<7} {tally.compared:>10,} conversions, {tally.compared / took / 1e6:.2f} M/s "
        f"({tally.compared / cpu / 1e6:.2f} M a second of CPU), "
        f"{tally.conforming:,} conform, {tally.diverging:,} do not, {peak:.0f} MB at most",
        flush=True,
    )
    assert tally.compared == tally.conforming == done, "not every conversion conforms"
    name = f"conformance alone, {generation}, calls in memory, {done:,} conversions"
    say(name, done / cpu / 1e6, "M conversions/s", shown=True)
    say(f"{name}, peak memory", peak, "MB")


def main() -> None:
    """Each generation with N and 4 N conversions, each in a process of its own."""
    if len(sys.argv) > 2:
        follow(sys.argv[2], int(sys.argv[1]))
        return
    conversions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for name in GENERATIONS:
        for count in (conversions, 4 * conversions):
            command = [sys.executable, "-m", "benchmarks.conformance", str(count), name]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
