"""`ltxbuild compile` of the tiny recipe's programs with a compiler that never comes to its end.

    python hanging.py FOLDER PROGRAM...

Each compile process starts a process of its own and leaves a file in FOLDER, named by both their ids.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[2] / "recipes/cpu_tiny.yaml"
FOLDER = "HANGING_FOLDER"


def devices(machine: Mapping[str, Any], count: int) -> None:
    """Act as the compile process's backend."""
    child = subprocess.Popen(["sleep", "600"])
    (Path(os.environ[FOLDER]) / f"{os.getpid()}-{child.pid}").touch()
    time.sleep(600)


def main(folder: Path, programs: list[str]) -> None:
    """Run the command."""
    import ltxbuild.build
    from ltxbuild.cli.main import main as command

    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ |= {FOLDER: str(folder), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    builder: Any = ltxbuild.build
    job = builder._job
    builder._job = lambda *args: {**job(*args), "backend": "hanging"}
    only = [argument for name in programs for argument in ("--only", name)]
    sys.argv = ["ltxbuild", "compile", str(RECIPE), "--programs-only", "--jobs", "2", *only]
    command()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
