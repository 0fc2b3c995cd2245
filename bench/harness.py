"""Benchmarks: commands run in turn, several times, as whole processes; medians and ratios, never verdicts.

Each benchmark is a script with a `main`; `python bench/run.py` runs them all. Results are appended to
`bench/results/NAME.json` with the machine, the versions and the commit, so that a figure can be traced.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "numpy", "ltxbuild")


@dataclass(frozen=True)
class Timing:
    """Wall seconds of one command over several runs."""

    median: float
    fastest: float
    slowest: float
    runs: int


def alternate(
    commands: Mapping[str, Sequence[str]], runs: int, env: Mapping[str, str] | None = None
) -> dict[str, Timing]:
    """Run commands in turn, A B A B ..., after one warm-up of each; a failing command ends the benchmark."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(runs + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, **(env or {})})
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: Timing(statistics.median(times), min(times), max(times), len(times))
        for name, times in seconds.items()
    }


def report(name: str, timings: Mapping[str, Timing], notes: Mapping[str, Any] | None = None) -> None:
    """Print a table and append it to the results."""
    print(f"{name}")
    for label, timing in timings.items():
        spread = f"{timing.fastest:.3f} to {timing.slowest:.3f}"
        print(f"  {label:32} {timing.median:8.3f} s   ({spread}, {timing.runs} runs)")
    for label, value in (notes or {}).items():
        print(f"  {label:32} {value}")
    record = {
        **circumstances(),
        "timings": {label: asdict(timing) for label, timing in timings.items()},
        "notes": dict(notes or {}),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.write_text(json.dumps([*earlier, record], indent=1) + "\n", encoding="utf-8")


def circumstances() -> dict[str, Any]:
    """What a figure depends on beside the code: machine, versions and commit."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return done.stdout.strip() or "unknown"
