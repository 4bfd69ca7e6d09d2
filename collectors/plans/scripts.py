"""A plan as a shell script for a host without tracekit: with trace-cmd, or with nothing at all.

Both are POSIX sh, make an instance and probes of their own, and remove exactly these at the end.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping

from collectors.plans._define import Plan, Probe, Section

__all__ = ("raw_script", "section_comment", "trace_cmd_script")

_WIDTH = 80

_HEAD = """\
#!/bin/sh
# Records {title}.
# As printed by: tracekit plan --purpose {purpose} --format {format}
#
#   sh FILE               records until Ctrl-C
#   sh FILE COMMAND...    records while COMMAND runs; exits as it does
#   sh FILE --undo        only removes what a run left that was killed
#
# Needs root, a mounted tracefs and {needs}. Writes a new folder,
# $OUT (now {out}). The kernel is left as it was found: what is made is one
# tracefs instance and the probes of one group, both called {group}.
# What this kernel does not have is left out and named. Modules first: functions
# of a module that is not loaded (kvm, vfio_iommu_type1, iommufd, vsock) count as
# missing.

G={group}
OUT=${{OUT:-{out}}}
BUFFER_KB=${{BUFFER_KB:-{buffer_kb}}}    # of ring buffer for each CPU; smaller loses events
T=/sys/kernel/tracing
[ -d "$T/events" ] || T=/sys/kernel/debug/tracing
PROBES="{probes}"

stop() {{ echo "error: $*" >&2; exit 2; }}

# Undo: the instance, then the probes that it used. Nothing else is touched.
undo() {{
    rm -f "$OUT/.recording"
    if [ -d "$T/instances/$G" ]; then
        echo 0 > "$T/instances/$G/tracing_on"
        echo 0 > "$T/instances/$G/events/enable"
        for _ in 1 2 3 4 5; do    # a reader may have it open for a moment
            rmdir "$T/instances/$G" 2> /dev/null && break
            sleep 1
        done
        [ ! -d "$T/instances/$G" ] || echo "error: cannot remove $T/instances/$G" >&2
    fi
    for name in $PROBES; do
        [ ! -d "$T/events/$G/$name" ] || echo "-:$G/$name" >> "$T/dynamic_events"
    done
}}

[ -d "$T/events" ] || stop "no tracefs at $T; try: mount -t tracefs tracefs /sys/kernel/tracing"
[ -w "$T/tracing_on" ] || stop "only root may record"
if [ "${{1:-}}" = --undo ]; then undo; exit 0; fi
[ ! -d "$T/instances/$G" ] && [ ! -d "$T/events/$G" ] ||
    stop "$G is there already: another recording, or its remains (sh $0 --undo)"
"""

_CHECKS = """\
mkdir "$OUT" || stop "give another folder: OUT=... sh $0"
: > "$OUT/left_out"
trap undo EXIT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap 'exit 130' INT

left_out() { echo "left out, not on this kernel: $1" | tee -a "$OUT/left_out" >&2; }
"""

_EVENT_TRACE_CMD = """\
EVENTS=
event() { # SYSTEM:NAME [FILTER]
    if [ -d "$T/events/${1%:*}/${1#*:}" ]; then
        EVENTS="$EVENTS -e $1${2:+ -f '$2'}"
    else
        left_out "$1"
    fi
}
"""

_EVENT_RAW = """\
I="$T/instances/$G"
mkdir "$I" || stop "cannot make a tracefs instance"
echo 0 > "$I/tracing_on"
echo mono > "$I/trace_clock" || stop "no clock called mono"
echo 1 > "$I/options/overwrite"    # what a full buffer loses then shows where it was lost
echo "$BUFFER_KB" > "$I/buffer_size_kb" || stop "no memory for $BUFFER_KB KiB for each CPU"
EVENTS=
event() { # SYSTEM:NAME [FILTER]
    at="${1%:*}/${1#*:}"
    if [ ! -d "$I/events/$at" ]; then
        left_out "$1"
    elif [ -n "${2:-}" ] && ! echo "$2" > "$I/events/$at/filter"; then
        stop "the kernel does not take the filter of $1"
    else
        EVENTS="$EVENTS $at"
    fi
}
"""

_PROBE = """\
probe() { # NAME FILTER DEFINITION...: the first definition that the kernel takes
    name=$1 filter=$2
    shift 2
    for definition in "$@"; do
        { printf '%s\\n' "$definition" >> "$T/dynamic_events"; } 2> "$OUT/.refused"
        if [ -d "$T/events/$G/$name" ]; then
            event "$G:$name" "$filter"
            return
        fi
    done
    left_out "$G:$name"
}
have() { for name in "$@"; do [ -d "$T/events/$G/$name" ] || return 1; done; }
"""

_RECORD_TRACE_CMD = """\
rm -f "$OUT/.refused"
cat "$T/dynamic_events" > "$OUT/dynamic_events"    # what each probe fetches: for --probes
echo "recording into $OUT; Ctrl-C ends it" >&2
trap : INT    # trace-cmd ends by itself and writes its file
eval "trace-cmd record -q -o '$OUT/trace.dat' -B $G -C mono -b $BUFFER_KB $EVENTS"' "$@"' >&2
status=$?
[ -s "$OUT/trace.dat" ] || stop "trace-cmd wrote nothing"
"""

_END = """\
cat "$T/kprobe_profile" > "$OUT/kprobe_profile" 2> /dev/null    # third column: calls missed
undo
trap - EXIT

