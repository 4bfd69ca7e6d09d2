"""What a person at a notebook meets: short setup, readable objects, sentences for mistakes."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import replay.models
from replay.models import (
    CoordinatedDiscard,
    DiscardUser,
    FlatView,
    IommufdContainer,
    KvmMemoryAttributes,
    MemoryRegion,
    PageStateChange,
    RamBlock,
    RamBlockAttribute,
    RamBlockAttributes,
    RamDirtyBitmap,
    RecordingListener,
    TdxMapGpa,
    Type1Container,
    Type1Iommu,
    VfioListener,
    merged,
    sources,
    v4,
)
from replay.models.notification import Notification

PAGE = 4096
FOLDER = Path(replay.models.__file__).parent


def test_a_device_follows_a_conversion_in_five_lines() -> None:
    ram = RamBlockAttributes(1 << 20)
    container = Type1Container()
    VfioListener(container).register(ram.mr.section(address=1 << 32))
    ram.state_change(0, 64 << 10, to_private=False)
    assert repr(container) == (
        "Type1Container('type1': 16 entries in 1 range, 65519 left, 1 listener)"
    )


def test_a_model_says_in_one_line_what_it_is() -> None:
    mr = MemoryRegion.ram("ram0", 4 << 20)
    ram = RamBlockAttributes(mr)
    ram.state_change(0, 3 * PAGE, to_private=False)
    listener = RecordingListener("watch")
    ram.register_listener(listener, mr.section(address=0x1000))
    view = FlatView()
    view.add(0x1000, mr)
    discard = CoordinatedDiscard()
    discard.take(DiscardUser.GUEST_MEMFD)
    said = {
        repr(thing)
        for thing in (
            mr,
            mr.ram_block,
            mr.section(PAGE, PAGE, address=0x1000),
            ram,
            ram.bitmap,
            listener,
            view,
            discard,
            VfioListener(Type1Container(name="c0")),
            IommufdContainer(),
            Type1Iommu(),
            KvmMemoryAttributes(),
            RamDirtyBitmap(mr),
            v4.RamBlockAttribute(PAGE),
            sources.RamBlockAttributes(PAGE),
            merged.VirtioMem(MemoryRegion.ram("dimm", 4 << 20)),
        )
    }
    assert said == {
        "MemoryRegion('ram0', ram, 0x400000 bytes)",
        "RamBlock('ram0', 0x400000 bytes, with guest_memfd)",
        "MemoryRegionSection(ram0 [0x1000, +0x1000) at 0x1000)",
        "RamBlockAttributes('ram0': 3 of 1024 blocks shared, 1 listener)",
        "BlockBitmap(3 of 1024 blocks of 0x1000 set)",
        "RecordingListener('watch', 1 notification)",
        "FlatView(0x1000+0x400000 ram0)",
        "CoordinatedDiscard(coordinated_require=1)",
        "VfioListener('c0', not registered)",
        "IommufdContainer('iommufd': 0 entries in 0 ranges, 0 listeners)",
        "Type1Iommu(DmaEntries(0 in 0 ranges), 65535 left)",
        "KvmMemoryAttributes(private: nothing)",
        "RamDirtyBitmap('ram0': 1024 pages dirty)",
        "RamBlockAttribute('ram0': 0 of 1 blocks shared, 0 listeners)",
        "RamBlockAttributes('ram0': 0 of 1 blocks shared, a source of "
        "RamDiscardManager('ram0': 1 source, 0 listeners))",
        "VirtioMem('dimm': 0 of 2 blocks of 0x200000 plugged)",
    }


@pytest.mark.parametrize(
    "thing",
    [
        v4.VfioPrivateSharedListener(Type1Container()),
        v4.CVMPrivateSharedListener(KvmMemoryAttributes()),
        v4.KvmMemorySlots(KvmMemoryAttributes()),
        merged.KvmMemorySlots(KvmMemoryAttributes()),
        v4.VfioMemoryListener(Type1Container()),
        merged.VfioMemoryListener(Type1Container()),
        v4.RecordingListener(),
        TdxMapGpa(lambda *_: None),
        PageStateChange(lambda *_: None),
        IommufdContainer().ioas,
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_every_object_has_a_repr_of_its_own(thing: object) -> None:
    assert repr(thing).startswith(f"{type(thing).__name__}(")
    assert " object at 0x" not in repr(thing)


def test_a_notification_reads_like_a_sentence() -> None:
    ram = RamBlockAttributes(4 * PAGE)
    log: list[Notification] = []
    ram.register_listener(
        RecordingListener("vfio", log, refuse_populate={1: 28}), ram.mr.section(address=0x1000)
    )
    with pytest.raises(replay.models.ListenerError):
        ram.state_change(PAGE, PAGE, to_private=False)
    assert [str(n) for n in log] == ["vfio populate [0x1000, +0x1000) at 0x2000 -> 28"]


def _register_twice() -> None:
    ram = RamBlockAttributes(PAGE)
    listener = RecordingListener()
    for _ in range(2):
        ram.register_listener(listener, ram.mr.section())


def _ram(**kwargs: Any) -> MemoryRegion:
    return MemoryRegion.ram("m", 4 << 20, **kwargs)


MISUSE: dict[str, tuple[type[Exception], Callable[[], object]]] = {
    "number of bytes": (TypeError, lambda: RamBlockAttributes(PAGE).state_change("0", 1, True)),  # type: ignore[arg-type]
    "size is a number": (TypeError, lambda: RamBlockAttributes(PAGE).state_change(0, True, True)),
    "unsigned 64-bit": (ValueError, lambda: RamBlockAttribute(PAGE).state_change(-PAGE, 1, True)),
    "unsigned 64-bit number": (
        ValueError,
        lambda: sources.RamBlockAttributes(PAGE).state_change(1 << 64, 1, True),
    ),
    "a MemoryRegion or a size": (TypeError, lambda: RamBlockAttributes("ram0")),  # type: ignore[arg-type]
    "no guest_memfd": (ValueError, lambda: RamBlockAttributes(_ram(guest_memfd=False))),
    "no guest_memfd, so": (ValueError, lambda: v4.RamBlockAttribute(_ram(guest_memfd=False))),
    "at least one byte": (ValueError, lambda: MemoryRegion("empty", 0)),
    "expected a MemoryRegionSection": (
        TypeError,
        lambda: RamBlockAttributes(PAGE).is_populated((0, PAGE)),  # type: ignore[arg-type]
    ),
    "expected a section of": (
        ValueError,
        lambda: RamBlockAttributes(PAGE).is_populated(_ram().section()),
    ),
    "expected a RamDiscardListener": (
        TypeError,
        lambda: RamBlockAttributes(_ram()).register_listener(
            v4.RecordingListener(),  # type: ignore[arg-type]
            _ram().section(),
        ),
    ),
    "expected a PrivateSharedListener": (
        TypeError,
        lambda: v4.RamBlockAttribute(PAGE).register_listener(
            RecordingListener(),  # type: ignore[arg-type]
            _ram().section(),
        ),
    ),
    "expected a RamDiscardSource": (
        TypeError,
        lambda: sources.RamBlockAttributes(PAGE).manager.add_source(object()),  # type: ignore[arg-type]
    ),
    "registered already": (ValueError, _register_twice),
    "not registered here": (
        ValueError,
        lambda: RamBlockAttributes(PAGE).unregister_listener(RecordingListener()),
    ),
    "is not registered": (
        ValueError,
        lambda: v4.CVMPrivateSharedListener(KvmMemoryAttributes()).unregister(),
    ),
    "no RamDiscardManager": (
        ValueError,
        lambda: VfioListener(Type1Container()).register(_ram().section()),
    ),
    "a Type1Container or an IommufdContainer": (TypeError, lambda: VfioListener(Type1Iommu())),  # type: ignore[arg-type]
    "number of entries": (TypeError, lambda: Type1Iommu("many")),  # type: ignore[arg-type]
    "0 or more": (ValueError, lambda: Type1Iommu(-1)),
    "pgsize is a power of two": (ValueError, lambda: Type1Iommu(pgsize=3)),
    "page_size is a power of two": (ValueError, lambda: RamBlock("r", PAGE, page_size=5000)),
    "block_size is a power of two": (ValueError, lambda: merged.VirtioMem(_ram(), block_size=3)),
    "multiples of block_size": (ValueError, lambda: merged.VirtioMem(_ram(), address=PAGE)),
    "no overlaps": (
        ValueError,
        lambda: (lambda view, mr: (view.add(0, mr), view.add(PAGE, mr)))(FlatView(), _ram()),
    ),
    "counts from 1": (ValueError, lambda: KvmMemoryAttributes().fail(0, 12)),
    "calls count from 1": (ValueError, lambda: RecordingListener(refuse_populate={0: 1})),
    "expected a DiscardRequest": (TypeError, lambda: CoordinatedDiscard().take("require")),  # type: ignore[arg-type]
    "no slot": (
        ValueError,
        lambda: merged.KvmMemorySlots(KvmMemoryAttributes()).region_del(_ram().section()),
    ),
    "whole pages": (
        ValueError,
        lambda: PageStateChange(lambda *_: None).convert_range(1, PAGE, True),
    ),
}


@pytest.mark.parametrize("sentence", MISUSE)
def test_a_mistake_gets_a_sentence_that_says_what_was_expected(sentence: str) -> None:
    kind, call = MISUSE[sentence]
    with pytest.raises(kind, match=sentence):
        call()


def test_the_models_import_nothing_but_each_other_and_the_standard_library() -> None:
    allowed = {"replay", *sys.stdlib_module_names}
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, f"{path.name} imports {name}"
                if name.startswith("replay"):
                    assert name.startswith("replay.models"), f"{path.name} imports {name}"


def test_no_component_is_longer_than_a_person_reads_at_once() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in FOLDER.rglob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 350} == {}


def test_no_model_does_input_or_output() -> None:
    for path in FOLDER.rglob("*.py"):
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        forbidden = {"open", "input"} | (set() if path.name == "generations.py" else {"print"})
        assert not calls & forbidden, path.name
