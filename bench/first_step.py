"""What loading adds to the first denoising step, against reading the bytes of the weights that it needs.

python bench/first_step.py --checkpoint middle --folder /mnt/disk/middle

Each round runs `ltx-run` twice, with the files of the transformer in the page cache and after they were
dropped from it; the prompt was encoded before. What starting costs is the time from the process's start to
the end of the first step, less that of a later step. Its peer reads the same files, in the same state.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generation import BIN, PROMPT, add_options, build, prepared, weight_files
from harness import Timing, read, report

STATES = ("cached", "on disk")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subject = prepared(options.checkpoint, options.folder, options.home, Path(folder))
        bundle = build(subject, "bfloat16")
        files = weight_files(subject, bundle, "transformer")
        command = [str(BIN / "ltx-run"), bundle, "--prompt", PROMPT, "--json", "-q"]
        command += ["-o", f"{folder}/sound.wav"]
        notes: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in files)}
        seconds = _measured(command, files, subject.env, options.rounds)
    timings = {label: Timing.of(values) for label, values in seconds.items()}
    for state in STATES:
        ratio = timings[f"starting, {state}"].median / timings[f"reading, {state}"].median
        notes[f"starting / reading, {state}"] = round(ratio, 2)
    report(f"first_step_{options.checkpoint}", timings, notes)


def _measured(
    command: Sequence[str], files: Sequence[Path], env: Mapping[str, str], rounds: int
) -> dict[str, list[float]]:
    _first_step(command, env)  # remembers the prompt
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for state in STATES:
            for label, act in (("reading", lambda: read(files)), ("starting", lambda: _start(command, env))):
                _put(files, state)
                seconds.setdefault(f"{label}, {state}", []).append(act())
    return seconds


def _start(command: Sequence[str], env: Mapping[str, str]) -> float:
    """Seconds from the start of the process to the end of the first step, less those of a step."""
    first, step = _first_step(command, env)
    return first - step


def _first_step(command: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Seconds to the end of the first step, and those of the fastest step."""
    started = time.time()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(env))
    program = next(p for p in json.loads(done.stdout)["programs"] if p["name"].startswith("denoise_step"))
    return program["first_done"] - started, program["fastest_seconds"]


def _put(files: Sequence[Path], state: str) -> None:
    """Bring files into the page cache, or drop them from it."""
    if state == "cached":
        read(files)
        return
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
