"""Debian's own kernels, unpacked from their packages: ``python -m lab.stock`` gets all of them."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.modules import load_order
from lab.packages import Suite, unpack
from lab.tools import BUILT
from tracekit.errors import TracekitError

__all__ = ("KERNELS", "StockKernel", "bcc_layer", "main", "stock_kernel")

KERNELS = {"6.1": "bookworm", "6.12": "bookworm-backports", "7": "trixie-backports"}
"""The beginning of a version: the suite that has a kernel of it."""
BCC_KERNEL = "6.1"
"""bcc fits the kernel of its own Debian."""
ROOT_MODULES = ("virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "overlay")
"""Without these the guest finds no root."""
MODULES = (*ROOT_MODULES, "kvm_amd", "vfio_pci", "vfio_iommu_type1", "vsock_loopback")
"""What the workloads need besides: nothing loads a module later on."""


@dataclass(frozen=True, kw_only=True)
class StockKernel:
    """An unpacked kernel.  ``tree``: its packages' files, laid out from the root."""

    release: str
    image: Path
    tree: Path

    def modules(self, *names: str) -> list[Path]:
        """Files of these modules and what they need, in the order of loading."""
        return load_order(self.tree / "usr" / "lib" / "modules" / self.release, names)


def stock_kernel(version: str) -> StockKernel:
    """A kernel of :data:`KERNELS`, downloaded if it is not there.

    :raises TracekitError: it cannot be had, or the suite has another version by now
    """
    if version not in KERNELS:
        raise TracekitError(f"no stock kernel {version}; there are {', '.join(KERNELS)}")
    suite = Suite(KERNELS[version])
    ready = BUILT / "kernels" / version
    if not ready.is_dir():
        image = next(p for p in suite.depends("linux-image-amd64") if p.startswith("linux-image-"))
        release = image.removeprefix("linux-image-")
        if not re.match(rf"{re.escape(version)}\.", release):
            raise TracekitError(f"{KERNELS[version]} has Linux {release}, no longer {version}")
        parts = [p for p in suite.depends(image) if p.endswith(release)]
        unpack([suite.download(p) for p in (image, *parts)], ready)
    return _unpacked(ready)


def bcc_layer() -> Path:
    """Debian 12's python3-bpfcc and its kernel's headers, laid out from the root.

    :raises TracekitError: a package cannot be had
    """
    kernel = stock_kernel(BCC_KERNEL)
    suite = Suite(KERNELS[BCC_KERNEL])
    wanted = suite.closure("python3-bpfcc")
    headers = f"linux-headers-{kernel.release}"
    parts = [p for p in suite.depends(headers) if p.startswith(("linux-headers-", "linux-kbuild-"))]
    packages = [*wanted, headers, *parts]
    return unpack([suite.download(p) for p in packages], BUILT / "layers" / f"bcc-{kernel.release}")


def _unpacked(tree: Path) -> StockKernel:
    (modules,) = (tree / "usr" / "lib" / "modules").iterdir()
    release = modules.name
    for image in (tree / "boot" / f"vmlinuz-{release}", modules / "vmlinuz"):
        if image.is_file():
            return StockKernel(release=release, image=image, tree=tree)
    raise TracekitError(f"{tree} holds no kernel image of {release}")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lab.stock", description=__doc__)
    parser.add_argument("version", nargs="*", help="; ".join(KERNELS))
    given = parser.parse_args(arguments)
    try:
        for version in given.version or KERNELS:
            kernel = stock_kernel(version)
            print(f"{kernel.release}\t{kernel.image}")
    except TracekitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
