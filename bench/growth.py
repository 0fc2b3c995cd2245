"""How cost grows: time, memory and arithmetic of the programs against what makes a generation larger.

python bench/growth.py && python bench/growth_plot.py

One size at a time is varied on a model of middling widths with random weights, compiled for this CPU: video
tokens, blocks, steps and passes of guidance for the denoising program, latent frames for the decoder. Of each
program: seconds of a call, scratch memory and operations as the compiler reports them, and both as
`ltxbuild plan` estimates them. The exponent is that of the fitted power; time may not grow faster than the
arithmetic does.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import report

from ltxbuild.compiler.lower import lower
from ltxbuild.components import COMPONENTS, ModelConfig
from ltxbuild.model.config import GemmaConfig, LtxConfig
from ltxbuild.model.params import padded
from ltxbuild.plan.activations import temporary
from ltxbuild.plan.forms import choose
from ltxbuild.plan.placement import place
from ltxbuild.plan.programspec import ProgramSpec
from ltxbuild.precision import ITEMSIZE
from ltxbuild.programs import traceable
from ltxbuild.recipe import Recipe
from ltxbuild.synthetic.shipped import shipped

RECIPE = Recipe.model_validate(
    {
        "name": "growth",
        "target": {"platform": "cpu"},
        "pipeline": "distilled_one_stage",
        "variants": {"default": {"height": 32, "width": 32, "frames": 1}},
    }
)
"""Says how a build for CPUs writes the programs; their sizes are those below."""
ITEM = ITEMSIZE[RECIPE.precision]
HEADS, HEAD_DIM, AUDIO_HEAD_DIM, DECODER_WIDTH = 16, 64, 32, 32
STAGE = {"frames": 4, "height": 8, "width": 16, "audio": 26, "fps": 24.0, "length": 256, "steps": 1}
TILE = {"frames": 2, "height": 6, "width": 8, "tiles": 1}
PASSES: tuple[dict[str, Any], ...] = (
    {},
    {"negative": True, "stg_blocks": (), "isolated": False, "batched": True},
    {"negative": True, "stg_blocks": (0,), "isolated": False, "batched": True},
    {"negative": True, "stg_blocks": (0,), "isolated": True, "batched": True},
)


@dataclass(frozen=True)
class Point:
    """A program of one size.

    Attributes:
        size: What is varied.
        kind: Of program.
        geometry: Of the program.
        blocks: Of the transformer.
    """

    size: int
    kind: str
    geometry: Mapping[str, Any]
    blocks: int = 2


def series() -> dict[str, list[Point]]:
    """What is measured, by what grows."""
    grids = ((4, 8, 8), (4, 8, 16), (4, 16, 16), (8, 16, 16), (16, 16, 16))
    named = [dict(zip(("frames", "height", "width"), grid, strict=True)) for grid in grids]
    return {
        "video tokens": [Point(int(np.prod([*g.values()])), "denoise", STAGE | g) for g in named],
        "blocks": [Point(n, "denoise", STAGE, n) for n in (1, 2, 4, 8)],
        "steps": [Point(n, "denoise", STAGE | {"steps": n}) for n in (1, 2, 4, 8)],
        "guidance passes": [Point(n, "denoise", STAGE | more) for n, more in enumerate(PASSES, 1)],
        "latent frames": [Point(n, "video_decoder", TILE | {"frames": n}) for n in (2, 3, 5, 9, 17)],
    }


def configuration(blocks: int) -> ModelConfig:
    """The tiny model, wider."""
    data = copy.deepcopy(shipped("ltx-2.3-tiny"))
    video, audio = HEADS * HEAD_DIM, HEADS * AUDIO_HEAD_DIM
    data["ltx"]["transformer"] |= {
        "num_layers": blocks,
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD_DIM,
        "cross_attention_dim": video,
        "audio_num_attention_heads": HEADS,
        "audio_attention_head_dim": AUDIO_HEAD_DIM,
        "audio_cross_attention_dim": audio,
        "connector_num_attention_heads": HEADS,
        "connector_attention_head_dim": HEAD_DIM,
        "audio_connector_num_attention_heads": HEADS,
        "audio_connector_attention_head_dim": AUDIO_HEAD_DIM,
    }
    data["ltx"]["vae"] |= {"decoder_base_channels": DECODER_WIDTH}
    return ModelConfig(LtxConfig.model_validate(data["ltx"]), GemmaConfig.model_validate(data["gemma"]))


def measured(point: Point, runs: int) -> dict[str, float]:
    """One program's figures."""
    config, component = configuration(point.blocks), point.kind.replace("denoise", "transformer")
    spec = ProgramSpec(point.kind, point.kind, component, tuple(point.geometry.items()))
    table = COMPONENTS[component].table(config)
    placement = place(spec, RECIPE, config, table)
    forms = choose(spec, RECIPE, config, placement)
    table = padded(table, forms.aliasing)
    program = traceable(spec, config, RECIPE.precision, forms)
    lowered = lower(program, table, {}, {}, jax.devices()[:1], RECIPE.precision, layers=forms.layers)
    compiled = lowered.module.compile(compiler_options=placement.flags)
    weights = sum(int(np.prod(one.shape)) * ITEM for one in table)
    told: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return {
        "size": point.size,
        "seconds": _seconds(compiled, lowered.inputs, runs),
        "memory": told.temp_size_in_bytes + told.output_size_in_bytes,
        "memory, estimated": temporary(spec, config, placement, forms, ITEM, weights),
        "operations": lowered.flops,
        "operations, compiler's": cost["flops"],
    }


def _seconds(compiled: Any, inputs: Sequence[Any], runs: int) -> float:
    """Median of several calls after one to warm up; donated inputs are made anew."""
    rng, took = np.random.default_rng(0), []
    values = [np.asarray(rng.standard_normal(i.shape, np.float32) * 0.02) for i in inputs]
    for _ in range(runs + 1):
        arguments = [jnp.asarray(v, i.dtype) for v, i in zip(values, inputs, strict=True)]
        jax.block_until_ready(arguments)
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        took.append(time.perf_counter() - started)
    return statistics.median(took[1:])


def exponent(points: Sequence[Mapping[str, float]], what: str) -> float:
    """Of the power of the size that a figure grows with, by least squares over logarithms."""
    sizes, values = ([point[name] for point in points] for name in ("size", what))
    return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 2)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    notes: dict[str, Any] = {}
    for name, points in series().items():
        rows = [measured(point, options.runs) for point in points]
        for row in rows:
            rate = row["operations"] / row["seconds"] / 1e9
            print(
                name, {what: f"{value:.4g}" for what, value in row.items()}, f"{rate:.0f} GFLOP/s", flush=True
            )
        fitted = {what: exponent(rows, what) for what in rows[0] if what != "size"}
        notes[name] = {"points": rows, "exponents": fitted}
    report("growth", {}, notes)


if __name__ == "__main__":
    main()
