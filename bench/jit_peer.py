"""A cold start with jax and the model's source: trace, compile, read the checkpoint, run to the first step.

python bench/jit_peer.py RECIPE --checkpoint FILE --text-encoder DIR

`ltx-run` does the same with a bundle of the recipe. Inputs are zeros: no time depends on them. Prints JSON:
seconds per program, and seconds from the start of the process to the end of the first denoising step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from harness import since_start

from ltx_cache.store import Store
from ltx_run.bundle import WeightInput
from ltx_run.safetensors import SafetensorsFile
from ltxbuild.compiler.lower import lower
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.plan.planner import PlannedProgram, plan_build
from ltxbuild.programs import traceable
from ltxbuild.recipe import load
from ltxbuild.weights.checkpoint import Checkpoint, read_config
from ltxbuild.weights.sharder import arranged, rounded

KINDS = ("text_encoder", "connectors", "denoise_step")


def arguments(
    item: PlannedProgram, lowered: Any, config: ModelConfig, files: Checkpoint, dtype: str
) -> list[Any]:
    """The checkpoint's weights, and zeros."""
    component = item.spec.component or ""
    specs = {spec.name: spec for spec in COMPONENTS[component].table(config)}
    opened = [SafetensorsFile(path) for path in files.files]
    tensors = {key: file for file in opened for key in file.header.entries}
    made: list[Any] = []
    for record in lowered.inputs:
        if not isinstance(record, WeightInput):
            made.append(jnp.zeros(record.shape, record.dtype))
            continue
        spec = specs[record.name]
        key = spec.sources[record.layer or 0]
        made.append(jnp.asarray(rounded(arranged(tensors[key].view(key), spec), spec, dtype)))
    return made


def main() -> None:
    """Start and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--text-encoder", type=Path, required=True)
    options = parser.parse_args()
    recipe, files = load(options.recipe), Checkpoint(options.checkpoint, options.text_encoder)
    config, seconds = read_config(files), {}
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_build(recipe, config, Store(Path(folder)), None)
        for kind in KINDS:
            started = time.perf_counter()
            item = next(item for item in plan.programs.values() if item.spec.kind == kind)
            table = COMPONENTS[item.spec.component or ""].table(config)
            program = traceable(item.spec, config, recipe.precision, item.forms)
            place, layers = item.placement, item.forms.layers
            lowered = lower(
                program, table, place.rules, place.mesh, jax.devices()[:1], recipe.precision, layers=layers
            )
            compiled = lowered.module.compile(compiler_options=dict(place.flags))
            made = arguments(item, lowered, config, files, recipe.precision)
            jax.block_until_ready(compiled(*made))
            del made, compiled
            seconds[kind] = time.perf_counter() - started
    print(json.dumps({"seconds": {}, "programs_seconds": seconds, "first_step": since_start()}))


if __name__ == "__main__":
    main()
