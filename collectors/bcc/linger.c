/* The end of a vsock connection: what the kernel's own structures say of it at that moment. */

#include <linux/net.h>
#include <linux/virtio_vsock.h>
#include <linux/version.h>
#include <net/af_vsock.h>

struct linger_option {
    int onoff;
    int seconds;
};

int probe_sys_setsockopt(struct pt_regs *ctx, int fd, int level, int option, void *value, int size)
{
    struct linger_option linger = {};
    struct event e;

    if (level != SOL_SOCKET || option != SO_LINGER)
        return 0;
    bpf_probe_read_user(&linger, sizeof(linger), value);
    begin(&e, KIND_sys_setsockopt);
    e.value[0] = (s64)fd;
    e.value[1] = level;
    e.value[2] = option;
    e.value[3] = (s64)linger.onoff;
    e.value[4] = (s64)linger.seconds;
    e.value[5] = (s64)size;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_vsock_release(struct pt_regs *ctx, struct socket *sock)
{
    struct event e;

    begin(&e, KIND_vsock_release);
    e.value[0] = (u64)sock;
    e.value[1] = (u64)sock->sk;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_vsock_release_ret(struct pt_regs *ctx)
{
    struct event e;

    begin(&e, KIND_vsock_release_ret);
    e.value[0] = (s64)(int)PT_REGS_RC(ctx);
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_vt_release(struct pt_regs *ctx, struct vsock_sock *vsk)
{
    struct virtio_vsock_sock *vvs = vsk->trans;
    struct event e;

    begin(&e, KIND_vt_release);
    e.value[0] = (u64)vsk;
    e.value[1] = vsk->local_addr.svm_cid;
    e.value[2] = vsk->local_addr.svm_port;
    e.value[3] = vsk->remote_addr.svm_cid;
    e.value[4] = vsk->remote_addr.svm_port;
    e.value[5] = vsk->sk.sk_lingertime;
    e.value[6] = vsk->sk.__sk_common.skc_flags;
    e.value[7] = vsk->sk.__sk_common.skc_state;
    e.value[8] = vsk->sk.sk_shutdown;
    e.value[9] = vsk->peer_shutdown;
    if (vvs) {
        e.value[10] = (u32)(vvs->tx_cnt - vvs->peer_fwd_cnt);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
        e.value[11] = vvs->bytes_unsent;
#endif
    }
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_vt_release_ret(struct pt_regs *ctx)
{
    struct event e;

    begin(&e, KIND_vt_release_ret);
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_linger(struct pt_regs *ctx, struct sock *sk)
{
    struct event e;

    begin(&e, KIND_linger);
    e.value[0] = (u64)sk;
    e.value[1] = sk->sk_lingertime;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_linger_ret(struct pt_regs *ctx)
{
    struct event e;

    begin(&e, KIND_linger_ret);
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_vsock_shutdown(struct pt_regs *ctx, struct socket *sock, int how)
{
    struct event e;

    begin(&e, KIND_vsock_shutdown);
    e.value[0] = (u64)sock->sk;
    e.value[1] = (s64)how;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_do_close(struct pt_regs *ctx, struct vsock_sock *vsk, bool cancel)
{
    struct event e;

    begin(&e, KIND_do_close);
    e.value[0] = (u64)vsk;
    e.value[1] = cancel;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_close_timeout(struct pt_regs *ctx, void *work)
{
    struct event e;

    begin(&e, KIND_close_timeout);
    e.value[0] = (u64)work;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_get_credit(struct pt_regs *ctx, struct virtio_vsock_sock *vvs, u32 credit)
{
    struct event e;

    begin(&e, KIND_get_credit);
    e.value[0] = (u64)vvs;
    e.value[1] = credit;
    e.value[2] = vvs->tx_cnt;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
    e.value[3] = vvs->bytes_unsent;
#endif
    e.value[4] = vvs->peer_fwd_cnt;
    e.value[5] = vvs->peer_buf_alloc;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_get_credit_ret(struct pt_regs *ctx)
{
    struct event e;

    begin(&e, KIND_get_credit_ret);
    e.value[0] = (u32)PT_REGS_RC(ctx);
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_put_credit(struct pt_regs *ctx, struct virtio_vsock_sock *vvs, u32 credit)
{
    struct event e;

    begin(&e, KIND_put_credit);
    e.value[0] = (u64)vvs;
    e.value[1] = credit;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_consume_skb_sent(struct pt_regs *ctx, struct sk_buff *skb, bool consume)
{
    struct event e;

    begin(&e, KIND_consume_skb_sent);
    e.value[0] = (u64)skb;
    e.value[1] = consume;
    e.value[2] = skb->len;
    e.value[3] = (u64)skb->sk;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_unsent_bytes(struct pt_regs *ctx, struct vsock_sock *vsk)
{
    struct event e;

    begin(&e, KIND_unsent_bytes);
    e.value[0] = (u64)vsk;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_unsent_bytes_ret(struct pt_regs *ctx)
{
    struct event e;

    begin(&e, KIND_unsent_bytes_ret);
    e.value[0] = PT_REGS_RC(ctx);
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}
