"""The latent upsampler: from the latent of a small video to that of the same video at twice the size."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from ltxbuild.model import upsampler as model
from ltxbuild.model.config import UpsamplerConfig
from ltxbuild.model.latents import unpatchify_video
from tools.train_demo import world
from tools.train_demo.data import SEEN, Data, geometry
from tools.train_demo.loop import Run, train
from tools.train_demo.weights import Params, initial

SCALES = {r"norm\w*\.weight": 1.0, r"conv_out": 0.3}
NOISE = 0.1
"""Added to the small latents: those of the first stage are never exact."""
STEPS, BATCH, RATE = 1500, 16, 2e-3


def fit(config: UpsamplerConfig, statistics: Params, data: Data, directory: Path) -> Params:
    """Train it on the scenes that the transformer learns from."""
    params = initial(model.params(config), 0, SCALES) | {"statistics": statistics}
    run = Run("upsampler", directory, STEPS, RATE)
    return train(run, params, lambda p, key: loss(p, key, config, data))


def loss(params: Params, key: Array, config: UpsamplerConfig, data: Data) -> Array:
    """Mean squared distance between normalised latents."""
    which, variant, noise = jax.random.split(key, 3)
    scene = jax.random.choice(which, jnp.asarray(SEEN), (BATCH,))
    offset = jax.random.randint(variant, (BATCH,), 0, data.small.shape[1])
    small = unpatchify_video(data.small[scene, offset], geometry(world.STAGE_1))
    large = unpatchify_video(data.large[scene, offset], geometry(world.STAGE_2))
    noisy = small + NOISE * jax.random.normal(noise, small.shape)
    found = jax.vmap(lambda latent: model.upsample(params, latent[None], config)[0])(noisy)
    return jnp.mean((found - large) ** 2)
