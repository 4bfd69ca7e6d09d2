"""The options that decide verdicts, as several commands take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tracekit.cli.duration import parse_duration

if TYPE_CHECKING:
    from tracekit.findings import ReplayResult
    from tracekit.store import Trace

__all__ = ("Judging",)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a trace is judged.  ``words``: the options that are not as they are by default."""

    grace_ns: int
    in_place: bool
    linger_model: str | None
    slack_ns: int | None
    generation: str
    words: tuple[str, ...]

    @classmethod
    def of(
        cls,
        *,
        grace: str,
        in_place: bool,
        linger_model: str | None,
        slack: str | None,
        generation: str,
    ) -> Judging:
        """From what the command line says.

        :raises UsageError: not a duration
        """
        grace_ns = parse_duration(grace, "--grace")
        chosen = {
            "--grace": grace if grace_ns != 1_000_000 else None,
            "--linger-model": linger_model,
            "--slack": slack,
            "--generation": generation if generation != "auto" else None,
        }
        words = [w for name, value in chosen.items() if value is not None for w in (name, value)]
        return cls(
            grace_ns=grace_ns,
            in_place=in_place,
            linger_model=linger_model,
            slack_ns=None if slack is None else parse_duration(slack, "--slack"),
            generation=generation,
            words=(*words, *(["--in-place"] if in_place else [])),
        )

    def run(
        self,
        trace: Trace,
        *,
        only: Sequence[str] = (),
        recorded: Sequence[str] = (),
        since: Path | None = None,
        gap: str = "1min",
        checkpoint: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ReplayResult:
        """Replay; the result remembers the options for the line that shows it again.

        ``since``, ``checkpoint``: the files of the state to go on from, and of the state to keep;
        ``gap``: how long may lie between the traces.
        """
        from replay.checkpoint import Checkpoint
        from replay.pipeline import run

        before = None if since is None else Checkpoint.load(since)
        result = run(
            trace,
            only=only,
            grace_ns=self.grace_ns,
            in_place=self.in_place,
            linger_model=self.linger_model,
            slack_ns=self.slack_ns,
            generation=self.generation,
            recorded=recorded,
            since=before,
            gap_ns=parse_duration(gap, "--gap"),
            checkpoint=None if checkpoint is None else lambda state: state.save(checkpoint),
            progress=progress,
        )
        words = [word for name in recorded for word in ("--recorded", name)]
        words += [] if since is None else ["--from", str(since)]
        words += [] if gap == "1min" else ["--gap", gap]
        return replace(result, options=(*self.words, *words))
