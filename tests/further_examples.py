"""Written traces for docs/judging.md, sections 6 to 8, with what must be found in each.

What is expected was worked out by hand from that page, for whoever judges: the oracle does it in
tests/test_reference_engine_further_checks.py.  A call takes 1 us; a change of attributes that
begins at t is committed at t + 600 ns, a map of one piece takes effect at t + 500 ns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ("EXAMPLES", "Example", "Expected")

Expected = tuple[str, str, str, int | None, int | None, int, int | None]
"""Code, severity, confidence, iova, size, from_ns, until_ns."""

MIB = 1 << 20
MS = 1_000_000
VM = """
    0us    vmm   create-vm
    1us    vmm   memory
    2us    vmm   set-iommu
    3us    vmm   create-gmem 0x0+16M
    4us    vmm   slot 0 0x0+16M gmem
"""
MAPPED_ONCE = """
    5us    vmm   map 0x100000+2M
    10us   vmm   private 0x100000+2M
    12us   vmm   unmap 0x100000+2M
    14us   vmm   punch 0x100000+2M
    16us   vmm   run
"""
TWO_VMS = """
    0us    vmm   create-vm
    1us    vmm   create-vm fd=16
    2us    vmm   set-iommu
    3us    vmm   set-iommu fd=12
    4us    vmm   slot 0 0x0+16M gmem
