"""What is written to a path: the name that it has until it is complete, and errors that name the path."""

from __future__ import annotations

import os
from pathlib import Path


def temporary(target: Path) -> Path:
    """The hidden name beside a target that a file, or a directory, has until it is complete."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def named(error: Exception, target: Path) -> OSError:
    """An error of the system, or of FFmpeg, as the system's that names the file that the user knows.

    What a write fails with names no file, and what the rest fails with a temporary one.
    """
    reason = getattr(error, "strerror", None) or str(error)
    return OSError(getattr(error, "errno", None), reason, str(target))
