"""``python -m fuzz.guided TARGET SECONDS``: inputs led by coverage, with atheris.

atheris (the extra ``fuzz``) counts which branches of tracekit an input takes, and keeps those that
take new ones to make more of.  Half of the mutations are its own, half are ours, which know the
formats.  The first byte of an input is its options, the rest is the file.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import atheris

# Instrumented as it is loaded, kernels too.
with atheris.instrument_imports(include=["tracekit"]):
    from fuzz import targets
    from fuzz.define import Case, Check
    from fuzz.mutations import MAX_INPUT, mutated, mutated_text
    from fuzz.oracle import check_import
    from fuzz.recordings import mutated_gzip, mutated_pages, mutated_perf_data, mutated_simpletrace
    from fuzz.worker import keep, signature

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]

SALVAGE, PROBES = 1, 2
PAGE = 4096


def _pages(rng: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    return mutated_pages(rng, raw, PAGE, others)


def _log(rng: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    if raw[:2] == b"\x1f\x8b":
        return mutated_gzip(rng, b"".join(others[:1]), others)
    return mutated_text(rng, raw, others)


def _import(name: str, probes: bytes = b"") -> Callable[[int, bytes], Case]:
    def case(options: int, raw: bytes) -> Case:
        given = bool(probes) and bool(options & PROBES)
        said: dict[str, object] = {"salvage": bool(options & SALVAGE)}
        files = {name: raw}
        if given:
            files["probes"], said["probes"] = probes, "probes"
        return Case(files=files, inputs=(name,), options=said, deep=False)

    return case


def _definitions(options: int, raw: bytes) -> Case:
    recording = targets.contents("traces/kvm/*fmt-default*.dat")[0]
    files = {"t.dat": recording, "probes": raw}
    return Case(files=files, inputs=("t.dat",), options={"probes": "probes"}, deep=False)


def _ring_pages(options: int, raw: bytes) -> Case:
    pages = raw[: len(raw) // PAGE * PAGE]
    return Case(files={"pages": pages}, options={"page_size": PAGE})


def _seeds(target: str) -> Sequence[bytes]:
    """Real files to begin with."""
    if target == "ring-pages":
        return [p[: 4 * PAGE] for parts in targets.trace_dat_parts() for p in parts.pages if p]
    if target == "trace.dat":
        return targets.trace_dats()
    patterns = {
        "ftrace-text": ("ftrace_text/trace*.txt", "recordings/*.report.txt.gz"),
        "perf.data": ("perf/*.data",),
        "simpletrace": ("qemu/simpletrace.bin",),
        "qemu-log": ("qemu/log-sample-*.txt",),
        "definitions": targets.PROBES,
    }
    return targets.contents(*patterns[target])


def _targets() -> dict[str, tuple[Callable[[int, bytes], Case], Mutator, Check]]:
    probes = targets.contents(*targets.PROBES)[0]
    return {
        "trace.dat": (_import("t.dat", probes), mutated, check_import),
        "ring-pages": (_ring_pages, _pages, targets.check_ring_pages),
        "ftrace-text": (_import("t.txt", probes), mutated_text, check_import),
        "perf.data": (_import("perf.data"), mutated_perf_data, check_import),
        "simpletrace": (_import("s.bin"), mutated_simpletrace, check_import),
        "qemu-log": (_import("q.log"), _log, check_import),
        "definitions": (_definitions, mutated_text, check_import),
    }


def main() -> None:
    """See the module."""
    target, seconds = sys.argv[1:3]
    findings = sys.argv[3] if len(sys.argv) > 3 else "build/fuzz"
    with tempfile.TemporaryDirectory(prefix="tracekit-fuzz-") as place:
        # In a child, as libFuzzer ends its process without a word to Python.
        child = multiprocessing.get_context("fork").Process(
            target=_fuzz, args=(target, seconds, Path(findings).resolve(), place)
        )
        child.start()
        child.join()


def _fuzz(target: str, seconds: str, findings: Path, place: str) -> None:
    make, mutator, check = _targets()[target]
    seeds = [s for s in _seeds(target) if len(s) < targets.LARGEST_SEED]
    found: dict[str, int] = {}
    corpus, folder = Path(place) / "corpus", Path(place) / "try"
    corpus.mkdir()
    folder.mkdir()
    for number, raw in enumerate(seeds):
        (corpus / str(number)).write_bytes(b"\0" + raw)

    def try_one(data: bytes) -> None:
        case = make(data[0] if data else 0, data[1:])
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            case.write(Path(inside))
            try:
                check(case, Path(inside))
            except Exception as error:
                kind = signature(error)
                found[kind] = found.get(kind, 0) + 1
                if found[kind] == 1:
                    keep(case, findings / f"guided-{target}-{len(found)}")
                    print(f"\n{target}: {kind}", file=sys.stderr)
                    traceback.print_exception(error)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.5 or len(data) < 2:
            return bytes(atheris.Mutate(data, most))
        options = data[0] ^ rng.choice((0, 0, SALVAGE, PROBES))
        return (bytes([options]) + mutator(rng, bytes(data[1:]), seeds))[:most]

    limits = ["-timeout=10", "-rss_limit_mb=1024", f"-max_len={MAX_INPUT}"]
    said = [f"-max_total_time={seconds}", "-print_final_stats=1", f"-artifact_prefix={findings}/"]
    findings.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], str(corpus), *limits, *said], try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
