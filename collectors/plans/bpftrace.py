"""A plan as a bpftrace program, in a shell script that leaves out what the kernel does not have.

It prints what ftrace prints: a line an event, with the tracepoints' own texts.  bpftrace can show
less than ftrace: no context bits, no addresses of vsock sockets, no exact place of a loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from collectors.plans._define import Plan, Probe, Tracepoint
from collectors.plans.scripts import section_comment
from tracekit.ftrace.probes import (
    Argument,
    Definition,
    Dereference,
    Fetch,
    ReturnValue,
    parse_definitions,
)

__all__ = ("SYSTEM_CALLS", "TEXTS", "bpftrace_script")

_HEAD = """\
#!/bin/sh
# Records {title}.
# As printed by: tracekit plan --purpose {purpose} --format bpftrace
#
#   sh FILE               records until Ctrl-C
#   sh FILE COMMAND...    records while COMMAND runs
#
# Needs root and bpftrace 0.17 or newer. Writes a new folder, $OUT (now {out}):
# trace.txt with a line for each event, and the definitions of the probes. Nothing
# is left behind in the kernel when bpftrace ends, however it ends: no undo.
# Prefer trace-cmd or sh where they run: bpftrace formats every event as text while
# it happens, does not know which events come from interrupts, and says of a loss
# only "Lost N events": import such a text with --salvage. Its clock is
# CLOCK_BOOTTIME.

OUT=${{OUT:-{out}}}
T=/sys/kernel/tracing
[ -d "$T/events" ] || T=/sys/kernel/debug/tracing

stop() {{ echo "error: $*" >&2; exit 2; }}
command -v bpftrace > /dev/null || stop "bpftrace is not installed"
[ -w "$T/tracing_on" ] || stop "no tracefs at $T, or not root"
mkdir "$OUT" || stop "give another folder: OUT=... sh $0"
: > "$OUT/left_out"
: > "$OUT/dynamic_events"

