"""A checkpoint: what a replay knew when its trace was read, and what it was told to judge by."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from replay.checkpoint.file import MOST_STORED, packed, unpacked
from replay.engine.kept import Kept, State
from tracekit.errors import TraceFormatError, UsageError
from tracekit.store.manifest import Manifest

__all__ = ("MOST_GAP_NS", "Checkpoint", "Options")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides verdicts besides the trace; as the arguments of ``replay.run``."""

    grace_ns: int
    in_place: bool
    linger_model: str | None
    slack_ns: int | None
    generation: str


_FLAGS = {
    "grace_ns": "--grace",
    "in_place": "--in-place",
    "linger_model": "--linger-model",
    "slack_ns": "--slack",
    "generation": "--generation",
}

MOST_GAP_NS = 60_000_000_000
"""How long a host may have been silent between two traces that follow each other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The state at the end of a trace, before the end itself was judged.

    ``manifest``: of all traces so far, as if they were one.  ``parts``: the states of what judges.
    """

    options: Options
    manifest: Manifest
    parts: State

    def to_bytes(self) -> bytes:
        """The file."""
        return packed(
            {
                "options": asdict(self.options),
                "manifest": self.manifest.to_json(),
                "parts": self.parts,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, name: str | Path = "the checkpoint") -> Checkpoint:
        """From a file's bytes; ``name`` is the file's, for what is said if it is wrong.

        What the parts hold is looked at when a replay takes them up.

        :raises TraceFormatError: no checkpoint, a damaged one, or of another version of the format
        :raises UsageError: of a version of tracekit that keeps its state differently
        """
        kept = Kept(unpacked(data, str(name)), "content")
        told = kept.part("options")
        options = Options(
            grace_ns=told.integer("grace_ns", 0),
            in_place=told.boolean("in_place"),
            linger_model=told.text_or_none("linger_model"),
            slack_ns=told.integer_or_none("slack_ns", 0),
            generation=told.text("generation"),
        )
        manifest = Manifest.from_json(kept.text("manifest"), Path(name))
        return cls(options=options, manifest=manifest, parts=kept.part("parts").values)

    def save(self, path: str | Path) -> None:
        """Write the file: wholly, or not at all.

        :raises UsageError: it cannot be written there
        """
        path, data = Path(path), self.to_bytes()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as why:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise UsageError(f"cannot write {path}: {why.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file that :meth:`save` wrote.

        :raises TraceFormatError: no checkpoint, a damaged one, or of another version of the format
        :raises UsageError: of a version of tracekit that keeps its state differently
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > MOST_STORED:
                    raise TraceFormatError(f"{path} is too large for a checkpoint")
                data = file.read(MOST_STORED + 1)
        except OSError as why:
            raise TraceFormatError(f"cannot read {path}: {why.strerror}") from None
        return cls.from_bytes(data, path)

    def check_options(self, options: Options) -> None:
        """Whether a replay may go on from it with these options.

        :raises UsageError: one of them differs
        """
        apart = [
            _FLAGS[field.name]
            for field in fields(Options)
            if getattr(self.options, field.name) != getattr(options, field.name)
        ]
        if apart:
            raise UsageError(
                f"the checkpoint was made with another {' and '.join(apart)}",
                help="give both replays the same options",
            )

    def check_follows(self, manifest: Manifest, name: str, gap_ns: int = MOST_GAP_NS) -> None:
        """Whether a trace with this manifest can be what came next.

        ``gap_ns``: how long nothing may have been recorded in between.

        :raises UsageError: it is of another host, clock or kernel, or of an earlier time, or begins
            later than that
        """
        before = self.manifest
        for what, one, two in (
            ("host", before.host, manifest.host),
            ("clock", before.clock, manifest.clock),
            ("kernel", before.kernel, manifest.kernel),
        ):
            if one != two:
                raise UsageError(
                    f"{name} is of another {what} than the checkpoint: {two} instead of {one}"
                )
        if before.span_ns and manifest.span_ns and manifest.span_ns[0] < before.span_ns[1]:
            raise UsageError(
                f"{name} begins before the checkpoint's trace ended",
                help="its clock began anew, as it does when a host boots, or it is not the trace"
                " that came next: replay it without --from",
            )
        if before.span_ns and manifest.span_ns:
            gap = manifest.span_ns[0] - before.span_ns[1]
            if gap > gap_ns:
                raise UsageError(
                    f"{name} begins {gap / 1e9:,.0f} s after the checkpoint's trace ended, and"
                    " nobody knows what happened meanwhile",
                    help="replay it without --from; or, if the host was recorded all the time and"
                    " did nothing, with a longer --gap",
                )

    def __repr__(self) -> str:
        return f"<Checkpoint after {self.manifest.rows:,} events, kernel {self.manifest.kernel}>"
