"""What correct hosts do that looks wrong: nothing of it is an error or a warning.

Every trace is judged twice: as it is, and with a real violation after it, which must be found, and
alone.  So none of them is silent because the engine has stopped listening.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge

HOST = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
"""
RAM = HOST + "5us vmm map 0x0+16M each=2M\n"
FAULT = """
    900ms vmm  map 0x3f000000+64K
    901ms vmm  private 0x3f000000+64K
    902ms vmm  run
"""
FOUND = {"TK101": ["error certain 0x3f000000+64K"]}

NOISE: dict[str, str] = {
    # 6.12 probes for superpages when a group is attached
    "SET_IOMMU maps and unmaps for a test": """
        0us   vmm  create-vm
        1us   vmm  memory
        2us   vmm  set-iommu for=20us
        8us   vmm  iommu-map 0x0+8K
        14us  vmm  iommu-unmap 0x0+8K
        30us  vmm  private 0x0+64K
        40us  vmm  run
        50us  vmm  exit-thread
    """,
    "unmaps that only take the addresses away": RAM
    + """
        20us  vmm  unmap 0x0+16M flags=4 silent
        30us  vmm  map 0x0+16M flags=4 silent at=0x7e0000000000
        40us  vmm  private 0x0+16M
        50us  vmm  unmap 0x0+16M each=2M
        60us  vmm  run
    """,
    # 6.12: no map event for what was undone
    "a map that failed half-way leaves an unmap": RAM
    + """
        20us  vmm  map 0x2000000+2M ret=-14 for=20us
        30us  vmm  iommu-unmap 0x2000000+1M
        50us  vmm  private 0x2000000+2M
        60us  vmm  run
    """,
    "an unmatched unmap of what is mapped elsewhere": RAM
    + """
        15us  vmm  set-iommu fd=21
        20us  vmm  map 0x2000000+2M ret=-14 fd=21 for=20us
        30us  vmm  iommu-unmap 0x2000000+1M
        50us  vmm  unmap 0x0+16M each=2M
        60us  vmm  private 0x0+16M
        70us  vmm  run
    """,
    # 7.x: always an event, with what was really mapped
    "map events of size 0": RAM
    + """
        20us  vmm  map 0x2000000+2M ret=-14 for=20us
        30us  vmm  iommu-map 0x2000000+0
        50us  vmm  private 0x2000000+2M
        60us  vmm  run
    """,
    "a partial map and its unmap": RAM
    + """
        20us  vmm  map 0x2000000+2M ret=-12 for=20us
        26us  vmm  iommu-map 0x2000000+1M
        32us  vmm  iommu-unmap 0x2000000+1M
        50us  vmm  private 0x2000000+2M
        60us  vmm  run
    """,
    "attribute changes that change nothing": RAM
    + """
        20us  vmm  shared 0x0+16M no-op
        30us  vmm  private 0x2000000+64K
        40us  vmm  private 0x2000000+64K no-op
        50us  vmm  run
        60us  vmm  shared 0x0+4K no-op
        70us  vmm  run
    """,
    "attribute ranges beyond every slot": RAM
    + """
        15us  vmm  slot 0 0x0+16M
        20us  vmm  private 0x1000000+64M
        30us  vmm  run
        40us  vmm  shared 0x1000000+64M
        50us  vmm  run
        60us  vmm  private 0xfd00000000+64M no-post
        70us  vmm  run
    """,
    "maps of an interrupt under the VMM's name": RAM
    + """
        20us  vmm  map 0x2000000+64K for=20us
        25us  vmm  iommu-map 0xffe00000+4K irq
        50us  vmm  private 0xffe00000+4K
        60us  vmm  run
        70us  vmm  iommu-unmap 0x0+4K irq
    """,
    "maps of the host's own drivers, in no call of VFIO": RAM
    + """
        20us  vmm  iommu-map 0xffe00000+4K
        30us  vmm  log for=20us
        40us  vmm  iommu-map 0xffe10000+4K
        60us  vmm  private 0xffe00000+1M
        70us  vmm  run
        80us  vmm  iommu-unmap 0xffe00000+4K
    """,
    "BARs that iommufd refuses": """
        0us   vmm  create-vm
        1us   vmm  memory
        2us   vmm  ioas-alloc
        5us   vmm  ioas-map 0x0+16M
        20us  vmm  ioas-map 0xfe000000+16K ret=-14 at=0x7d0000000000
        30us  vmm  ioas-map 0xfe010000+4K ret=-14 at=0x7d0000010000
        40us  vmm  ioas-unmap 0xfe000000+16K ret=-2
        50us  vmm  ioas-unmap 0xfe010000+4K ret=-2
        60us  vmm  ioas-unmap 0x140000000+2M ret=-2
        70us  vmm  run
        80us  vmm  set-iommu
    """,
    "BARs that type1 maps": RAM
    + """
        20us  vmm  map 0xfe000000+16K at=0x7d0000000000
        30us  vmm  map 0xfebf0000+64K at=0x7d0000010000 flags=1
        40us  vmm  run
        50us  vmm  unmap 0xfe000000+16K
        60us  vmm  map 0xfd000000+16K at=0x7d0000000000
        70us  vmm  run
    """,
    "firmware unmaps and maps all memory, four times": RAM
    + "15us vmm slot 0 0x0+16M\n"
    + "\n".join(
        f"{20 + 100 * i}ms vmm unmap 0x0+16M each=2M\n"
        f"{21 + 100 * i}ms vmm slot 0 0x0+0\n"
        f"{22 + 100 * i}ms vmm slot 0 0x0+16M\n"
        f"{26 + 100 * i + 30 * (i % 2)}ms vmm map 0x0+16M each=2M\n"
        f"{90 + 100 * i}ms vmm run"
        for i in range(4)
    ),
    "a recording that began late": """
        5us   vmm  unmap 0x600000+2M
        10us  vmm  private 0x600000+2M
        15us  vmm  punch 0x600000+2M
        20us  vmm  run
        30us  vmm  shared 0x200000+2M
        40us  vmm  map 0x200000+2M
        50us  vmm  run
        60us  vmm  private 0x200000+2M
        70us  vmm  unmap 0x200000+2M
        80us  vmm  punch 0x200000+2M
        90us  vmm  run
    """,
    "the heap of libc gives pages back": RAM
    + """
        20us  vmm   madvise 0x0+132K at=0x555555800000
        30us  vmm2  madvise 0x0+60M at=0x7fffb0021000
        40us  vmm   run
    """,
    "memory of huge pages is not discarded": """
        0us   vmm  create-vm
        1us   vmm  memory huge
        2us   vmm  set-iommu
        3us   vmm  slot 0 0x0+1G gmem
        5us   vmm  map 0x0+2M
        20us  vmm  private 0x0+2M
        30us  vmm  unmap 0x0+2M
        40us  vmm  run
        50us  vmm  shared 0x0+2M
        60us  vmm  map 0x0+2M
        70us  vmm  punch-private 0x0+2M
        80us  vmm  run
    """,
    "virtio-mem discards, then unmaps": RAM
    + "\n".join(
        f"{20 + 2 * i}ms vmm map {0x10000000 + 0x200000 * i:#x}+2M\n{30 + 2 * i}ms vmm punch "
        f"{0x10000000 + 0x200000 * (4 - i):#x}+2M\n{30500 + 2000 * i}us vmm unmap "
        f"{0x10000000 + 0x200000 * (4 - i):#x}+2M\n{31 + 2 * i}ms vmm run"
        for i in range(5)
    ),
    "iommufd detaches first, and its areas go later": """
        0us   vmm  create-vm
        1us   vmm  memory
        2us   vmm  ioas-alloc
        5us   vmm  ioas-map 0x0+2M
        10us  vmm  ioas-map 0x200000+2M
        20us  vmm  iommu-unmap 0x0+4M
        30us  vmm  ioas-unmap 0x0+2M silent
        40us  vmm  ioas-unmap 0x200000+2M silent
        50us  vmm  private 0x0+4M
        60us  vmm  run
        70us  vmm  set-iommu
    """,
    "DMA calls of three threads": RAM
    + """
        20us  vmm   private 0x0+2M
        22us  vmm3  log
        24us  vmm2  unmap 0x0+2M
        40us  vmm2  log
        50us  vmm   punch 0x0+2M
        60us  vmm   run
        70us  vmm   shared 0x0+2M
        80us  vmm3  map 0x0+2M
        90us  vmm   run
    """,
    "an interrupted attribute change is repeated": RAM
    + """
        20us  vmm  private 0x0+2M ret=-4
        30us  vmm  private 0x0+2M
        40us  vmm  unmap 0x0+2M
        50us  vmm  run
    """,
    "pages are merged, moved and made huge": RAM
    + """
        20us  vmm   invalidate 0x0+2M
        30us  vmm2  invalidate 0x200000+4K
        40us  vmm   log for=20us
        50us  vmm   invalidate 0x0+16M
        80us  vmm   run
    """,
    "a removed slot": RAM
    + """
        15us  vmm  slot 1 0x2000000+2M
        20us  vmm  map 0x2000000+2M
        30us  vmm  unmap 0x2000000+2M
        40us  vmm  slot 1 0x2000000+0
        50us  vmm  punch 0x2000000+2M
        60us  vmm  run
    """,
    "balloon and free page reporting, without a device": HOST
    + """
        15us  vmm  slot 0 0x0+1G gmem
        20us  vmm  madvise 0x200000+2M
        30us  vmm  punch 0x400000+2M
        40us  vmm  remove 0x600000+2M
        50us  vmm  run
    """,
}


