"""Forms: of the ways to write a program that give the same numbers, the one that suits the target.

What the recipe leaves to `auto` is chosen here, by measurement.
"""

from __future__ import annotations

from typing import Any, Literal

from ltxbuild.components import ModelConfig
from ltxbuild.plan.placement import Placement
from ltxbuild.plan.programspec import Forms, ProgramSpec
from ltxbuild.recipe import Recipe

SCORES_LIMIT = 1 << 30
"""Bytes of attention scores above which `attention: auto` goes through the queries in blocks."""


def choose(spec: ProgramSpec, recipe: Recipe, config: ModelConfig, placement: Placement) -> Forms:
    """The forms of one program."""
    return Forms(_layers(spec, recipe, placement), _attention(spec, recipe, config, placement))


def _layers(spec: ProgramSpec, recipe: Recipe, placement: Placement) -> Literal["scan", "unroll"]:
    """Written out on CPUs: XLA:CPU widens a whole stack of bf16 weights at once, a layer's own where it lies.

    CUDA likes the vocoder's convolutions written out. On TPU each convolution costs the compiler much, so
    there it stays a loop. Neuron's compiler would copy each layer's weights out of the stack.
    """
    if recipe.layers != "auto":
        return recipe.layers
    if placement.platform in ("cpu", "neuron"):
        return "unroll"
    return "unroll" if spec.kind == "vocoder" and placement.platform == "cuda" else "scan"


def _attention(
    spec: ProgramSpec, recipe: Recipe, config: ModelConfig, placement: Placement
) -> Literal["plain", "blocked"]:
    if recipe.attention != "auto":
        return recipe.attention
    if placement.platform == "neuron":  # blocks of queries would be a loop
        return "plain"
    scores = score_bytes(spec, recipe, config) // placement.devices
    return "blocked" if scores > SCORES_LIMIT else "plain"


def tables_outside(recipe: Recipe) -> bool:
    """Whether denoising programs take their rotary tables instead of making them.

    A table made inside and used by heads that are split is cut out of the whole by the rank's number, which a
    program for Neuron must not ask for.
    """
    return recipe.target.platform == "neuron"


def score_bytes(spec: ProgramSpec, recipe: Recipe, config: ModelConfig) -> int:
    """Bytes of the largest score matrix `[B, H, T, S]` of a program, in f32; 0 without attention."""
    sizes: dict[str, Any] = dict(spec.geometry)
    if spec.component == "transformer":
        frames = sizes["frames"] + sizes.get("keyframes", 0)
        tokens = frames * sizes["height"] * sizes["width"]
        passes = recipe.guidance.passes if sizes.get("batched") else 1
        heads = config.ltx.transformer.num_attention_heads
        return int(4 * tokens * max(tokens, sizes["length"]) * passes * heads)
    if spec.kind == "text_encoder":
        return int(4 * sizes["length"] ** 2 * config.gemma.num_attention_heads)
    if spec.kind == "connectors":
        return int(4 * sizes["length"] ** 2 * config.ltx.transformer.num_attention_heads)
    return 0
