"""Manners of both command lines: data to standard output, talk to standard error, errors without tracebacks.

rich is imported by the functions that draw, so that `--help` doesn't pay for it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ltx_cache.errors import LtxError

if TYPE_CHECKING:
    from rich.console import Console

DEBUG_VARIABLE = "LTX_DEBUG"
INTERRUPTED = 130


def guarded(command: Callable[..., object]) -> None:
    """Run a click command as a program: errors become a message, one hint and an exit code.

    Set LTX_DEBUG=1 to see the traceback of an error.

    Args:
        command: The command, or a partial of it that has the arguments.
    """
    try:
        code = _code_of(command)
    except LtxError as error:
        complain(error.message, error.hint)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except KeyboardInterrupt:
        complain("interrupted", None)
        code = INTERRUPTED
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), None)
        code = 1
    except Exception as error:  # a bug: say so in one line, never with a traceback
        complain(
            f"internal error: {type(error).__name__}: {error}",
            f"please report it with the output of {DEBUG_VARIABLE}=1",
        )
        code = 1
    sys.exit(code)


def _code_of(command: Callable[..., object]) -> int:
    """The exit code of a click command that ends in order; what it is interrupted by comes through.

    Left to itself, click ends the process, after an interrupt with code 1. It also does so, silently, if
    nobody reads the output any more, and that is right.
    """
    try:
        result = command(standalone_mode=False)
    except click.Abort as error:
        # Click makes one of an interrupt and of an EOFError, which is none; and raises its own at a question.
        raise error.__cause__ or KeyboardInterrupt from None
    return result if isinstance(result, int) else 0


def complain(message: str, advice: str | None) -> None:
    """An error and what to do about it."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
    if advice:
        hint(advice)


def say(text: str) -> None:
    """One line of talk."""
    click.echo(text, err=True)


def hint(text: str) -> None:
    """The next command or step."""
    click.echo(f"{click.style('hint:', fg='cyan')} {text}", err=True)


def data_console() -> Console:
    """Console for tables on standard output."""
    return _console(stderr=False)


def talk_console() -> Console:
    """Console for progress on standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    """A console that doesn't cut tables when the output is no terminal."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


def human_bytes(count: float) -> str:
    """Bytes in the largest decimal unit that keeps at least one digit before the point.

    >>> human_bytes(1234567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def transfer_bar(*, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A bar that is told bytes done and in all; on a terminal, unless `quiet`."""
    if quiet:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk_console(), transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
