"""Forms: of the ways to write a program that give the same numbers, the one that suits the target.

What the recipe leaves to `auto` is chosen here, by measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from ltxbuild.components import ModelConfig
from ltxbuild.model.forms import ALIASED_ROW, Attention, Convolution, Layers
from ltxbuild.plan.arguments import batched_passes
from ltxbuild.plan.placement import Placement
from ltxbuild.plan.programspec import Forms, ProgramSpec
from ltxbuild.recipe import Recipe

SCORES_LIMIT = 1 << 30
"""Bytes of attention scores on a device above which `attention: auto` goes through the queries in blocks."""
CACHE_LIMIT = 1 << 25
"""The same on CPUs, where scores that caches don't hold make a step up to twice as long."""
FLASH_LIMIT = 1 << 24
"""The same above which it takes the platform's kernel: scores that caches don't hold."""
SHORT_PROMPT = 256
"""Tokens of a prompt that a text encoder on a CPU spends a quarter of the time on."""
LOOPED = frozenset({"video_decoder", "vocoder"})
"""Kinds whose layers are a loop on CPUs too."""
KERNELS: Mapping[str, Literal["pallas", "cudnn"]] = MappingProxyType({"tpu": "pallas", "cuda": "cudnn"})
"""Flash attention by platform; for programs that attend under one mask for all queries."""


def choose(spec: ProgramSpec, recipe: Recipe, config: ModelConfig, placement: Placement) -> Forms:
    """The forms of one program."""
    attention = _attention(spec, recipe, config, placement)
    blocks = (recipe.flash.queries, recipe.flash.keys, recipe.flash.compute) if attention == "pallas" else ()
    short = SHORT_PROMPT if spec.kind == "text_encoder" and placement.platform == "cpu" else 0
    convolution, aliasing = _convolution(spec, placement), _aliasing(recipe, placement)
    return Forms(_layers(spec, recipe, placement), attention, blocks, convolution, short, aliasing)


def _layers(spec: ProgramSpec, recipe: Recipe, placement: Placement) -> Layers:
    """Written out on CPUs, where a loop needs a copy of the stack of bf16 weights, as bits: see `loops`.

    Not where that is little beside what is done with them: loops are compiled and loaded in less time.
    CUDA likes the vocoder's convolutions written out. On TPU each convolution costs the compiler much, so
    there it stays a loop. Neuron's compiler would copy each layer's weights out of the stack.
    """
    platform = placement.platform
    written_out = {"cpu": spec.kind not in LOOPED, "cuda": spec.kind == "vocoder", "neuron": True}
    if recipe.layers == "unroll" or (recipe.layers == "auto" and written_out.get(platform)):
        return "unroll"
    return "bits" if platform == "cpu" else "scan"


def _convolution(spec: ProgramSpec, placement: Placement) -> Convolution:
    """The compiler for TPU needs 18 seconds for one 3-D convolution and 108 for its sum of three 2-D ones.

    Those of a vocoder, two hundred, are loops over their taps there.

    XLA:CPU computes with bf16 in matrix products alone. Fewer of them round a little more: what the decoder
    makes is looked at, but what other programs make is computed with.
    """
    if placement.platform == "cpu":
        return "winograd" if spec.kind == "video_decoder" else "products"
    if placement.platform == "tpu":
        return "loop" if spec.kind == "vocoder" else "direct"
    return "taps"


def _aliasing(recipe: Recipe, placement: Placement) -> int:
    """Where products of bf16 are made on one CPU; those of f32 are as fast as they are without.

    Not in recipes for several platforms, whose programs may share a weight set.
    """
    platforms = {recipe.target.platform, *(own.platform for own in recipe.programs.values() if own.platform)}
    alone = platforms == {"cpu"} and placement.devices == 1
    return ALIASED_ROW if alone and recipe.precision == "bfloat16" else 0


def _attention(spec: ProgramSpec, recipe: Recipe, config: ModelConfig, placement: Placement) -> Attention:
    scores = score_bytes(spec, config) // placement.devices
    kernel = KERNELS.get(placement.platform) if spec.component in ("transformer", "connectors") else None
    wanted = recipe.attention == "flash" or (recipe.attention == "auto" and scores > FLASH_LIMIT)
    if kernel and wanted and recipe.precision == "bfloat16":
        return kernel
    if recipe.attention in ("plain", "blocked"):
        return recipe.attention
    if placement.platform == "neuron":  # blocks of queries would be a loop
        return "plain"
    limit = CACHE_LIMIT if placement.platform == "cpu" else SCORES_LIMIT
    return "blocked" if scores > limit else "plain"


def tiling(recipe: Recipe) -> Literal["official", "equal"]:
    """How the video is cut for decoding: each shape of tile is a program, and costs minutes to compile.

    On CPUs it costs seconds, and the numbers are the official ones.
    """
    if recipe.tiles != "auto":
        return recipe.tiles
    return "official" if recipe.target.platform in ("cpu", "neuron") else "equal"


def tables_outside(recipe: Recipe) -> bool:
    """Whether denoising programs take their rotary tables instead of making them.

    A table made inside and used by heads that are split is cut out of the whole by the rank's number, which a
    program for Neuron must not ask for.
    """
    return recipe.target.platform == "neuron"


def score_bytes(spec: ProgramSpec, config: ModelConfig) -> int:
    """Bytes of the largest score matrix `[B, H, T, S]` of a program, in f32; 0 without attention."""
    sizes: dict[str, Any] = dict(spec.geometry)
    if spec.component == "transformer":
        frames = sizes["frames"] + sizes.get("keyframes", 0)
        tokens = frames * sizes["height"] * sizes["width"]
        heads = config.ltx.transformer.num_attention_heads
        return int(4 * tokens * max(tokens, sizes["length"]) * batched_passes(sizes) * heads)
    if spec.kind == "text_encoder":
        return int(4 * sizes["length"] ** 2 * config.gemma.num_attention_heads)
    if spec.kind == "connectors":
        return int(4 * sizes["length"] ** 2 * config.ltx.transformer.num_attention_heads)
    return 0
