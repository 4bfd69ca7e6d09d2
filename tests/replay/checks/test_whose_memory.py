"""Whose pages are they: several VMs, processes, containers and domains; slots, aliases, a vIOMMU.

Each machine is written twice, with one fault, which must be found on the right VM and in the right
container, and alone; and correct, which must be silent and still be judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

FIRST, SECOND = 100, 900
"""Thread ids of the two processes."""


def container_of(fd: int = 8) -> int:
    """The kernel's pointer to the type1 container behind a descriptor."""
    return 0xFFFF_0001 + 16 * (fd - 8)


class Machine(NamedTuple):
    """What happens; the wrong end and the right end of it; what is to be said, and of whom."""

    begins: str
    wrong: str
    right: str
    found: dict[str, list[str]]
    pid: int = FIRST
    container: int | None = container_of()


TWO_VMS = """
    0us   vmm  create-vm
    1us   vmm  create-vm fd=16
    2us   vmm  set-iommu
    3us   vmm  set-iommu fd=21
    4us   vmm  slot 0 0x0+1G
    5us   vmm  slot 0 0x0+1G fd=16 at=0x7e0000000000
    6us   vmm  map 0x100000+1M
    8us   vmm  map 0x100000+1M fd=21 at=0x7e0000100000
"""
TWO_PROCESSES = """
    0us   vmm    create-vm
    1us   other  create-vm fd=16
    2us   vmm    set-iommu
    3us   other  set-iommu fd=21
    6us   vmm    map 0x100000+1M
    8us   other  map 0x100000+1M fd=21
"""
TWO_CONTAINERS = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  set-iommu fd=21
    6us   vmm  map 0x100000+1M
    8us   vmm  map 0x100000+1M fd=21
"""
TWO_ADDRESS_SPACES = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  ioas-alloc
    3us   vmm  set-iommu
    6us   vmm  ioas-map 0x100000+1M ioas=1
    8us   vmm  ioas-map 0x100000+1M ioas=2
"""
# one call maps into both domains of its container
TWO_DOMAINS = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    6us   vmm  map 0x100000+1M domain for=4us
    9us   vmm  iommu-map 0x100000+1M
"""
VIOMMU = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  slot 0 0x0+1G gmem
    6us   vmm  map 0xf0000000+1M at=0x7f0000100000
"""
GMEM_ATTRIBUTES = (
    TWO_PROCESSES
    + """
    10us  vmm    gmem-attributes
    12us  vmm    private 0x100000+1M
    14us  vmm    run
"""
)
# the same megabyte at two places
ALIASES = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  slot 0 0x0+1M
    4us   vmm  slot 1 0x40000000+1M at=0x7f0000000000
    6us   vmm  map 0x0+1M
    8us   vmm  map 0x40000000+1M at=0x7f0000000000
"""
# 4 GiB of memory, of which the last one lies above the hole
HOLE = """
    0us   vmm  create-vm
    1us   vmm  memory 0x0+4G
    2us   vmm  set-iommu
    3us   vmm  slot 0 0x0+3G gmem
    4us   vmm  slot 1 0x100000000+1G at=0x7f00c0000000 gmem goff=0xc0000000
    6us   vmm  map 0xbff00000+1M
    8us   vmm  map 0x100000000+1M at=0x7f00c0000000
"""
HOTPLUG = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  slot 0 0x0+1M gmem
    4us   vmm  map 0x0+1M
    6us   vmm  run
    10us  vmm  memory 0x0+1M fd=31 at=0x7d0000000000
    12us  vmm  slot 1 0x100000000+1M at=0x7d0000000000 gmem goff=0x100000
    14us  vmm  map 0x100000000+1M at=0x7d0000000000
    16us  vmm  run
"""
RESET = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  slot 0 0x0+16M gmem
    4us   vmm  private 0x0+16M
    6us   vmm  shared 0x200000+2M
    8us   vmm  map 0x200000+2M each=4K
    20us  vmm  run
    30us  vmm  shared 0x800000+64K
    32us  vmm  map 0x800000+64K each=4K
    36us  vmm  run
    40us  vmm  private 0x0+16M
