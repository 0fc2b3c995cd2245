"""What is written to a path: the name that it has until it is complete, and errors that name the path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltx_run.errors import OutputError


def temporary(target: Path) -> Path:
    """The hidden name beside a target that a file, or a directory, has until it is complete."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def named(error: Exception, target: Path) -> OSError:
    """An error of the system, or of FFmpeg, as the system's that names the file that the user knows.

    What a write fails with names no file, and what the rest fails with a temporary one.
    """
    reason = getattr(error, "strerror", None) or str(error)
    return OSError(getattr(error, "errno", None), reason, str(target))


@contextmanager
def looking_at(target: Path) -> Iterator[None]:
    """A target that can't even be looked at is refused.

    Raises:
        OutputError: Says why.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # the last two: a null in a name, links in a circle
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {str(target)!r}: {reason}") from None


def check_regular(target: Path, hint: str | None = None) -> None:
    """Refuse what is there and is no regular file: a pipe or a device would be replaced by one.

    Raises:
        OutputError: It is.
    """
    if target.exists() and not target.is_file():
        raise OutputError(
            f"cannot write {target}: it is no regular file, and would be replaced by one", hint=hint
        )