@pytest.mark.parametrize("case", NOISE)
def test_noise_is_no_alarm(case: str, tmp_path: Path) -> None:
    assert alarms(judge(NOISE[case] + "\n800ms vmm run\n", tmp_path)) == {}


@pytest.mark.parametrize("case", NOISE)
def test_a_fault_after_the_noise_is_found_and_nothing_else(case: str, tmp_path: Path) -> None:
    assert alarms(judge(NOISE[case] + FAULT, tmp_path)) == FOUND


@pytest.mark.parametrize(
    ("noise", "real"),
    [
        # in process context, in a call of VFIO: now the page is mapped
        ("25us  vmm  iommu-map 0xffe00000+4K irq", "25us  vmm  iommu-map 0xffe00000+4K"),
        # an unmap that takes only the addresses away leaves the pages mapped
        ("50us  vmm  unmap 0x0+16M each=2M", "50us  vmm  unmap 0x0+16M flags=4 silent"),
        # the partial map is not undone
        ("32us  vmm  iommu-unmap 0x2000000+1M", "32us  vmm  log"),
        # the same call on the guest's own memory
        ("madvise 0x0+60M at=0x7fffb0021000", "remove 0x0+2M"),
    ],
)
def test_the_real_thing_beside_the_noise_is_found(noise: str, real: str, tmp_path: Path) -> None:
    text = next(t for t in NOISE.values() if noise in t)
    outcomes = judge(text.replace(noise, real) + "\n800ms vmm run\n", tmp_path)
    assert alarms(outcomes) != {}
