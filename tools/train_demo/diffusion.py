"""The transformer, by flow matching.

From a mixture of latent and noise the model learns to predict the noise less the latent. A step draws a few
captions, each with one noise level, and for each caption several videos. What depends on the caption alone,
keys and values of the text, is computed once per caption: `vmap` leaves it out of the loop over videos.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ltxbuild.components import ModelConfig
from ltxbuild.model import transformer
from ltxbuild.model.adaln import Timesteps, uniform
from ltxbuild.model.block import MAIN_ROWS
from ltxbuild.model.positions import rope_tables
from ltxbuild.model.schedule import DISTILLED_STAGE_1, DISTILLED_STAGE_2
from tools.train_demo import captions, world
from tools.train_demo.captions import Mixture
from tools.train_demo.data import Data, geometry, make
from tools.train_demo.loop import Run, train
from tools.train_demo.text import Contexts
from tools.train_demo.weights import Params, initial

GIVEN = 0.3
"""How often the first frame is given."""
ON_SCHEDULE = 0.6
"""How often the noise level is one that the distilled schedule has."""
SCALES = {
    r"(main|prompt|cross|gate)\.rows": 0.1,
    r"main_rows|prompt_rows|cross_rows|head_rows": 0.0,
    r"attn\.to_out|audio_to_video\.to_out|video_to_audio\.to_out|ff\.down": 0.4,
    r"to_gate_logits": 0.1,
    r"proj_out": 0.3,
}
GATE_ROWS = {"main_rows": (2, 5, 8), "cross_rows": (4,)}
"""Rows of the tables that gate a branch: one to begin with."""
UNLIKE = {"video": 2.0, "audio": 0.5}
"""Factors of the gates in the end. Powers of two: nothing is rounded."""


class Part(NamedTuple):
    """The videos of one size that a step works on.

    Attributes:
        size: In pixels.
        captions: How many.
        videos: Of each caption.
        levels: Noise levels of a distilled schedule that it learns above all.
    """

    size: tuple[int, int]
    captions: int
    videos: int
    levels: tuple[float, ...]


class Phase(NamedTuple):
    """A part of the training.

    Attributes:
        name: Of the run.
        steps: How many.
        rate: Highest learning rate.
        parts: What a step works on.
        mixed: Whether colours are mixed, see `captions.mixed`.
    """

    name: str
    steps: int
    rate: float
    parts: tuple[Part, ...]
    mixed: bool = False


FIRST, SECOND = DISTILLED_STAGE_1[:-1], DISTILLED_STAGE_2[:-1]
LARGE = Part(world.STAGE_2, 6, 2, SECOND)
PHASES = (
    Phase("diffusion_small", 2000, 1.5e-3, (Part(world.STAGE_1, 12, 2, FIRST),)),
    Phase("diffusion_both", 2500, 1e-3, (Part(world.STAGE_1, 6, 2, FIRST), LARGE)),
    # The last three steps, in which shapes get their edges.
    Phase("diffusion_edges", 1500, 7e-4, (Part(world.STAGE_1, 12, 2, SECOND), LARGE)),
    # Against learning by heart which shape goes where in which colour.
    Phase(
        "diffusion_colours",
        2000,
        8e-4,
        (Part(world.STAGE_1, 12, 1, FIRST), Part(world.STAGE_2, 12, 1, SECOND)),
        mixed=True,
    ),
)


def start(config: ModelConfig) -> Params:
    """The transformer before training: noise goes through it from the input to the output.

    A token can't know at first where it is: its position turns queries and keys only, and the mean of equal
    values is the same everywhere. But tokens are noise at first, no two are equal. Where values are like
    keys, and queries a constant, their weighted mean is nearly a function of the position alone.
    """
    params = initial(transformer.params(config.ltx.transformer), 0, SCALES)
    noise = np.random.Generator(np.random.Philox(1))
    for modality in ("video", "audio"):
        block = params["blocks"][modality]
        for name, rows in GATE_ROWS.items():
            block[name][:, rows] = 1.0
        attention = block["self_attn"]
        attention["to_k"]["weight"] = attention["to_v"]["weight"].copy()
        attention["to_q"]["bias"] = noise.standard_normal(attention["to_q"]["bias"].shape, np.float32)
        _pass_through(params[modality])
    return params


def _pass_through(modality: Params) -> None:
    """The first channels of the stream carry the input, and the output is read from them."""
    inward, outward = modality["proj_in"]["weight"], modality["proj_out"]["weight"]
    channels = inward.shape[1]
    inward[:channels] = np.eye(channels)
    outward[:] = 0
    outward[:, :channels] = np.eye(channels)


def fit(config: ModelConfig, data: Data, contexts: Contexts, directory: Path) -> Params:
    """All phases."""
    params = start(config)
    for phase in PHASES:
        run = Run(phase.name, directory, phase.steps, phase.rate)
        examples = make(config, aligned=True) if phase.mixed else data
        params = train(
            run, params, lambda p, key, phase=phase, d=examples: loss(p, key, phase, contexts, config, d)
        )
    return with_unlike_gates(params)


def with_unlike_gates(params: Params) -> Params:
    """The same model with other gates: a factor of a gate is taken out of what it gates.

    Gates of video and sound that are as alike as training leaves them can be taken for each other unseen.
    """
    params = jax.tree.map(partial(np.array, order="C"), params)
    blocks = params["blocks"]
    for modality, incoming in (("video", "audio_to_video"), ("audio", "video_to_audio")):
        factor, block, network = UNLIKE[modality], blocks[modality], params[modality]
        for name, rows in GATE_ROWS.items():
            block[name][:, rows] *= factor
        for value in network["main"]["rows"].values():
            value.reshape(MAIN_ROWS, -1, *value.shape[1:])[list(GATE_ROWS["main_rows"])] *= factor
        for value in network["gate"]["rows"].values():
            value *= factor
        gated = block["self_attn"]["to_out"], block["text_attn"]["to_out"], block["ff"]["down"]
        for value in (*gated, blocks[incoming]["to_out"]):
            for part in value.values():
                part /= factor
    return params


def loss(
    params: Params, key: Array, phase: Phase, contexts: Contexts, config: ModelConfig, data: Data
) -> Array:
    """Flow-matching loss over the sizes of a phase and both modalities."""
    keys = jax.random.split(key, len(phase.parts))
    parts = [
        _part(params, k, part, phase.mixed, contexts, config, data)
        for k, part in zip(keys, phase.parts, strict=True)
    ]
    return sum(parts, jnp.zeros(())) / len(parts)


def _part(
    params: Params,
    key: Array,
    part: Part,
    mixed: bool,
    contexts: Contexts,
    config: ModelConfig,
    data: Data,
) -> Array:
    pick, match = jax.random.split(key)
    drawn = captions.draw(pick, part.captions, part.videos)
    plain = Mixture(drawn, drawn, jnp.zeros(part.captions))
    both = captions.mixed(jax.random.fold_in(key, 2), drawn) if mixed else plain
    text = both.of(lambda d: contexts[0][d.caption]), both.of(lambda d: contexts[1][d.caption])
    latents = data.large if part.size == world.STAGE_2 else data.small, data.sound
    return _matching(params, text, both, match, config, latents, part)


def _sigmas(key: Array, count: int, levels: tuple[float, ...]) -> Array:
    """Noise levels `[count]`: often one of these, else anything."""
    which, level, free = jax.random.split(key, 3)
    on = jax.random.choice(level, jnp.asarray(levels), (count,))
    return jnp.where(
        jax.random.bernoulli(which, ON_SCHEDULE, (count,)),
        on,
        jax.random.uniform(free, (count,), minval=0.1, maxval=1.0),
    )


def _matching(
    params: Params,
    text: Contexts,
    drawn: Mixture,
    key: Array,
    config: ModelConfig,
    latents: tuple[Array, Array],
    part: Part,
) -> Array:
    """Mean squared error of the velocities of both modalities, tokens of given frames left out."""
    keys = jax.random.split(jax.random.fold_in(key, 1), 6)
    scenes, tunes = drawn.first.scene, drawn.first.tune
    groups = len(scenes)
    place = jax.random.randint(keys[0], scenes.shape, 0, latents[0].shape[1])
    clean_video = drawn.of(lambda d: latents[0][d.scene, place])
    clean_audio = latents[1][tunes, jax.random.randint(keys[1], tunes.shape, 0, latents[1].shape[1])]
    noise_video = jax.random.normal(keys[2], clean_video.shape)
    noise_audio = jax.random.normal(keys[3], clean_audio.shape)
    sigma = _sigmas(keys[4], groups, part.levels)
    left = 1.0 - jax.random.bernoulli(keys[5], GIVEN, (groups,))
    grid = geometry(part.size)
    level = jnp.asarray(np.arange(grid.tokens) < grid.cells, jnp.int32)
    times = Timesteps(sigma, jnp.stack([sigma, sigma * left], axis=1), level)
    ropes = rope_tables(config.ltx.transformer, grid, jnp.float32)

    def one(video: Array, audio: Array) -> tuple[Array, Array]:
        return transformer.velocity(
            params, video, audio, *text, times, uniform(sigma), ropes, config=config.ltx.transformer
        )

    share = times.per_token[:, None]
    amount = sigma[:, None, None, None]
    noisy = (
        clean_video + share * (noise_video - clean_video),
        clean_audio + amount * (noise_audio - clean_audio),
    )
    video, audio = jax.vmap(one, in_axes=1, out_axes=1)(*noisy)
    free = jnp.where(share > 0, 1.0, 0.0)
    error_video = jnp.square(video - (noise_video - clean_video)) * free
    error_audio = jnp.square(audio - (noise_audio - clean_audio))
    return jnp.mean(error_video) / jnp.mean(free) + 0.5 * jnp.mean(error_audio)
