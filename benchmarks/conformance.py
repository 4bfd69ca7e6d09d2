"""How fast conversions are compared: ``python -m benchmarks.conformance [N]``.

N conversions of 4 KiB to 64 KiB over 1 GiB, in the merged order, as the calls that a recording
would give; and how much the memory grows while they are followed.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import numpy as np

from replay.conformance.kernel import layout as K
from replay.conformance.matcher import GENERATIONS, Matcher

PAGES = 1 << 18
BATCH = 1 << 16


def calls(conversions: int, seed: int = 1) -> Any:
    """The calls of random conversions, each of memory that has the other state."""
    random = np.random.default_rng(seed)
    sizes = 1 << random.integers(0, 5, conversions)
    first = random.integers(0, PAGES // 16, conversions) * 16
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


def main() -> None:
    """Print conversions a second of each generation, and the memory they took."""
    conversions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows = calls(conversions)
    for name in GENERATIONS:
        Matcher(name, punches=True, discards=True, compiled=True).feed(rows[:100])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu = time.perf_counter(), time.process_time()
        matcher = Matcher(name, punches=True, discards=True, compiled=True)
        for at in range(0, len(rows), BATCH):
            matcher.feed(rows[at : at + BATCH])
        matcher.finish()
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        tally = matcher.tally
        print(
            f"{name:<7} {tally.compared / took / 1e6:.2f} M conversions/s "
            f"({tally.compared / cpu / 1e6:.2f} M a second of CPU), "
            f"{tally.conforming:,} conform, {tally.diverging:,} do not, +{grown} MiB"
        )


if __name__ == "__main__":
    main()
