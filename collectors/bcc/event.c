/* What every program of this folder sends: who, where, when, and values in an order that source.py
 * knows by kind.  The kinds (KIND_...) are defined before this file by source.py. */

#include <uapi/linux/ptrace.h>

#define VALUES 12
#define TEXT 64
#define COMM 16

struct event {
    u64 ts;
    u32 kind;
    u32 tgid;
    u32 tid;
    u32 cpu;
    char comm[COMM];
    u64 value[VALUES];
    char text[TEXT];
};

BPF_PERF_OUTPUT(events);
BPF_PERCPU_ARRAY(failed, u64, 1); /* events that found no room: the loss, counted here */

static inline void begin(struct event *e, u32 kind)
{
    u64 who = bpf_get_current_pid_tgid();

    __builtin_memset(e, 0, sizeof(*e));
    e->ts = bpf_ktime_get_ns();
    e->kind = kind;
    e->tgid = who >> 32;
    e->tid = who;
    e->cpu = bpf_get_smp_processor_id();
    bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static inline void sent(int error)
{
    int zero = 0;
    u64 *count;

    if (!error)
        return;
    count = failed.lookup(&zero);
    if (count)
        *count += 1;
}