"""
SECOND_SLOT = "    5us    vmm   slot 0 0x0+16M gmem=17 fd=16 at=0x7e0000000000\n"


@dataclass(frozen=True)
class Example:
    """A trace in the tests' language, and what is to be said of it."""

    text: str
    expected: list[Expected] = field(default_factory=list)
    judged: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Code: decided and undecided, for the codes that the example is about."""
    grace_ns: int = MS
    in_place: bool = False


def _error(code: str, iova: int, size: int, from_ns: int, until_ns: int | None) -> Expected:
    return (code, "error", "certain", iova, size, from_ns, until_ns)


EXAMPLES: dict[str, Example] = {
    # --- TK104 ---
    "TK104: half of what is shared again is not mapped": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+1M
    24us   vmm   punch-private 0x100000+2M
    30us   vmm   run
        """,
        [_error("TK104", 0x200000, MIB, 20_600, None)],
        {"TK104": (1, 0), "TK108": (2, 0)},
    ),
    "TK104: all of it is mapped": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+1M
    24us   vmm   map 0x200000+1M each=4K
    30us   vmm   run
        """,
        judged={"TK104": (1, 0)},
    ),
    "TK104: mapped after the guest ran": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    30us   vmm   run
    40us   vmm   map 0x100000+2M
        """,
        [_error("TK104", 0x100000, 2 * MIB, 20_600, 41_000)],
        {"TK104": (1, 0)},
    ),
    "TK104: never mapped before, but its container maps all of the slot that is shared": Example(
        VM
        + """
    5us    vmm   private 0x0+16M
    10us   vmm   shared 0x100000+1M
    12us   vmm   map 0x100000+1M
    14us   vmm   run
    20us   vmm   shared 0x200000+1M
    30us   vmm   run
        """,
        [_error("TK104", 0x200000, MIB, 20_600, None)],
        {"TK104": (2, 0)},
    ),
    "TK104: a container that does not map what is shared": Example(
        VM
        + """
    5us    vmm   private 0x0+16M
    10us   vmm   shared 0x100000+1M
    14us   vmm   run
    20us   vmm   shared 0x200000+1M
    30us   vmm   run
        """,
        judged={"TK104": (2, 0)},
    ),
    "TK104: unmapped for good before it became private": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    8us    vmm   unmap 0x100000+2M
    9us    vmm   run
    11us   vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK104": (1, 0)},
    ),
    "TK104: unmapped by the conversion itself, before the change": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    9us    vmm   unmap 0x100000+2M
    11us   vmm   private 0x100000+2M
    13us   vmm   punch 0x100000+2M
    20us   vmm   shared 0x100000+2M
    30us   vmm   run
        """,
        [_error("TK104", 0x100000, 2 * MIB, 20_600, None)],
        {"TK104": (1, 0)},
    ),
    "TK104: nothing for longer than the grace, then the map": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    3ms    vmm   map 0x100000+2M
        """,
        [("TK104", "warning", "likely", 0x100000, 2 * MIB, 20_600, 3_001_000)],
        {"TK104": (1, 0)},
    ),
    "TK104: nothing more comes": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    3ms    end
        """,
        [("TK104", "warning", "likely", 0x100000, 2 * MIB, 20_600, None)],
        {"TK104": (1, 0)},
    ),
    "TK104: the trace ends in the conversion": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    30us   end
        """,
        judged={"TK104": (0, 1)},
    ),
    "TK104: events are lost in the conversion": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    lost cpu0 22us..25us
    30us   vmm   run
        """,
        [("TK901", "note", "certain", None, None, 22_000, 25_000)],
        {"TK104": (0, 1)},
    ),
    "TK104: the trace starts late": Example(
        """
    1us    vmm   memory
    5us    vmm   map 0x800000+4K
    20us   vmm   shared 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK104": (0, 1)},
    ),
    "TK104: no container": Example(
        """
    0us    vmm   create-vm
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK104": (1, 0)},
    ),
    "TK104: a container that is closed": Example(
        VM
        + MAPPED_ONCE
        + """
    18us   vmm   close 8
    20us   vmm   shared 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK104": (1, 0)},
    ),
    "TK104: made private again by the same thread": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    25us   vmm   private 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK104": (1, 0)},
    ),
    "TK104: made private again by another thread": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    25us   vmm2  private 0x100000+2M
    30us   vmm   run
        """,
        [_error("TK104", 0x100000, 2 * MIB, 20_600, 25_600)],
        {"TK104": (1, 0)},
    ),
    "TK104: another thread is mapping, and its first piece comes after the guest ran": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    22us   vmm2  map 0x100000+2M for=20us
    25us   vmm   run
        """,
        [_error("TK104", 0x100000, 2 * MIB, 20_600, 42_000)],
        {"TK104": (1, 0)},
    ),
    "TK104: another thread is mapping, and its first piece came before the guest ran": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    22us   vmm2  map 0x100000+2M for=20us
    35us   vmm   run
        """,
        [("TK104", "warning", "possible", 0x100000, 2 * MIB, 20_600, 42_000)],
        {"TK104": (1, 0)},
    ),
    "TK104: another thread's map was done when the guest ran, but had not returned": Example(
        VM
        + MAPPED_ONCE
        + """
    20us   vmm   shared 0x100000+2M
    22us   vmm2  map 0x100000+2M for=20us
    39us   vmm   run
        """,
        judged={"TK104": (1, 0)},
    ),
    "TK104: one conversion, the first and the last page": Example(
        VM
        + """
    5us    vmm   map 0x100000+12K each=4K
    10us   vmm   private 0x100000+12K
    12us   vmm   unmap 0x100000+12K
    14us   vmm   punch 0x100000+12K
    20us   vmm   shared 0x100000+12K
    22us   vmm   map 0x101000+4K
    30us   vmm   run
        """,
        [
            _error("TK104", 0x100000, 4096, 20_600, None),
            _error("TK104", 0x102000, 4096, 20_600, None),
        ],
        {"TK104": (1, 0)},
    ),
    "TK104: through iommufd": Example(
        """
    0us    vmm   create-vm
    1us    vmm   ioas-alloc
    5us    vmm   ioas-map 0x100000+2M ioas=3
    10us   vmm   private 0x100000+2M
    12us   vmm   ioas-unmap 0x100000+2M ioas=3
    20us   vmm   shared 0x100000+2M
    22us   vmm   ioas-map 0x100000+1M ioas=3
    30us   vmm   run
        """,
        [_error("TK104", 0x200000, MIB, 20_600, None)],
        {"TK104": (1, 0)},
    ),
    # --- TK107 ---
    "TK107: no entries are left": Example(
        VM + "    5us    vmm   map 0x100000+2M ret=-28\n",
        [("TK107", "warning", "certain", 0x100000, 2 * MIB, 5_000, 6_000)],
        {"TK107": (1, 0)},
    ),
    "TK107: refused in a conversion": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+1M
    24us   vmm   map 0x200000+1M ret=-28
    30us   vmm   run
        """,
        [
            _error("TK107", 0x200000, MIB, 24_000, 25_000),
            _error("TK108", 0x200000, MIB, 24_000, 30_000),
        ],
        {"TK107": (1, 0), "TK104": (1, 0), "TK108": (2, 0)},
    ),
    "TK107: refused elsewhere than in the conversion": Example(
        VM
        + """
    5us    vmm   private 0x100000+1M
    20us   vmm   shared 0x100000+1M
    22us   vmm   map 0x100000+1M
    24us   vmm   map 0x800000+1M ret=-28
    30us   vmm   run
        """,
        [("TK107", "warning", "certain", 0x800000, MIB, 24_000, 25_000)],
        {"TK107": (1, 0)},
    ),
    "TK107: refused with another error": Example(
        VM + "    5us    vmm   map 0x100000+2M ret=-12\n", judged={"TK107": (1, 0)}
    ),
    "TK107: in pieces, one run of calls": Example(
        VM
        + """
    5us    vmm   map 0x100000+4K ret=-28
    7us    vmm   map 0x101000+4K ret=-28
        """,
        [("TK107", "warning", "certain", 0x100000, 8192, 5_000, 8_000)],
        {"TK107": (1, 0)},
    ),
    "TK107: the trace starts late": Example(
        "    5us    vmm   map 0x100000+4K\n", judged={"TK107": (0, 1)}
    ),
    "TK107: a call whose arguments nobody tells": Example(
        VM + "    5us    vmm   map 0x100000+4K bare\n", judged={"TK107": (0, 1)}
    ),
    # --- TK108 ---
    "TK108: the second half fails, the first is unmapped again, the change stays": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+1M
    24us   vmm   map 0x200000+1M ret=-12
    26us   vmm   unmap 0x100000+2M
    30us   vmm   run
        """,
        [_error("TK108", 0x100000, 2 * MIB, 24_000, 30_000)],
        {"TK108": (2, 0), "TK104": (1, 0)},
    ),
    "TK108: rolled back": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+1M
    24us   vmm   map 0x200000+1M ret=-12
    26us   vmm   unmap 0x100000+2M
    28us   vmm   private 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK108": (3, 0), "TK104": (1, 0)},
    ),
    "TK108: rolled back, with the first half still mapped": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+1M
    24us   vmm   map 0x200000+1M ret=-12
    28us   vmm   private 0x100000+2M
    30us   vmm   run
        """,
        [_error("TK108", 0x100000, MIB, 24_000, 30_000)],
        {"TK108": (3, 0), "TK101": (2, 0)},
    ),
    "TK108: the map is tried again": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   map 0x100000+2M ret=-16
    24us   vmm   unmap 0x100000+2M
    26us   vmm   map 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK108": (2, 0), "TK104": (1, 0)},
    ),
    "TK108: the change fails after its unmap": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    10us   vmm   unmap 0x100000+2M
    12us   vmm   private 0x100000+1M ret=-12
    20us   vmm   run
        """,
        [_error("TK108", 0x100000, MIB, 12_000, 20_000)],
        {"TK108": (1, 0)},
    ),
    "TK108: the change fails and is tried again": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    10us   vmm   unmap 0x100000+2M
    12us   vmm   private 0x100000+2M ret=-4
    14us   vmm   private 0x100000+2M
    16us   vmm   punch 0x100000+2M
    20us   vmm   run
        """,
        judged={"TK108": (2, 0)},
    ),
    "TK108: an unmap fails, and what was unmapped before it stays so": Example(
        VM
        + """
    5us    vmm   map 0x100000+1M
    6us    vmm   map 0x200000+1M
    10us   vmm   private 0x100000+2M
    12us   vmm   unmap 0x100000+1M
    14us   vmm   unmap 0x200000+1M ret=-16
    16us   vmm   shared 0x100000+2M
    20us   vmm   run
        """,
        [_error("TK108", 0x100000, MIB, 14_000, 20_000)],
        {"TK108": (2, 0), "TK104": (1, 0)},
    ),
    "TK108: the trace ends before anything else": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    24us   vmm   map 0x100000+2M ret=-12
    30us   end
        """,
        judged={"TK108": (1, 1)},
    ),
    "TK108: the trace ends long after": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    24us   vmm   map 0x100000+2M ret=-12
    3ms    end
        """,
        [("TK108", "warning", "likely", 0x100000, 2 * MIB, 24_000, None)],
        {"TK108": (2, 0)},
    ),
    "TK108: events are lost": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    24us   vmm   map 0x100000+2M ret=-12
    lost cpu0 26us..28us
    30us   vmm   run
        """,
        [("TK901", "note", "certain", None, None, 26_000, 28_000)],
        {"TK108": (1, 1)},
    ),
    "TK108: a second container that never mapped it": Example(
        VM
        + """
    5us    vmm   set-iommu fd=12
    6us    vmm   map 0x800000+4K fd=12
    8us    vmm   private 0x100000+4K
    20us   vmm   shared 0x100000+4K
    24us   vmm   map 0x100000+4K ret=-12
    30us   vmm   run
        """,
        [_error("TK108", 0x100000, 4096, 24_000, 30_000)],
        {"TK108": (2, 0)},
    ),
    # --- TK110 ---
    "TK110: shared memory is thrown away when it becomes shared": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   punch 0x200000+2M
    30us   vmm   run
        """,
        [_error("TK110", 0x200000, MIB, 22_000, 23_000)],
        {"TK110": (1, 0)},
    ),
    "TK110: private memory is thrown away when it becomes private": Example(
        VM
        + """
    20us   vmm   private 0x100000+2M
    22us   vmm   punch-private 0x100000+4K
    24us   vmm   punch-private 0x102000+4K
    30us   vmm   run
        """,
        [
            _error("TK110", 0x100000, 4096, 22_000, 23_000),
            _error("TK110", 0x102000, 4096, 24_000, 25_000),
        ],
        {"TK110": (2, 0)},
    ),
    "TK110: by the size of the only slot and the only guest_memfd": Example(
        """
    0us    vmm   create-vm
    3us    vmm   create-gmem 0x0+16M
    4us    vmm   slot 0 0x0+16M gmem untold
    20us   vmm   private 0x100000+2M
    22us   vmm   punch-private 0x100000+2M
    30us   vmm   run
        """,
        [_error("TK110", 0x100000, 2 * MIB, 22_000, 23_000)],
        {"TK110": (1, 0)},
    ),
    "TK110: the other side of each": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    7us    vmm   punch 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   punch-private 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK110": (2, 0)},
    ),
    "TK110: outside a conversion": Example(
        VM
        + """
    5us    vmm   private 0x100000+2M
    20us   vmm   shared 0x100000+2M
    22us   vmm   run
    30us   vmm   punch 0x100000+2M
        """,
        judged={"TK110": (0, 0)},
    ),
    "TK110: a slot without a guest_memfd": Example(
        """
    0us    vmm   create-vm
    1us    vmm   memory
    4us    vmm   slot 0 0x0+16M
    20us   vmm   shared 0x100000+2M
    22us   vmm   punch 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK110": (1, 0)},
    ),
    "TK110: no slot is known": Example(
        """
    0us    vmm   create-vm
    1us    vmm   memory
    20us   vmm   shared 0x100000+2M
    22us   vmm   punch 0x100000+2M
    30us   vmm   run
        """,
        judged={"TK110": (0, 1)},
    ),
    "TK110: long after the conversion": Example(
        VM
        + """
    20us   vmm   shared 0x100000+2M
    3ms    vmm   punch 0x100000+2M
    4ms    vmm   run
        """,
        [("TK110", "warning", "possible", 0x100000, 2 * MIB, 3_000_000, 3_001_000)],
        {"TK110": (1, 0)},
    ),
    "TK110: both sides are populated": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    10us   vmm   private 0x100000+2M
    12us   vmm   unmap 0x100000+2M
    16us   vmm   run
    20us   vmm   populate-private 0x100000+2M
        """,
        [("TK110", "note", "likely", 0x100000, 2 * MIB, 10_600, 16_000)],
        {"TK110": (0, 0)},
    ),
    "TK110: huge pages are not discarded": Example(
        """
    0us    vmm   create-vm
    1us    vmm   memory huge
    2us    vmm   set-iommu
    4us    vmm   slot 0 0x0+16M gmem
    5us    vmm   map 0x100000+2M
    10us   vmm   private 0x100000+2M
    12us   vmm   unmap 0x100000+2M
    16us   vmm   run
    20us   vmm   populate-private 0x100000+2M
        """,
        judged={"TK110": (0, 0)},
    ),
    # --- TK111 ---
    "TK111: unmapped after it became private": Example(
        VM + MAPPED_ONCE,
        [_error("TK111", 0x100000, 2 * MIB, 10_600, 13_000)],
        {"TK111": (2, 0), "TK101": (1, 0)},
        in_place=True,
    ),
    "TK111: without in-place conversion that is right": Example(
        VM + MAPPED_ONCE, judged={"TK111": (0, 0), "TK101": (1, 0)}
    ),
    "TK111: unmapped first": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    9us    vmm   unmap 0x100000+2M
    12us   vmm   private 0x100000+2M
    14us   vmm   punch 0x100000+2M
    16us   vmm   run
        """,
        judged={"TK111": (2, 0)},
        in_place=True,
    ),
    "TK111: mapped before it became shared": Example(
        VM
        + """
    5us    vmm   private 0x100000+4K
    9us    vmm   map 0x100000+4K
    12us   vmm   shared 0x100000+4K
        """,
        [
            _error("TK103", 0x100000, 4096, 9_500, 12_600),
            _error("TK111", 0x100000, 4096, 9_500, 12_600),
        ],
        {"TK111": (2, 0)},
        in_place=True,
    ),
    "TK111: rolled back": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    10us   vmm   private 0x100000+2M
    12us   vmm   shared 0x100000+2M
    16us   vmm   run
        """,
        judged={"TK111": (2, 0)},
        in_place=True,
    ),
    "TK111: another thread is unmapping": Example(
        VM
        + """
    5us    vmm   map 0x100000+2M
    9us    vmm2  unmap 0x100000+2M for=20us
    10us   vmm   private 0x100000+2M
        """,
        [("TK111", "warning", "possible", 0x100000, 2 * MIB, 10_600, 29_000)],
        {"TK111": (2, 0)},
        in_place=True,
    ),
    "TK111: never unmapped": Example(
        VM
        + """
    5us    vmm   map 0x100000+4K
    10us   vmm   private 0x100000+4K
    16us   vmm   run
        """,
        [
            _error("TK101", 0x100000, 4096, 10_600, None),
            _error("TK111", 0x100000, 4096, 10_600, None),
        ],
        {"TK111": (2, 0)},
        in_place=True,
    ),
    "TK111: the trace starts late": Example(
        "    10us   vmm   private 0x100000+4K\n", judged={"TK111": (0, 1)}, in_place=True
    ),
    # --- whose pages ---
    "several VMs: the other one's page": Example(
        TWO_VMS
        + SECOND_SLOT
        + """
    10us   vmm   map 0x100000+1M
    12us   vmm   map 0x100000+1M fd=12 at=0x7e0000100000
    20us   vmm   private 0x100000+1M fd=16
    30us   vmm   run
        """,
        [_error("TK101", 0x100000, MIB, 20_600, None)],
        {"TK101": (1, 0)},
    ),
    "several VMs: only the other one's page": Example(
        TWO_VMS
        + SECOND_SLOT
        + """
    10us   vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M fd=16
    30us   vmm   run
        """,
        judged={"TK101": (1, 0)},
    ),
    "several VMs: no slot of this one is known": Example(
        TWO_VMS
        + """
    10us   vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M fd=16
    30us   vmm   run
        """,
        judged={"TK101": (0, 1)},
    ),
    "several VMs: one of them is closed": Example(
        TWO_VMS
        + """
    8us    vmm   close 16
    10us   vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M
    30us   vmm   run
        """,
        [_error("TK101", 0x100000, MIB, 20_600, None)],
        {"TK101": (1, 0)},
    ),
    "several VMs: shared again, and not mapped": Example(
        TWO_VMS
        + SECOND_SLOT
        + """
    10us   vmm   map 0x100000+1M fd=12 at=0x7e0000100000
    20us   vmm   private 0x100000+1M fd=16
    22us   vmm   unmap 0x100000+1M fd=12
    24us   vmm   run
    30us   vmm   shared 0x100000+1M fd=16
    40us   vmm   run
        """,
        [_error("TK104", 0x100000, MIB, 30_600, None)],
        {"TK101": (1, 0), "TK104": (1, 0)},
    ),
    "vIOMMU: guest memory at an address of the guest's choice": Example(
        VM
        + """
    5us    vmm   map 0x5000000+1M at=0x7f0000100000
    20us   vmm   private 0x5000000+1M
    30us   vmm   run
        """,
        judged={"TK101": (0, 1), "TK103": (0, 1)},
    ),
    "vIOMMU: at its own address": Example(
        VM
        + """
    5us    vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M
    30us   vmm   run
        """,
        [_error("TK101", 0x100000, MIB, 20_600, None)],
        {"TK101": (1, 0)},
    ),
    "vIOMMU: what was open then": Example(
        VM
        + """
    5us    vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M
    25us   vmm2  map 0x5000000+1M at=0x7f0000100000
    30us   vmm   run
        """,
        judged={"TK101": (0, 1)},
    ),
    "vIOMMU: a device's own memory moves, and its slot follows": Example(
        VM
        + """
    5us    vmm   slot 3 0x80000000+1M at=0x7d0000000000
    7us    vmm   map 0x90000000+1M at=0x7d0000000000
    9us    vmm   slot 3 0x90000000+1M at=0x7d0000000000
    10us   vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M
    30us   vmm   run
        """,
        [_error("TK101", 0x100000, MIB, 20_600, None)],
        {"TK101": (1, 0)},
    ),
    "vIOMMU: QEMU says so": Example(
        VM
        + """
    5us    vmm   map 0x100000+1M
    8us    vmm   iommu-notify 0x5000+4K
    20us   vmm   private 0x100000+1M
    30us   vmm   run
        """,
        judged={"TK101": (0, 1)},
    ),
    "guest_memfd attributes: nobody knows any more": Example(
        VM
        + """
    5us    vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M
    22us   vmm   gmem-attributes
    30us   vmm   run
    40us   vmm   shared 0x100000+1M
        """,
        judged={"TK101": (0, 3), "TK104": (0, 2), "TK108": (0, 2)},
    ),
    "guest_memfd attributes: refused": Example(
        VM
        + """
    5us    vmm   map 0x100000+1M
    20us   vmm   private 0x100000+1M
    22us   vmm   gmem-attributes ret=-22
    30us   vmm   run
        """,
        [_error("TK101", 0x100000, MIB, 20_600, None)],
        {"TK101": (1, 0)},
    ),
}
