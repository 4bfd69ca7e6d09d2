"""Cut a simpletrace file down to its first records, byte for byte, and what explains them.

Kept are the header, the names of the events that occur, and the first records; of
``trace-events-all`` the declarations of those events; of the decoded text the lines of those
records::

    python tests/data/cut_simpletrace.py IN.bin IN-events IN.txt RECORDS OUT.bin OUT-events OUT.txt
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path


def main(source: str, events: str, text: str, count: str, *out: str) -> None:
    data, at = Path(source).read_bytes(), 24
    names: dict[int, tuple[str, bytes]] = {}
    kept: list[bytes] = []
    used: set[int] = set()
    while at < len(data) and len(kept) < int(count):
        begin = at
        (kind,) = struct.unpack_from("<Q", data, at)
        if kind == 0:
            number, size = struct.unpack_from("<QI", data, at + 8)
            at += 20 + size
            names[number] = (data[at - size : at].decode(), data[begin:at])
            continue
        number, _, size, _ = struct.unpack_from("<QQII", data, at + 8)
        at += 8 + size
        used.add(number)
        kept.append(data[begin:at])
    mappings = b"".join(names[n][1] for n in sorted(used))
    Path(out[0]).write_bytes(data[:24] + mappings + b"".join(kept))
    occurring = {names[n][0] for n in used}
    lines = Path(events).read_text().splitlines()
    declared = [d for d in lines if d.split("(")[0].removeprefix("disable ") in occurring]
    Path(out[1]).write_text("\n".join(declared) + "\n")
    Path(out[2]).write_text("\n".join(Path(text).read_text().splitlines()[: len(kept)]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