left_out() {{ echo "left out, not on this kernel: $1" | tee -a "$OUT/left_out" >&2; }}
tracepoint() {{ # SYSTEM:NAME PROGRAM
    if [ -d "$T/events/${{1%:*}}/${{1#*:}}" ]; then
        printf '%s\\n' "$2" >> "$OUT/program.bt"
    else
        left_out "$1"
    fi
}}
probe() {{ # FUNCTION DEFINITION PROGRAM; fails where there is no such function
    grep -q "^$1\\( \\|\\$\\)" "$T/available_filter_functions" || return 1
    printf '%s\\n' "$2" >> "$OUT/dynamic_events"
    printf '%s\\n' "$3" >> "$OUT/program.bt"
}}
"""

_TAIL = """\
echo "recording into $OUT; Ctrl-C ends it" >&2
export BPFTRACE_PERF_RB_PAGES=${BPFTRACE_PERF_RB_PAGES:-4096}
if [ $# -gt 0 ]; then
    bpftrace -o "$OUT/bpftrace.out" "$OUT/program.bt" &
    TRACER=$!
    files=none    # attaching opens files: it is done when their number stays the same
    until [ "$(ls "/proc/$TRACER/fd" | wc -l)" = "$files" ] && [ -s "$OUT/bpftrace.out" ]; do
        kill -0 $TRACER 2> /dev/null || stop "bpftrace did not start"
        files=$(ls "/proc/$TRACER/fd" | wc -l)
        sleep 2
    done
    status=0
    "$@" || status=$?
    sleep 1
    kill -TERM $TRACER
    wait $TRACER
else
    trap : INT
    bpftrace -o "$OUT/bpftrace.out" "$OUT/program.bt"
    status=$?
fi
sed '1{/^Attaching /d;}' "$OUT/bpftrace.out" > "$OUT/trace.txt" && rm "$OUT/bpftrace.out"

# Bring it home, then import and judge it where tracekit is:
echo "tar czf $OUT.tar.gz $OUT    # then, where tracekit is:" >&2
echo "tracekit import $OUT/trace.txt --probes $OUT/dynamic_events -o trace.parquet" >&2
echo "tracekit info trace.parquet && tracekit replay trace.parquet" >&2
exit $status
"""

SYSTEM_CALLS = {
    "ioctl": "fd cmd arg",
    "fallocate": "fd mode offset len",
    "madvise": "start len_in behavior",
    "mmap": "addr len prot flags fd off",
    "munmap": "addr len",
    "openat": "dfd filename flags mode",
    "close": "fd",
    "shutdown": "fd how",
    "setsockopt": "fd level optname optval optlen",
}
"""Arguments by call, in order, as the tracepoint names them."""

TEXTS = {
    "iommu:map": (
        "IOMMU: iova=0x%016lx - 0x%016lx paddr=0x%016lx size=%lu",
        "{iova}, {iova} + {size}, {paddr}, {size}",
    ),
    "iommu:unmap": (
        "IOMMU: iova=0x%016lx - 0x%016lx size=%lu unmapped_size=%lu",
        "{iova}, {iova} + {size}, {size}, {unmapped_size}",
    ),
    "iommu:attach_device_to_domain": ("IOMMU: device=%s", "str({device})"),
    "iommu:io_page_fault": (
        "IOMMU:%s %s iova=0x%016lx flags=0x%04x",
        "str({driver}), str({device}), {iova}, {flags}",
    ),
    "kvm:kvm_vm_set_mem_attributes": (
        "0x%014lx -- 0x%014lx [0x%lx]",
        "{start}, {end}, {attr}",
    ),
    "kvm:kvm_unmap_hva_range": (
        "mmu notifier unmap range: 0x%016lx -- 0x%016lx",
        "{start}, {end}",
    ),
    "sched:sched_process_fork": (
        "comm=%s pid=%d child_comm=%s child_pid=%d",
        "comm, tid, comm, {child_pid}",
    ),
    "sched:sched_process_exec": (
        "filename=%s pid=%d old_pid=%d",
        "str({filename}), {pid}, {old_pid}",
    ),
    "sched:sched_process_exit": ("comm=%s pid=%d prio=%d", "comm, {pid}, {prio}"),
    "signal:signal_deliver": (
        "sig=%d errno=%d code=%d sa_handler=%lx sa_flags=%lx",
        "{sig}, {errno}, {code}, {sa_handler}, {sa_flags}",
    ),
    "vsock:virtio_transport_alloc_pkt": (
        "%u:%u -> %u:%u len=%u type=%u op=%u flags=0x%x",
        "{src_cid}, {src_port}, {dst_cid}, {dst_port}, {len}, {type}, {op}, {flags}",
    ),
    "vsock:virtio_transport_recv_pkt": (
        "%u:%u -> %u:%u len=%u type=%u op=%u flags=0x%x buf_alloc=%u fwd_cnt=%u",
        "{src_cid}, {src_port}, {dst_cid}, {dst_port}, {len}, {type}, {op}, {flags},"
        " {buf_alloc}, {fwd_cnt}",
    ),
}
"""What the kernel prints for a tracepoint, as a format and its arguments."""

_LINE = 'printf("%s-%d [%03d] ..... %lu.%09lu: '
_WHO = "comm, tid, cpu, $t / 1000000000, $t % 1000000000"


def bpftrace_script(plan: Plan, serves: Mapping[str, tuple[str, ...]]) -> str:
    """The plan for bpftrace; ``serves``: the checks that each event type is for."""
    parts = [_HEAD.format(title=plan.title, purpose=plan.purpose, out=f"tracekit-{plan.purpose}")]
    for section in plan.sections:
        lines = [section_comment(section, serves)]
        for item in section.items:
            if isinstance(item, Tracepoint):
                lines.append(f"tracepoint {item.source} '{_tracepoint(item)}'")
            elif item.where != "event":  # bpftrace reads the functions' arguments, or nothing
                lines.append(_functions(plan, item))
        parts.append("\n".join(lines) + "\n")
    return "\n".join([*parts, _TAIL])


def _tracepoint(point: Tracepoint) -> str:
    """The program for one tracepoint."""
    system, _, name = point.source.partition(":")
    if system == "syscalls":
        way, call = name.split("_", 2)[1:]
        if way == "enter":
            names = SYSTEM_CALLS[call].split()
            text = f"sys_{call}(" + ", ".join(f"{n}: %lx" for n in names) + ")"
            values = ", ".join(f"(uint64)args->{n}" for n in names)
        else:
            text, values = f"sys_{call} -> 0x%lx", "args->ret"
    else:
        form, wanted = TEXTS[point.source]
        text = f"{name}: {form}"
        values = re.sub(r"\{(\w+)\}", r"args->\1", wanted)
    predicate = _predicate(point.filter, lambda field: f"args->{field}")
    return _clause(f"tracepoint:{point.source}{predicate}", text, values)


def _functions(plan: Plan, probe: Probe) -> str:
    """The lines that add one probe, on the first of its functions that is there."""
    tries = []
    for target in probe.targets:
        # The last fetch expressions are those that need no type information.
        definition = next(
            d for d in reversed(probe.definitions(plan.group)) if d[0] in "pr" and f" {target}" in d
        )
        (parsed,) = parse_definitions([definition], probe.name)
        tries.append(f"probe {target} '{definition}' '{_program(probe, target, parsed)}'")
    return " ||\n    ".join([*tries, f"left_out {plan.group}:{probe.name}"])


def _program(probe: Probe, target: str, parsed: Definition) -> str:
    """The program for one probe: its line looks as ftrace's for the same definition."""
    types = dict(re.findall(r"(\w+)=\S+:([sux]\d+)", parsed.text))
    values = {name: _value(fetch, types[name]) for name, fetch in parsed.fields.items()}
    shown = "".join(
        f" {name}=" + {"x": "0x%lx", "u": "%lu", "s": "%ld"}[types[name][0]] for name in values
    )
    place = f"({target}+0x0/0x0)" if probe.where == "entry" else f"(0x0 <- {target})"
    predicate = _predicate(probe.filter, lambda field: values[field])
    kind = "kprobe" if probe.where == "entry" else "kretprobe"
    text = f"{probe.name}: {place}{shown}"
    return _clause(f"{kind}:{target}{predicate}", text, ", ".join(values.values()))


def _clause(when: str, text: str, values: str) -> str:
    """Print a line: who, where, when, and ``text`` filled with ``values``."""
    listed = ", ".join(filter(None, (_WHO, values)))
    return f'{when} {{ $t = nsecs; {_LINE}{text}\\n", {listed}); }}'


def _value(fetch: Fetch, type: str) -> str:
    """What a fetch expression reads, as bpftrace says it."""
    integer = ("int" if type[0] == "s" else "uint") + type[1:]
    if isinstance(fetch, ReturnValue):
        return f"({integer})retval"
    if isinstance(fetch, Argument) and isinstance(fetch.which, int) and not fetch.members:
        return f"({integer})arg{fetch.which}"
    assert isinstance(fetch, Dereference), fetch
    assert isinstance(fetch.inner, Argument), fetch
    space = "uptr" if fetch.user else "kptr"
    return f"*({integer} *){space}(arg{fetch.inner.which} + {fetch.offset})"


def _predicate(filter: str, value: Callable[[str], str]) -> str:
    """A filter of ftrace as a predicate; one on common fields cannot be said."""
    if not filter or "common_" in filter:
        return ""
    return " /" + re.sub(r"\b([a-z]\w*)\b", lambda m: value(m[1]), filter) + "/"
