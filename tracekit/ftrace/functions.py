"""Kernel functions that recorders probe: what their arguments are, and which event type that makes.

From the signatures of 6.12 to 7.3 (virt/kvm, drivers/vfio, drivers/iommu, mm/shmem.c).  A probe's
field is judged by what it fetches where its definition is known, else by its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tracekit.ftrace.uapi import KVM_SET_USER_MEMORY_REGION2, STRUCTURES, Member

__all__ = ("FUNCTIONS", "ByCommand", "Function", "Gfns", "Pointee")


@dataclass(frozen=True)
class ByCommand:
    """An argument that points to the user's structure, which ``cmd`` names."""


@dataclass(frozen=True)
class Gfns:
    """A structure holds first and end of a range of guest frame numbers at these offsets.

    Its members are called ``start`` and ``end``.
    """

    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Pointee:
    """An argument that points to a structure of the kernel.

    ``members``: by offset; ``names``: by the member's C name (for offsets that kernels move).
    ``column``: what the pointer itself fills.  ``user``: the structure lies in user memory.
    A column as ``local.cid`` or ``local.port`` is that half of an address.
    """

    column: str | None = None
    user: bool = False
    members: tuple[Member, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    gfns: Gfns | None = None


Argument = str | ByCommand | Pointee | None
"""The column that an argument fills, or what it points to, or nothing of interest."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """``arguments``: parameter name -> what it is, in order.

    ``aliases``: other names that recorders give to a field -> column.  ``limits``: column ->
    largest value that can be meant, where recordings are known to have read something else.
    ``returns_nothing``: its return says all by its moment.
    """

    event: str
    returned: str | None = None
    returns_nothing: bool = False
    ret_size: int = 8
    arguments: dict[str, Argument]
    aliases: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)


_MAP: dict[str, Argument] = {
    "domain": "object", "iova": "iova", "paddr": "paddr", "size": "size", "prot": "flags",
}  # fmt: skip
_UNMAP: dict[str, Argument] = {"domain": "object", "iova": "iova", "size": "size"}
_MAP_ALIASES = {"dom": "object", "pa": "paddr", "len": "size", "length": "size"}
_ATTACH: dict[str, Argument] = {"domain": "object"}
_GFN_RANGE = Pointee(gfns=Gfns(8, 16))
_MEMSLOT = Pointee(
    members=STRUCTURES[KVM_SET_USER_MEMORY_REGION2],
    names={
        "slot": "id", "flags": "flags", "guest_phys_addr": "gpa", "memory_size": "size",
        "userspace_addr": "vaddr", "guest_memfd": "file_fd", "guest_memfd_offset": "offset",
    },
)  # fmt: skip
_MEMSLOT_ALIASES = {
    "gpa": "gpa", "size": "size", "uaddr": "vaddr", "hva": "vaddr", "vaddr": "vaddr",
    "gmem": "file_fd", "gfd": "file_fd", "gmem_off": "offset", "goff": "offset",
}  # fmt: skip
_IOVA_BEHIND = Pointee(members=(Member("iova", 0, 8),))
_FALLOCATE: dict[str, Argument] = {
    "file": Pointee(column="object", names={"f_inode->i_ino": "inode"}),
    "mode": "flags",
    "offset": "offset",
    "len": "size",
}
_FALLOCATE_ALIASES = {"ino": "inode", "inode": "inode", "length": "size", "size": "size"}


def _map(event: str) -> Function:
    return Function(
        event=event,
        returned="iommu.map_returned",
        ret_size=4,
        arguments=_MAP,
        aliases=_MAP_ALIASES,
    )


def _unmap() -> Function:
    return Function(
        event="iommu.unmap_called",
        returned="iommu.unmap_returned",
        arguments=_UNMAP,
        aliases=_MAP_ALIASES,
    )


def _memslot() -> Function:
    return Function(
        event="kvm.memslot",
        returned="kvm.memslot_returned",
        ret_size=4,
        arguments={"kvm": "object", "mem": _MEMSLOT},
        aliases=_MEMSLOT_ALIASES,
    )


def _attach() -> Function:
    return Function(event="iommu.group_attached", arguments=_ATTACH, aliases={"dom": "object"})


_SOCK: dict[str, Argument] = {"sk": "object"}
_VSK: dict[str, Argument] = {"vsk": "object"}
_ADDRESSES = {
    "lcid": "local.cid",
    "lport": "local.port",
    "rcid": "peer.cid",
    "rport": "peer.port",
}
_CLOSING = Pointee(
    column="object",
    names={
        "local_addr->svm_cid": "local.cid",
        "local_addr->svm_port": "local.port",
        "remote_addr->svm_cid": "peer.cid",
        "remote_addr->svm_port": "peer.port",
        "peer_shutdown": "flags",
        "sk->sk_lingertime": "count",
        "sk->__sk_common->skc_flags": "attributes",
        "sk->__sk_common->skc_state": "cmd",
        "sk->sk_shutdown": "id",
    },
)
_LINGER_VALUE = Pointee(
    column="vaddr", user=True, members=(Member("flags", 0, 4), Member("count", 4, 4))
)
_LINGER_NAMES = {
    "level": "id", "opt": "cmd", "optname": "cmd", "onoff": "flags", "l_onoff": "flags",
    "linger": "count", "l_linger": "count", "optlen": "argsz",
}  # fmt: skip


def _other_transport(name: str) -> Function:
    return Function(
        event=f"vsock.{name}_release",
        returned=f"vsock.{name}_released",
        returns_nothing=True,
        arguments=_VSK,
        aliases={"sk": "object"},
    )


FUNCTIONS: dict[str, Function] = {
    "__sys_setsockopt": Function(
        event="setsockopt.called",
        arguments={
            "fd": "fd", "level": "id", "optname": "cmd", "optval": _LINGER_VALUE, "optlen": "argsz",
        },
        aliases=_LINGER_NAMES,
    ),
    "do_sock_setsockopt": Function(
        event="setsockopt.in_socket",
        arguments={"sock": "object", "compat": None, "level": "id", "optname": "cmd"},
        aliases={"opt": "cmd"},
    ),
    "vsock_release": Function(
        event="vsock.release",
        returned="vsock.released",
        ret_size=4,
        arguments={"sock": Pointee(names={"sk": "object"})},
    ),
    "virtio_transport_release": Function(
        event="vsock.transport_release",
        returned="vsock.transport_released",
        returns_nothing=True,
        arguments={"vsk": _CLOSING},
        aliases={
            **_ADDRESSES, "ltime": "count", "lingertime": "count", "flags": "attributes",
            "skc_flags": "attributes", "state": "cmd", "shut": "id", "pshut": "flags",
        },
    ),
    "hvs_release": _other_transport("hyperv"),
    "vmci_transport_release": _other_transport("vmci"),
    "vsock_linger": Function(
        event="vsock.linger",
        returned="vsock.lingered",
        returns_nothing=True,
        arguments={"sk": Pointee(column="object", names={"sk_lingertime": "count"})},
        aliases={"lingertime": "count", "ltime": "count"},
    ),
    "vsock_shutdown": Function(
        event="vsock.shutdown",
        returned="vsock.shutdown_returned",
        ret_size=4,
        arguments={"sock": Pointee(names={"sk": "object"}), "mode": "flags"},
        aliases={"how": "flags"},
    ),
    "virtio_transport_get_credit": Function(
        event="vsock.credit",
        returned="vsock.credit_taken",
        ret_size=4,
        arguments={
            "vvs": Pointee(
                column="object",
                names={
                    "tx_cnt": "offset", "bytes_unsent": "count", "peer_fwd_cnt": "id",
                    "peer_buf_alloc": "argsz",
                },
            ),
            "wanted": "size",
        },
        aliases={"credit": "size", "want": "size"},
    ),
    "virtio_transport_put_credit": Function(
        event="vsock.credit_returned",
        arguments={"vvs": "object", "credit": "size"},
    ),
    "virtio_transport_consume_skb_sent": Function(
        event="vsock.sent",
        arguments={"skb": Pointee(names={"len": "size", "sk": "object"}), "consume": None},
    ),
    "virtio_transport_unsent_bytes": Function(
        event="vsock.unsent_asked",
        returned="vsock.unsent_told",
        arguments=_VSK,
        aliases={"sk": "object"},
    ),
    "virtio_transport_do_close": Function(
        event="vsock.done", arguments={"vsk": "object", "cancel_timeout": None}
    ),
    "virtio_transport_close_timeout": Function(
        event="vsock.close_timeout", arguments={"work": None}
    ),
    "virtio_vsock_reset_sock": Function(event="vsock.device_reset", arguments=_SOCK),
    "vfio_iommu_type1_ioctl": Function(
        event="vfio.type1_ioctl",
        returned="vfio.type1_ioctl_returned",
        arguments={"iommu_data": "object", "cmd": "cmd", "arg": ByCommand()},
        aliases={"iommu": "object"},
    ),
    "vfio_fops_unl_ioctl": Function(
        event="vfio.container_ioctl",
        arguments={"filep": "object", "cmd": "cmd", "arg": "vaddr"},
        aliases={"filp": "object", "file": "object"},
    ),
    "vfio_pin_pages_remote": Function(
        event="vfio.pin_pages", arguments={"dma": None, "vaddr": "vaddr", "npage": "count"}
    ),
    "vfio_remove_dma": Function(
        event="vfio.remove_dma",
        arguments={
            "iommu": "object",
            "dma": Pointee(names={"iova": "iova", "size": "size", "vaddr": "vaddr"}),
        },
    ),
    "iommu_map": _map("iommu.map_called"),
    "iommu_map_nosync": _map("iommu.map_called"),
    "iommu_unmap": _unmap(),
    "iommu_unmap_fast": _unmap(),
    "iommu_attach_group": _attach(),
    "intel_iommu_attach_device": _attach(),
    "amd_iommu_attach_device": _attach(),
    "arm_smmu_attach_dev": _attach(),
    "iommu_domain_free": Function(
        event="iommu.domain_freed", arguments=_ATTACH, aliases={"dom": "object"}
    ),
    "iommufd_fops_ioctl": Function(
        event="iommufd.ioctl",
        returned="iommufd.ioctl_returned",
        arguments={"filp": "object", "cmd": "cmd", "arg": ByCommand()},
    ),
    # Its structure is two pointers away, where probes have been seen to read something else.
    "iommufd_ioas_map": Function(
        event="iommufd.ioas_map",
        arguments={"ucmd": None},
        aliases={"flags": "flags"},
        limits={"flags": 7},
    ),
    "iopt_map_user_pages": Function(
        event="iommufd.iopt_map_user",
        returned="iommufd.iopt_map_returned",
        ret_size=4,
        arguments={
            "ictx": None, "iopt": "object", "iova": _IOVA_BEHIND, "uptr": "vaddr",
            "length": "size", "iommu_prot": "flags",
        },
        aliases={"iova": "iova", "prot": "flags", "size": "size", "len": "size", "vaddr": "vaddr"},
    ),
    "iopt_map_file_pages": Function(
        event="iommufd.iopt_map_file",
        returned="iommufd.iopt_map_returned",
        ret_size=4,
        arguments={
            "ictx": None, "iopt": "object", "iova": _IOVA_BEHIND, "fd": "file_fd",
            "start": "offset", "length": "size",
        },
        aliases={"iova": "iova", "size": "size", "len": "size", "offset": "offset"},
    ),
    "iopt_unmap_iova": Function(
        event="iommufd.iopt_unmap",
        returned="iommufd.iopt_unmap_returned",
        ret_size=4,
        arguments={"iopt": "object", "iova": "iova", "length": "size"},
        aliases={"size": "size", "len": "size"},
    ),
    "kvm_vm_ioctl": Function(
        event="kvm.vm_ioctl",
        returned="kvm.vm_ioctl_returned",
        arguments={"filp": "object", "ioctl": "cmd", "arg": ByCommand()},
        aliases={"cmd": "cmd"},
    ),
    "kvm_arch_pre_set_memory_attributes": Function(
        event="kvm.attributes_pre", arguments={"kvm": "object", "range": _GFN_RANGE}
    ),
    "kvm_arch_post_set_memory_attributes": Function(
        event="kvm.attributes_post", arguments={"kvm": "object", "range": _GFN_RANGE}
    ),
    "kvm_gmem_create": Function(
        event="kvm.gmem_created",
        arguments={
            "kvm": "object",
            "args": Pointee(
                members=(Member("size", 0, 8), Member("flags", 8, 8)),
                names={"size": "size", "flags": "flags"},
            ),
        },
        aliases={"size": "size", "flags": "flags"},
    ),
    "kvm_gmem_bind": Function(
        event="kvm.gmem_bound",
        arguments={"kvm": "object", "slot": None, "fd": "file_fd", "offset": "offset"},
    ),
    "kvm_gmem_fallocate": Function(
        event="kvm.gmem_fallocate",
        returned="kvm.gmem_fallocate_returned",
        arguments={"file": "object", "mode": "flags", "offset": "offset", "len": "size"},
        aliases={"length": "size", "size": "size"},
    ),
    "kvm_set_memory_region": _memslot(),
    "__kvm_set_memory_region": _memslot(),
    "shmem_fallocate": Function(
        event="shmem.fallocate", arguments=_FALLOCATE, aliases=_FALLOCATE_ALIASES
    ),
}  # fmt: skip
