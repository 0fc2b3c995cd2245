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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "numpy", "torch", "ltx-core", "ltxbuild")
CHUNK = 16 << 20
"""Bytes read at a time."""


@dataclass(frozen=True)
class Timing:
    """Wall seconds of one command over several runs."""

    median: float
    fastest: float
    slowest: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Of several runs."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


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
    return {name: Timing.of(times) for name, times in seconds.items()}


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


def told(command: Sequence[str], env: Mapping[str, str]) -> str:
    """What a command says on standard output; one that fails ends the benchmark."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=dict(env)).stdout


def read(files: Sequence[Path]) -> float:
    """Seconds to read files, which are in the page cache afterwards."""
    started = time.perf_counter()
    buffer = bytearray(CHUNK)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - started


def since_start() -> float:
    """Seconds since this process was started."""
    ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def circumstances() -> dict[str, Any]:
    """What a figure depends on beside the code: machine, versions and commit."""
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES if _installed(package)},
        "commit": _commit(),
    }


def _processor() -> str:
    """The processor's name, where the system tells it, and its widest instructions."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in fields.items()}
    flags = told.get("flags", "").split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return ", ".join([platform.machine(), told.get("model name", "unknown"), *wide[-2:]])


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return done.stdout.strip() or "unknown"