"""
PAGES = ["error certain 0x100000+1M"]

MACHINES: dict[str, Machine] = {
    "two VMs in one process, the second's page": Machine(
        begins=TWO_VMS + "20us vmm private 0x100000+1M fd=16\n",
        wrong="24us vmm unmap 0x100000+1M\n30us vmm run",
        right="24us vmm unmap 0x100000+1M fd=21\n30us vmm run",
        found={"TK101": PAGES},
        container=container_of(21),
    ),
    "two VMs in one process, the first's page": Machine(
        begins=TWO_VMS + "20us vmm private 0x100000+1M\n",
        wrong="24us vmm unmap 0x100000+1M fd=21\n30us vmm run",
        right="24us vmm unmap 0x100000+1M\n30us vmm run",
        found={"TK101": PAGES},
    ),
    "two VMs in two processes": Machine(
        begins=TWO_PROCESSES + "20us other private 0x100000+1M fd=16\n",
        wrong="24us vmm unmap 0x100000+1M\n30us vmm run\n40us other run",
        right="24us other unmap 0x100000+1M fd=21\n30us vmm run\n40us other run",
        found={"TK101": PAGES},
        pid=SECOND,
        container=container_of(21),
    ),
    "two VMs in two processes, mapped while the other's is private": Machine(
        begins=TWO_PROCESSES + "20us vmm private 0x800000+1M\n",
        wrong="24us vmm map 0x800000+4K\n30us vmm run",
        right="24us other map 0x800000+4K fd=21\n30us vmm run",
        found={"TK103": ["error certain 0x800000+4K"]},
    ),
    "two containers, one of them forgotten": Machine(
        begins=TWO_CONTAINERS + "20us vmm private 0x100000+1M\n22us vmm unmap 0x100000+1M\n",
        wrong="30us vmm run",
        right="24us vmm unmap 0x100000+1M fd=21\n30us vmm run",
        found={"TK101": PAGES},
        container=container_of(21),
    ),
    "two containers, one of them not mapped again": Machine(
        begins=TWO_CONTAINERS + "20us vmm private 0x100000+1M\n22us vmm unmap 0x100000+1M\n"
        "24us vmm unmap 0x100000+1M fd=21\n26us vmm run\n"
        "30us vmm shared 0x100000+1M\n32us vmm map 0x100000+1M\n",
        wrong="40us vmm run",
        right="34us vmm map 0x100000+1M fd=21\n40us vmm run",
        found={"TK104": PAGES},
        container=container_of(21),
    ),
    "two containers, a discard under one": Machine(
        begins=TWO_CONTAINERS + "20us vmm unmap 0x100000+1M\n",
        wrong="24us vmm punch 0x100000+1M\n30us vmm run",
        right="22us vmm unmap 0x100000+1M fd=21\n24us vmm punch 0x100000+1M\n30us vmm run",
        found={"TK102": PAGES},
        container=container_of(21),
    ),
    "two IO address spaces of one iommufd": Machine(
        begins=TWO_ADDRESS_SPACES
        + "20us vmm private 0x100000+1M\n22us vmm ioas-unmap 0x100000+1M ioas=1\n",
        wrong="30us vmm run",
        right="24us vmm ioas-unmap 0x100000+1M ioas=2\n30us vmm run",
        found={"TK101": PAGES},
        container=None,
    ),
    "two domains of one container": Machine(
        begins=TWO_DOMAINS + "20us vmm private 0x100000+1M\n",
        wrong="30us vmm run",
        right="22us vmm unmap 0x100000+1M for=4us\n24us vmm iommu-unmap 0x100000+1M\n30us vmm run",
        found={"TK101": PAGES},
    ),
    "a vIOMMU: a discard is a discard behind it too": Machine(
        begins=VIOMMU,
        wrong="20us vmm punch 0x100000+1M\n30us vmm run",
        right="20us vmm punch 0x200000+1M\n30us vmm run",
        found={"TK102": ["error certain 0xf0000000+1M"]},
    ),
    "attributes of another process's guest_memfd": Machine(
        begins=GMEM_ATTRIBUTES + "20us other private 0x100000+1M fd=16\n",
        wrong="30us other run",
        right="24us other unmap 0x100000+1M fd=21\n30us other run",
        found={"TK101": PAGES},
        pid=SECOND,
        container=container_of(21),
    ),
    "the same memory at two places, one forgotten": Machine(
        begins=ALIASES + "20us vmm unmap 0x0+1M\n",
        wrong="24us vmm punch 0x0+1M\n30us vmm run",
        right="22us vmm unmap 0x40000000+1M\n24us vmm punch 0x0+1M\n30us vmm run",
        found={"TK102": ["error certain 0x40000000+1M"]},
    ),
    "the same memory at two places, one converted": Machine(
        begins=ALIASES + "20us vmm private 0x40000000+1M\n",
        wrong="24us vmm unmap 0x0+1M\n30us vmm run",
        right="24us vmm unmap 0x40000000+1M\n30us vmm run",
        found={"TK101": ["error certain 0x40000000+1M"]},
    ),
    "above the hole below 4 GiB": Machine(
        begins=HOLE + "20us vmm private 0x100000000+1M\n",
        wrong="24us vmm unmap 0xbff00000+1M\n30us vmm punch 0xc0100000+1M\n40us vmm run",
        right="24us vmm unmap 0x100000000+1M\n30us vmm punch 0xc0000000+1M\n40us vmm run",
        found={"TK101": ["error certain 0x100000000+1M"]},
    ),
    "above the hole below 4 GiB, a discard": Machine(
        begins=HOLE,
        wrong="24us vmm unmap 0xbff00000+1M\n30us vmm punch 0xc0000000+1M\n40us vmm run",
        right="24us vmm unmap 0x100000000+1M\n30us vmm punch 0xc0000000+1M\n40us vmm run",
        found={"TK102": ["error certain 0x100000000+1M"]},
    ),
    "above the hole below 4 GiB, the private side": Machine(
        begins=HOLE + "20us vmm private 0x100000000+1M\n22us vmm unmap 0x100000000+1M\n"
        "24us vmm punch 0xc0000000+1M\n",
        wrong="30us vmm punch-private 0xc0000000+1M\n40us vmm run",
        right="30us vmm punch-private 0xbff00000+1M\n40us vmm run",
        found={"TK110": ["error certain 0x100000000+1M"]},
        container=None,
    ),
    "memory added later": Machine(
        begins=HOTPLUG + "20us vmm private 0x100000000+1M\n",
        wrong="24us vmm unmap 0x0+1M\n30us vmm run",
        right="24us vmm unmap 0x100000000+1M\n28us vmm punch 0x0+1M fd=31\n30us vmm run",
        found={"TK101": ["error certain 0x100000000+1M"]},
    ),
    "memory added later, its own file": Machine(
        begins=HOTPLUG,
        wrong="24us vmm punch 0x0+1M fd=31\n30us vmm run",
        right="22us vmm unmap 0x100000000+1M\n24us vmm punch 0x0+1M fd=31\n30us vmm run",
        found={"TK102": ["error certain 0x100000000+1M"]},
    ),
    "a reset makes all memory private": Machine(
        begins=RESET,
        wrong="44us vmm unmap 0x200000+2M each=4K\n60us vmm punch 0x0+16M\n80us vmm run",
        right="44us vmm unmap 0x0+16M\n60us vmm punch 0x0+16M\n80us vmm run",
        found={"TK101": ["error certain 0x800000+64K"], "TK102": ["error certain 0x800000+64K"]},
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_fault_is_found_where_it_is(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    outcomes = judge(f"{machine.begins}{machine.wrong}\n", tmp_path)
    assert alarms(outcomes) == machine.found
    for code in machine.found:
        (finding,) = outcomes[code].findings
        assert finding.vm.pid == machine.pid
        assert finding.container == machine.container


@pytest.mark.parametrize("name", MACHINES)
def test_the_correct_variant_is_silent_and_judged(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    outcomes = judge(f"{machine.begins}{machine.right}\n", tmp_path)
    assert alarms(outcomes) == {}
    for code in machine.found:
        # a discard of what nothing live maps is nothing that TK102 counts
        assert outcomes[code].judged.decided or code == "TK102"
        assert outcomes[code].judged.undecided == (2 if "guest_memfd" in name else 0)


def test_an_unmap_that_succeeds_ends_the_translations_of_all_domains(tmp_path: Path) -> None:
    # one of them may have been freed, and its unmaps never come
    outcomes = judge(
        TWO_DOMAINS + "20us vmm private 0x100000+1M\n22us vmm unmap 0x100000+1M\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {}


def test_the_second_vm_has_attributes_of_its_own(tmp_path: Path) -> None:
    # a page that is private in one VM and mapped for the other's device
    outcomes = judge(
        TWO_VMS + "20us vmm private 0x800000+1M fd=16\n24us vmm map 0x800000+4K\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {}
    other = judge(
        TWO_VMS
        + "20us vmm private 0x800000+1M fd=16\n24us vmm map 0x800000+4K fd=21 at=0x7e0000800000\n"
        "30us vmm run",
        tmp_path,
    )
    assert alarms(other) == {"TK103": ["error certain 0x800000+4K"]}


def test_a_vm_of_several_without_a_known_slot_is_not_judged(tmp_path: Path) -> None:
    outcome = judge(
        """
        0us   vmm  create-vm
        1us   vmm  create-vm fd=16
        2us   vmm  set-iommu
        6us   vmm  map 0x100000+1M
        20us  vmm  private 0x100000+1M
        30us  vmm  run
        """,
        tmp_path,
    )["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"several_vms": 1}


def test_behind_a_viommu_conversions_are_not_judged(tmp_path: Path) -> None:
    outcomes = judge(VIOMMU + "20us vmm private 0x100000+1M\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK101"].verdict is Verdict.NOT_CHECKED
    assert outcomes["TK101"].judged.reasons == {"viommu": 1}
    told = judge(
        TWO_CONTAINERS
        + "10us vmm iommu-notify 0x5000+4K\n20us vmm private 0x100000+1M\n30us vmm run",
        tmp_path,
    )
    assert said(told["TK101"]) == []
    assert told["TK101"].judged.reasons == {"viommu": 1}


def test_after_attributes_of_a_guest_memfd_its_process_is_not_judged(tmp_path: Path) -> None:
    outcome = judge(GMEM_ATTRIBUTES, tmp_path)["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"gmem_attributes": 2}


def test_a_slot_deleted_and_set_elsewhere_moves_its_memory(tmp_path: Path) -> None:
    moved = """
        0us   vmm  create-vm
        1us   vmm  memory
        3us   vmm  slot 0 0x0+1M gmem
        5us   vmm  slot 0 0x0+0 gmem
        7us   vmm  slot 0 0x40000000+1M gmem at=0x7f0000000000
        20us  vmm  private 0x40000000+64K
        24us  vmm  punch-private 0x0+64K
        30us  vmm  run
    """
    assert alarms(judge(moved, tmp_path)) == {"TK110": ["error certain 0x40000000+64K"]}
    gone = moved.replace("private 0x40000000+64K", "private 0x0+64K", 1)
    assert alarms(judge(gone, tmp_path)) == {}


def test_slots_survive_a_loss(tmp_path: Path) -> None:
    outcomes = judge(
        TWO_VMS
        + """
        lost cpu0 10us..12us
        14us  vmm  map 0x800000+4K fd=21 at=0x7e0000800000
        20us  vmm  private 0x800000+4K fd=16
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK101": ["error certain 0x800000+4K"]}
    assert outcomes["TK101"].findings[0].container == container_of(21)
