"""neuronx-cc: where it is, and which version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ltxbuild.environment import scrubbed

NAME = "neuronx-cc"
INSTALL = "install neuronx-cc 2.x from AWS's own package index (the one of PyPI is an empty stub)"
VERSION = re.compile(r"\b\d+\.\d+\.\d+\.\d+(?:\+\w+)?")
BESIDE = str(Path(sys.executable).parent)
"""Where pip puts programs, for environments that are not on PATH."""
PATIENCE = 120
"""Seconds that it may take to say its version: it loads all of itself first."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """An installed neuronx-cc.

    Attributes:
        path: The program.
        version: Its version with the hash of its sources, as it says itself.
    """

    path: Path
    version: str


def find() -> Compiler | None:
    """The neuronx-cc on PATH, or beside this Python; None if there is none, or a stub of version 1."""
    found = shutil.which(NAME) or shutil.which(NAME, path=BESIDE)
    return _ask(Path(found)) if found else None


@cache
def _ask(path: Path) -> Compiler | None:
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=PATIENCE, env=scrubbed()
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = VERSION.search(said.stdout + said.stderr)
    if said.returncode or version is None or version[0].startswith("1."):
        return None
    return Compiler(path, version[0])