# Bring it home, then import and judge it where tracekit is:
echo "tar czf $OUT.tar.gz $OUT    # then, where tracekit is:" >&2
echo "tracekit import {recording} --probes $OUT/dynamic_events -o trace.parquet" >&2
echo "tracekit info trace.parquet && tracekit replay trace.parquet" >&2
exit $status
"""

_RECORD_RAW = """\
rm -f "$OUT/.refused"
# What the pages mean: without these files they are only bytes.
for at in $EVENTS; do
    mkdir -p "$OUT/events/$at"
    cat "$I/events/$at/format" > "$OUT/events/$at/format"
done
for name in header_page header_event; do cat "$T/events/$name" > "$OUT/events/$name"; done
cat "$T/dynamic_events" > "$OUT/dynamic_events"
cat /proc/kallsyms > "$OUT/kallsyms"
cat "$I/trace_clock" > "$OUT/trace_clock"
cat "$I/buffer_subbuf_size_kb" > "$OUT/buffer_subbuf_size_kb" 2> /dev/null ||
    rm "$OUT/buffer_subbuf_size_kb"    # before 6.8: always a page
uname -a > "$OUT/uname"
PAGE=$(getconf PAGESIZE)
[ ! -s "$OUT/buffer_subbuf_size_kb" ] || PAGE=$(($(cat "$OUT/buffer_subbuf_size_kb") * 1024))

drain() { # the pages of every CPU that are there now
    for cpu in "$I"/per_cpu/cpu*; do
        dd if="$cpu/trace_pipe_raw" bs="$PAGE" iflag=nonblock \\
            >> "$OUT/per_cpu/${cpu##*/}/trace_pipe_raw" 2> /dev/null
    done
}
drain_on() { while [ -e "$OUT/.recording" ]; do drain; sleep 1; done; }

for cpu in "$I"/per_cpu/cpu*; do mkdir -p "$OUT/per_cpu/${cpu##*/}"; done
: > "$OUT/.recording"
drain_on &
for at in $EVENTS; do echo 1 > "$I/events/$at/enable" || stop "cannot enable $at"; done
echo "recording into $OUT; Ctrl-C ends it" >&2
STOPPED=
trap 'STOPPED=1' INT TERM HUP
echo 1 > "$I/tracing_on"
status=0
if [ $# -gt 0 ]; then
    "$@" || status=$?
else
    while [ -z "$STOPPED" ]; do sleep 1; done
fi
echo 0 > "$I/tracing_on"
rm "$OUT/.recording"
wait
drain
cat "$T/saved_cmdlines" > "$OUT/saved_cmdlines"
for cpu in "$I"/per_cpu/cpu*; do cat "$cpu/stats" > "$OUT/per_cpu/${cpu##*/}/stats"; done
"""


def trace_cmd_script(plan: Plan, serves: Mapping[str, tuple[str, ...]]) -> str:
    """The plan for trace-cmd; ``serves``: the checks that each event type is for."""
    record = _RECORD_TRACE_CMD + _END.replace("{recording}", "$OUT/trace.dat")
    return _script(plan, serves, "trace-cmd", "trace-cmd", _EVENT_TRACE_CMD, record)


def raw_script(plan: Plan, serves: Mapping[str, tuple[str, ...]]) -> str:
    """The plan for a host with nothing but a shell; ``serves``: as above."""
    record = _RECORD_RAW + _END.replace("{recording}", "$OUT")
    return _script(plan, serves, "sh", "coreutils", _EVENT_RAW, record)


def section_comment(section: Section, serves: Mapping[str, tuple[str, ...]]) -> str:
    """What a section gives, costs and is for."""
    lines = textwrap.wrap(" ".join(section.gives.split()), _WIDTH - 2)
    lines += textwrap.wrap("costs: " + " ".join(section.costs.split()), _WIDTH - 2)
    codes = {c for item in section.items for c in serves.get(item.event or "", ())}
    if codes:
        lines += textwrap.wrap("needed by: " + " ".join(sorted(codes)), _WIDTH - 2)
    return "\n".join(f"# {line}" for line in lines)


def _script(
    plan: Plan,
    serves: Mapping[str, tuple[str, ...]],
    format: str,
    needs: str,
    event: str,
    record: str,
) -> str:
    head = _HEAD.format(
        title=plan.title,
        purpose=plan.purpose,
        format=format,
        needs=needs,
        group=plan.group,
        out=f"tracekit-{plan.purpose}",
        buffer_kb=plan.buffer_kb,
        probes=" ".join(p.name for p in plan.probes),
    )
    if format == "trace-cmd":
        head += 'command -v trace-cmd > /dev/null || stop "trace-cmd is not installed"\n'
    parts = [head + _CHECKS + event + _PROBE]
    for section in plan.sections:
        lines = [section_comment(section, serves)]
        for item in section.items:
            lines.append(_probe(plan, item) if isinstance(item, Probe) else "")
            if not isinstance(item, Probe):
                lines[-1] = f"event {item.source}" + (
                    f" {shlex.quote(item.filter)}" if item.filter else ""
                )
        parts.append("\n".join(lines) + "\n")
    return "\n".join([*parts, record])


def _probe(plan: Plan, probe: Probe) -> str:
    """The lines that make one probe."""
    words = [f"probe {probe.name} {shlex.quote(probe.filter)}"]
    words += [f"    {shlex.quote(d)}" for d in probe.definitions(plan.group)]
    command = " \\\n".join(words)
    if probe.instead_of:
        return f"have {' '.join(probe.instead_of)} || {command}"
    return command
