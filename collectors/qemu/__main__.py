"""``python -m collectors.qemu``: what to add to QEMU's command line, and a live copy of its trace.

``arguments``: for a version, or for a QEMU that is asked what it has.  ``follow``: copies a log, or
simpletrace, from a file or a named pipe until a signal comes or the pipe's writer ends.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from collectors.qemu.events import arguments, events_of, offered, parse_version
from collectors.qemu.follow import follow
from tracekit.errors import TracekitError


def main(given_words: list[str] | None = None) -> int:
    """The command; 130 where a signal ended a copy, 2 for bad usage or a file that fails."""
    parser = argparse.ArgumentParser(prog="python -m collectors.qemu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    asks = commands.add_parser("arguments", help="print what to add to QEMU's command line")
    which = asks.add_mutually_exclusive_group(required=True)
    which.add_argument("--version", help="as in 10.2")
    which.add_argument("--qemu", help="the program, to be asked what it has")
    asks.add_argument("--log", default="/run/tracekit/qemu.log", help="where QEMU writes")
    follows = commands.add_parser("follow", help="copy a trace while it is written")
    follows.add_argument("source", type=Path, help="QEMU's log, simpletrace, or a named pipe")
    follows.add_argument("-o", "--output", type=Path, required=True, help="a new file")
    given = parser.parse_args(given_words)
    try:
        if given.command == "arguments":
            names = offered(given.qemu) if given.qemu else events_of(parse_version(given.version))
            print(shlex.join(arguments(names, given.log)))
            return 0
        return _follow(given.source, given.output)
    except TracekitError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.help:
            print(f"  help: {error.help}", file=sys.stderr)
        return 2


def _follow(source: Path, out: Path) -> int:
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, asked)
    print("ready", file=sys.stderr, flush=True)
    told = follow(source, out, stop.is_set)
    what = "lines" if told.format == "log" else "records"
    print(f"{out}: {told.events} {what}, {told.bytes} bytes", file=sys.stderr)
    if told.again:
        print(f"  {source} was begun anew {told.again} times", file=sys.stderr)
    if told.cut:
        print(f"  {told.cut} bytes in the end were no whole one, and left out", file=sys.stderr)
    return 130 if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
