"""What the checks of a lingering close() of a vsock socket need (TK3xx)."""

from __future__ import annotations

from collectors.plans._define import Plan, Probe, Section, Tracepoint

__all__ = ("LINGER",)

_SOCKET_CALLS = Section(
    gives="""
        Which thread closes or shuts down, when, and what SO_LINGER was set to (level 1, option
        13; read where the kernel itself reads it: an eprobe on the system call gives zeros).
    """,
    costs="Every close and shutdown of the host.",
    items=(
        *(
            Tracepoint(source=f"syscalls:sys_{way}_{call}")
            for call in ("close", "shutdown")
            for way in ("enter", "exit")
        ),
        Probe(
            name="sys_setsockopt",
            targets=("__sys_setsockopt",),
            fetches=(
                "fd=$arg1:s32 level=$arg2:s32 opt=$arg3:s32 onoff=+u0($arg4):s32"
                " linger=+u4($arg4):s32 optlen=$arg5:s32",
            ),
            filter="level == 1 && opt == 13",
            fires_with=("syscalls:sys_enter_setsockopt",),
        ),
        Tracepoint(source="syscalls:sys_enter_setsockopt", filter="level == 1 && optname == 13"),
        Tracepoint(source="syscalls:sys_exit_setsockopt"),
    ),
)
_RELEASE = Section(
    gives="""
        How long a socket's release took, which connection it was, and how long of that it
        lingered (the function vsock_linger is there from 6.16 on; before, the release is all).
    """,
    costs="A few events for a vsock socket.",
    items=(
        Probe(
            name="vsock_release",
            targets=("vsock_release",),
            fetches=("sock=$arg1:x64 sk=sock->sk", "sock=$arg1:x64"),
            fires_with=("vsock_release_ret",),
        ),
        Probe(
            name="vsock_release_ret",
            where="return",
            targets=("vsock_release",),
            fetches=("ret=$retval:s32",),
            fires_with=("vsock_release",),
        ),
        Probe(
            name="vt_release",
            targets=("virtio_transport_release",),
            fetches=(
                "vsk=$arg1:x64 lcid=vsk->local_addr.svm_cid lport=vsk->local_addr.svm_port"
                " rcid=vsk->remote_addr.svm_cid rport=vsk->remote_addr.svm_port"
                " ltime=vsk->sk.sk_lingertime flags=vsk->sk.__sk_common.skc_flags"
                " state=vsk->sk.__sk_common.skc_state shut=vsk->sk.sk_shutdown"
                " peer_shutdown=vsk->peer_shutdown",
                "vsk=$arg1:x64",
            ),
        ),
        Probe(
            name="vt_release_ret",
            where="return",
            targets=("virtio_transport_release",),
            fetches=("",),
            fires_with=("vt_release",),
        ),
        Probe(
            name="linger",
            targets=("vsock_linger",),
            fetches=("sk=$arg1:x64 lingertime=sk->sk_lingertime", "sk=$arg1:x64"),
            since=(6, 16),
        ),
        Probe(
            name="linger_ret",
            where="return",
            targets=("vsock_linger",),
            fetches=("",),
            since=(6, 16),
            fires_with=("linger",),
        ),
        Probe(
            name="vsock_shutdown",
            targets=("vsock_shutdown",),
            fetches=("sk=sock->sk how=$arg2:s32", "sock=$arg1:x64 how=$arg2:s32"),
        ),
        Probe(
            name="do_close",
            targets=("virtio_transport_do_close",),
            fetches=("vsk=$arg1:x64 cancel=$arg2:u8",),
        ),
        Probe(
            name="close_timeout",
            targets=("virtio_transport_close_timeout",),
            fetches=("work=$arg1:x64",),
        ),
    ),
)
_BYTES = Section(
    gives="""
        Bytes handed over and still unsent. The two credit functions are inlined in many kernels:
        their probes are made and never fire, and then the sum cannot be checked.
    """,
    costs="One event for a packet, and one for each look at the counter.",
    items=(
        Probe(
            name="get_credit",
            targets=("virtio_transport_get_credit",),
            fetches=(
                "vvs=$arg1:x64 credit=$arg2:u32 tx_cnt=vvs->tx_cnt"
                " bytes_unsent=vvs->bytes_unsent peer_fwd_cnt=vvs->peer_fwd_cnt"
                " peer_buf_alloc=vvs->peer_buf_alloc",
                "vvs=$arg1:x64 credit=$arg2:u32",
            ),
            fires_with=("consume_skb_sent", "vsock:virtio_transport_alloc_pkt"),
        ),
        Probe(
            name="get_credit_ret",
            where="return",
            targets=("virtio_transport_get_credit",),
            fetches=("ret=$retval:u32",),
            fires_with=("get_credit",),
        ),
        Probe(
            name="put_credit",
            targets=("virtio_transport_put_credit",),
            fetches=("vvs=$arg1:x64 credit=$arg2:u32",),
        ),
        Probe(
            name="consume_skb_sent",
            targets=("virtio_transport_consume_skb_sent",),
            fetches=(
                "skb=$arg1:x64 consume=$arg2:u8 len=skb->len sk=skb->sk",
                "skb=$arg1:x64 consume=$arg2:u8",
            ),
            fires_with=("vsock:virtio_transport_alloc_pkt",),
        ),
        Probe(
            name="unsent_bytes",
            targets=("virtio_transport_unsent_bytes",),
            fetches=("vsk=$arg1:x64",),
        ),
        Probe(
            name="unsent_bytes_ret",
            where="return",
            targets=("virtio_transport_unsent_bytes",),
            fetches=("ret=$retval:s64",),
            fires_with=("unsent_bytes",),
        ),
    ),
)
_PACKETS = Section(
    gives="What was sent and received on every connection, with the receiver's credit.",
    costs="One or two events for a packet; a fast connection makes many.",
    items=(
        Tracepoint(source="vsock:virtio_transport_alloc_pkt"),
        Tracepoint(source="vsock:virtio_transport_recv_pkt"),
    ),
)
_INTERRUPTIONS = Section(
    gives="Signals that end a wait early, and processes that do not linger because they exit.",
    costs="Little.",
    items=(
        Tracepoint(source="signal:signal_deliver"),
        Tracepoint(source="sched:sched_process_fork"),
        Tracepoint(source="sched:sched_process_exec"),
        Tracepoint(source="sched:sched_process_exit"),
    ),
)

LINGER = Plan(
    purpose="linger",
    title="a lingering close() of vsock sockets",
    group="tracekit_linger",
    buffer_kb=8192,
    sections=(_SOCKET_CALLS, _RELEASE, _BYTES, _PACKETS, _INTERRUPTIONS),
)
