"""What it takes to compile every program of a recipe for accelerators that are not there.

Each program is compiled by a command of its own, in an empty cache: CPU seconds (which a busy machine hardly
changes), wall seconds and peak memory are those of the command and all its processes; memory and code are the
compiler's figures per device. Results go to bench/results/cross_compile.json.

    python bench/cross_compile.py recipes/v6e8_two_stage.yaml [PROGRAM ...]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness

from ltx_cache.store import Store
from ltxbuild.plan.planner import BuildPlan, plan_build
from ltxbuild.recipe import load
from ltxbuild.synthetic.shipped import shipped_config

COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda13-pjrt", "nvidia-cudnn-cu13")
MAIN = "from ltxbuild.cli.main import main; main()"


@dataclass(frozen=True)
class Cost:
    """What one program cost, and the compiler's figures for it; bytes are per device."""

    cpu_seconds: float
    wall_seconds: float
    peak_memory: int
    devices: int
    arguments: int
    outputs: int
    temp: int
    code: int


def main() -> None:
    """Compile and tabulate."""
    path, only = Path(sys.argv[1]), set(sys.argv[2:])
    with tempfile.TemporaryDirectory() as home:
        names = [name for name in _plan(path, home).programs if not only or name in only]
        costs = {}
        for name in names:
            costs[name] = _cost(path, name, home)
            print(_row(name, costs[name]), flush=True)
            _record(path, costs)
    print(_row("sum, most", _total(list(costs.values()))))


def _plan(path: Path, home: str) -> BuildPlan:
    recipe = load(path)
    return plan_build(recipe, shipped_config(recipe.checkpoint.config), Store(Path(home)), None)


def _cost(path: Path, program: str, home: str) -> Cost:
    command = [sys.executable, "-c", MAIN, "compile", str(path), "--programs-only", "--only", program, "-j1"]
    started = time.monotonic()
    pid = os.posix_spawn(
        sys.executable,
        command,
        {**os.environ, "LTX_HOME": home},
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - started
    record = _plan(path, home).programs[program].record
    if status or record is None:
        raise SystemExit(f"{program} did not compile; see: ltxbuild compile {path} --only {program}")
    memory = record.memory
    return Cost(
        round(usage.ru_utime + usage.ru_stime, 1),
        round(wall, 1),
        usage.ru_maxrss * 1024,
        record.fingerprint.devices,
        memory.arguments,
        memory.outputs,
        memory.temp,
        memory.code,
    )


def _total(costs: list[Cost]) -> Cost:
    """Seconds and code are summed, memory is the most that any has."""
    most = (
        max(getattr(cost, name) for cost in costs) for name in ("devices", "arguments", "outputs", "temp")
    )
    return Cost(
        sum(cost.cpu_seconds for cost in costs),
        sum(cost.wall_seconds for cost in costs),
        max(cost.peak_memory for cost in costs),
        *most,
        sum(cost.code for cost in costs),
    )


def _row(name: str, cost: Cost) -> str:
    sizes = (cost.peak_memory, cost.arguments, cost.temp, cost.code)
    peak, arguments, temp, code = (f"{size / 1e9:6.2f}" for size in sizes)
    return (
        f"{name:34} cpu {cost.cpu_seconds:6.1f} s  wall {cost.wall_seconds:6.1f} s  peak {peak} GB  "
        f"{cost.devices} devices  arguments {arguments} GB  temp {temp} GB  code {code} GB"
    )


def _record(path: Path, costs: dict[str, Cost]) -> None:
    """Lay the costs over those known of the recipe."""
    results = harness.RESULTS / "cross_compile.json"
    earlier: dict[str, Any] = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    known = earlier.get(path.stem, {}).get("programs", {})
    earlier[path.stem] = {
        **harness.circumstances(),
        "compilers": _versions(),
        "programs": known | {name: asdict(cost) for name, cost in costs.items()},
    }
    results.write_text(json.dumps(earlier, indent=1) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for package in COMPILERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
