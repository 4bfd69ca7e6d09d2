"""The command line.  One file a command, each a thin call of one library function.

Nothing heavy is imported before a command runs: ``tracekit --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from tracekit import __version__
from tracekit.cli import (
    audit,
    checks,
    collect,
    demo,
    doctor,
    explain,
    export,
    generate,
    import_,
    info,
    plan,
    replay,
    report,
    schema,
    shrink,
    whatif,
)
from tracekit.cli.console import show_error
from tracekit.cli.spare import spare
from tracekit.errors import TracekitError

__all__ = ("app", "main")

app = typer.Typer(
    name="tracekit",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tracekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Did the host keep its promises?  Recordings in, verdicts out.

    Exit status: 0 nothing wrong, 1 findings, 2 bad input or usage, 130 interrupted.

    Example: tracekit demo
    """


app.command("demo")(demo.demo)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.command("collect")(collect.collect)
app.command("import")(import_.import_)
app.command("generate", cls=generate.GenerateCommand)(generate.generate)
app.command("info")(info.info)
app.command("replay")(replay.replay)
app.command("whatif")(whatif.whatif)
app.command("shrink")(shrink.shrink)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("audit")(audit.audit)
app.command("explain")(explain.explain)
app.command("checks")(checks.checks)
app.command("schema")(schema.schema)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.  Our own mistakes keep their traceback, nobody else's.

    ``arguments``: None for those of this process, which then is the command's own.
    """
    if arguments is None:
        spare()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(given, prog_name="tracekit", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except TracekitError as error:
        show_error(error.message, error.help)
    except typer.TyperException as error:
        show_error(_sentence(error.format_message()), _usage_help(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # Who read our output has enough of it.  Nothing may be flushed into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        show_error(f"{where}{error.strerror or error}")
    except MemoryError:
        show_error("out of memory")
    return 2


def _sentence(message: str) -> str:
    """In our voice: lower case, no full stop."""
    message = " ".join(message.replace("Value error, ", "").split()).removesuffix(".")
    return message[:1].lower() + message[1:]


def _usage_help(error: typer.TyperException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else None
