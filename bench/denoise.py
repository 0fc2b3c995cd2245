"""The denoising programs of a recipe with random weights: ours against the official transformer in torch.

python bench/denoise.py recipes/h200_two_stage.yaml      # the 22 B model, on a machine with that GPU
python bench/denoise.py recipes/cpu_tiny_two_stage.yaml  # the tiny one, anywhere

No checkpoint is needed. Ours are the executables that `ltxbuild compile` makes, loaded by the runtime
(`bench/denoise_ours.py`); torch (`bench/denoise_peer.py`) runs eager and compiled, with every attention that
is installed. Processes in turn, on the same device. A time is that of one step, so of one pass through the
transformer; its share is of the rate at which the device multiplies two large matrices of the same numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from harness import Timing, report, told

from ltx_cache.store import Store
from ltxbuild.plan.planner import PlannedProgram, plan_build
from ltxbuild.recipe import Recipe, load
from ltxbuild.synthetic.shipped import shipped_config

BENCH = Path(__file__).parent
BIN = Path(sys.executable).parent
ATTENTIONS = {"pytorch": "torch", "xformers": "xformers", "flash_attention_3": "flash_attn_interface"}
"""What the official code calls an attention, and the module that it needs."""
KINDS = ("denoise", "denoise_from")
"""Of programs with the whole loop over steps."""
OURS = "ours"
PRODUCT = "product"
"""Label of a bare product in the figures of torch: operations per second."""
CALLS = 3
"""Timed calls in a process, after one to warm up."""
Figures = dict[str, list[float]]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--home", type=Path, help="cache to build in (default: a temporary one)")
    options = parser.parse_args()
    recipe = load(options.recipe)
    if not recipe.pipeline.startswith("distilled"):
        parser.error(f"{recipe.name} is {recipe.pipeline}; only distilled pipelines make one pass per step")
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        env = {**os.environ, "LTX_HOME": str(home), "OMP_NUM_THREADS": str(os.cpu_count())}
        names = [word for name in programs(recipe, home) for word in ("--only", name)]
        told([str(BIN / "ltxbuild"), "compile", str(options.recipe), "--programs-only", *names], env)
        runs = _runs(_commands(options.recipe), options.rounds, env)
        _report(recipe, programs(recipe, home), runs)


def programs(recipe: Recipe, home: Path) -> dict[str, PlannedProgram]:
    """The denoising programs of a recipe, as far as a cache has them."""
    plan = plan_build(recipe, shipped_config(recipe.checkpoint.config), Store(home), None)
    return {name: item for name, item in plan.programs.items() if item.spec.kind in KINDS}


def steps(item: PlannedProgram) -> int:
    """Passes through the transformer in one call."""
    return cast(int, dict(item.spec.geometry)["steps"])


def seconds(act: Callable[[], object]) -> list[float]:
    """Of several calls after one to warm up."""
    took = []
    for _ in range(CALLS + 1):
        started = time.perf_counter()
        act()
        took.append(time.perf_counter() - started)
    return took[1:]


def _commands(recipe: Path) -> dict[str, list[str]]:
    commands = {OURS: [sys.executable, str(BENCH / "denoise_ours.py"), str(recipe)]}
    for attention in (name for name, module in ATTENTIONS.items() if find_spec(module)):
        peer = [sys.executable, str(BENCH / "denoise_peer.py"), str(recipe), "--attention", attention]
        commands |= {f"torch {attention}": peer, f"torch {attention} compiled": [*peer, "--compile"]}
    return commands


def _runs(
    commands: Mapping[str, Sequence[str]], rounds: int, env: Mapping[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Figures of every process by what they are of; a failing one ends the benchmark."""
    runs: dict[str, Figures] = {name: {} for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            figures = json.loads(told(command, env))
            for label, values in figures.items():
                runs[name].setdefault(label, []).extend(values)
            print(name, figures, file=sys.stderr, flush=True)
    return runs


def _report(recipe: Recipe, built: Mapping[str, PlannedProgram], runs: Mapping[str, Figures]) -> None:
    rate = max(value for figures in runs.values() for value in figures.get(PRODUCT, [0.0]))
    timings: dict[str, Timing] = {}
    notes: dict[str, Any] = {"bare product, TFLOP/s": round(rate / 1e12, 3)}
    for program, item in built.items():
        assert item.record is not None, "it was compiled"
        operations = item.record.flops / steps(item)
        taken = {name: Timing.of(figures[program]) for name, figures in runs.items()}
        timings |= {f"{program}: {name}": timing for name, timing in taken.items()}
        best = min(timing.median for name, timing in taken.items() if name != OURS)
        notes |= {
            f"{program}: TFLOP of a pass": round(operations / 1e12, 3),
            f"{program}: share of the bare product": round(operations / taken[OURS].median / rate, 2),
            f"{program}: best torch / ours": round(best / taken[OURS].median, 2),
        }
    report(f"denoise_{recipe.name}", timings, notes)


if __name__ == "__main__":
    main()
